//! The UDP server and client.

use std::net::SocketAddr;

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::network::ErrorCode;
use wasip2::sockets::udp::{
    IncomingDatagram, IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket,
};
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::Outcome;
use crate::address::{family, from_wasi, to_wasi};

/// Sends every datagram back to where it came from, for ever.
pub fn serve(address: SocketAddr) -> Outcome<()> {
    let socket = bound(address)?;
    println!("listening on {}", from_wasi(socket.local_address()?));
    let (incoming, outgoing) = socket.stream(None)?;
    loop {
        let datagram = receive(&incoming)?;
        let peer = from_wasi(datagram.remote_address);
        println!("datagram from {peer}");
        let data = match datagram.data.trim_ascii_end() {
            b"whoami" => peer.to_string().into_bytes(),
            _ => datagram.data,
        };
        transmit(&outgoing, OutgoingDatagram { data, remote_address: Some(datagram.remote_address) })?;
    }
}

/// Sends `text` to `server` and prints both ends' addresses and the answer.
pub fn send(server: SocketAddr, text: &str) -> Outcome<()> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = bound(any.parse()?)?;
    let (incoming, outgoing) = socket.stream(Some(to_wasi(server)))?;
    println!("local {}", from_wasi(socket.local_address()?));
    println!("peer {}", from_wasi(socket.remote_address()?));
    transmit(&outgoing, OutgoingDatagram { data: text.as_bytes().to_vec(), remote_address: None })?;
    println!("answer {}", String::from_utf8_lossy(&receive(&incoming)?.data));
    Ok(())
}

fn bound(address: SocketAddr) -> Outcome<UdpSocket> {
    let socket = create_udp_socket(family(address))?;
    socket.start_bind(&instance_network(), to_wasi(address))?;
    loop {
        match socket.finish_bind() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(socket),
        }
    }
}

fn receive(incoming: &IncomingDatagramStream) -> Result<IncomingDatagram, ErrorCode> {
    loop {
        if let Some(datagram) = incoming.receive(1)?.pop() {
            return Ok(datagram);
        }
        incoming.subscribe().block();
    }
}

fn transmit(outgoing: &OutgoingDatagramStream, datagram: OutgoingDatagram) -> Result<(), ErrorCode> {
    while outgoing.check_send()? == 0 {
        outgoing.subscribe().block();
    }
    outgoing.send(&[datagram]).map(|_| ())
}
