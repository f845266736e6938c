//! Facts of the machine.
//!
//! In come files of the kernel and the system, out go [`Machine`] and the node's addresses. A fact that cannot be read is
//! left empty and never stops the node. Nothing is sent to find an address out.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    path::Path,
    thread,
};

use decide::node::Machine;
use tracing::warn;

use crate::config::NodeOptions;

/// The machine, with the file system that `root_dir` is or will be on.
pub(super) fn machine(root_dir: &Path) -> Machine {
    let machine_id = first_known([read("/etc/machine-id"), read("/var/lib/dbus/machine-id")]);
    let firmware = read("/sys/class/dmi/id/product_uuid");
    Machine {
        cpu_cores: thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes(&read("/proc/meminfo")),
        ephemeral_storage_bytes: storage_bytes(root_dir),
        system_uuid: first_known([firmware, machine_id.clone()]),
        machine_id,
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        kernel_version: rustix::system::uname().release().to_string_lossy().into_owned(),
        os_image: os_image(&read("/etc/os-release")),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The first text that is not empty.
fn first_known<const N: usize>(texts: [String; N]) -> String {
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// `MemTotal` of /proc/meminfo, which counts in KiB.
fn memory_bytes(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or_default().saturating_mul(1024)
}

/// The size of the file system of the nearest directory that is there.
fn storage_bytes(path: &Path) -> u64 {
    let stat = path.ancestors().find_map(|ancestor| rustix::fs::statvfs(ancestor).ok());
    stat.map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The node's addresses: those given, else the one that packets to elsewhere would carry, IPv4 before IPv6, else any that
/// is not loopback.
pub fn addresses(options: &NodeOptions) -> Vec<IpAddr> {
    if !options.addresses.is_empty() {
        return options.addresses.clone();
    }
    // Documentation addresses: connecting a datagram socket picks the route and sends nothing.
    let found = routed(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
        .or_else(|| routed(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()))
        .or_else(|| local_addresses(&read("/proc/net/fib_trie")).into_iter().map(IpAddr::V4).next());
    found.map_or_else(
        || {
            warn!("this machine has no address but loopback; others cannot reach the node unless --node-ip names one");
            vec![Ipv4Addr::LOCALHOST.into()]
        },
        |address| vec![address],
    )
}

fn routed(from: IpAddr, to: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// The machine's own IPv4 addresses in /proc/net/fib_trie: a line `|-- ADDRESS` before one with `host LOCAL`.
fn local_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut leaf = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line.ends_with("host LOCAL")
            && let Some(address) = leaf.filter(|address| !address.is_loopback() && !found.contains(address))
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(memory_bytes("MemTotal:       24608108 kB\nMemFree: 1 kB"), 24_608_108 << 10);
        assert_eq!(memory_bytes("nothing"), 0);
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n"), "Debian GNU/Linux 13");
        assert!(storage_bytes(Path::new("/nowhere/below/root")) > 0);
    }

    #[test]
    fn finds_local_addresses() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 127.0.0.1\n        \
                    /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\nLocal:\n     |-- 10.0.0.5\n        \
                    /32 host LOCAL\n";
        assert_eq!(local_addresses(trie), [Ipv4Addr::new(10, 0, 0, 5)]);
    }
}
