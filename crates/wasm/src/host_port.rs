//! Host ports of pods with an address of their own: what comes in at the node's port is copied to the pod's.
//!
//! In comes a published port and the pod's address, out go two byte streams copied both ways for as long as the
//! [`Forwarder`] lives. Pods in host mode need none of this: their guests bind the host port themselves.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::wasi::network::Protocol;

/// At most so many connections are copied per host port; further clients wait in the kernel's backlog.
const CONNECTIONS: usize = 1024;
/// A pod on the same machine accepts at once or not at all.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Accepting fails while the process has no file descriptor left; trying again at once would only spin.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A port that a sandbox publishes on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The node's address to listen at; `None` is all of them.
    pub host_ip: Option<IpAddr>,
    /// The node's port, never 0.
    pub host_port: u16,
    /// The pod's port, never 0.
    pub container_port: u16,
}

/// Why a host port is not published.
#[derive(Debug, thiserror::Error)]
pub enum HostPortError {
    /// The node's port cannot be listened at; most often somebody else does.
    #[error("host port {address} cannot be published: {}", reason(source))]
    Listen {
        /// The node's address and port.
        address: SocketAddr,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// Datagrams are not forwarded.
    #[error("host port {0}/UDP: UDP host ports are supported only for pods that use the node's own address")]
    Udp(u16),
}

fn reason(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "the port is already in use",
        io::ErrorKind::AddrNotAvailable => "the node does not have that address",
        io::ErrorKind::PermissionDenied => "not permitted",
        _ => "listening failed",
    }
}

/// Copies between a node's port and a pod's; dropping it closes the port and every connection through it.
#[derive(Debug)]
pub struct Forwarder {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Listens at `port` and forwards to the pod.
///
/// With no `host_ip`, it listens at the node's address and at loopback, never at the wildcard address: that would take
/// the port from the pods' own addresses, which are local to this machine too.
///
/// # Errors
/// When the port cannot be listened at, or is not TCP.
pub async fn forward(port: HostPort, node: IpAddr, pod: IpAddr) -> Result<Forwarder, HostPortError> {
    if port.protocol == Protocol::Udp {
        return Err(HostPortError::Udp(port.host_port));
    }
    let target = SocketAddr::new(pod, port.container_port);
    let mut tasks = Vec::new();
    for address in listen_addresses(port.host_ip, node) {
        let address = SocketAddr::new(address, port.host_port);
        match TcpListener::bind(address).await {
            Ok(listener) => tasks.push(tokio::spawn(serve(listener, target))),
            Err(source) => {
                drop(Forwarder { tasks });
                return Err(HostPortError::Listen { address, source });
            }
        }
    }
    Ok(Forwarder { tasks })
}

fn listen_addresses(host_ip: Option<IpAddr>, node: IpAddr) -> Vec<IpAddr> {
    match host_ip.filter(|ip| !ip.is_unspecified()) {
        Some(ip) => vec![ip],
        None => {
            let loopback = match node {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            if node.is_loopback() || node.is_unspecified() { vec![node] } else { vec![node, loopback] }
        }
    }
}

async fn serve(listener: TcpListener, target: SocketAddr) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    // Owned here, so that aborting this task ends the connections too.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                connections.spawn(async move {
                    copy(client, target).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, %target, "accept for a host port");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

async fn copy(mut client: TcpStream, target: SocketAddr) {
    let Ok(Ok(mut pod)) = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(target)).await else {
        // The pod does not listen: the client sees its connection reset, as it would without a forwarder.
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).ok();
        return;
    };
    pod.set_nodelay(true).ok();
    client.set_nodelay(true).ok();
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut pod).await {
        tracing::trace!(%error, %target, "a host port's connection broke");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 99, 0, 1));

    async fn free_port() -> u16 {
        TcpListener::bind((NODE, 0)).await.unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_port_closes_with_its_forwarder() {
        let pod = TcpListener::bind((POD, 0)).await.unwrap();
        let container_port = pod.local_addr().unwrap().port();
        let host_port = free_port().await;
        let port = HostPort { protocol: Protocol::Tcp, host_ip: None, host_port, container_port };
        let forwarder = forward(port, NODE, POD).await.unwrap();

        let mut client = TcpStream::connect((NODE, host_port)).await.unwrap();
        let (mut served, _) = pod.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        served.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "ping");
        served.write_all(b"pong").await.unwrap();
        drop(served);
        heard.clear();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "pong");

        let clash = forward(port, NODE, POD).await.unwrap_err().to_string();
        assert!(clash.contains(&host_port.to_string()) && clash.contains("in use"), "{clash}");

        let mut open = TcpStream::connect((NODE, host_port)).await.unwrap();
        let _served = pod.accept().await.unwrap();
        drop(forwarder);
        assert!(matches!(open.read(&mut [0]).await, Ok(0) | Err(_)));
        while TcpStream::connect((NODE, host_port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_pod_that_does_not_listen_resets_its_client() {
        let host_port = free_port().await;
        let port = HostPort { protocol: Protocol::Tcp, host_ip: Some(NODE), host_port, container_port: 1 };
        let _forwarder = forward(port, NODE, POD).await.unwrap();
        let mut client = TcpStream::connect((NODE, host_port)).await.unwrap();
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn datagrams_are_refused_by_name() {
        let port = HostPort { protocol: Protocol::Udp, host_ip: None, host_port: 53, container_port: 53 };
        let refused = forward(port, NODE, POD).await.unwrap_err().to_string();
        assert!(refused.contains("53/UDP"), "{refused}");
    }
}
