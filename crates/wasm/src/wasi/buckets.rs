//! Buckets of keys and values as host functions: what `wasi:keyvalue` and Spin's key-value stores have in common.
//!
//! A guest opens the pod's own bucket as `""` or `default`, and a volume by the path at which it is mounted. It is told
//! that there is no other. A component of a Spin application opens the stores that it is given, by their labels. Never
//! here: how pairs are kept, and what the functions are called.

use std::path::Path;

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, Resource, ResourceType};
use wasmtime_wasi::WasiView;

use super::Host;
use crate::keyvalue::{Bucket, BucketError, Files};

/// The names of the pod's own bucket.
const OF_THE_POD: [&str; 2] = ["", "default"];

/// Why a bucket is not opened.
pub(super) enum NotOpened {
    /// There is no such bucket.
    Missing,
    /// It is not this guest's.
    Denied,
}

/// The words of an interface for what goes wrong.
pub(super) trait Wrong:
    From<NotOpened> + From<BucketError> + ComponentType + Lift + Lower + Send + Sync + 'static
{
}

impl<E> Wrong for E where E: From<NotOpened> + From<BucketError> + ComponentType + Lift + Lower + Send + Sync + 'static {}

pub(super) type Store<'a> = StoreContextMut<'a, Host>;
pub(super) type Pair = (String, Vec<u8>);

/// The resource called `name` that stands for a bucket.
pub(super) fn add_bucket(interface: &mut LinkerInstance<'_, Host>, name: &str) -> wasmtime::Result<()> {
    interface.resource(name, ResourceType::host::<Bucket>(), |mut store, rep| {
        store.data_mut().ctx().table.delete(Resource::<Bucket>::new_own(rep))?;
        Ok(())
    })
}

/// The resource called `name`, what opens one, and its methods `get`, `set`, `delete` and `exists`.
pub(super) fn add_resource<E: Wrong>(
    interface: &mut LinkerInstance<'_, Host>,
    name: &str,
    open: &str,
) -> wasmtime::Result<()> {
    add_bucket(interface, name)?;
    interface.func_wrap(open, |mut store: Store<'_>, (identifier,): (String,)| {
        match store.data().bucket(&identifier) {
            Ok(bucket) => Ok((Ok(store.data_mut().ctx().table.push(bucket)?),)),
            Err(why) => Ok((Err(E::from(why)),)),
        }
    })?;
    interface.func_wrap_async(
        &format!("[method]{name}.get"),
        |mut store: Store<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move { with::<_, E>(&mut store, &bucket, move |bucket| bucket.get(&key)).await })
        },
    )?;
    interface.func_wrap_async(
        &format!("[method]{name}.set"),
        |mut store: Store<'_>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            Box::new(async move { with::<_, E>(&mut store, &bucket, move |bucket| bucket.set(&key, &value)).await })
        },
    )?;
    interface.func_wrap_async(
        &format!("[method]{name}.delete"),
        |mut store: Store<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move { with::<_, E>(&mut store, &bucket, move |bucket| bucket.delete(&key)).await })
        },
    )?;
    interface.func_wrap_async(
        &format!("[method]{name}.exists"),
        |mut store: Store<'_>, (bucket, key): (Resource<Bucket>, String)| {
            let exists = move |bucket: &Bucket| Ok(bucket.get(&key)?.is_some());
            Box::new(async move { with::<_, E>(&mut store, &bucket, exists).await })
        },
    )
}

impl Host {
    /// The bucket of this name.
    pub(super) fn bucket(&self, identifier: &str) -> Result<Bucket, NotOpened> {
        if let Some(grants) = &self.grants {
            return grants.stores.get(identifier).cloned().ok_or(NotOpened::Denied);
        }
        if OF_THE_POD.contains(&identifier) {
            return Ok(Bucket::Pod(self.pairs.clone()));
        }
        // The root is no volume: what is in it is the container's alone.
        let path = Path::new(identifier);
        let volume = self.mounts.iter().find(|mount| mount.guest != "/" && Path::new(&mount.guest) == path);
        let volume = volume.ok_or(NotOpened::Missing)?;
        Ok(Bucket::Volume(Files::new(volume.host.clone(), volume.read_only)))
    }
}

/// Does something with a bucket of the guest's.
pub(super) async fn with<T: Send + 'static, E: From<BucketError>>(
    store: &mut Store<'_>,
    bucket: &Resource<Bucket>,
    work: impl FnOnce(&Bucket) -> Result<T, BucketError> + Send + 'static,
) -> wasmtime::Result<(Result<T, E>,)> {
    let bucket = store.data_mut().ctx().table.get(bucket)?.clone();
    Ok((done(bucket, work).await?.map_err(E::from),))
}

/// Does something with a bucket: in memory at once, in a volume on a thread that may wait for the disk.
pub(super) async fn done<T: Send + 'static>(
    bucket: Bucket,
    work: impl FnOnce(&Bucket) -> Result<T, BucketError> + Send + 'static,
) -> wasmtime::Result<Result<T, BucketError>> {
    match &bucket {
        Bucket::Pod(_) => Ok(work(&bucket)),
        Bucket::Volume(_) => Ok(tokio::task::spawn_blocking(move || work(&bucket)).await?),
    }
}
