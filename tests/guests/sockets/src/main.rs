//! Talks over `wasi:sockets` as its arguments say, for tests of pod networking. Any failure is told on stderr and
//! ends with 1.
//!
//! * `serve` (or no argument): a TCP server on `$ADDRESS:$PORT` (0.0.0.0:7000) that sends every line back; to the line
//!   `whoami` it answers with the address it sees the other side at.
//! * `connect ADDRESS:PORT LINE`: sends the line and prints `local`, `peer` and `answer`.
//! * `udp-serve`, `udp-send ADDRESS:PORT TEXT`: the same with datagrams.
//! * `resolve NAME`: prints the addresses of a name, one per line.

mod address;
mod tcp;
mod udp;

use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

const USAGE: &str =
    "usage: sockets [serve | connect ADDRESS:PORT LINE | udp-serve | udp-send ADDRESS:PORT TEXT | resolve NAME]";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sockets {}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Outcome<()> {
    match *arguments {
        [] | ["serve"] => tcp::serve(listening_address()?),
        ["connect", server, line] => tcp::connect(server.parse()?, line),
        ["udp-serve"] => udp::serve(listening_address()?),
        ["udp-send", server, text] => udp::send(server.parse()?, text),
        ["resolve", name] => address::resolve(name),
        _ => Err(USAGE.into()),
    }
}

fn listening_address() -> Outcome<SocketAddr> {
    let address = env::var("ADDRESS").unwrap_or_else(|_| "0.0.0.0".to_owned());
    let port = env::var("PORT").unwrap_or_else(|_| "7000".to_owned());
    Ok(SocketAddr::new(address.parse()?, port.parse()?))
}
