//! `wasi:keyvalue`: `store`, `atomics` and `batch` over a guest's buckets, as the first draft has them; the second is in
//! [`draft2`].

pub(super) mod draft2;

use wasmtime::component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource};

use super::Host;
use super::buckets::{NotOpened, Pair, Store, add_resource, with};
use crate::keyvalue::{Bucket, BucketError};

const STORE: &str = "wasi:keyvalue/store@0.2.0-draft";
const ATOMICS: &str = "wasi:keyvalue/atomics@0.2.0-draft";
const BATCH: &str = "wasi:keyvalue/batch@0.2.0-draft";
/// Keys that one call lists.
const PAGE: usize = 1000;
/// What one call gets, in bytes of values.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct KeyResponse {
    keys: Vec<String>,
    cursor: Option<u64>,
}

impl From<NotOpened> for Error {
    fn from(why: NotOpened) -> Self {
        match why {
            NotOpened::Missing => Self::NoSuchStore,
            NotOpened::Denied => Self::AccessDenied,
        }
    }
}

impl From<BucketError> for Error {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::ReadOnly => Self::AccessDenied,
            other => Self::Other(other.to_string()),
        }
    }
}

/// A key, and its value if it has one.
type Found = (String, Option<Vec<u8>>);

/// Gives components the interfaces.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut store = linker.instance(STORE)?;
    add_resource::<Error>(&mut store, "bucket", "open")?;
    store.func_wrap_async(
        "[method]bucket.list-keys",
        |mut store: Store<'_>, (bucket, cursor): (Resource<Bucket>, Option<u64>)| {
            let keys = move |bucket: &Bucket| Ok(page(bucket.keys()?, cursor));
            Box::new(async move { with::<_, Error>(&mut store, &bucket, keys).await })
        },
    )?;
    linker.instance(ATOMICS)?.func_wrap_async(
        "increment",
        |mut store: Store<'_>, (bucket, key, delta): (Resource<Bucket>, String, u64)| {
            let add = move |old: u64| old.checked_add(delta);
            Box::new(async move { with::<_, Error>(&mut store, &bucket, move |bucket| bucket.change(&key, add)).await })
        },
    )?;
    let mut batch = linker.instance(BATCH)?;
    batch.func_wrap_async("get-many", |mut store: Store<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        let pairs = move |bucket: &Bucket| {
            let pair = |(key, value): Found| value.map(|value| (key, value));
            Ok(many(bucket, keys)?.into_iter().map(pair).collect::<Vec<Option<Pair>>>())
        };
        Box::new(async move { with::<_, Error>(&mut store, &bucket, pairs).await })
    })?;
    add_writes(&mut batch)
}

/// What both drafts have of `batch` for writing.
fn add_writes(batch: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    batch.func_wrap_async("set-many", |mut store: Store<'_>, (bucket, pairs): (Resource<Bucket>, Vec<Pair>)| {
        let set = move |bucket: &Bucket| pairs.iter().try_for_each(|(key, value)| bucket.set(key, value));
        Box::new(async move { with::<_, Error>(&mut store, &bucket, set).await })
    })?;
    batch.func_wrap_async("delete-many", |mut store: Store<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        let delete = move |bucket: &Bucket| keys.iter().try_for_each(|key| bucket.delete(key));
        Box::new(async move { with::<_, Error>(&mut store, &bucket, delete).await })
    })
}

/// The values of keys, each with its key.
fn many(bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Found>, BucketError> {
    let mut left = BATCH_BYTES;
    let value = |key: String| {
        let value = bucket.get(&key)?;
        let bytes = value.as_ref().map_or(0, Vec::len);
        left = left.checked_sub(bytes).ok_or(BucketError::Batch { limit_bytes: BATCH_BYTES })?;
        Ok((key, value))
    };
    keys.into_iter().map(value).collect()
}

/// The keys from the cursor on, and where the next page begins.
fn page(mut keys: Vec<String>, cursor: Option<u64>) -> KeyResponse {
    let from = usize::try_from(cursor.unwrap_or(0)).unwrap_or(usize::MAX).min(keys.len());
    let mut keys = keys.split_off(from);
    let more = keys.len() > PAGE;
    keys.truncate(PAGE);
    KeyResponse { keys, cursor: more.then_some((from + PAGE) as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_pages_and_a_cursor_beyond_the_last_is_harmless() {
        let keys: Vec<_> = (0..PAGE + 5).map(|number| format!("{number:05}")).collect();
        let first = page(keys.clone(), None);
        assert_eq!((first.keys.len(), first.cursor), (PAGE, Some(PAGE as u64)));
        let last = page(keys.clone(), first.cursor);
        assert_eq!((last.keys.as_slice(), last.cursor), (&keys[PAGE..], None));
        for cursor in [Some(PAGE as u64 + 5), Some(u64::MAX)] {
            assert!(page(keys.clone(), cursor).keys.is_empty());
        }
    }
}
