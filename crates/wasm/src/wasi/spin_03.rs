//! The same for components of WASI 0.3, whose functions may wait: `spin:variables` and `spin:key-value`.

use wasmtime::component::{Accessor, FutureReader, Linker, Resource, StreamReader};
use wasmtime_wasi::WasiView;

use super::Host;
use super::buckets::{add_bucket, done};
use super::spin::StoreError;
use crate::keyvalue::{Bucket, BucketError};

const VARIABLES: &str = "spin:variables/variables@3.0.0";
const KEY_VALUE: &str = "spin:key-value/key-value@3.0.0";

/// Gives components the interfaces.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.instance(VARIABLES)?.func_wrap_concurrent("get", |store: &Accessor<Host>, (name,): (String,)| {
        Box::pin(async move { Ok((store.with(|mut store| store.get().variable(&name)),)) })
    })?;
    let mut key_value = linker.instance(KEY_VALUE)?;
    add_bucket(&mut key_value, "store")?;
    key_value.func_wrap_concurrent("[static]store.open", |store: &Accessor<Host>, (label,): (String,)| {
        Box::pin(async move {
            let bucket = match store.with(|mut store| store.get().bucket(&label)) {
                Ok(bucket) => bucket,
                Err(why) => return Ok((Err(StoreError::from(why)),)),
            };
            Ok((Ok(store.with(|mut store| store.get().ctx().table.push(bucket))?),))
        })
    })?;
    key_value.func_wrap_concurrent(
        "[method]store.get",
        |store: &Accessor<Host>, (bucket, key): (Resource<Bucket>, String)| {
            Box::pin(async move { with(store, &bucket, move |bucket| bucket.get(&key)).await })
        },
    )?;
    key_value.func_wrap_concurrent(
        "[method]store.set",
        |store: &Accessor<Host>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            Box::pin(async move { with(store, &bucket, move |bucket| bucket.set(&key, &value)).await })
        },
    )?;
    key_value.func_wrap_concurrent(
        "[method]store.delete",
        |store: &Accessor<Host>, (bucket, key): (Resource<Bucket>, String)| {
            Box::pin(async move { with(store, &bucket, move |bucket| bucket.delete(&key)).await })
        },
    )?;
    key_value.func_wrap_concurrent(
        "[method]store.exists",
        |store: &Accessor<Host>, (bucket, key): (Resource<Bucket>, String)| {
            let exists = move |bucket: &Bucket| Ok(bucket.get(&key)?.is_some());
            Box::pin(async move { with(store, &bucket, exists).await })
        },
    )?;
    key_value.func_wrap_concurrent(
        "[method]store.get-keys",
        |store: &Accessor<Host>, (bucket,): (Resource<Bucket>,)| {
            Box::pin(async move {
                let (keys, ended) = match with(store, &bucket, Bucket::keys).await?.0 {
                    Ok(keys) => (keys, Ok(())),
                    Err(error) => (Vec::new(), Err(error)),
                };
                store.with(|mut store| {
                    let keys = StreamReader::new(&mut store, keys)?;
                    let ended: FutureReader<Result<(), StoreError>> =
                        FutureReader::new(&mut store, async move { wasmtime::error::Ok(ended) })?;
                    Ok(((keys, ended),))
                })
            })
        },
    )
}

/// Does something with a bucket, while other tasks of the guest go on.
async fn with<T: Send + 'static>(
    store: &Accessor<Host>,
    bucket: &Resource<Bucket>,
    work: impl FnOnce(&Bucket) -> Result<T, BucketError> + Send + 'static,
) -> wasmtime::Result<(Result<T, StoreError>,)> {
    let bucket = store.with(|mut store| store.get().ctx().table.get(bucket).cloned())?;
    Ok((done(bucket, work).await?.map_err(StoreError::from),))
}
