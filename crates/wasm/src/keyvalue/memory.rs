//! The pairs of a pod, in memory: shared by its containers, counted, and gone with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::BucketError;

/// What all pairs of a pod may take together, in bytes of keys and values.
const POD_BYTES: usize = 16 * 1024 * 1024;

/// The pairs that a pod's containers share, of at most 16 MiB together. Clones are the same pairs.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pairs: Mutex<Pairs>,
    /// Held over a value's reading and writing.
    adding: Mutex<()>,
}

#[derive(Debug, Default)]
struct Pairs {
    values: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Memory {
    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.pairs().values.get(key).cloned()
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), BucketError> {
        let mut pairs = self.pairs();
        let old = pairs.values.get(key).map_or(0, |old| key.len() + old.len());
        let bytes = pairs.bytes - old + key.len() + value.len();
        if bytes > POD_BYTES {
            return Err(BucketError::Full { limit_bytes: POD_BYTES });
        }
        pairs.bytes = bytes;
        pairs.values.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    pub(super) fn delete(&self, key: &str) {
        let mut pairs = self.pairs();
        if let Some(old) = pairs.values.remove(key) {
            pairs.bytes -= key.len() + old.len();
        }
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.pairs().values.keys().cloned().collect()
    }

    /// As long as this is held, nobody else adds.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.0.adding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pairs(&self) -> MutexGuard<'_, Pairs> {
        self.0.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pairs_of_a_pod_are_counted_as_they_come_and_go() {
        let memory = Memory::default();
        let megabyte = vec![0; 1024 * 1024];
        let keys: Vec<_> = (0..16).map(|number| number.to_string()).collect();
        assert!(keys.iter().take(15).all(|key| memory.set(key, &megabyte).is_ok()));
        assert!(matches!(memory.set("15", &megabyte), Err(BucketError::Full { .. })));
        memory.set("0", b"small").unwrap();
        memory.set("15", &megabyte).unwrap();
        keys.iter().for_each(|key| memory.delete(key));
        assert_eq!(memory.pairs().bytes, 0);
    }
}
