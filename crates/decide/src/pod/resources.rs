//! Amounts, and what the containers of a pod come to together.
//!
//! Containers that must end before others begin do not take up anything together with those: the most counts. A sidecar
//! counts with all that comes after it. Ephemeral containers have no amounts.

use super::{Container, Pod, Role};
use std::collections::BTreeMap;

/// Amounts of what a node has to give; absent means unlimited (limits) or nothing asked (requests).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Local storage in bytes.
    pub ephemeral_storage_bytes: Option<u64>,
}

impl Resources {
    /// Both together; what is absent in one counts as nothing.
    #[must_use]
    pub fn plus(self, other: Resources) -> Resources {
        self.each(other, u64::saturating_add)
    }

    /// The greater of each; what is absent in one counts as nothing.
    #[must_use]
    pub fn at_least(self, other: Resources) -> Resources {
        self.each(other, u64::max)
    }

    fn each(self, other: Resources, of: fn(u64, u64) -> u64) -> Resources {
        let of = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(of(a.unwrap_or(0), b.unwrap_or(0))),
        };
        Resources {
            cpu_millis: of(self.cpu_millis, other.cpu_millis),
            memory_bytes: of(self.memory_bytes, other.memory_bytes),
            ephemeral_storage_bytes: of(self.ephemeral_storage_bytes, other.ephemeral_storage_bytes),
        }
    }
}

impl Pod {
    /// What the pod asks for at the most at one time, with its overhead: what admission counts.
    #[must_use]
    pub fn requests(&self) -> Resources {
        let requests = self.together(|container| container.requests, Resources::plus, Resources::at_least);
        requests.plus(self.overhead)
    }

    /// What the pod asks for of extended resources at the most at one time, by their names.
    #[must_use]
    pub fn extended_requests(&self) -> BTreeMap<String, u64> {
        let containers = self.init_containers.iter().chain(&self.containers);
        let names = containers.flat_map(|container| container.extended.keys());
        names.map(|name| (name.clone(), self.request(name))).collect()
    }

    /// What the pod asks for of one resource, by its Kubernetes name: thousandths of `cpu`, and whole units of all others.
    /// Of `pods` it is one.
    #[must_use]
    pub fn request(&self, resource: &str) -> u64 {
        let of_node = match resource {
            "pods" => Some(1),
            "cpu" => self.requests().cpu_millis,
            "memory" => self.requests().memory_bytes,
            "ephemeral-storage" => self.requests().ephemeral_storage_bytes,
            extended => {
                let amount = |container: &Container| container.extended.get(extended).copied().unwrap_or(0);
                Some(self.together(amount, u64::saturating_add, u64::max))
            }
        };
        of_node.unwrap_or(0)
    }

    /// The memory, in bytes, that the pod's containers may use at the most at one time; none if one of them is not limited.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        let mut limited = self.init_containers.iter().chain(&self.containers);
        let all = limited.all(|container| container.limits.memory_bytes.is_some());
        let limits = || self.together(|container| container.limits, Resources::plus, Resources::at_least);
        all.then(|| limits().memory_bytes).flatten()
    }

    fn together<T: Copy + Default>(
        &self,
        amounts: impl Fn(&Container) -> T,
        plus: fn(T, T) -> T,
        at_least: fn(T, T) -> T,
    ) -> T {
        let (mut most, mut sidecars) = (T::default(), T::default());
        for container in &self.init_containers {
            let with_sidecars = plus(sidecars, amounts(container));
            most = at_least(most, with_sidecars);
            if container.role == Role::Sidecar {
                sidecars = with_sidecars;
            }
        }
        at_least(most, self.containers.iter().map(amounts).fold(sidecars, plus))
    }
}
