//! `wasi:config/store`: a container's configuration is its environment, as Kubernetes fills it from ConfigMaps and Secrets;
//! that of a component of a Spin application are its variables.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::Host;

/// The interface, and the draft of it that Spin has. Before its first release every version is another one.
const STORES: [&str; 2] = ["wasi:config/store@0.2.0-rc.1", "wasi:config/store@0.2.0-draft-2024-09-27"];

/// What WASI has for a source of configuration that fails. An environment does not.
#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

type Answer<T> = wasmtime::Result<(Result<T, Error>,)>;

/// Gives components the interface.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    for name in STORES {
        let mut store = linker.instance(name)?;
        store.func_wrap("get", |store: StoreContextMut<'_, Host>, (key,): (String,)| -> Answer<Option<String>> {
            let mut configuration = store.data().configuration.iter();
            Ok((Ok(configuration.find(|(name, _)| *name == key).map(|(_, value)| value.clone())),))
        })?;
        store.func_wrap("get-all", |store: StoreContextMut<'_, Host>, (): ()| -> Answer<Vec<(String, String)>> {
            Ok((Ok(store.data().configuration.to_vec()),))
        })?;
    }
    Ok(())
}
