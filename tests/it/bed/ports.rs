//! Ports and addresses of this machine.
//!
//! Goes out: a port that no other test is given, and the address that others reach this machine at. Never here: a port
//! out of the ephemeral range, which anyone might get while a node restarts on its own.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, ensure};

/// Above those of control planes, below the ephemeral ones (32768).
const FIRST: u16 = 21_000;
const LAST: u16 = 32_000;
/// More than one process needs.
const BLOCK: u16 = 250;

/// A free TCP port, given once in this process.
pub(crate) fn free() -> Result<u16> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Processes that test at the same time, most often with neighbouring ids, begin far apart.
    let block = std::process::id() % u32::from((LAST - FIRST) / BLOCK);
    let start = u16::try_from(block).context("a port")? * BLOCK;
    for _ in FIRST..LAST {
        let step = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + step % (LAST - FIRST)) % (LAST - FIRST);
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port from {FIRST} to {LAST} is free")
}

/// This machine's address on the way to anywhere else. No packet is sent: connecting a UDP socket only picks a route.
pub(crate) fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("opening a UDP socket")?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).context("this machine has no route to anywhere")?;
    let address = socket.local_addr().context("asking for a socket's address")?.ip();
    ensure!(!address.is_loopback(), "this machine has no address but loopback, and a node needs one");
    Ok(address)
}

/// Whether sockets can be bound to the address: it is the machine's own, or a route makes it local.
pub(crate) fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
