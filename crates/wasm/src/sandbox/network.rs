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
use crate::route::{self, Remembered, RouteError};
use crate::service::error::{ServiceError, chain};

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
    remembered: Remembered,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pods: Pods,
    /// The podCIDR of a runtime that was killed, whose route is still there.
    leftover: Option<Cidr>,
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
    pub(crate) fn new(
        node: IpAddr,
        mode: PodAddressMode,
        remembered: Remembered,
        held: impl Iterator<Item = Addresses>,
    ) -> Self {
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
        let mut state =
            State { pods, leftover: remembered.read(), leased: BTreeSet::new(), loopbacks: Pool::loopback() };
        for addresses in held {
            if let Addresses::Own { address, .. } = addresses {
                state.leased.insert(address);
            }
            if !matches!(addresses, Addresses::Node { .. })
                && let Err(error) = state.loopbacks.claim(addresses.loopback())
            {
                tracing::debug!(%error, "a record's loopback address");
            }
        }
        Self { node, remembered, state: Mutex::new(state) }
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
                Pods::Routed(pool) if pool.network() == network => return Ok(()),
                Pods::Routed(pool) => Some(pool.network()),
            };
            if let Err(source) = route::add(network, sample).await {
                return self.without_route(network, source);
            }
            let leftover = {
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
                state.leftover.take()
            };
            tracing::info!(%network, "pods get their addresses from the podCIDR");
            self.remembered.write(Some(network));
            for earlier in before.into_iter().chain(leftover).filter(|earlier| *earlier != network) {
                remove_route(earlier).await;
            }
            return Ok(());
        }
    }

    /// A container may hold CAP_NET_ADMIN over a namespace whose routes it may not change all the same.
    fn without_route(&self, network: Cidr, source: RouteError) -> Result<(), NetworkError> {
        let mut state = self.state();
        if source.is_permission() && matches!(state.pods, Pods::Waiting { .. }) {
            tracing::warn!(%network, node = %self.node, error = %chain(&source),
                "pods share the node's address and its ports");
            state.pods = Pods::Shared;
            return Ok(());
        }
        let error = NetworkError::Route { network, source };
        if let Pods::Waiting { why } = &mut state.pods {
            *why = chain(&error);
        }
        Err(error)
    }

    /// Takes away the route that a killed runtime has left, unless it may be needed again.
    pub(crate) async fn tidy(&self) {
        let leftover = {
            let mut state = self.state();
            if matches!(state.pods, Pods::Shared) { state.leftover.take() } else { None }
        };
        if let Some(network) = leftover {
            remove_route(network).await;
            self.remembered.write(None);
        }
    }

    /// Takes the route away, at a clean shutdown.
    pub(crate) async fn close(&self) {
        let network = match &self.state().pods {
            Pods::Routed(pool) => Some(pool.network()),
            Pods::Shared | Pods::Waiting { .. } => None,
        };
        if let Some(network) = network {
            remove_route(network).await;
            self.remembered.write(None);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn remove_route(network: Cidr) {
    if let Err(error) = route::remove(network).await {
        tracing::warn!(error = %chain(&error), "the route of an earlier podCIDR stays");
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

impl From<LeaseError> for ServiceError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Network(error) => Self::Network(error),
            LeaseError::Address(error) => Self::Address(error),
        }
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
