//! The environment of a container: what its `env` and `envFrom` name is gathered, and the pure core makes it up.
//!
//! Comes in: the pod, the container, its addresses. Goes out: variables, command and arguments; or why not, in the
//! kubelet's words. Never here: what wins over what; [`decide::env`] knows.

use std::net::IpAddr;

use decide::env::field::Facts;
use decide::event::Failure;
use decide::pod::{Container, Pod, Resources};

pub use decide::env::ContainerEnvironment;

use crate::objects::{self, ObjectError, Objects};

/// Where a pod is.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// The pod's addresses, the primary one first.
    pub pod_ips: Vec<IpAddr>,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<IpAddr>,
}

/// The environment that a container of the pod is created with. `allocatable` stands in for limits that are not set.
///
/// # Errors
/// `CreateContainerConfigError`: something that is not optional is missing, or the API server does not answer.
pub async fn container_environment(
    objects: &Objects,
    pod: &Pod,
    container: &Container,
    addresses: &Addresses,
    allocatable: &Resources,
) -> Result<ContainerEnvironment, Failure> {
    let not_had = |error: ObjectError| Failure::new("CreateContainerConfigError", error.message());
    let references: Vec<_> = objects::of_environment(container).collect();
    let configs = objects.configs(&pod.name.namespace, &references).await.map_err(not_had)?;
    let services = objects.services().await.map_err(not_had)?;
    let facts = Facts { pod_ips: &addresses.pod_ips, host_ips: &addresses.host_ips, allocatable };
    Ok(decide::env::environment(pod, container, &facts, &configs, &services)?)
}
