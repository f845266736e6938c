//! The TCP server, which serves all its connections from one poll loop, and the client.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;

use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::network::ErrorCode;
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::Outcome;
use crate::address::{family, from_wasi, to_wasi};

/// Listens on `address` and sends every line back, for ever.
pub fn serve(address: SocketAddr) -> Outcome<()> {
    let listener = create_tcp_socket(family(address))?;
    listener.start_bind(&instance_network(), to_wasi(address))?;
    finished(&listener, TcpSocket::finish_bind)?;
    listener.start_listen()?;
    finished(&listener, TcpSocket::finish_listen)?;
    println!("listening on {}", from_wasi(listener.local_address()?));

    let mut connections = Vec::new();
    loop {
        // From the last to the first, so that a removal leaves the numbers of those still to come as they were.
        for number in ready(&listener, &connections).into_iter().rev() {
            match number.checked_sub(1) {
                None => connections.extend(accept(&listener)?),
                Some(number) => {
                    if !connections[number].answer() {
                        println!("closed {}", connections.swap_remove(number).peer);
                    }
                }
            }
        }
    }
}

/// Sends `line` to `server` and prints both ends' addresses and the answer.
pub fn connect(server: SocketAddr, line: &str) -> Outcome<()> {
    let socket = create_tcp_socket(family(server))?;
    socket.start_connect(&instance_network(), to_wasi(server))?;
    let (input, mut output) = finished(&socket, TcpSocket::finish_connect)?;
    println!("local {}", from_wasi(socket.local_address()?));
    println!("peer {}", from_wasi(socket.remote_address()?));
    writeln!(output, "{line}")?;
    output.blocking_flush()?;
    let mut answer = String::new();
    BufReader::new(input).read_line(&mut answer)?;
    println!("answer {}", answer.trim_end());
    Ok(())
}

/// Waits until a step that was started on `socket` has its result.
fn finished<T>(socket: &TcpSocket, finish: impl Fn(&TcpSocket) -> Result<T, ErrorCode>) -> Result<T, ErrorCode> {
    loop {
        match finish(socket) {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            result => return result,
        }
    }
}

/// Waits for something to do: 0 stands for the listener, n for the connection n - 1; in rising order.
fn ready(listener: &TcpSocket, connections: &[Connection]) -> Vec<usize> {
    let sources: Vec<Pollable> = std::iter::once(listener.subscribe())
        .chain(connections.iter().map(|connection| connection.input.subscribe()))
        .collect();
    let mut ready: Vec<usize> =
        poll(&sources.iter().collect::<Vec<_>>()).into_iter().map(|number| number as usize).collect();
    ready.sort_unstable();
    ready
}

/// One waiting connection, or none when the other side has given up meanwhile.
fn accept(listener: &TcpSocket) -> Outcome<Option<Connection>> {
    let (socket, input, output) = match listener.accept() {
        Ok(accepted) => accepted,
        Err(ErrorCode::WouldBlock | ErrorCode::ConnectionAborted) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let peer = from_wasi(socket.remote_address()?);
    println!("accepted {peer}");
    Ok(Some(Connection { input, output, _socket: socket, peer, pending: Vec::new() }))
}

/// The streams stand before the socket they belong to, because they have to be dropped before it.
struct Connection {
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
    peer: SocketAddr,
    /// What has come of a line that is not whole yet.
    pending: Vec<u8>,
}

impl Connection {
    /// Reads what is there and answers every whole line; false when the connection is over.
    fn answer(&mut self) -> bool {
        match self.input.read(64 * 1024) {
            Ok(chunk) => self.pending.extend(chunk),
            Err(StreamError::Closed | StreamError::LastOperationFailed(_)) => return false,
        }
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let answer = match line.trim_ascii_end() {
                b"whoami" => format!("{}\n", self.peer).into_bytes(),
                _ => line,
            };
            if self.output.write_all(&answer).is_err() || self.output.blocking_flush().is_err() {
                return false;
            }
        }
        true
    }
}
