//! The one route that makes a podCIDR local to this machine: `ip route add local <podCIDR> dev lo`.
//!
//! In comes a network, out goes whether the kernel now delivers its addresses here. Never here: which pod has which
//! address, and any other change to the machine's network.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::address::Cidr;

/// `RT_TABLE_LOCAL`: the table the kernel asks first, for the machine's own addresses.
const TABLE_LOCAL: u32 = 255;
/// The kernel gives `lo` this index in every network namespace.
const LOOPBACK_INTERFACE: u32 = 1;
/// Rtnetlink answers at once or not at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Why the route is not in place.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No connection to the kernel.
    #[error("open rtnetlink")]
    Open(#[source] io::Error),
    /// The kernel refused the route.
    #[error("add the route that makes {network} local")]
    Add {
        /// The network of the route.
        network: Cidr,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The kernel did not take the route away.
    #[error("remove the route that makes {network} local")]
    Remove {
        /// The network of the route.
        network: Cidr,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The route stands, but sockets cannot use its addresses. For IPv6 the kernel asks for a sysctl as well.
    #[error("bind {address}, which a route makes local{hint}")]
    Bind {
        /// An address of the network.
        address: IpAddr,
        /// What a person can do.
        hint: &'static str,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
}

impl RouteError {
    /// Whether it is a matter of permission alone.
    pub(crate) fn is_permission(&self) -> bool {
        matches!(self, Self::Add { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Whether this process may change routes (`CAP_NET_ADMIN`).
pub fn is_permitted() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Makes `network` local, or finds that it is, and sees that a socket can be bound to `sample`, one of its addresses.
///
/// # Errors
/// When the kernel refuses either.
pub async fn add(network: Cidr, sample: IpAddr) -> Result<(), RouteError> {
    let failed = |source| RouteError::Add { network, source };
    match change(network, Change::Add).await? {
        Ok(()) => tracing::info!(%network, "podCIDR is local: added its route"),
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    if let Err(source) = UdpSocket::bind(SocketAddr::new(sample, 0)) {
        remove(network).await?;
        let hint = if sample.is_ipv6() { " (set the sysctl net.ipv6.ip_nonlocal_bind to 1)" } else { "" };
        return Err(RouteError::Bind { address: sample, hint, source });
    }
    Ok(())
}

/// Takes the route away; one that is not there stays so.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove(network: Cidr) -> Result<(), RouteError> {
    match change(network, Change::Remove).await? {
        Ok(()) => tracing::info!(%network, "removed the route of the podCIDR"),
        Err(Errno::SRCH | Errno::NODEV) => {}
        Err(errno) => return Err(RouteError::Remove { network, source: errno.into() }),
    }
    Ok(())
}

/// The network whose route this runtime has added, as a file remembers it for the time after a kill.
#[derive(Debug)]
pub struct Remembered {
    path: PathBuf,
}

impl Remembered {
    /// Remembered in the file at `path`, if there is one.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The network, if a route of it may be left.
    pub fn read(&self) -> Option<Cidr> {
        fs::read_to_string(&self.path).ok()?.parse().ok()
    }

    /// Remembers another network, or none. A file that cannot be written is said and costs nothing else.
    pub fn write(&self, network: Option<Cidr>) {
        let written = match network {
            Some(network) => fs::write(&self.path, network.to_string()),
            None => fs::remove_file(&self.path),
        };
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "the podCIDR's route is not remembered");
        }
    }
}

enum Change {
    Add,
    Remove,
}

async fn change(network: Cidr, change: Change) -> Result<Result<(), Errno>, RouteError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(RouteError::Open)?;
    let connection = tokio::spawn(connection);
    let answer = tokio::time::timeout(ANSWER_WITHIN, request(&handle, network, change)).await;
    connection.abort();
    Ok(match answer {
        Ok(Ok(())) => Ok(()),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => {
            Err(Errno::from_io_error(&message.to_io()).unwrap_or(Errno::IO))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "rtnetlink");
            Err(Errno::IO)
        }
        Err(_elapsed) => Err(Errno::TIMEDOUT),
    })
}

async fn request(handle: &Handle, network: Cidr, change: Change) -> Result<(), rtnetlink::Error> {
    match change {
        Change::Add => handle.route().add(route(network)).execute().await,
        Change::Remove => handle.route().del(route(network)).execute().await,
    }
}

fn route(network: Cidr) -> RouteMessage {
    match network.first() {
        IpAddr::V4(first) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(first, network.prefix_length())
            .output_interface(LOOPBACK_INTERFACE)
            .table_id(TABLE_LOCAL)
            .protocol(RouteProtocol::Boot)
            .scope(RouteScope::Host)
            .kind(RouteType::Local)
            .build(),
        IpAddr::V6(first) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(first, network.prefix_length())
            .output_interface(LOOPBACK_INTERFACE)
            .table_id(TABLE_LOCAL)
            .protocol(RouteProtocol::Boot)
            .kind(RouteType::Local)
            .build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs where the machine lets it; elsewhere host mode is what there is.
    #[tokio::test]
    async fn a_route_makes_its_addresses_bindable_and_goes_again() {
        if !is_permitted() {
            return;
        }
        let network: Cidr = "198.18.47.0/28".parse().unwrap();
        let sample: IpAddr = "198.18.47.2".parse().unwrap();
        assert!(UdpSocket::bind((sample, 0)).is_err());
        add(network, sample).await.unwrap();
        add(network, sample).await.unwrap();
        assert!(UdpSocket::bind((sample, 0)).is_ok());
        remove(network).await.unwrap();
        remove(network).await.unwrap();
        assert!(UdpSocket::bind((sample, 0)).is_err());
    }
}
