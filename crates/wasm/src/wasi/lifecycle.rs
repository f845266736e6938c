//! `wasklet:pod/lifecycle`: lets a guest wait for the request to end. What it is told comes from its [`Termination`].

use std::time::Duration;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::Host;
use crate::guest::Termination;

/// The interface, as `wit/wasklet-pod.wit` has it.
const LIFECYCLE: &str = "wasklet:pod/lifecycle@0.1.0";

/// What a guest's pollable waits for.
struct Awaited(Termination);

#[wasmtime_wasi::async_trait]
impl Pollable for Awaited {
    async fn ready(&mut self) {
        self.0.awaited().await;
    }
}

/// Gives components the interface.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut lifecycle = linker.instance(LIFECYCLE)?;
    lifecycle.func_wrap("termination", |mut store: StoreContextMut<'_, Host>, (): ()| {
        Ok((store.data_mut().termination_pollable()?,))
    })?;
    lifecycle.func_wrap("time-left", |store: StoreContextMut<'_, Host>, (): ()| {
        Ok((store.data().termination.time_left().map(nanoseconds),))
    })
}

impl Host {
    fn termination_pollable(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let awaited = Awaited(self.termination.clone());
        // From now on the guest is left to end by itself, even if it does not block yet.
        drop(self.termination.awaited());
        let table = self.ctx().table;
        let awaited = table.push(awaited)?;
        subscribe(table, awaited)
    }
}

fn nanoseconds(left: Duration) -> u64 {
    u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
}
