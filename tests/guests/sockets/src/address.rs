//! Addresses between std's words and WASI's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};

use crate::Outcome;

/// Prints the addresses of `name`, one per line, in the resolver's order.
pub fn resolve(name: &str) -> Outcome<()> {
    let answers = resolve_addresses(&instance_network(), name)?;
    loop {
        match answers.resolve_next_address() {
            Ok(Some(IpAddress::Ipv4((a, b, c, d)))) => println!("{}", Ipv4Addr::new(a, b, c, d)),
            Ok(Some(IpAddress::Ipv6(parts))) => println!("{}", ipv6(parts)),
            Ok(None) => return Ok(()),
            Err(ErrorCode::WouldBlock) => answers.subscribe().block(),
            Err(error) => return Err(error.into()),
        }
    }
}

pub fn family(address: SocketAddr) -> IpAddressFamily {
    if address.is_ipv4() { IpAddressFamily::Ipv4 } else { IpAddressFamily::Ipv6 }
}

pub fn to_wasi(address: SocketAddr) -> IpSocketAddress {
    match address {
        SocketAddr::V4(address) => {
            let [a, b, c, d] = address.ip().octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress { port: address.port(), address: (a, b, c, d) })
        }
        SocketAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.ip().segments();
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port: address.port(),
                flow_info: address.flowinfo(),
                address: (a, b, c, d, e, f, g, h),
                scope_id: address.scope_id(),
            })
        }
    }
}

pub fn from_wasi(address: IpSocketAddress) -> SocketAddr {
    match address {
        IpSocketAddress::Ipv4(address) => {
            let (a, b, c, d) = address.address;
            SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), address.port)
        }
        IpSocketAddress::Ipv6(address) => {
            SocketAddrV6::new(ipv6(address.address), address.port, address.flow_info, address.scope_id).into()
        }
    }
}

fn ipv6((a, b, c, d, e, f, g, h): (u16, u16, u16, u16, u16, u16, u16, u16)) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, e, f, g, h)
}
