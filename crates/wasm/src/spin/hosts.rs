//! Where a component of a Spin application may connect to: its `allowed_outbound_hosts` come in, a yes or a no goes out.
//!
//! Pure. Each entry is `SCHEME://HOST[:PORT]`, each part of which may be `*`; a host may be `*.DOMAIN`, an address or a
//! network (`10.0.0.0/8`), a port a range (`8000..9000`, the end not included). Nothing is allowed that no entry names.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::address::Cidr;

/// What Spin called every host before it had a word for it.
const ALL: &str = "insecure:allow-all";
/// The application itself.
const SELF: [&str; 2] = ["self", "self.alt"];

/// Why an entry is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("allowed_outbound_hosts: {entry:?} {problem}")]
pub struct HostsError {
    entry: String,
    problem: &'static str,
}

/// The entries of one component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AllowedHosts(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// None is any.
    scheme: Option<String>,
    host: Host,
    ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    /// The application itself, by a request without a host.
    Itself,
    /// Every name that ends so.
    Below(String),
    Name(String),
    Network(Cidr),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ports {
    Any,
    These(Range<u32>),
}

impl AllowedHosts {
    /// Understands the entries.
    pub(crate) fn read<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Self, HostsError> {
        entries.map(Entry::read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a request may go there.
    pub(crate) fn allows_url(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let Some(port) = port.or_else(|| well_known(scheme)) else { return false };
        self.0.iter().any(|entry| entry.is_of(Some(scheme)) && entry.host.is(host) && entry.ports.have(port))
    }

    /// Whether a socket may go there. It has no scheme, and a name was looked up before: only entries of addresses, or of
    /// any host, can tell.
    pub(crate) fn allows_socket(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical().to_string();
        self.0.iter().any(|entry| entry.host.is(&ip) && entry.ports.have(address.port()))
    }
}

impl Entry {
    fn read(entry: &str) -> Result<Self, HostsError> {
        let wrong = |problem| HostsError { entry: entry.to_owned(), problem };
        if entry == ALL {
            return Ok(Self { scheme: None, host: Host::Any, ports: Ports::Any });
        }
        let (scheme, rest) = entry.trim().split_once("://").ok_or_else(|| wrong("must be SCHEME://HOST[:PORT]"))?;
        let is_name = |scheme: &str| !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
        if scheme != "*" && !is_name(scheme) {
            return Err(wrong("has no scheme that is a word or *"));
        }
        // A network has slashes and an address may have colons; what is a host as a whole has no port.
        let (host, port) = match Host::read(rest) {
            Some(host) => (host, None),
            None => {
                let (host, port) =
                    rest.rsplit_once(':').ok_or_else(|| wrong("has no host that is a name or address"))?;
                let host = Host::read(host).ok_or_else(|| wrong("has no host that is a name or address"))?;
                (host, Some(port.strip_suffix('/').unwrap_or(port)).filter(|port| !port.is_empty()))
            }
        };
        let ports = match port {
            Some("*") => Ports::Any,
            Some(port) => Ports::These(range(port).ok_or_else(|| wrong("has no port that is a number or a range"))?),
            None if host == Host::Itself => Ports::Any,
            None => {
                let port = well_known(scheme).ok_or_else(|| wrong("needs a port: its scheme has none of its own"))?;
                Ports::These(u32::from(port)..u32::from(port) + 1)
            }
        };
        Ok(Self { scheme: (scheme != "*").then(|| scheme.to_owned()), host, ports })
    }

    fn is_of(&self, scheme: Option<&str>) -> bool {
        self.scheme.is_none() || self.scheme.as_deref() == scheme
    }
}

impl Host {
    fn read(host: &str) -> Option<Self> {
        if host == "*" {
            return Some(Self::Any);
        }
        if SELF.contains(&host) {
            return Some(Self::Itself);
        }
        if let Ok(network) = host.parse() {
            return Some(Self::Network(network));
        }
        let host = host.strip_suffix('/').unwrap_or(host);
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Some(Self::Name(address.to_string()));
        }
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        match host.strip_prefix("*.") {
            Some(domain) if is_name(domain) => Some(Self::Below(format!(".{}", domain.to_ascii_lowercase()))),
            None if is_name(host) => Some(Self::Name(host.to_ascii_lowercase())),
            _ => None,
        }
    }

    fn is(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Itself => false,
            Self::Below(domain) => host.to_ascii_lowercase().ends_with(domain.as_str()),
            Self::Name(name) => host.eq_ignore_ascii_case(name),
            Self::Network(network) => host.parse().is_ok_and(|address| network.contains(address)),
        }
    }
}

impl Ports {
    fn have(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::These(ports) => ports.contains(&u32::from(port)),
        }
    }
}

fn range(port: &str) -> Option<Range<u32>> {
    let number = |text: &str| text.parse::<u16>().ok().map(u32::from);
    match port.split_once("..") {
        Some((first, end)) => Some(number(first)?..number(end)?),
        None => number(port).map(|port| port..port + 1),
    }
}

/// The port of a scheme that has one.
fn well_known(scheme: &str) -> Option<u16> {
    match scheme {
        "postgres" => Some(5432),
        "mysql" => Some(3306),
        "redis" => Some(6379),
        "mqtt" => Some(1883),
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(entries: &[&str]) -> AllowedHosts {
        AllowedHosts::read(entries.iter().copied()).unwrap()
    }

    #[test]
    fn requests_go_where_an_entry_says_and_nowhere_else() {
        let hosts = hosts(&[
            "https://api.example.com",
            "http://*.inner.example:8080",
            "*://any-scheme.example:9000..9002",
            "http://127.0.0.1:3000",
            "*://10.0.0.0/8:*",
            "http://[2001:db8::1]:80",
        ]);
        for (scheme, host, port) in [
            ("https", "api.example.com", None),
            ("https", "API.example.com", Some(443)),
            ("http", "deep.a.inner.example", Some(8080)),
            ("https", "any-scheme.example", Some(9001)),
            ("http", "127.0.0.1", Some(3000)),
            ("http", "10.1.2.3", None),
            ("http", "[2001:db8::1]", None),
        ] {
            assert!(hosts.allows_url(scheme, host, port), "{scheme} {host} {port:?}");
        }
        for (scheme, host, port) in [
            ("http", "api.example.com", None),
            ("https", "api.example.com", Some(8443)),
            ("https", "evil-api.example.com", None),
            ("http", "inner.example", Some(8080)),
            ("http", "eviliner.example", Some(8080)),
            ("https", "any-scheme.example", Some(9002)),
            ("http", "11.0.0.1", None),
            ("http", "10.evil.example", None),
        ] {
            assert!(!hosts.allows_url(scheme, host, port), "{scheme} {host} {port:?}");
        }
        assert!(!AllowedHosts::default().allows_url("https", "example.com", None));
    }

    #[test]
    fn sockets_go_to_addresses_that_an_entry_covers() {
        let hosts = hosts(&["postgres://10.0.0.5", "*://192.168.0.0/16:6379", "http://db.example"]);
        let allows = |address: &str| hosts.allows_socket(address.parse().unwrap());
        assert!(allows("10.0.0.5:5432") && allows("192.168.3.4:6379") && allows("[::ffff:10.0.0.5]:5432"));
        assert!(!allows("10.0.0.5:80") && !allows("192.168.3.4:80") && !allows("1.1.1.1:80"));
        assert!(self::hosts(&["insecure:allow-all"]).allows_socket("1.1.1.1:1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for entry in [
            "*",
            "",
            "example.com",
            "https://",
            "ftp://example.com",
            "http://a*b",
            "http://a:b",
            "h_p://a",
            "http://a/b",
        ] {
            assert!(AllowedHosts::read([entry].into_iter()).is_err(), "{entry}");
        }
    }
}
