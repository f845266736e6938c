//! Addresses of pods: which of a podCIDR may be given, and which are taken.
//!
//! In comes a CIDR, out go addresses nobody else holds. Pure: no route, socket or record is touched here.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why an address could not be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is not `ADDRESS/PREFIX`.
    #[error("{0:?} is not a CIDR")]
    NotACidr(String),
    /// The network has no address left over for a pod.
    #[error("{0} is too small to hold a pod address")]
    TooSmall(Cidr),
    /// Every address is taken.
    #[error("every pod address of {0} is taken")]
    Exhausted(Cidr),
    /// The address is taken, or was never to be given.
    #[error("{0} is not a free pod address of {1}")]
    NotFree(IpAddr, Cidr),
}

/// A network: its first address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    first: IpAddr,
    prefix_length: u8,
}

impl Cidr {
    /// The network that `address` lies in.
    pub fn new(address: IpAddr, prefix_length: u8) -> Option<Self> {
        let width = width(address);
        if prefix_length > width {
            return None;
        }
        let first = of_number(number(address) & !host_mask(width, prefix_length), address.is_ipv4());
        Some(Self { first, prefix_length })
    }

    /// The network's own address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// In bits.
    pub fn prefix_length(&self) -> u8 {
        self.prefix_length
    }

    /// Whether `address` lies in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, self.prefix_length).is_some_and(|network| network == *self)
    }

    fn last_offset(&self) -> u128 {
        host_mask(width(self.first), self.prefix_length)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_length)
    }
}

impl FromStr for Cidr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parse = || {
            let (address, prefix_length) = text.trim().split_once('/')?;
            Self::new(address.parse().ok()?, prefix_length.parse().ok()?)
        };
        parse().ok_or_else(|| AddressError::NotACidr(text.to_owned()))
    }
}

/// The addresses of one network, each given to one holder at a time.
///
/// Addresses go round: one that was given back is not given again until all the others have been, so that a client
/// that still holds an old pod's address does not reach a new pod.
#[derive(Debug, Clone)]
pub struct Pool {
    network: Cidr,
    lowest: u128,
    highest: u128,
    next: u128,
    taken: BTreeSet<u128>,
}

/// Whether this is one of the addresses of [`Pool::loopback`].
pub(crate) fn is_pod_loopback(address: Ipv4Addr) -> bool {
    address.is_loopback() && address.octets()[1] != 0
}

impl Pool {
    /// A pool over a podCIDR. Never given are the network's own address, the first after it (a gateway's by custom),
    /// the broadcast address, and IPv4 addresses that end in 0.
    ///
    /// # Errors
    /// When nothing is left over.
    pub fn new(network: Cidr) -> Result<Self, AddressError> {
        let last = network.last_offset();
        let highest = if network.first.is_ipv4() { last.saturating_sub(1) } else { last };
        Self::between(network, 2, highest)
    }

    /// Loopback addresses for pods: 127.0.0.0/8 without 127.0.0.0/16, where the host's own services listen.
    pub fn loopback() -> Self {
        let network = Cidr { first: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix_length: 8 };
        let lowest = 1 << 16;
        Self { network, lowest, highest: (1 << 24) - 2, next: lowest, taken: BTreeSet::new() }
    }

    fn between(network: Cidr, lowest: u128, highest: u128) -> Result<Self, AddressError> {
        let pool = Self { network, lowest, highest, next: lowest, taken: BTreeSet::new() };
        if pool.after(lowest).is_none() {
            return Err(AddressError::TooSmall(network));
        }
        Ok(pool)
    }

    /// The network the addresses are of.
    pub fn network(&self) -> Cidr {
        self.network
    }

    /// Takes a free address.
    ///
    /// # Errors
    /// When all are taken.
    pub fn lease(&mut self) -> Result<IpAddr, AddressError> {
        let offset = self
            .free_from(self.next)
            .or_else(|| self.free_from(self.lowest))
            .ok_or(AddressError::Exhausted(self.network))?;
        self.taken.insert(offset);
        self.next = offset + 1;
        Ok(self.address(offset))
    }

    /// Takes this very address, which a record says is held.
    ///
    /// # Errors
    /// When it is taken, outside the network or never given.
    pub fn claim(&mut self, address: IpAddr) -> Result<(), AddressError> {
        let refused = AddressError::NotFree(address, self.network);
        let Some(offset) = self.offset(address).filter(|&offset| self.may_give(offset)) else {
            return Err(refused);
        };
        if !self.taken.insert(offset) {
            return Err(refused);
        }
        Ok(())
    }

    /// Gives an address back; one that is not taken stays so.
    pub fn release(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address) {
            self.taken.remove(&offset);
        }
    }

    /// The first free offset at or after `from`.
    fn free_from(&self, from: u128) -> Option<u128> {
        let mut candidate = self.after(from)?;
        // `taken` is in order, so the first gap is found on one walk along it.
        for &taken in self.taken.range(candidate..) {
            if taken > candidate {
                break;
            }
            candidate = self.after(candidate + 1)?;
        }
        Some(candidate)
    }

    /// The first offset at or after `from` that may be given at all.
    fn after(&self, from: u128) -> Option<u128> {
        let from = from.max(self.lowest);
        // Of two neighbours at most one ends in 0.
        [from, from + 1].into_iter().find(|&offset| self.may_give(offset))
    }

    fn may_give(&self, offset: u128) -> bool {
        let ends_in_zero = || match self.address(offset) {
            IpAddr::V4(address) => address.octets()[3] == 0,
            IpAddr::V6(_) => false,
        };
        (self.lowest..=self.highest).contains(&offset) && !ends_in_zero()
    }

    fn address(&self, offset: u128) -> IpAddr {
        of_number(number(self.network.first) + offset, self.network.first.is_ipv4())
    }

    fn offset(&self, address: IpAddr) -> Option<u128> {
        self.network.contains(address).then(|| number(address) - number(self.network.first))
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn host_mask(width: u8, prefix_length: u8) -> u128 {
    let bits = u32::from(width - prefix_length);
    1_u128.checked_shl(bits).map_or(u128::MAX, |past| past - 1)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn of_number(number: u128, is_ipv4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if is_ipv4 => IpAddr::V4(Ipv4Addr::from(number)),
        _ => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn pool(network: &str) -> Pool {
        Pool::new(network.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_podcidr_gives_what_is_neither_network_nor_gateway_nor_broadcast() {
        let mut pool = pool("10.244.3.0/29");
        let given: Vec<String> = std::iter::from_fn(|| pool.lease().ok()).map(|a| a.to_string()).collect();
        assert_eq!(given, ["10.244.3.2", "10.244.3.3", "10.244.3.4", "10.244.3.5", "10.244.3.6"]);
        assert_eq!(pool.lease(), Err(AddressError::Exhausted("10.244.3.0/29".parse().unwrap())));
    }

    #[test]
    fn a_released_address_comes_last() {
        let mut pool = pool("10.0.0.0/29");
        let first = pool.lease().unwrap();
        pool.release(first);
        let rest: Vec<IpAddr> = std::iter::from_fn(|| pool.lease().ok()).collect();
        assert_eq!(rest.last(), Some(&first));
    }

    #[test]
    fn networks_without_room_are_refused() {
        for network in ["10.0.0.0/32", "10.0.0.0/31", "fd00::/127", "fd00::1/128"] {
            assert!(matches!(Pool::new(network.parse().unwrap()), Err(AddressError::TooSmall(_))), "{network}");
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn pods_have_loopback_addresses_beside_the_hosts() {
        let mut pool = Pool::loopback();
        assert_eq!(pool.lease().unwrap().to_string(), "127.1.0.1");
        assert!(pool.claim("127.0.0.1".parse().unwrap()).is_err());
        assert!(pool.claim("127.255.255.254".parse().unwrap()).is_ok());
    }

    /// Small networks run out within a case, wide ones reach past 64 bits.
    fn networks() -> impl Strategy<Value = Cidr> {
        let v4 = (any::<u32>(), 8_u8..=30).prop_map(|(a, p)| Cidr::new(IpAddr::V4(a.into()), p));
        let v6 = (any::<u128>(), 0_u8..=126).prop_map(|(a, p)| Cidr::new(IpAddr::V6(a.into()), p));
        prop_oneof![v4, v6].prop_filter_map("a network", |network| network)
    }

    proptest! {
        #[test]
        fn no_address_has_two_holders(network in networks(), turns in prop::collection::vec(any::<Option<u8>>(), 1..300)) {
            let mut pool = Pool::new(network).unwrap();
            let mut held: Vec<IpAddr> = Vec::new();
            for turn in turns {
                match turn {
                    Some(which) if !held.is_empty() => {
                        let address = held.swap_remove(usize::from(which) % held.len());
                        pool.release(address);
                        prop_assert_eq!(pool.claim(address), Ok(()));
                        prop_assert!(pool.claim(address).is_err());
                        pool.release(address);
                    }
                    _ => match pool.lease() {
                        Ok(address) => {
                            prop_assert!(!held.contains(&address));
                            prop_assert!(network.contains(address));
                            prop_assert_ne!(address, network.first());
                            prop_assert!(!address.is_ipv4() || !address.to_string().ends_with(".0"));
                            held.push(address);
                        }
                        Err(_) => prop_assert!(held.len() as u128 >= network.last_offset() - 2),
                    },
                }
            }
        }

        #[test]
        fn a_new_pool_takes_over_the_leases_of_the_old(network in networks(), count in 1_usize..200) {
            let mut old = Pool::new(network).unwrap();
            let held: BTreeSet<IpAddr> = std::iter::from_fn(|| old.lease().ok()).take(count).collect();
            let mut new = Pool::new(network).unwrap();
            for &address in &held {
                prop_assert_eq!(new.claim(address), Ok(()));
            }
            while let Ok(address) = new.lease() {
                prop_assert!(!held.contains(&address));
                if new.taken.len() > 2 * held.len() { break }
            }
        }

        #[test]
        fn a_cidr_reads_back_as_it_is_written(network in networks()) {
            prop_assert_eq!(network.to_string().parse::<Cidr>(), Ok(network));
        }
    }
}
