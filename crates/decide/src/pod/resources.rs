//! Amounts, and what the containers of a pod come to together.
//!
//! Containers that must end before others begin do not take up anything together with those: the most counts. A sidecar
//! counts with all that comes after it. Ephemeral containers have no amounts.

use super::{Container, Pod, Role};

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
        self.together(|container| container.requests).plus(self.overhead)
    }

    /// The memory, in bytes, that the pod's containers may use at the most at one time; none if one of them is not limited.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        let mut limited = self.init_containers.iter().chain(&self.containers);
        let all = limited.all(|container| container.limits.memory_bytes.is_some());
        all.then(|| self.together(|container| container.limits).memory_bytes).flatten()
    }

    fn together(&self, amounts: impl Fn(&Container) -> Resources) -> Resources {
        let (mut most, mut sidecars) = (Resources::default(), Resources::default());
        for container in &self.init_containers {
            let with_sidecars = sidecars.plus(amounts(container));
            most = most.at_least(with_sidecars);
            if container.role == Role::Sidecar {
                sidecars = with_sidecars;
            }
        }
        most.at_least(self.containers.iter().map(amounts).fold(sidecars, Resources::plus))
    }
}
