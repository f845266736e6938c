//! What Spin has of its own for components of WASI 0.2: `fermyon:spin/variables` and `fermyon:spin/key-value`.
//!
//! A component of a Spin application gets the variables and the stores that its application gives it; any other guest its
//! container's environment and the pod's buckets. Spin's other interfaces are not there: who imports one is refused.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource};

use super::Host;
use super::buckets::{NotOpened, Store, add_resource, with};
use crate::keyvalue::{Bucket, BucketError};

const VARIABLES: &str = "fermyon:spin/variables@2.0.0";
const KEY_VALUE: &str = "fermyon:spin/key-value@2.0.0";

/// Why a variable has no value.
#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
pub(super) enum VariableError {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

/// Why a store does not do what it is asked for.
#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
pub(super) enum StoreError {
    #[component(name = "store-table-full")]
    StoreTableFull,
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<NotOpened> for StoreError {
    fn from(why: NotOpened) -> Self {
        match why {
            NotOpened::Missing => Self::NoSuchStore,
            NotOpened::Denied => Self::AccessDenied,
        }
    }
}

impl From<BucketError> for StoreError {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::ReadOnly => Self::AccessDenied,
            other => Self::Other(other.to_string()),
        }
    }
}

/// Gives components the interfaces.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker
        .instance(VARIABLES)?
        .func_wrap("get", |store: StoreContextMut<'_, Host>, (name,): (String,)| Ok((store.data().variable(&name),)))?;
    let mut key_value = linker.instance(KEY_VALUE)?;
    add_resource::<StoreError>(&mut key_value, "store", "[static]store.open")?;
    key_value.func_wrap_async("[method]store.get-keys", |mut store: Store<'_>, (bucket,): (Resource<Bucket>,)| {
        Box::new(async move { with::<_, StoreError>(&mut store, &bucket, Bucket::keys).await })
    })
}

impl Host {
    /// The value of a variable of the guest's own.
    pub(super) fn variable(&self, name: &str) -> Result<String, VariableError> {
        let found = self.configuration.iter().find(|(known, _)| known == name);
        let undefined = || VariableError::Undefined(format!("no variable {name:?} is set for this component"));
        found.map(|(_, value)| value.clone()).ok_or_else(undefined)
    }
}
