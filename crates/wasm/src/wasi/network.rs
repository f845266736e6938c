//! A pod's network as its guests see it: addresses a guest names come in, addresses of the node go out, and back.
//!
//! | the guest says | it gets |
//! |---|---|
//! | bind to `0.0.0.0` or the pod's address | the pod's address (or where the port is mapped to) |
//! | bind or connect to `127.0.0.1` | the pod's own loopback address; what listens on `0.0.0.0` is found there too |
//! | bind to anything else | refused: address not bindable |
//! | connect to another loopback address | refused: access denied |
//! | connect or send anywhere else | allowed, from the pod's address |
//!
//! As on Linux, a pod may reach any address that is routed from the node, other pods and the node itself included;
//! network policy is not enforced here. A guest never reaches another pod's loopback or the node's own.
//! `hostNetwork` pods ([`PodNetwork::host`] with loopback `127.0.0.1`) reach the node's loopback, as they do on Linux.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use wasmtime_wasi::sockets::SocketAddrUse;

use crate::address::is_pod_loopback;

/// Name lookups one pod may have under way; each holds a thread.
pub(super) const LOOKUPS: usize = 8;
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The addresses of one pod, shared by all its guests.
#[derive(Debug)]
pub struct PodNetwork {
    address: IpAddr,
    loopback: IpAddr,
    /// Whether the address is this pod's alone, and so what it sends must come from.
    own: bool,
    ports: HashMap<(Protocol, u16), SocketAddr>,
    /// What listens on every address of the pod: also to be found at its 127.0.0.1.
    everywhere: Mutex<HashMap<(Protocol, u16), SocketAddr>>,
    pub(super) lookups: Arc<Semaphore>,
}

/// An address a guest may not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not one of the pod's.
    NotBindable,
    /// It is a loopback address of somebody else.
    Denied,
    /// The pod has no address of that family.
    Unreachable,
}

/// Where a guest's socket really is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) real: SocketAddr,
    /// Whether the guest asked for every address.
    pub(crate) everywhere: bool,
}

impl PodNetwork {
    /// A pod with an `address` of its own and a `loopback` address (out of 127.0.0.0/8) that no other pod has.
    #[must_use]
    pub fn own(address: IpAddr, loopback: IpAddr) -> Self {
        Self {
            address,
            loopback,
            own: true,
            ports: HashMap::new(),
            everywhere: Mutex::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }

    /// A pod at the node's `address`, which may be `0.0.0.0`. Give it a `loopback` address of its own, or
    /// `127.0.0.1` to share the node's.
    #[must_use]
    pub fn host(address: IpAddr, loopback: IpAddr) -> Self {
        Self { own: false, ..Self::own(address, loopback) }
    }

    /// Binds the given ports of the pod elsewhere: host ports, and what `--publish` asks for.
    #[must_use]
    pub fn with_ports(mut self, ports: HashMap<(Protocol, u16), SocketAddr>) -> Self {
        self.ports = ports;
        self
    }

    /// The pod's address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The pod's loopback address.
    #[must_use]
    pub fn loopback(&self) -> IpAddr {
        self.loopback
    }

    /// Where a port of the pod is bound: what a client outside the pod connects to.
    #[must_use]
    pub fn published(&self, protocol: Protocol, port: u16) -> SocketAddr {
        self.ports.get(&(protocol, port)).copied().unwrap_or(SocketAddr::new(self.address, port))
    }

    /// Where a client inside the pod finds what listens on `127.0.0.1:port`, whichever guest it is.
    #[must_use]
    pub fn local(&self, protocol: Protocol, port: u16) -> SocketAddr {
        let everywhere = self.everywhere.lock().unwrap_or_else(PoisonError::into_inner);
        everywhere.get(&(protocol, port)).copied().unwrap_or(SocketAddr::new(self.loopback, port))
    }

    pub(crate) fn bind(&self, protocol: Protocol, guest: SocketAddr) -> Result<Bind, Refused> {
        let ip = guest.ip();
        let bind = |real, everywhere| Ok(Bind { real, everywhere });
        if ip.is_unspecified() && ip.is_ipv4() == self.address.is_ipv4() {
            bind(self.published(protocol, guest.port()), true)
        } else if ip == LOCALHOST && self.loopback.is_ipv4() {
            bind(SocketAddr::new(self.loopback, guest.port()), false)
        } else if ip == self.address {
            bind(self.published(protocol, guest.port()), false)
        } else {
            Err(Refused::NotBindable)
        }
    }

    pub(crate) fn connect(&self, protocol: Protocol, guest: SocketAddr) -> Result<SocketAddr, Refused> {
        let ip = guest.ip().to_canonical();
        if ip == LOCALHOST && self.loopback.is_ipv4() {
            Ok(self.local(protocol, guest.port()))
        } else if ip == self.address {
            Ok(self.published(protocol, guest.port()))
        } else if self.is_foreign_loopback(ip) {
            Err(Refused::Denied)
        } else {
            Ok(guest)
        }
    }

    /// The address a socket is bound to before it connects to `real`; `None` leaves it to the kernel.
    pub(crate) fn source(&self, real: SocketAddr) -> Result<Option<SocketAddr>, Refused> {
        if real.ip() == self.loopback {
            return Ok(Some(SocketAddr::new(self.loopback, 0)));
        }
        if !self.own {
            return Ok(None);
        }
        if real.is_ipv4() != self.address.is_ipv4() {
            return Err(Refused::Unreachable);
        }
        Ok(Some(SocketAddr::new(self.address, 0)))
    }

    /// What the guest is shown for an address of the node.
    pub(crate) fn shown(&self, protocol: Protocol, real: SocketAddr) -> SocketAddr {
        if real.ip() == self.loopback {
            return SocketAddr::new(LOCALHOST, real.port());
        }
        let mapped = self.ports.iter().find(|((of, _), to)| *of == protocol && **to == real);
        mapped.map_or(real, |((_, port), _)| SocketAddr::new(self.address, *port))
    }

    /// Whether an address may reach the system for this use.
    pub(crate) fn allows(&self, real: SocketAddr, used: SocketAddrUse) -> bool {
        let ip = real.ip().to_canonical();
        match used {
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
                let implicit = ip.is_unspecified() && real.port() == 0 && !self.own;
                implicit || ip == self.address || ip == self.loopback || self.ports.values().any(|to| *to == real)
            }
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => {
                let ours =
                    self.everywhere.lock().unwrap_or_else(PoisonError::into_inner).values().any(|at| *at == real);
                ours || self.ports.values().any(|to| *to == real) || !self.is_foreign_loopback(ip)
            }
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => true,
        }
    }

    /// Makes what listens at `real` reachable at the pod's 127.0.0.1 until the returned value is dropped.
    pub(crate) fn listen_everywhere(self: &Arc<Self>, protocol: Protocol, port: u16, real: SocketAddr) -> Everywhere {
        let mut everywhere = self.everywhere.lock().unwrap_or_else(PoisonError::into_inner);
        everywhere.insert((protocol, port), real);
        Everywhere { network: Arc::clone(self), key: (protocol, port), real }
    }

    /// A connection from the pod to the first of these addresses that takes it.
    pub(crate) async fn connect_tcp(&self, addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match self.connect_one(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_one(&self, guest: SocketAddr) -> io::Result<TcpStream> {
        // To the kernel this is the node's own loopback. On sockets Wasmtime refuses it.
        if guest.ip().to_canonical().is_unspecified() {
            return Err(Refused::Denied.into_io());
        }
        let real = self.connect(Protocol::Tcp, guest).map_err(Refused::into_io)?;
        let socket = if real.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source(real).map_err(Refused::into_io)? {
            socket.bind(source)?;
        }
        socket.connect(real).await
    }

    /// A loopback address that is neither one of the pod's own nor shared with it.
    fn is_foreign_loopback(&self, ip: IpAddr) -> bool {
        if self.loopback == LOCALHOST {
            // With the node a pod shares what is the node's, not what is given to other pods.
            return matches!(ip, IpAddr::V4(ip) if is_pod_loopback(ip)) && ip != self.address;
        }
        ip.is_loopback() && ip != self.loopback && ip != self.address
    }
}

impl Refused {
    fn into_io(self) -> io::Error {
        let kind = match self {
            Refused::NotBindable => io::ErrorKind::AddrNotAvailable,
            Refused::Denied => io::ErrorKind::PermissionDenied,
            Refused::Unreachable => io::ErrorKind::NetworkUnreachable,
        };
        kind.into()
    }
}

/// A port of the pod that is open on every address.
#[derive(Debug)]
pub(crate) struct Everywhere {
    network: Arc<PodNetwork>,
    key: (Protocol, u16),
    real: SocketAddr,
}

impl Drop for Everywhere {
    fn drop(&mut self) {
        let mut everywhere = self.network.everywhere.lock().unwrap_or_else(PoisonError::into_inner);
        if everywhere.get(&self.key) == Some(&self.real) {
            everywhere.remove(&self.key);
        }
    }
}

/// What a guest believes of one of its sockets, where that is not what the system says.
#[derive(Debug, Default)]
pub(crate) struct SocketRecord {
    /// The address it bound, with the port the system chose if it left that open.
    pub(crate) bound: Option<SocketAddr>,
    /// The address it connected to.
    pub(crate) remote: Option<SocketAddr>,
    /// Held for as long as the socket is.
    pub(crate) everywhere: Option<Everywhere>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Pool;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    fn pod() -> PodNetwork {
        PodNetwork::own("10.1.0.5".parse().unwrap(), "127.9.0.5".parse().unwrap())
    }

    fn host(loopback: &str) -> PodNetwork {
        let ports = HashMap::from([((Protocol::Tcp, 80), at("192.168.0.2:8080"))]);
        PodNetwork::host("192.168.0.2".parse().unwrap(), loopback.parse().unwrap()).with_ports(ports)
    }

    fn bound(network: &PodNetwork, guest: &str) -> Result<String, Refused> {
        network.bind(Protocol::Tcp, at(guest)).map(|bind| bind.real.to_string())
    }

    fn connected(network: &PodNetwork, guest: &str) -> Result<String, Refused> {
        network.connect(Protocol::Tcp, at(guest)).map(|real| real.to_string())
    }

    #[test]
    fn binds_go_to_the_pods_own_addresses_or_nowhere() {
        assert_eq!(bound(&pod(), "0.0.0.0:80").unwrap(), "10.1.0.5:80");
        assert_eq!(bound(&pod(), "10.1.0.5:80").unwrap(), "10.1.0.5:80");
        assert_eq!(bound(&pod(), "127.0.0.1:80").unwrap(), "127.9.0.5:80");
        for foreign in ["10.1.0.6:80", "127.9.0.5:80", "127.0.0.2:80", "[::]:80", "[::1]:80"] {
            assert_eq!(bound(&pod(), foreign), Err(Refused::NotBindable), "{foreign}");
        }
    }

    #[test]
    fn connections_reach_anything_but_the_loopback_of_others() {
        assert_eq!(connected(&pod(), "10.1.0.6:80").unwrap(), "10.1.0.6:80");
        assert_eq!(connected(&pod(), "127.0.0.1:80").unwrap(), "127.9.0.5:80");
        for foreign in ["127.9.0.6:80", "127.0.0.2:80", "[::1]:80", "[::ffff:127.9.0.6]:80"] {
            assert_eq!(connected(&pod(), foreign), Err(Refused::Denied), "{foreign}");
            assert!(!pod().allows(at(foreign), SocketAddrUse::TcpConnect), "{foreign}");
            assert!(!pod().allows(at(foreign), SocketAddrUse::UdpSend), "{foreign}");
        }
    }

    #[test]
    fn what_listens_everywhere_is_found_at_localhost_while_it_does() {
        let pod = Arc::new(pod());
        let open = pod.listen_everywhere(Protocol::Tcp, 80, at("10.1.0.5:80"));
        assert_eq!(connected(&pod, "127.0.0.1:80").unwrap(), "10.1.0.5:80");
        assert_eq!(pod.local(Protocol::Udp, 80), at("127.9.0.5:80"));
        drop(open);
        assert_eq!(connected(&pod, "127.0.0.1:80").unwrap(), "127.9.0.5:80");
    }

    #[test]
    fn what_a_pod_sends_comes_from_its_own_address() {
        assert_eq!(pod().source(at("1.2.3.4:5")), Ok(Some(at("10.1.0.5:0"))));
        assert_eq!(pod().source(at("127.9.0.5:5")), Ok(Some(at("127.9.0.5:0"))));
        assert_eq!(pod().source(at("[2001:db8::1]:5")), Err(Refused::Unreachable));
        assert_eq!(host("127.0.0.1").source(at("1.2.3.4:5")), Ok(None));
        assert!(!pod().allows(at("0.0.0.0:0"), SocketAddrUse::TcpBind));
        assert!(host("127.0.0.1").allows(at("0.0.0.0:0"), SocketAddrUse::TcpBind));
    }

    #[test]
    fn mapped_ports_are_bound_elsewhere_and_shown_as_the_guest_knows_them() {
        let host = host("127.9.0.7");
        assert_eq!(bound(&host, "0.0.0.0:80").unwrap(), "192.168.0.2:8080");
        assert_eq!(bound(&host, "0.0.0.0:81").unwrap(), "192.168.0.2:81");
        assert_eq!(host.shown(Protocol::Tcp, at("192.168.0.2:8080")), at("192.168.0.2:80"));
        assert_eq!(host.shown(Protocol::Udp, at("192.168.0.2:8080")), at("192.168.0.2:8080"));
        assert_eq!(host.shown(Protocol::Tcp, at("127.9.0.7:4")), at("127.0.0.1:4"));
    }

    #[test]
    fn only_a_pod_that_shares_the_nodes_loopback_reaches_it() {
        assert_eq!(connected(&host("127.0.0.1"), "127.0.0.1:10248").unwrap(), "127.0.0.1:10248");
        assert_eq!(connected(&host("127.0.0.1"), "[::1]:10248").unwrap(), "[::1]:10248");
        assert_eq!(connected(&host("127.9.0.7"), "127.0.0.1:10248").unwrap(), "127.9.0.7:10248");
        assert_eq!(connected(&host("127.9.0.7"), "[::1]:10248"), Err(Refused::Denied));
    }

    #[test]
    fn a_pod_that_shares_the_nodes_loopback_does_not_reach_that_of_other_pods() {
        let host = host("127.0.0.1");
        assert_eq!(connected(&host, "127.0.0.53:53").unwrap(), "127.0.0.53:53");
        let mut pool = Pool::loopback();
        let lowest = SocketAddr::new(pool.lease().unwrap(), 80).to_string();
        for of_a_pod in [&lowest, "127.9.0.5:80", "[::ffff:127.9.0.5]:80"] {
            assert_eq!(connected(&host, of_a_pod), Err(Refused::Denied), "{of_a_pod}");
            assert!(!host.allows(at(of_a_pod), SocketAddrUse::UdpSend), "{of_a_pod}");
        }
    }
}
