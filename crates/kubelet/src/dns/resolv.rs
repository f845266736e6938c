//! The node's resolv.conf.
//!
//! Comes in: the file's text. Goes out: name servers, search domains and options. Lines that a resolver would not
//! understand are passed over, as resolvers do.

use std::io;
use std::path::Path;

use cri::v1;

/// Where it stands unless the configuration says otherwise (`resolvConf`).
pub(super) const DEFAULT_PATH: &str = "/etc/resolv.conf";

/// What a resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostResolv {
    /// Addresses of name servers, in order.
    pub nameservers: Vec<String>,
    /// Domains that are tried, in order.
    pub searches: Vec<String>,
    /// Options, as written.
    pub options: Vec<String>,
}

impl HostResolv {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        std::fs::read_to_string(path).map(|text| Self::parse(&text))
    }

    /// Understands the file's text. Of several `search` lines the last one counts, of `options` all.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut resolv = Self::default();
        for line in text.lines() {
            let line = line.trim();
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolv.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => resolv.searches = words.map(domain).collect(),
                Some("options") => {
                    for option in words {
                        if !resolv.options.iter().any(|had| had == option) {
                            resolv.options.push(option.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        resolv
    }
}

impl From<HostResolv> for v1::DnsConfig {
    fn from(host: HostResolv) -> Self {
        Self { servers: host.nameservers, searches: host.searches, options: host.options }
    }
}

/// Without the dot of the root, unless it is the root.
fn domain(word: &str) -> String {
    if word == "." { word.to_owned() } else { word.trim_end_matches('.').to_owned() }
}
