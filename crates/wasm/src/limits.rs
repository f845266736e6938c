//! What a guest may use, and what it has used. Limits come in, a [`Metering`] goes out that every task and every
//! store of the guest shares; nothing here decides what happens to a guest that went too far.

pub(crate) mod cpu;
pub(crate) mod epoch;
pub(crate) mod memory;
pub(crate) mod turns;

use std::sync::Arc;
use std::time::Duration;

use cpu::Cpu;
use epoch::Ticker;
use memory::Memory;
use turns::Turns;

pub(crate) use cpu::{Metered, PollCount, yield_at_ticks};
pub use memory::MemoryInUse;
pub(crate) use memory::{MemoryLimitReached, MemoryShared, StoreMemory};

/// Limits of one guest; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory and tables, over all instances of the guest.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU: 250 is a quarter of one. At least 1.
    pub cpu_millis: Option<u32>,
    /// What the guest has of the CPU where others compete with it, beside theirs; `None` is 1024.
    pub cpu_shares: Option<u32>,
}

/// What one guest uses, counted over all its tasks and stores.
pub(crate) struct Metering {
    cpu: Cpu,
    memory: Arc<Memory>,
    ticker: Arc<Ticker>,
    turns: Arc<Turns>,
}

impl Metering {
    pub(crate) fn new(limits: &Limits, ticker: Arc<Ticker>, turns: Arc<Turns>) -> Self {
        let cpu = Cpu::new(limits.cpu_millis, limits.cpu_shares);
        Self { cpu, memory: Arc::new(Memory::new(limits.memory_bytes)), ticker, turns }
    }

    /// From now on these are the limits.
    ///
    /// # Errors
    /// The guest holds more memory than that. Then all limits stay as they were.
    pub(crate) fn set_limits(&self, limits: &Limits) -> Result<(), MemoryInUse> {
        self.memory.set_limit(limits.memory_bytes)?;
        self.cpu.set_limit(limits.cpu_millis);
        self.cpu.share().set(limits.cpu_shares);
        Ok(())
    }

    /// Resolves when the guest may be polled, as far as its CPU limit goes: at once unless it has used that up.
    pub(crate) async fn may_run(&self) {
        self.cpu.may_run().await;
    }

    pub(crate) fn cpu_used(&self) -> Duration {
        self.cpu.used()
    }

    /// Bytes held now.
    pub(crate) fn memory_used(&self) -> u64 {
        self.memory.used()
    }

    /// The limiter of one more store of this guest.
    pub(crate) fn store_memory(&self) -> StoreMemory {
        StoreMemory::new(Arc::clone(&self.memory))
    }
}
