//! `wasi:sockets/tcp` and `/network` for a pod: a guest's calls come in, Wasmtime's own implementation carries them
//! out with the addresses mapped. Options, streams and pollables pass through as they are.

use std::net::SocketAddr;

use futures::FutureExt;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{
    self, ErrorCode, HostNetwork, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp::{self, HostTcpSocket, ShutdownType};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, SocketError, SocketResult, TcpSocket};

use super::PodSockets;
use super::delegate::delegate;
use super::network::{Protocol, Refused};

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

impl network::Host for PodSockets<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.inner, error)
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.inner, error)
    }
}

impl HostNetwork for PodSockets<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        HostNetwork::drop(&mut self.inner, network)
    }
}

impl tcp::Host for PodSockets<'_> {}

impl HostTcpSocket for PodSockets<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        let guest = SocketAddr::from(local);
        let bind = self.network.bind(Protocol::Tcp, guest)?;
        let rep = this.rep();
        HostTcpSocket::start_bind(&mut self.inner, this, network, bind.real.into()).await?;
        let real = SocketAddr::from(HostTcpSocket::local_address(&mut self.inner, Resource::new_borrow(rep))?);
        self.remember(Protocol::Tcp, rep, guest, bind.everywhere, real);
        Ok(())
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        let guest = SocketAddr::from(remote);
        let real = self.network.connect(Protocol::Tcp, guest)?;
        let rep = this.rep();
        let bound = self.records.get(&rep).is_some_and(|record| record.bound.is_some());
        if !bound && let Some(source) = self.network.source(real)? {
            let network = Resource::new_borrow(network.rep());
            // Binding waits for nothing but the address check, which is ready at once.
            HostTcpSocket::start_bind(&mut self.inner, Resource::new_borrow(rep), network, source.into())
                .now_or_never()
                .unwrap_or(Err(ErrorCode::Unknown.into()))?;
            HostTcpSocket::finish_bind(&mut self.inner, Resource::new_borrow(rep))?;
        }
        HostTcpSocket::start_connect(&mut self.inner, this, network, real.into())?;
        self.records.entry(rep).or_default().remote = Some(guest);
        Ok(())
    }

    async fn start_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        HostTcpSocket::start_listen(&mut self.inner, this).await
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let real = HostTcpSocket::local_address(&mut self.inner, this)?;
        Ok(self.shown_local(Protocol::Tcp, rep, real.into()).into())
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let real = HostTcpSocket::remote_address(&mut self.inner, this)?;
        Ok(self.shown_remote(Protocol::Tcp, rep, real.into()).into())
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.records.remove(&this.rep());
        HostTcpSocket::drop(&mut self.inner, this)
    }

    delegate! { HostTcpSocket on TcpSocket;
        fn finish_bind() -> SocketResult<()>;
        fn finish_connect() -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)>;
        fn finish_listen() -> SocketResult<()>;
        fn accept() -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)>;
        fn is_listening() -> wasmtime::Result<bool>;
        fn address_family() -> wasmtime::Result<IpAddressFamily>;
        fn set_listen_backlog_size(value: u64) -> SocketResult<()>;
        fn keep_alive_enabled() -> SocketResult<bool>;
        fn set_keep_alive_enabled(value: bool) -> SocketResult<()>;
        fn keep_alive_idle_time() -> SocketResult<u64>;
        fn set_keep_alive_idle_time(value: u64) -> SocketResult<()>;
        fn keep_alive_interval() -> SocketResult<u64>;
        fn set_keep_alive_interval(value: u64) -> SocketResult<()>;
        fn keep_alive_count() -> SocketResult<u32>;
        fn set_keep_alive_count(value: u32) -> SocketResult<()>;
        fn hop_limit() -> SocketResult<u8>;
        fn set_hop_limit(value: u8) -> SocketResult<()>;
        fn receive_buffer_size() -> SocketResult<u64>;
        fn set_receive_buffer_size(value: u64) -> SocketResult<()>;
        fn send_buffer_size() -> SocketResult<u64>;
        fn set_send_buffer_size(value: u64) -> SocketResult<()>;
        fn subscribe() -> wasmtime::Result<Resource<DynPollable>>;
        fn shutdown(how: ShutdownType) -> SocketResult<()>;
    }
}
