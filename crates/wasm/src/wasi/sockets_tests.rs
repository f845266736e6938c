//! `wasi:sockets` of a pod as its guests call it, on real sockets: addresses on the way in and on the way out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket;
use wasmtime_wasi::p2::bindings::sockets::udp::{
    HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, OutgoingDatagram,
};
use wasmtime_wasi::p2::bindings::sockets::{instance_network, ip_name_lookup, tcp_create_socket, udp_create_socket};
use wasmtime_wasi::p2::{Pollable, SocketError, SocketResult, TcpSocket, UdpSocket};

use super::network::PodNetwork;
use super::stdio::{Input, Output, Pieces};
use super::{Host, Pod, Stdio, Surroundings};
use crate::guest::{Stdin, Termination};
use crate::keyvalue::Memory as PodPairs;
use crate::limits::Limits;
use crate::limits::StoreMemory;
use crate::limits::memory::Memory;

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// A pod that no other test has.
pub(super) fn pod() -> Arc<PodNetwork> {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id().to_be_bytes()[3];
    let address = |block| IpAddr::V4(Ipv4Addr::new(127, block, process, number));
    Arc::new(PodNetwork::own(address(87), address(88)))
}

/// A guest of the pod.
pub(super) fn guest(network: &Arc<PodNetwork>) -> Host {
    let (sink, _) = mpsc::channel(1);
    let output = Output::new(sink, false, Pieces::AsWritten);
    let stdio = Stdio { input: Input::new(Stdin::Empty, false), output: output.clone(), error: output };
    let pod = Pod { network: Arc::clone(network), hostname: "web-0".to_owned(), pairs: PodPairs::default() };
    let surroundings = Surroundings::new(Vec::new(), None, Vec::new(), pod).unwrap();
    let memory = StoreMemory::new(Arc::new(Memory::new(Limits::default().memory_bytes)));
    surroundings.host(&[], stdio, memory, Termination::default())
}

fn network(host: &mut Host) -> Resource<Network> {
    instance_network::Host::instance_network(&mut host.pod_sockets().inner).unwrap()
}

fn tcp(host: &mut Host) -> u32 {
    let created = tcp_create_socket::Host::create_tcp_socket(&mut host.pod_sockets().inner, IpAddressFamily::Ipv4);
    created.unwrap().rep()
}

fn socket<T: 'static>(rep: u32) -> Resource<T> {
    Resource::new_borrow(rep)
}

/// A listening socket, and where its guest believes it is.
async fn listen(host: &mut Host, address: &str) -> SocketResult<(u32, SocketAddr)> {
    let (network, rep) = (network(host), tcp(host));
    let mut sockets = host.pod_sockets();
    HostTcpSocket::start_bind(&mut sockets, socket(rep), network, at(address).into()).await?;
    HostTcpSocket::finish_bind(&mut sockets, socket(rep))?;
    HostTcpSocket::start_listen(&mut sockets, socket(rep)).await?;
    HostTcpSocket::finish_listen(&mut sockets, socket(rep))?;
    let local = HostTcpSocket::local_address(&mut sockets, socket(rep))?;
    Ok((rep, local.into()))
}

async fn connect(host: &mut Host, address: SocketAddr) -> SocketResult<u32> {
    let (network, rep) = (network(host), tcp(host));
    HostTcpSocket::start_connect(&mut host.pod_sockets(), socket(rep), network, address.into())?;
    ready(host, &socket::<TcpSocket>(rep)).await;
    HostTcpSocket::finish_connect(&mut host.pod_sockets(), socket(rep))?;
    Ok(rep)
}

async fn accept(host: &mut Host, listener: u32) -> u32 {
    ready(host, &socket::<TcpSocket>(listener)).await;
    HostTcpSocket::accept(&mut host.pod_sockets(), socket(listener)).unwrap().0.rep()
}

async fn ready<T: Pollable>(host: &mut Host, of: &Resource<T>) {
    let sockets = host.pod_sockets();
    let waits = sockets.inner.table.get_mut(of).unwrap().ready();
    tokio::time::timeout(PATIENCE, waits).await.expect("it becomes ready");
}

fn local(host: &mut Host, rep: u32) -> SocketAddr {
    HostTcpSocket::local_address(&mut host.pod_sockets(), socket(rep)).unwrap().into()
}

fn remote(host: &mut Host, rep: u32) -> SocketAddr {
    HostTcpSocket::remote_address(&mut host.pod_sockets(), socket(rep)).unwrap().into()
}

#[track_caller]
fn refused<T>(result: SocketResult<T>) -> ErrorCode {
    let error: SocketError = result.err().expect("it is refused");
    error.downcast().expect("it is no trap")
}

#[tokio::test]
async fn two_pods_listen_on_the_same_port_and_each_is_reached_at_its_own_address() {
    let (one, other) = (pod(), pod());
    let (mut first, mut second) = (guest(&one), guest(&other));
    let (listener, shown) = listen(&mut first, "0.0.0.0:7000").await.unwrap();
    assert_eq!(shown, at("0.0.0.0:7000"));
    listen(&mut second, "0.0.0.0:7000").await.unwrap();

    let outside = TcpStream::connect((one.address(), 7000)).await.unwrap();
    let accepted = accept(&mut first, listener).await;
    assert_eq!(local(&mut first, accepted), SocketAddr::new(one.address(), 7000));
    assert_eq!(remote(&mut first, accepted), outside.local_addr().unwrap());
    assert_eq!(refused(listen(&mut guest(&one), "0.0.0.0:7000").await), ErrorCode::AddressInUse);
}

#[tokio::test]
async fn localhost_is_the_pods_own_and_no_other_pod_gets_there() {
    let (one, other) = (pod(), pod());
    let mut server = guest(&one);
    let (listener, shown) = listen(&mut server, "127.0.0.1:0").await.unwrap();
    assert_eq!(shown.ip(), Ipv4Addr::LOCALHOST);
    assert_ne!(shown.port(), 0);

    // Another guest of the same pod.
    let mut client = guest(&one);
    let connected = connect(&mut client, shown).await.unwrap();
    let accepted = accept(&mut server, listener).await;
    assert_eq!(remote(&mut client, connected), shown);
    assert_eq!(remote(&mut server, accepted), local(&mut client, connected));
    assert_eq!(local(&mut client, connected).ip(), Ipv4Addr::LOCALHOST);

    let mut stranger = guest(&other);
    assert_eq!(refused(connect(&mut stranger, shown).await), ErrorCode::ConnectionRefused);
    let real = SocketAddr::new(one.loopback(), shown.port());
    assert_eq!(refused(connect(&mut stranger, real).await), ErrorCode::AccessDenied);
    TcpStream::connect(real).await.expect("it is there all the same");
}

#[tokio::test]
async fn what_listens_everywhere_is_reached_at_localhost_from_the_pods_address() {
    let pod = pod();
    let (mut server, mut client) = (guest(&pod), guest(&pod));
    let (listener, shown) = listen(&mut server, "0.0.0.0:0").await.unwrap();
    let localhost = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), shown.port());
    let connected = connect(&mut client, localhost).await.unwrap();
    let accepted = accept(&mut server, listener).await;
    assert_eq!(remote(&mut client, connected), localhost);
    assert_eq!(remote(&mut server, accepted).ip(), pod.address());

    // The record ends with its guest, however that ends.
    drop(server);
    assert_eq!(refused(connect(&mut client, localhost).await), ErrorCode::ConnectionRefused);
}

#[tokio::test]
async fn only_the_pods_addresses_can_be_bound() {
    let mut host = guest(&pod());
    for foreign in ["127.0.0.2:0", "127.87.0.1:0", "192.0.2.1:0"] {
        assert_eq!(refused(listen(&mut host, foreign).await), ErrorCode::AddressNotBindable, "{foreign}");
    }
}

#[tokio::test]
async fn a_connection_out_comes_from_the_pods_address() {
    let pod = pod();
    // A server of the node's at an address of its own; the pod is told that this is its own address' other port.
    let server = tokio::net::TcpListener::bind((pod.address(), 0)).await.unwrap();
    let mut host = guest(&pod);
    let connected = connect(&mut host, server.local_addr().unwrap()).await.unwrap();
    let (mut stream, from) = server.accept().await.unwrap();
    assert_eq!(from, local(&mut host, connected));
    assert_eq!(from.ip(), pod.address());
    drop(host);
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it closes with its guest");
}

async fn udp(host: &mut Host, address: &str) -> (u32, SocketAddr) {
    let mut sockets = host.pod_sockets();
    let created = udp_create_socket::Host::create_udp_socket(&mut sockets.inner, IpAddressFamily::Ipv4).await;
    let rep = created.unwrap().rep();
    let network = network(host);
    let mut sockets = host.pod_sockets();
    HostUdpSocket::start_bind(&mut sockets, socket(rep), network, at(address).into()).await.unwrap();
    HostUdpSocket::finish_bind(&mut sockets, socket(rep)).unwrap();
    let local = HostUdpSocket::local_address(&mut sockets, socket::<UdpSocket>(rep)).unwrap();
    (rep, local.into())
}

#[tokio::test]
async fn datagrams_go_to_and_come_from_the_pods_addresses() {
    let (one, other) = (pod(), pod());
    let mut host = guest(&one);
    let (receiver, bound) = udp(&mut host, "127.0.0.1:0").await;
    let (sender, sender_bound) = udp(&mut host, "127.0.0.1:0").await;
    assert_eq!(bound.ip(), Ipv4Addr::LOCALHOST);
    let mut sockets = host.pod_sockets();
    let (incoming, _) = HostUdpSocket::stream(&mut sockets, socket(receiver), None).await.unwrap();
    let (_, outgoing) = HostUdpSocket::stream(&mut sockets, socket(sender), None).await.unwrap();
    let send = |to: SocketAddr| vec![OutgoingDatagram { data: b"hello".to_vec(), remote_address: Some(to.into()) }];
    let outgoing = outgoing.rep();
    HostOutgoingDatagramStream::check_send(&mut sockets, socket(outgoing)).unwrap();
    HostOutgoingDatagramStream::send(&mut sockets, socket(outgoing), send(bound)).unwrap();
    ready(&mut host, &incoming).await;
    let mut sockets = host.pod_sockets();
    let datagrams = HostIncomingDatagramStream::receive(&mut sockets, incoming, 1).unwrap();
    assert_eq!(datagrams[0].data, b"hello");
    assert_eq!(SocketAddr::from(datagrams[0].remote_address), sender_bound);

    HostOutgoingDatagramStream::check_send(&mut sockets, socket(outgoing)).unwrap();
    let foreign = SocketAddr::new(other.loopback(), bound.port());
    let sent = HostOutgoingDatagramStream::send(&mut sockets, socket(outgoing), send(foreign));
    assert_eq!(refused(sent), ErrorCode::AccessDenied);
}

#[tokio::test]
async fn names_are_looked_up_as_the_pod_knows_them() {
    let pod = pod();
    let mut host = guest(&pod);
    for (name, address) in [("localhost", IpAddr::V4(Ipv4Addr::LOCALHOST)), ("web-0", pod.address())] {
        let network = network(&mut host);
        let mut sockets = host.pod_sockets();
        let stream = ip_name_lookup::Host::resolve_addresses(&mut sockets, network, name.to_owned()).unwrap().rep();
        let next = |host: &mut Host| {
            let stream = Resource::new_borrow(stream);
            ip_name_lookup::HostResolveAddressStream::resolve_next_address(&mut host.pod_sockets(), stream)
        };
        let found = loop {
            match next(&mut host) {
                Ok(found) => break found,
                Err(error) => assert_eq!(error.downcast().unwrap(), ErrorCode::WouldBlock),
            }
            tokio::task::yield_now().await;
        };
        assert!(next(&mut host).unwrap().is_none());
        let found = format!("{:?}", found.unwrap());
        let expected = format!("{:?}", wasmtime_wasi::p2::bindings::sockets::network::IpAddress::from(address));
        assert_eq!(found, expected);
        ip_name_lookup::HostResolveAddressStream::drop(&mut host.pod_sockets(), Resource::new_own(stream)).unwrap();
    }
}
