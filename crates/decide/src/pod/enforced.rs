//! What a runtime holds a container to, in the kernel's words that CRI uses (`LinuxContainerResources`).
//!
//! The same arithmetic makes it of a spec and reads it from a runtime, so that the two can be compared.

use super::Resources;

/// CPU time is dealt out per this period, as the kubelet's `cpuCFSQuotaPeriod` says by default; in microseconds.
pub const CPU_PERIOD_MICROS: u64 = 100_000;
/// The kernel's shares of one CPU, in which CRI counts requests.
const SHARES_PER_CPU: u64 = 1024;
/// The kernel takes no fewer.
const FEWEST_SHARES: u64 = 2;

/// What a runtime holds a container to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// CPU time per [`CPU_PERIOD_MICROS`], in microseconds; absent: no limit.
    pub cpu_quota_micros: Option<u64>,
    /// Weight against others, 1024 for each CPU requested.
    pub cpu_shares: u64,
    /// Memory in bytes; absent: no limit.
    pub memory_limit_bytes: Option<u64>,
}

impl Enforced {
    /// What a container of these amounts is to be held to.
    #[must_use]
    pub fn of(requests: &Resources, limits: &Resources) -> Self {
        let requested = requests.cpu_millis.or(limits.cpu_millis).unwrap_or(0);
        let some = |amount: Option<u64>| amount.filter(|amount| *amount > 0);
        Enforced {
            cpu_quota_micros: some(limits.cpu_millis).map(|millis| millis.saturating_mul(CPU_PERIOD_MICROS / 1000)),
            cpu_shares: (requested.saturating_mul(SHARES_PER_CPU) / 1000).max(FEWEST_SHARES),
            memory_limit_bytes: some(limits.memory_bytes),
        }
    }

    /// The CPU limit in thousandths of a core.
    #[must_use]
    pub fn cpu_limit_millis(&self) -> Option<u64> {
        self.cpu_quota_micros.map(|micros| micros.saturating_mul(1000) / CPU_PERIOD_MICROS)
    }

    /// The CPU request in thousandths of a core, as exact as shares are.
    #[must_use]
    pub fn cpu_request_millis(&self) -> u64 {
        self.cpu_shares.saturating_mul(1000).div_ceil(SHARES_PER_CPU)
    }
}

#[cfg(test)]
mod tests {
    use super::{Enforced, Resources};

    #[test]
    fn limits_become_quota_and_requests_become_shares() {
        let of = |cpu, memory| Resources { cpu_millis: cpu, memory_bytes: memory, ephemeral_storage_bytes: None };
        let enforced = Enforced::of(&of(Some(250), None), &of(Some(500), Some(64 << 20)));
        assert_eq!((enforced.cpu_quota_micros, enforced.cpu_shares), (Some(50_000), 256));
        assert_eq!((enforced.cpu_limit_millis(), enforced.cpu_request_millis()), (Some(500), 250));
        assert_eq!(enforced.memory_limit_bytes, Some(64 << 20));
        let unlimited = Enforced::of(&of(None, None), &of(Some(0), Some(0)));
        assert_eq!(unlimited, Enforced { cpu_quota_micros: None, cpu_shares: 2, memory_limit_bytes: None });
    }
}
