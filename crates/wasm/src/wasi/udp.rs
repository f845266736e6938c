//! `wasi:sockets/udp` for a pod: a guest's calls come in, Wasmtime's own implementation carries them out with the
//! addresses of sockets and of each datagram mapped.

use std::net::SocketAddr;

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    self, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
    IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::{DynPollable, SocketResult, UdpSocket};

use super::PodSockets;
use super::delegate::delegate;
use super::network::Protocol;

impl udp::Host for PodSockets<'_> {}

impl HostUdpSocket for PodSockets<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<UdpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        let guest = SocketAddr::from(local);
        let bind = self.network.bind(Protocol::Udp, guest)?;
        let rep = this.rep();
        HostUdpSocket::start_bind(&mut self.inner, this, network, bind.real.into()).await?;
        let real = SocketAddr::from(HostUdpSocket::local_address(&mut self.inner, Resource::new_borrow(rep))?);
        self.remember(Protocol::Udp, rep, guest, bind.everywhere, real);
        Ok(())
    }

    async fn stream(
        &mut self,
        this: Resource<UdpSocket>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<(Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>)> {
        let guest = remote.map(SocketAddr::from);
        let real = guest.map(|guest| self.network.connect(Protocol::Udp, guest)).transpose()?;
        let rep = this.rep();
        let streams = HostUdpSocket::stream(&mut self.inner, this, real.map(Into::into)).await?;
        self.records.entry(rep).or_default().remote = guest;
        Ok(streams)
    }

    fn local_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let real = HostUdpSocket::local_address(&mut self.inner, this)?;
        Ok(self.shown_local(Protocol::Udp, rep, real.into()).into())
    }

    fn remote_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let real = HostUdpSocket::remote_address(&mut self.inner, this)?;
        Ok(self.shown_remote(Protocol::Udp, rep, real.into()).into())
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.records.remove(&this.rep());
        HostUdpSocket::drop(&mut self.inner, this)
    }

    delegate! { HostUdpSocket on UdpSocket;
        fn finish_bind() -> SocketResult<()>;
        fn address_family() -> wasmtime::Result<IpAddressFamily>;
        fn unicast_hop_limit() -> SocketResult<u8>;
        fn set_unicast_hop_limit(value: u8) -> SocketResult<()>;
        fn receive_buffer_size() -> SocketResult<u64>;
        fn set_receive_buffer_size(value: u64) -> SocketResult<()>;
        fn send_buffer_size() -> SocketResult<u64>;
        fn set_send_buffer_size(value: u64) -> SocketResult<()>;
        fn subscribe() -> wasmtime::Result<Resource<DynPollable>>;
    }
}

impl HostIncomingDatagramStream for PodSockets<'_> {
    fn receive(&mut self, this: Resource<IncomingDatagramStream>, most: u64) -> SocketResult<Vec<IncomingDatagram>> {
        let mut datagrams = HostIncomingDatagramStream::receive(&mut self.inner, this, most)?;
        for datagram in &mut datagrams {
            let real = SocketAddr::from(datagram.remote_address);
            datagram.remote_address = self.network.shown(Protocol::Udp, real).into();
        }
        Ok(datagrams)
    }

    delegate! { HostIncomingDatagramStream on IncomingDatagramStream;
        fn subscribe() -> wasmtime::Result<Resource<DynPollable>>;
        fn drop() -> wasmtime::Result<()>;
    }
}

impl HostOutgoingDatagramStream for PodSockets<'_> {
    fn send(
        &mut self,
        this: Resource<OutgoingDatagramStream>,
        mut datagrams: Vec<OutgoingDatagram>,
    ) -> SocketResult<u64> {
        for datagram in &mut datagrams {
            if let Some(remote) = &mut datagram.remote_address {
                *remote = self.network.connect(Protocol::Udp, SocketAddr::from(*remote))?.into();
            }
        }
        HostOutgoingDatagramStream::send(&mut self.inner, this, datagrams)
    }

    async fn drop(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        HostOutgoingDatagramStream::drop(&mut self.inner, this).await
    }

    delegate! { HostOutgoingDatagramStream on OutgoingDatagramStream;
        fn check_send() -> SocketResult<u64>;
        fn subscribe() -> wasmtime::Result<Resource<DynPollable>>;
    }
}
