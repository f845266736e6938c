//! Key-value buckets: keys and values come in, and come back, for every container of a pod.
//!
//! A bucket is the pod's own, in memory and gone with it, or a volume, where each pair is a file. Never here: which
//! buckets a guest may open, and WASI's words for them.

mod files;
mod memory;

use std::io;
use std::str::FromStr;
use std::sync::MutexGuard;

use thiserror::Error;

pub(crate) use files::Files;
pub use memory::Memory;

/// The longest key, in bytes.
const KEY_BYTES: usize = 1024;
/// The longest value, in bytes.
const VALUE_BYTES: usize = 1024 * 1024;

/// Why a bucket did not do what it was asked for.
#[derive(Debug, Error)]
pub(crate) enum BucketError {
    /// The bucket is read-only.
    #[error("the bucket is read-only")]
    ReadOnly,
    /// No key can be like this.
    #[error("a key has between 1 and {KEY_BYTES} bytes, and in a volume fits a file name")]
    Key,
    /// The value is longer than any may be.
    #[error("a value has at most {VALUE_BYTES} bytes")]
    Value,
    /// The pod's memory for pairs is used up.
    #[error("the pod's pairs may take {limit_bytes} bytes together")]
    Full {
        /// What they may take.
        limit_bytes: usize,
    },
    /// More is asked for than one call gives.
    #[error("one call gets values of at most {limit_bytes} bytes together")]
    Batch {
        /// What it gets.
        limit_bytes: usize,
    },
    /// What is to be counted up is no number, or would be too large.
    #[error("the value is no decimal number, or the sum is beyond 64 bits")]
    Number,
    /// The volume failed.
    #[error("the volume: {0}")]
    Volume(#[source] io::Error),
}

/// What a guest has opened.
#[derive(Debug, Clone)]
pub(crate) enum Bucket {
    /// The pod's own.
    Pod(Memory),
    /// A volume's.
    Volume(Files),
}

impl Bucket {
    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, BucketError> {
        match self {
            Self::Pod(memory) => Ok(memory.get(key)),
            Self::Volume(files) => files.get(key),
        }
    }

    pub(crate) fn set(&self, key: &str, value: &[u8]) -> Result<(), BucketError> {
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(BucketError::Key);
        }
        if value.len() > VALUE_BYTES {
            return Err(BucketError::Value);
        }
        match self {
            Self::Pod(memory) => memory.set(key, value),
            Self::Volume(files) => files.set(key, value),
        }
    }

    pub(crate) fn delete(&self, key: &str) -> Result<(), BucketError> {
        match self {
            Self::Pod(memory) => {
                memory.delete(key);
                Ok(())
            }
            Self::Volume(files) => files.delete(key),
        }
    }

    /// In their order.
    pub(crate) fn keys(&self) -> Result<Vec<String>, BucketError> {
        match self {
            Self::Pod(memory) => Ok(memory.keys()),
            Self::Volume(files) => files.keys(),
        }
    }

    /// Makes another number of a value, which is a decimal one; none is 0. No other such change comes in between, in this
    /// node's pods.
    pub(crate) fn change<N>(&self, key: &str, change: impl FnOnce(N) -> Option<N>) -> Result<N, BucketError>
    where
        N: Default + FromStr + ToString,
    {
        let _alone = self.alone();
        let old = match self.get(key)? {
            None => N::default(),
            Some(value) => {
                std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).ok_or(BucketError::Number)?
            }
        };
        let new = change(old).ok_or(BucketError::Number)?;
        self.set(key, new.to_string().as_bytes())?;
        Ok(new)
    }

    /// Sets a value if it is what it was seen to be, and says whether it was. No other change of a number or such exchange
    /// comes in between, in this node's pods; a plain `set` may.
    pub(crate) fn exchange(&self, key: &str, seen: Option<&[u8]>, value: &[u8]) -> Result<bool, BucketError> {
        let _alone = self.alone();
        if self.get(key)?.as_deref() != seen {
            return Ok(false);
        }
        self.set(key, value).map(|()| true)
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        match self {
            Self::Pod(memory) => memory.alone(),
            Self::Volume(_) => Files::alone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, and what they stand on.
    fn buckets() -> (tempfile::TempDir, [Bucket; 2]) {
        let volume = tempfile::tempdir().unwrap();
        let files = Files::new(volume.path().to_owned(), false);
        (volume, [Bucket::Pod(Memory::default()), Bucket::Volume(files)])
    }

    #[test]
    fn what_is_set_comes_back_until_it_is_deleted() {
        let (_volume, buckets) = buckets();
        for bucket in buckets {
            assert_eq!(bucket.get("a").unwrap(), None);
            for key in ["a", "../a", "a/b", ".hidden", "with space %", "app.properties", "ä"] {
                bucket.set(key, key.as_bytes()).unwrap();
                assert_eq!(bucket.get(key).unwrap().as_deref(), Some(key.as_bytes()), "{bucket:?} {key}");
            }
            bucket.set("a", b"again").unwrap();
            assert_eq!(bucket.get("a").unwrap().as_deref(), Some(&b"again"[..]));
            let mut keys = bucket.keys().unwrap();
            assert!(keys.is_sorted(), "{keys:?}");
            assert_eq!(keys.len(), 7, "{keys:?}");
            bucket.delete("a").unwrap();
            bucket.delete("a").unwrap();
            keys.retain(|key| key != "a");
            assert_eq!(bucket.keys().unwrap(), keys);
        }
    }

    #[test]
    fn sums_miss_nothing_that_others_add() {
        let (_volume, buckets) = buckets();
        for bucket in buckets {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..25).for_each(|_| assert!(add(&bucket, "hits", 2).is_ok())));
                }
            });
            assert_eq!(bucket.get("hits").unwrap().as_deref(), Some(&b"200"[..]));
            bucket.set("word", b"many").unwrap();
            assert!(matches!(add(&bucket, "word", 1), Err(BucketError::Number)));
            bucket.set("most", u64::MAX.to_string().as_bytes()).unwrap();
            assert!(matches!(add(&bucket, "most", 1), Err(BucketError::Number)));
        }
    }

    fn add(bucket: &Bucket, key: &str, delta: u64) -> Result<u64, BucketError> {
        bucket.change(key, |old: u64| old.checked_add(delta))
    }

    #[test]
    fn a_value_is_exchanged_only_for_what_was_seen() {
        let (_volume, buckets) = buckets();
        for bucket in buckets {
            assert!(bucket.exchange("a", None, b"1").unwrap());
            assert!(!bucket.exchange("a", None, b"2").unwrap());
            assert!(bucket.exchange("a", Some(b"1"), b"2").unwrap());
            assert_eq!(bucket.get("a").unwrap().as_deref(), Some(&b"2"[..]));
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let (_volume, buckets) = buckets();
        for bucket in buckets {
            assert!(matches!(bucket.set("", b""), Err(BucketError::Key)));
            assert!(matches!(bucket.set(&"k".repeat(KEY_BYTES + 1), b""), Err(BucketError::Key)));
            assert!(matches!(bucket.set("k", &vec![0; VALUE_BYTES + 1]), Err(BucketError::Value)));
        }
    }
}
