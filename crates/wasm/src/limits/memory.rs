//! The memory limit. A store's wish to grow comes in, leave or a [`MemoryLimitReached`] error goes out.
//!
//! All stores of one guest draw on one [`Memory`]. What counts is what the guest declares (linear memories and
//! tables), not what it has touched. A store gives back what it holds when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use wasmtime::ResourceLimiter;

/// What one table element costs the host.
const TABLE_ELEMENT_BYTES: u64 = 8;
/// Core instances, memories and tables one store may have: far more than any real component, far less than would hurt.
const OBJECTS_PER_STORE: usize = 1_000;

/// A guest wanted more memory than its limit. Carried through Wasmtime, so that the end needs no guessing.
#[derive(Debug, Error)]
#[error("memory limit of {limit_bytes} bytes reached")]
pub(crate) struct MemoryLimitReached {
    pub(crate) limit_bytes: u64,
}

/// The limit is reached only because of other instances of the same guest; alone this one would have had room.
#[derive(Debug, Error)]
#[error("memory limit of {limit_bytes} bytes reached by concurrent requests together")]
pub(crate) struct MemoryShared {
    pub(crate) limit_bytes: u64,
}

/// A new limit below what the guest holds already.
#[derive(Debug, Error)]
#[error("memory limit ({limit_bytes}) below current usage ({used_bytes})")]
pub struct MemoryInUse {
    /// What it holds.
    pub used_bytes: u64,
    /// What it was to hold at most.
    pub limit_bytes: u64,
}

/// No limit.
const UNLIMITED: u64 = u64::MAX;

/// What the stores of one guest hold together.
#[derive(Debug)]
pub(crate) struct Memory {
    /// In bytes.
    limit: AtomicU64,
    used: AtomicU64,
}

impl Memory {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit: AtomicU64::new(limit.unwrap_or(UNLIMITED)), used: AtomicU64::new(0) }
    }

    /// From now on this is the limit, unless the guest holds more than that: no memory is taken from a guest.
    pub(crate) fn set_limit(&self, limit: Option<u64>) -> Result<(), MemoryInUse> {
        let limit_bytes = limit.unwrap_or(UNLIMITED);
        let before = self.limit.swap(limit_bytes, Ordering::Relaxed);
        // Looked at afterwards, so that nothing grows past the new limit in between.
        let used_bytes = self.used();
        if used_bytes > limit_bytes {
            self.limit.store(before, Ordering::Relaxed);
            return Err(MemoryInUse { used_bytes, limit_bytes });
        }
        Ok(())
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one store holds; its limiter.
#[derive(Debug)]
pub(crate) struct StoreMemory {
    memory: Arc<Memory>,
    held: u64,
}

impl StoreMemory {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, held: 0 }
    }

    fn grow(&mut self, bytes: u64) -> wasmtime::Result<()> {
        let limit = self.memory.limit.load(Ordering::Relaxed);
        let held = self.held.saturating_add(bytes);
        if held > limit {
            return Err(MemoryLimitReached { limit_bytes: limit }.into());
        }
        let reserve = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        if self.memory.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_err() {
            return Err(MemoryShared { limit_bytes: limit }.into());
        }
        self.held = held;
        Ok(())
    }

    fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Beyond its own declared maximum a memory cannot grow, whatever we say: the guest is to see that as the plain
    /// failure it is, not as our limit.
    fn resize(&mut self, current: usize, desired: usize, maximum: Option<usize>, unit: u64) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current) as u64;
        self.grow(more.saturating_mul(unit))?;
        Ok(true)
    }
}

impl ResourceLimiter for StoreMemory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.resize(current, desired, maximum, 1)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.resize(current, desired, maximum, TABLE_ELEMENT_BYTES)
    }

    fn instances(&self) -> usize {
        OBJECTS_PER_STORE
    }

    fn tables(&self) -> usize {
        OBJECTS_PER_STORE
    }

    fn memories(&self) -> usize {
        OBJECTS_PER_STORE
    }
}

impl Drop for StoreMemory {
    fn drop(&mut self) {
        self.shrink(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 65_536;

    fn store(memory: &Arc<Memory>) -> StoreMemory {
        StoreMemory::new(Arc::clone(memory))
    }

    #[test]
    fn the_sum_of_all_memories_is_limited() {
        let memory = Arc::new(Memory::new(Some(3 * PAGE as u64)));
        let mut store = store(&memory);
        assert!(store.memory_growing(0, 2 * PAGE, None).unwrap());
        assert!(store.memory_growing(0, PAGE, None).unwrap());
        let error = store.memory_growing(PAGE, 2 * PAGE, None).unwrap_err();
        assert!(error.is::<MemoryLimitReached>(), "{error:#}");
        assert_eq!(memory.used(), 3 * PAGE as u64);
    }

    #[test]
    fn a_dropped_store_gives_back_what_it_held() {
        let memory = Arc::new(Memory::new(None));
        let mut one = store(&memory);
        one.memory_growing(0, PAGE, None).unwrap();
        one.table_growing(0, 10, None).unwrap();
        assert_eq!(memory.used(), PAGE as u64 + 80);
        drop(one);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn one_of_many_instances_is_told_that_it_is_not_alone() {
        let memory = Arc::new(Memory::new(Some(2 * PAGE as u64)));
        let (mut one, mut other) = (store(&memory), store(&memory));
        one.memory_growing(0, PAGE, None).unwrap();
        other.memory_growing(0, PAGE, None).unwrap();
        assert!(other.memory_growing(PAGE, 2 * PAGE, None).unwrap_err().is::<MemoryShared>());
        drop(one);
        assert!(other.memory_growing(PAGE, 2 * PAGE, None).unwrap());
    }

    #[test]
    fn a_limit_changes_both_ways_but_not_below_what_is_held() {
        let memory = Arc::new(Memory::new(Some(2 * PAGE as u64)));
        let mut store = store(&memory);
        assert!(store.memory_growing(0, 2 * PAGE, None).unwrap());
        let refused = memory.set_limit(Some(PAGE as u64)).unwrap_err();
        assert_eq!((refused.used_bytes, refused.limit_bytes), (2 * PAGE as u64, PAGE as u64));
        assert!(store.memory_growing(2 * PAGE, 3 * PAGE, None).is_err(), "the old limit stays");
        memory.set_limit(Some(3 * PAGE as u64)).unwrap();
        assert!(store.memory_growing(2 * PAGE, 3 * PAGE, None).unwrap());
        memory.set_limit(None).unwrap();
        assert!(store.memory_growing(3 * PAGE, 9 * PAGE, None).unwrap());
    }

    #[test]
    fn a_memory_at_its_own_maximum_is_no_case_for_the_limit() {
        let memory = Arc::new(Memory::new(Some(PAGE as u64)));
        assert!(!store(&memory).memory_growing(0, 5 * PAGE, Some(PAGE)).unwrap());
    }
}
