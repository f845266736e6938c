//! `wasi:keyvalue`: `store`, `atomics` and `batch` over the pod's buckets.
//!
//! A guest opens the pod's own bucket as `""` or `default`, and a volume by the path at which it is mounted. It is told
//! that there is no other. Never here: how pairs are kept.

use std::path::Path;

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};
use wasmtime_wasi::WasiView;

use super::Host;
use crate::keyvalue::{Bucket, BucketError, Files};

const STORE: &str = "wasi:keyvalue/store@0.2.0-draft";
const ATOMICS: &str = "wasi:keyvalue/atomics@0.2.0-draft";
const BATCH: &str = "wasi:keyvalue/batch@0.2.0-draft";
/// The names of the pod's own bucket.
const OF_THE_POD: [&str; 2] = ["", "default"];
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

impl From<BucketError> for Error {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::ReadOnly => Self::AccessDenied,
            other => Self::Other(other.to_string()),
        }
    }
}

type Store<'a> = StoreContextMut<'a, Host>;
type Pair = (String, Vec<u8>);

/// Gives components the interfaces.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    add_store(linker)?;
    linker.instance(ATOMICS)?.func_wrap_async(
        "increment",
        |mut store: Store<'_>, (bucket, key, delta): (Resource<Bucket>, String, u64)| {
            Box::new(async move { with(&mut store, &bucket, move |bucket| bucket.increment(&key, delta)).await })
        },
    )?;
    add_batch(linker)
}

fn add_store(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(STORE)?;
    interface.resource("bucket", ResourceType::host::<Bucket>(), |mut store, rep| {
        store.data_mut().ctx().table.delete(Resource::<Bucket>::new_own(rep))?;
        Ok(())
    })?;
    interface.func_wrap("open", |mut store: Store<'_>, (identifier,): (String,)| {
        let Some(bucket) = store.data().bucket(&identifier) else { return Ok((Err(Error::NoSuchStore),)) };
        Ok((Ok(store.data_mut().ctx().table.push(bucket)?),))
    })?;
    interface.func_wrap_async(
        "[method]bucket.get",
        |mut store: Store<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move { with(&mut store, &bucket, move |bucket| bucket.get(&key)).await })
        },
    )?;
    interface.func_wrap_async(
        "[method]bucket.set",
        |mut store: Store<'_>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            Box::new(async move { with(&mut store, &bucket, move |bucket| bucket.set(&key, &value)).await })
        },
    )?;
    interface.func_wrap_async(
        "[method]bucket.delete",
        |mut store: Store<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move { with(&mut store, &bucket, move |bucket| bucket.delete(&key)).await })
        },
    )?;
    interface.func_wrap_async(
        "[method]bucket.exists",
        |mut store: Store<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move { with(&mut store, &bucket, move |bucket| Ok(bucket.get(&key)?.is_some())).await })
        },
    )?;
    interface.func_wrap_async(
        "[method]bucket.list-keys",
        |mut store: Store<'_>, (bucket, cursor): (Resource<Bucket>, Option<u64>)| {
            Box::new(async move { with(&mut store, &bucket, move |bucket| Ok(page(bucket.keys()?, cursor))).await })
        },
    )
}

fn add_batch(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(BATCH)?;
    interface.func_wrap_async(
        "get-many",
        |mut store: Store<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move { with(&mut store, &bucket, move |bucket| many(bucket, keys)).await })
        },
    )?;
    interface.func_wrap_async("set-many", |mut store: Store<'_>, (bucket, pairs): (Resource<Bucket>, Vec<Pair>)| {
        Box::new(async move {
            with(&mut store, &bucket, move |bucket| pairs.iter().try_for_each(|(key, value)| bucket.set(key, value)))
                .await
        })
    })?;
    interface.func_wrap_async("delete-many", |mut store: Store<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        Box::new(async move {
            with(&mut store, &bucket, move |bucket| keys.iter().try_for_each(|key| bucket.delete(key))).await
        })
    })
}

impl Host {
    fn bucket(&self, identifier: &str) -> Option<Bucket> {
        if OF_THE_POD.contains(&identifier) {
            return Some(Bucket::Pod(self.pairs.clone()));
        }
        // The root is no volume: what is in it is the container's alone.
        let path = Path::new(identifier);
        let volume = self.mounts.iter().find(|mount| mount.guest != "/" && Path::new(&mount.guest) == path)?;
        Some(Bucket::Volume(Files::new(volume.host.clone(), volume.read_only)))
    }
}

/// Does something with a bucket: in memory at once, in a volume on a thread that may wait for the disk.
async fn with<T: Send + 'static>(
    store: &mut Store<'_>,
    bucket: &Resource<Bucket>,
    work: impl FnOnce(&Bucket) -> Result<T, BucketError> + Send + 'static,
) -> wasmtime::Result<(Result<T, Error>,)> {
    let bucket = store.data_mut().ctx().table.get(bucket)?.clone();
    let done = match &bucket {
        Bucket::Pod(_) => work(&bucket),
        Bucket::Volume(_) => tokio::task::spawn_blocking(move || work(&bucket)).await?,
    };
    Ok((done.map_err(Error::from),))
}

/// The pairs of keys, none for a key that is not there.
fn many(bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<Pair>>, BucketError> {
    let mut left = BATCH_BYTES;
    let pair = |key: String| {
        let Some(value) = bucket.get(&key)? else { return Ok(None) };
        left = left.checked_sub(value.len()).ok_or(BucketError::Batch { limit_bytes: BATCH_BYTES })?;
        Ok(Some((key, value)))
    };
    keys.into_iter().map(pair).collect()
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
