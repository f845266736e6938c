//! `wasi:sockets` 0.3 for a pod: a guest's calls come in, Wasmtime's own implementation carries them out with the addresses
//! mapped, as for 0.2. A socket that is used before it is bound is bound to the pod's address first.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use wasmtime::AsContextMut;
use wasmtime::component::{Access, Accessor, FutureReader, Linker, Resource, StreamReader};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup;
use wasmtime_wasi::p3::bindings::sockets::types::{
    self, Duration, ErrorCode, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket, HostUdpSocketWithStore, IpAddress,
    IpAddressFamily, IpSocketAddress,
};
use wasmtime_wasi::p3::sockets::{SocketError, SocketResult};
use wasmtime_wasi::sockets::{TcpSocket, UdpSocket, WasiSockets, WasiSocketsCtxView, WasiSocketsView};

use super::delegate::delegate;
use super::lookup::resolve;
use super::network::{Protocol, Refused};
use super::{HasPodSockets, Host, PodSockets};

/// Gives components the interfaces.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    types::add_to_linker::<Host, HasPodSockets>(linker, Host::pod_sockets)?;
    ip_name_lookup::add_to_linker::<Host, HasPodSockets>(linker, Host::pod_sockets)
}

/// As Wasmtime sees them, unmapped.
fn unmapped(host: &mut Host) -> WasiSocketsCtxView<'_> {
    WasiSocketsView::sockets(&mut host.wasi)
}

impl From<Refused> for SocketError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotBindable => ErrorCode::AddressNotBindable,
            Refused::Denied => ErrorCode::AccessDenied,
            Refused::Unreachable => ErrorCode::RemoteUnreachable,
        }
        .into()
    }
}

impl types::Host for PodSockets<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        types::Host::convert_error_code(&mut self.inner, error)
    }
}

impl PodSockets<'_> {
    fn is_bound(&mut self, protocol: Protocol, rep: u32) -> bool {
        match protocol {
            Protocol::Tcp => HostTcpSocket::get_local_address(&mut self.inner, Resource::new_borrow(rep)).is_ok(),
            Protocol::Udp => HostUdpSocket::get_local_address(&mut self.inner, Resource::new_borrow(rep)).is_ok(),
        }
    }

    /// Where a guest that connects to `guest` really goes, with the socket bound to where it comes from.
    fn connecting(&mut self, protocol: Protocol, rep: u32, guest: SocketAddr) -> SocketResult<SocketAddr> {
        let real = self.network.connect(protocol, guest)?;
        if !self.is_bound(protocol, rep)
            && let Some(source) = self.network.source(real)?
        {
            // Binding waits for nothing but the address check, which is ready at once.
            match protocol {
                Protocol::Tcp => {
                    HostTcpSocket::bind(&mut self.inner, Resource::new_borrow(rep), source.into()).now_or_never()
                }
                Protocol::Udp => {
                    HostUdpSocket::bind(&mut self.inner, Resource::new_borrow(rep), source.into()).now_or_never()
                }
            }
            .unwrap_or(Err(ErrorCode::InvalidState.into()))?;
        }
        self.records.entry(rep).or_default().remote = Some(guest);
        Ok(real)
    }
}

impl HostTcpSocket for PodSockets<'_> {
    async fn bind(&mut self, this: Resource<TcpSocket>, local: IpSocketAddress) -> SocketResult<()> {
        let guest = SocketAddr::from(local);
        let bind = self.network.bind(Protocol::Tcp, guest)?;
        let rep = this.rep();
        HostTcpSocket::bind(&mut self.inner, this, bind.real.into()).await?;
        let real = HostTcpSocket::get_local_address(&mut self.inner, Resource::new_borrow(rep))?.into();
        self.remember(Protocol::Tcp, rep, guest, bind.everywhere, real);
        Ok(())
    }

    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        HostTcpSocket::create(&mut self.inner, family)
    }

    fn get_local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let real = HostTcpSocket::get_local_address(&mut self.inner, this)?;
        Ok(self.shown_local(Protocol::Tcp, rep, real.into()).into())
    }

    fn get_remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let real = HostTcpSocket::get_remote_address(&mut self.inner, this)?;
        Ok(self.shown_remote(Protocol::Tcp, rep, real.into()).into())
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.records.remove(&this.rep());
        HostTcpSocket::drop(&mut self.inner, this)
    }

    delegate! { HostTcpSocket on TcpSocket;
        fn get_is_listening() -> wasmtime::Result<bool>;
        fn get_address_family() -> wasmtime::Result<IpAddressFamily>;
        fn set_listen_backlog_size(value: u64) -> SocketResult<()>;
        fn get_keep_alive_enabled() -> SocketResult<bool>;
        fn set_keep_alive_enabled(value: bool) -> SocketResult<()>;
        fn get_keep_alive_idle_time() -> SocketResult<Duration>;
        fn set_keep_alive_idle_time(value: Duration) -> SocketResult<()>;
        fn get_keep_alive_interval() -> SocketResult<Duration>;
        fn set_keep_alive_interval(value: Duration) -> SocketResult<()>;
        fn get_keep_alive_count() -> SocketResult<u32>;
        fn set_keep_alive_count(value: u32) -> SocketResult<()>;
        fn get_hop_limit() -> SocketResult<u8>;
        fn set_hop_limit(value: u8) -> SocketResult<()>;
        fn get_receive_buffer_size() -> SocketResult<u64>;
        fn set_receive_buffer_size(value: u64) -> SocketResult<()>;
        fn get_send_buffer_size() -> SocketResult<u64>;
        fn set_send_buffer_size(value: u64) -> SocketResult<()>;
    }
}

type Sent = wasmtime::Result<FutureReader<Result<(), ErrorCode>>>;
type Received = wasmtime::Result<(StreamReader<u8>, FutureReader<Result<(), ErrorCode>>)>;

impl HostTcpSocketWithStore<Host> for HasPodSockets {
    async fn connect(
        store: &Accessor<Host, Self>,
        this: Resource<TcpSocket>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        let (rep, guest) = (this.rep(), SocketAddr::from(remote));
        let real = store.with(|mut store| store.get().connecting(Protocol::Tcp, rep, guest))?;
        let unmapped = store.with_getter::<WasiSockets>(unmapped);
        <WasiSockets as HostTcpSocketWithStore<Host>>::connect(&unmapped, this, real.into()).await
    }

    async fn listen(
        mut store: Access<'_, Host, Self>,
        this: Resource<TcpSocket>,
    ) -> SocketResult<StreamReader<Resource<TcpSocket>>> {
        let rep = this.rep();
        if !store.get().is_bound(Protocol::Tcp, rep) {
            let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
            HostTcpSocket::bind(&mut store.get(), Resource::new_borrow(rep), everywhere.into()).await?;
        }
        let unmapped = Access::<_, WasiSockets>::new(store.as_context_mut(), unmapped);
        <WasiSockets as HostTcpSocketWithStore<Host>>::listen(unmapped, this).await
    }

    fn send(mut store: Access<'_, Host, Self>, this: Resource<TcpSocket>, data: StreamReader<u8>) -> Sent {
        let unmapped = Access::<_, WasiSockets>::new(store.as_context_mut(), unmapped);
        <WasiSockets as HostTcpSocketWithStore<Host>>::send(unmapped, this, data)
    }

    fn receive(mut store: Access<'_, Host, Self>, this: Resource<TcpSocket>) -> Received {
        let unmapped = Access::<_, WasiSockets>::new(store.as_context_mut(), unmapped);
        <WasiSockets as HostTcpSocketWithStore<Host>>::receive(unmapped, this)
    }
}

impl HostUdpSocket for PodSockets<'_> {
    async fn bind(&mut self, this: Resource<UdpSocket>, local: IpSocketAddress) -> SocketResult<()> {
        let guest = SocketAddr::from(local);
        let bind = self.network.bind(Protocol::Udp, guest)?;
        let rep = this.rep();
        HostUdpSocket::bind(&mut self.inner, this, bind.real.into()).await?;
        let real = HostUdpSocket::get_local_address(&mut self.inner, Resource::new_borrow(rep))?.into();
        self.remember(Protocol::Udp, rep, guest, bind.everywhere, real);
        Ok(())
    }

    async fn connect(&mut self, this: Resource<UdpSocket>, remote: IpSocketAddress) -> SocketResult<()> {
        let real = self.connecting(Protocol::Udp, this.rep(), remote.into())?;
        HostUdpSocket::connect(&mut self.inner, this, real.into()).await
    }

    async fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        HostUdpSocket::create(&mut self.inner, family).await
    }

    fn disconnect(&mut self, this: Resource<UdpSocket>) -> SocketResult<()> {
        let rep = this.rep();
        HostUdpSocket::disconnect(&mut self.inner, this)?;
        if let Some(record) = self.records.get_mut(&rep) {
            record.remote = None;
        }
        Ok(())
    }

    fn get_local_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let real = HostUdpSocket::get_local_address(&mut self.inner, this)?;
        Ok(self.shown_local(Protocol::Udp, rep, real.into()).into())
    }

    fn get_remote_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let real = HostUdpSocket::get_remote_address(&mut self.inner, this)?;
        Ok(self.shown_remote(Protocol::Udp, rep, real.into()).into())
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.records.remove(&this.rep());
        HostUdpSocket::drop(&mut self.inner, this)
    }

    delegate! { HostUdpSocket on UdpSocket;
        fn get_address_family() -> wasmtime::Result<IpAddressFamily>;
        fn get_unicast_hop_limit() -> SocketResult<u8>;
        fn set_unicast_hop_limit(value: u8) -> SocketResult<()>;
        fn get_receive_buffer_size() -> SocketResult<u64>;
        fn set_receive_buffer_size(value: u64) -> SocketResult<()>;
        fn get_send_buffer_size() -> SocketResult<u64>;
        fn set_send_buffer_size(value: u64) -> SocketResult<()>;
    }
}

impl HostUdpSocketWithStore<Host> for HasPodSockets {
    async fn send(
        store: &Accessor<Host, Self>,
        this: Resource<UdpSocket>,
        data: Vec<u8>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        let rep = this.rep();
        let real = store.with(|mut store| {
            let mut sockets = store.get();
            let Some(guest) = remote.map(SocketAddr::from) else { return SocketResult::Ok(None) };
            let connected = sockets.records.get(&rep).and_then(|record| record.remote);
            let real = sockets.connecting(Protocol::Udp, rep, guest)?;
            // A datagram's own address connects nothing.
            sockets.records.entry(rep).or_default().remote = connected;
            Ok(Some(real.into()))
        })?;
        let unmapped = store.with_getter::<WasiSockets>(unmapped);
        <WasiSockets as HostUdpSocketWithStore<Host>>::send(&unmapped, this, data, real).await
    }

    async fn receive(
        store: &Accessor<Host, Self>,
        this: Resource<UdpSocket>,
    ) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let unmapped = store.with_getter::<WasiSockets>(unmapped);
        let (data, from) = <WasiSockets as HostUdpSocketWithStore<Host>>::receive(&unmapped, this).await?;
        let shown = store.with(|mut store| store.get().network.shown(Protocol::Udp, from.into()));
        Ok((data, shown.into()))
    }
}

impl ip_name_lookup::Host for PodSockets<'_> {}

impl ip_name_lookup::HostWithStore<Host> for HasPodSockets {
    async fn resolve_addresses(
        store: &Accessor<Host, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, ip_name_lookup::ErrorCode>> {
        let (network, hostname) = store.with(|mut store| {
            let sockets = store.get();
            (Arc::clone(sockets.network), Arc::clone(sockets.hostname))
        });
        let found = resolve(&network, &hostname, &name).await;
        Ok(found.map(|found| found.into_iter().map(Into::into).collect()).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => ip_name_lookup::ErrorCode::InvalidArgument,
            io::ErrorKind::TimedOut => ip_name_lookup::ErrorCode::TemporaryResolverFailure,
            _ => ip_name_lookup::ErrorCode::NameUnresolvable,
        }))
    }
}

#[cfg(test)]
#[path = "sockets_03_tests.rs"]
mod tests;
