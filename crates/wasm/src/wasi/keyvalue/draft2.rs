//! The second draft of `wasi:keyvalue`: cursors are texts, sums are signed, and a value can be exchanged for what was seen.

use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};
use wasmtime_wasi::WasiView;

use super::{Error, add_writes, many, page};
use crate::keyvalue::Bucket;
use crate::wasi::Host;
use crate::wasi::buckets::{Store, add_resource, done, with};

const STORE: &str = "wasi:keyvalue/store@0.2.0-draft2";
const ATOMICS: &str = "wasi:keyvalue/atomics@0.2.0-draft2";
const BATCH: &str = "wasi:keyvalue/batch@0.2.0-draft2";

#[derive(Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct KeyResponse {
    keys: Vec<String>,
    cursor: Option<String>,
}

/// A value as it was seen.
struct Cas {
    bucket: Bucket,
    key: String,
    seen: Option<Vec<u8>>,
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    Store(Error),
    #[component(name = "cas-failed")]
    Failed(Resource<Cas>),
}

/// Gives components the interfaces.
pub(in crate::wasi) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    add_store(linker)?;
    add_atomics(linker)?;
    add_batch(linker)
}

fn add_store(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(STORE)?;
    add_resource::<Error>(&mut interface, "bucket", "open")?;
    interface.func_wrap_async(
        "[method]bucket.list-keys",
        |mut store: Store<'_>, (bucket, cursor): (Resource<Bucket>, Option<String>)| {
            Box::new(async move {
                let Ok(from) = cursor.as_deref().map(str::parse).transpose() else {
                    return Ok((Err(Error::Other("there is no such cursor".to_owned())),));
                };
                let (keys,) = with::<_, Error>(&mut store, &bucket, Bucket::keys).await?;
                let told = |page: super::KeyResponse| KeyResponse {
                    keys: page.keys,
                    cursor: page.cursor.map(|cursor| cursor.to_string()),
                };
                Ok((keys.map(|keys| told(page(keys, from))),))
            })
        },
    )
}

fn add_atomics(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(ATOMICS)?;
    interface.resource("cas", ResourceType::host::<Cas>(), |mut store, rep| {
        store.data_mut().ctx().table.delete(Resource::<Cas>::new_own(rep))?;
        Ok(())
    })?;
    interface.func_wrap_async(
        "increment",
        |mut store: Store<'_>, (bucket, key, delta): (Resource<Bucket>, String, i64)| {
            let add = move |old: i64| old.checked_add(delta);
            Box::new(async move { with::<_, Error>(&mut store, &bucket, move |bucket| bucket.change(&key, add)).await })
        },
    )?;
    interface.func_wrap_async(
        "[static]cas.new",
        |mut store: Store<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let bucket = store.data_mut().ctx().table.get(&bucket)?.clone();
                Ok((look(&mut store, bucket, key).await?,))
            })
        },
    )?;
    interface.func_wrap("[method]cas.current", |mut store: Store<'_>, (cas,): (Resource<Cas>,)| {
        let seen = store.data_mut().ctx().table.get(&cas)?.seen.clone();
        Ok((Ok::<_, Error>(seen),))
    })?;
    interface.func_wrap_async("swap", |mut store: Store<'_>, (cas, value): (Resource<Cas>, Vec<u8>)| {
        Box::new(async move {
            let Cas { bucket, key, seen } = store.data_mut().ctx().table.delete(cas)?;
            let (of, name) = (bucket.clone(), key.clone());
            let exchanged = done(of, move |bucket| bucket.exchange(&name, seen.as_deref(), &value)).await?;
            Ok((match exchanged {
                Ok(true) => Ok(()),
                Ok(false) => Err(match look(&mut store, bucket, key).await? {
                    Ok(cas) => CasError::Failed(cas),
                    Err(error) => CasError::Store(error),
                }),
                Err(error) => Err(CasError::Store(error.into())),
            },))
        })
    })
}

fn add_batch(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(BATCH)?;
    interface.func_wrap_async(
        "get-many",
        |mut store: Store<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move { with::<_, Error>(&mut store, &bucket, move |bucket| many(bucket, keys)).await })
        },
    )?;
    add_writes(&mut interface)
}

/// What a key's value is now, for an exchange.
async fn look(store: &mut Store<'_>, bucket: Bucket, key: String) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
    let (of, name) = (bucket.clone(), key.clone());
    match done(of, move |bucket| bucket.get(&name)).await? {
        Ok(seen) => Ok(Ok(store.data_mut().ctx().table.push(Cas { bucket, key, seen })?)),
        Err(error) => Ok(Err(error.into())),
    }
}
