//! Running a command: what it needs comes in, its [`Exit`] goes out when its entry point has returned.

use std::future::Future;
use std::sync::Arc;

use wasmtime::{InstancePre, Store};
use wasmtime_wasi::p2::bindings::CommandPre;

use super::{Exit, GuestSpec, StartError};
use crate::engine::Engines;
use crate::limits::{Metered, Metering, PollCount, yield_at_ticks};
use crate::wasi::stdio::{Input, Output, Pieces};
use crate::wasi::{Host, Stdio, Surroundings};

/// What is run, by its kind.
pub(super) enum Program {
    Module(InstancePre<Host>),
    Component(CommandPre<Host>),
}

/// Opens what the command needs; the returned future runs it.
pub(super) fn prepare(
    engines: &Engines,
    program: Program,
    spec: GuestSpec,
    metering: Arc<Metering>,
) -> Result<impl Future<Output = Exit> + Send + use<>, StartError> {
    let output = Output::new(spec.stdout.clone(), spec.tty, Pieces::AsWritten);
    let error = Output::new(spec.stderr.clone(), spec.tty, Pieces::AsWritten);
    let (surroundings, stdin, tty) = Surroundings::of(spec);
    let stdio = Stdio { input: Input::new(stdin, tty), output: output.clone(), error: error.clone() };
    let host = surroundings.host(stdio, metering.store_memory())?;
    let polls = PollCount::default();
    let mut store = Store::new(&engines.on_demand.engine, host);
    store.limiter(|host| &mut host.memory);
    yield_at_ticks(&mut store, &polls);
    let run = async move {
        let exit = match program.run(store).await {
            Ok(Ok(())) => Exit::Code(0),
            Ok(Err(())) => Exit::Code(1),
            Err(error) => Exit::from_error(&error),
        };
        if let Some(message) = exit.complaint() {
            error.write_line(&message).await;
        }
        output.finish().await;
        error.finish().await;
        exit
    };
    Ok(Metered::new(metering, polls, run))
}

impl Program {
    /// Runs it from instantiation to the end of its entry point; consumes the store, so that all it held is given
    /// back before its exit is known.
    async fn run(self, mut store: Store<Host>) -> wasmtime::Result<Result<(), ()>> {
        match self {
            Program::Module(module) => {
                let instance = module.instantiate_async(&mut store).await?;
                let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
                start.call_async(&mut store, ()).await?;
                Ok(Ok(()))
            }
            Program::Component(component) => {
                let command = component.instantiate_async(&mut store).await?;
                command.wasi_cli_run().call_run(&mut store).await
            }
        }
    }
}
