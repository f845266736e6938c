//! `wasi:sockets` 0.3 of a pod as its guests call it, on real sockets.

use tokio::net::{TcpListener, TcpStream, UdpSocket as Udp};
use wasmtime::{Config, Engine, Store};

use super::super::sockets_tests::{at, guest, pod};
use super::*;

/// Does something as a guest of the pod would, which has a new socket for datagrams.
async fn as_guest<T: Send + 'static>(
    network: &Arc<super::super::network::PodNetwork>,
    work: impl AsyncFnOnce(&Accessor<Host, HasPodSockets>, Resource<UdpSocket>) -> T + Send,
) -> T {
    let mut config = Config::new();
    config.wasm_component_model_async(true);
    let mut guest = guest(network);
    let udp = HostUdpSocket::create(&mut guest.pod_sockets(), IpAddressFamily::Ipv4).await.unwrap();
    let mut store = Store::new(&Engine::new(&config).unwrap(), guest);
    store
        .run_concurrent(async |store| work(&store.with_getter::<HasPodSockets>(Host::pod_sockets), udp).await)
        .await
        .unwrap()
}

fn borrow<T: 'static>(of: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(of.rep())
}

fn code(error: SocketError) -> ErrorCode {
    error.downcast().expect("it is no trap")
}

#[tokio::test]
async fn a_connection_goes_out_from_the_pods_address_and_only_to_where_the_pod_may() {
    let network = pod();
    let listener = TcpListener::bind((network.address(), 0)).await.unwrap();
    let there = listener.local_addr().unwrap();
    let (local, foreign) = as_guest(&network, async |store: &Accessor<Host, HasPodSockets>, _| {
        let new = || store.with(|mut store| HostTcpSocket::create(&mut store.get(), IpAddressFamily::Ipv4).unwrap());
        let socket = new();
        HasPodSockets::connect(store, borrow(&socket), there.into()).await.unwrap();
        let local =
            store.with(|mut store| HostTcpSocket::get_local_address(&mut store.get(), borrow(&socket)).unwrap());
        let foreign = HasPodSockets::connect(store, new(), at("127.0.0.2:1").into()).await.unwrap_err();
        (SocketAddr::from(local), code(foreign))
    })
    .await;
    let (_, from) = listener.accept().await.unwrap();
    assert_eq!((from.ip(), local), (network.address(), from));
    assert!(matches!(foreign, ErrorCode::AccessDenied), "{foreign:?}");
}

#[tokio::test]
async fn a_listener_everywhere_is_one_at_the_pods_address_and_knows_itself_as_it_asked() {
    let network = pod();
    let (address, foreign) = as_guest(&network, async |store: &Accessor<Host, HasPodSockets>, _| {
        let (socket, foreign) = store.with(|mut store| {
            let mut sockets = store.get();
            let socket = HostTcpSocket::create(&mut sockets, IpAddressFamily::Ipv4).unwrap();
            let foreign = HostTcpSocket::bind(&mut sockets, borrow(&socket), at("10.0.0.1:80").into());
            let foreign = foreign.now_or_never().unwrap().unwrap_err();
            HostTcpSocket::bind(&mut sockets, borrow(&socket), at("0.0.0.0:7003").into())
                .now_or_never()
                .unwrap()
                .unwrap();
            (socket, foreign)
        });
        let listening =
            store.with(|store| HasPodSockets::listen(store, borrow(&socket)).now_or_never().unwrap().is_ok());
        assert!(listening);
        TcpStream::connect((network.address(), 7003)).await.unwrap();
        assert_eq!(network.local(Protocol::Tcp, 7003), SocketAddr::new(network.address(), 7003));
        let shown = store.with(|mut store| HostTcpSocket::get_local_address(&mut store.get(), socket).unwrap());
        (SocketAddr::from(shown), code(foreign))
    })
    .await;
    assert_eq!(address, at("0.0.0.0:7003"));
    assert!(matches!(foreign, ErrorCode::AddressNotBindable), "{foreign:?}");
}

#[tokio::test]
async fn datagrams_come_from_the_pods_address_and_names_are_the_pods() {
    let network = pod();
    let there = Udp::bind((network.address(), 0)).await.unwrap();
    let to = there.local_addr().unwrap();
    let names = as_guest(&network, async |store: &Accessor<Host, HasPodSockets>, socket| {
        <HasPodSockets as HostUdpSocketWithStore<Host>>::send(
            store,
            borrow(&socket),
            b"ping".to_vec(),
            Some(to.into()),
        )
        .await
        .unwrap();
        // Bound by the first, it sends from there again.
        <HasPodSockets as HostUdpSocketWithStore<Host>>::send(store, socket, b"pong".to_vec(), Some(to.into()))
            .await
            .unwrap();
        <HasPodSockets as ip_name_lookup::HostWithStore<Host>>::resolve_addresses(store, "web-0".to_owned())
            .await
            .unwrap()
            .unwrap()
    })
    .await;
    let mut data = [0; 16];
    let (count, from) = there.recv_from(&mut data).await.unwrap();
    assert_eq!((&data[..count], from.ip()), (&b"ping"[..], network.address()));
    let (count, again) = there.recv_from(&mut data).await.unwrap();
    assert_eq!((&data[..count], again), (&b"pong"[..], from));
    let names: Vec<_> = names.into_iter().map(std::net::IpAddr::from).collect();
    assert_eq!(names, [network.address()]);
}
