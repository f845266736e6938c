//! Which addresses sandboxes have.
//!
//! ```text
//!   Auto, may add a route:   Waiting ── podCIDR ──► Routed ── another podCIDR ──► Routed
//!   Auto, may not; Host:     Shared
//! ```
//! In comes a podCIDR, out go the [`Addresses`] of one sandbox at a time. Never here: sockets of guests, and ports.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::address::{AddressError, Cidr, Pool};
use crate::route::{self, RouteError};

/// Where pods get their addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodAddressMode {
    /// Out of the node's podCIDR if this process may add a route, else the node's own address. Until the podCIDR is
    /// known, only pods on the host's network run.
    #[default]
    Auto,
    /// The node's own address.
    Host,
}

/// The addresses of one sandbox. Their record outlives the process, so that they are not given to another pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Addresses {
    /// `hostNetwork`: all that the node has.
    Node {
        /// The node's.
        address: IpAddr,
    },
    /// The node's address, and a loopback address of the pod's own.
    Shared {
        /// The node's.
        address: IpAddr,
        /// Out of 127.0.0.0/8.
        loopback: IpAddr,
    },
    /// An address out of the podCIDR, and a loopback address.
    Own {
        /// Out of the podCIDR.
        address: IpAddr,
        /// Out of 127.0.0.0/8.
        loopback: IpAddr,
    },
}

impl Addresses {
    /// What others reach the pod at.
    pub(crate) fn address(&self) -> IpAddr {
        match *self {
            Self::Node { address } | Self::Shared { address, .. } | Self::Own { address, .. } => address,
        }
    }

    /// What `localhost` is to the pod's guests.
    pub(crate) fn loopback(&self) -> IpAddr {
        match *self {
            Self::Node { .. } => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::Shared { loopback, .. } | Self::Own { loopback, .. } => loopback,
        }
    }
}

/// Why a sandbox gets no address, or a podCIDR is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Pods wait for the podCIDR.
    #[error("{0}")]
    NotReady(String),
    /// The podCIDR cannot be used.
    #[error("podCIDR {text:?}")]
    PodCidr {
        /// As it was given.
        text: String,
        /// What is wrong with it.
        #[source]
        source: AddressError,
    },
    /// The podCIDR's route is not in place.
    #[error("podCIDR {network}")]
    Route {
        /// The podCIDR.
        network: Cidr,
        /// What went wrong.
        #[source]
        source: RouteError,
    },
}

/// The addresses of a node and its pods.
#[derive(Debug)]
pub(crate) struct Network {
    node: IpAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pods: Pods,
    /// Every address out of this or an earlier podCIDR that a sandbox still has.
    leased: BTreeSet<IpAddr>,
    loopbacks: Pool,
}

#[derive(Debug)]
enum Pods {
    Shared,
    Waiting { why: String },
    Routed(Pool),
}

impl Network {
    /// A network in which `held` are taken already, by sandboxes of an earlier process.
    pub(crate) fn new(node: IpAddr, mode: PodAddressMode, held: impl Iterator<Item = Addresses>) -> Self {
        let pods = match mode {
            PodAddressMode::Host => Pods::Shared,
            PodAddressMode::Auto if route::is_permitted() => {
                Pods::Waiting { why: "waiting for the podCIDR".to_owned() }
            }
            PodAddressMode::Auto => {
                tracing::warn!(
                    %node,
                    "no permission to add a route (CAP_NET_ADMIN): pods share the node's address and its ports"
                );
                Pods::Shared
            }
        };
        let mut state = State { pods, leased: BTreeSet::new(), loopbacks: Pool::loopback() };
        for addresses in held {
            if let Addresses::Own { address, .. } = addresses {
                state.leased.insert(address);
            }
            if !matches!(addresses, Addresses::Node { .. }) {
                if let Err(error) = state.loopbacks.claim(addresses.loopback()) {
                    tracing::debug!(%error, "a record's loopback address");
                }
            }
        }
        Self { node, state: Mutex::new(state) }
    }

    /// The node's own address.
    pub(crate) fn node(&self) -> IpAddr {
        self.node
    }

    /// Whether pods can have addresses, and why not.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        match &self.state().pods {
            Pods::Shared | Pods::Routed(_) => Ok(()),
            Pods::Waiting { why } => Err(why.clone()),
        }
    }

    /// Gives a sandbox its addresses.
    pub(crate) fn lease(&self, host_network: bool) -> Result<Addresses, LeaseError> {
        if host_network {
            return Ok(Addresses::Node { address: self.node });
        }
        let mut state = self.state();
        let own = match &mut state.pods {
            Pods::Shared => None,
            Pods::Waiting { why } => return Err(NetworkError::NotReady(why.clone()).into()),
            Pods::Routed(pool) => Some(pool.lease()?),
        };
        let loopback = state.loopbacks.lease()?;
        Ok(match own {
            None => Addresses::Shared { address: self.node, loopback },
            Some(address) => {
                state.leased.insert(address);
                Addresses::Own { address, loopback }
            }
        })
    }

    /// Takes a sandbox's addresses back.
    pub(crate) fn release(&self, addresses: Addresses) {
        let mut state = self.state();
        if let Addresses::Own { address, .. } = addresses {
            state.leased.remove(&address);
            if let Pods::Routed(pool) = &mut state.pods {
                pool.release(address);
            }
        }
        if !matches!(addresses, Addresses::Node { .. }) {
            state.loopbacks.release(addresses.loopback());
        }
    }

    /// Gives pods addresses out of `pod_cidr` from now on. Of several, separated by commas as Kubernetes writes a dual
    /// stack, the first is used. The one there is already, or an empty text, changes nothing.
    pub(crate) async fn set_pod_cidr(&self, pod_cidr: &str) -> Result<(), NetworkError> {
        let (first, others) = pod_cidr.split_once(',').unwrap_or((pod_cidr, ""));
        if first.trim().is_empty() {
            return Ok(());
        }
        let invalid = |source| NetworkError::PodCidr { text: pod_cidr.to_owned(), source };
        let network: Cidr = first.parse().map_err(invalid)?;
        let mut pool = Pool::new(network).map_err(invalid)?;
        let sample = pool.clone().lease().map_err(invalid)?;
        if !others.is_empty() {
            tracing::warn!(used = %network, ignored = others, "pods have one address: further podCIDRs are not used");
        }
        loop {
            let before = match &self.state().pods {
                Pods::Shared => return Ok(()),
                Pods::Waiting { .. } => None,
                Pods::Routed(pool) => Some(pool.network()),
            };
            if before == Some(network) {
                return Ok(());
            }
            if let Err(source) = route::add(network, sample).await {
                return self.without_route(network, source);
            }
            {
                let mut state = self.state();
                let now = match &state.pods {
                    Pods::Routed(pool) => Some(pool.network()),
                    Pods::Shared | Pods::Waiting { .. } => None,
                };
                // Somebody else changed it meanwhile: theirs is what has to be replaced now.
                if now != before {
                    continue;
                }
                for &address in &state.leased {
                    if network.contains(address) {
                        pool.claim(address).ok();
                    }
                }
                state.pods = Pods::Routed(pool);
            }
            tracing::info!(%network, "pods get their addresses from the podCIDR");
            if let Some(before) = before {
                if let Err(error) = route::remove(before).await {
                    tracing::warn!(%error, "the earlier podCIDR's route stays");
                }
            }
            return Ok(());
        }
    }

    /// A container may hold CAP_NET_ADMIN over a namespace whose routes it may not change all the same.
    fn without_route(&self, network: Cidr, source: RouteError) -> Result<(), NetworkError> {
        let mut state = self.state();
        if source.is_permission() && matches!(state.pods, Pods::Waiting { .. }) {
            tracing::warn!(%network, node = %self.node, error = %crate::service::error::chain(&source),
                "pods share the node's address and its ports");
            state.pods = Pods::Shared;
            return Ok(());
        }
        let error = NetworkError::Route { network, source };
        if let Pods::Waiting { why } = &mut state.pods {
            *why = crate::service::error::chain(&error);
        }
        Err(error)
    }

    /// Takes the route away, at a clean shutdown.
    pub(crate) async fn close(&self) {
        let network = match &self.state().pods {
            Pods::Routed(pool) => Some(pool.network()),
            Pods::Shared | Pods::Waiting { .. } => None,
        };
        if let Some(network) = network {
            if let Err(error) = route::remove(network).await {
                tracing::warn!(error = %crate::service::error::chain(&error), "the podCIDR's route stays");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why one sandbox has no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl From<LeaseError> for crate::service::error::ServiceError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Network(error) => Self::Network(error),
            LeaseError::Address(error) => Self::Address(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    #[test]
    fn in_host_mode_pods_share_all_but_loopback() {
        let network = Network::new(NODE, PodAddressMode::Host, std::iter::empty());
        let (a, b) = (network.lease(false).unwrap(), network.lease(false).unwrap());
        assert_eq!((a.address(), b.address()), (NODE, NODE));
        assert_ne!(a.loopback(), b.loopback());
        let on_host = network.lease(true).unwrap();
        assert_eq!(on_host.loopback().to_string(), "127.0.0.1");
        network.release(on_host);
        assert_eq!(network.readiness(), Ok(()));
    }

    #[test]
    fn what_a_record_holds_is_not_given_again() {
        let first = Network::new(NODE, PodAddressMode::Host, std::iter::empty()).lease(false).unwrap();
        let network = Network::new(NODE, PodAddressMode::Host, [first].into_iter());
        assert_ne!(network.lease(false).unwrap().loopback(), first.loopback());
    }

    #[tokio::test]
    async fn a_pod_cidr_is_awaited_then_used_and_leases_survive_in_it() {
        if !route::is_permitted() {
            return;
        }
        let held = Addresses::Own { address: "198.18.48.2".parse().unwrap(), loopback: "127.1.0.1".parse().unwrap() };
        let network = Network::new(NODE, PodAddressMode::Auto, [held].into_iter());
        assert!(network.readiness().unwrap_err().contains("podCIDR"));
        assert!(network.lease(false).is_err());
        assert!(network.lease(true).is_ok());

        assert!(network.set_pod_cidr("198.18.48.0").await.is_err());
        network.set_pod_cidr("198.18.48.0/29,fd00:48::/64").await.unwrap();
        assert_eq!(network.readiness(), Ok(()));
        assert_eq!(network.lease(false).unwrap().address().to_string(), "198.18.48.3");

        network.set_pod_cidr("198.18.49.0/29").await.unwrap();
        assert_eq!(network.lease(false).unwrap().address().to_string(), "198.18.49.2");
        assert!(std::net::UdpSocket::bind("198.18.48.2:0").is_err(), "the old route is still there");
        network.close().await;
        assert!(std::net::UdpSocket::bind("198.18.49.2:0").is_err(), "the route is still there");
    }
}
