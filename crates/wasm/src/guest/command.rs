//! Running a program to its end: what it needs comes in, its [`Exit`] goes out when its entry point, or the exported
//! function that was named, has returned.

use std::future::Future;
use std::sync::Arc;

use wasmtime::component::Accessor;
use wasmtime::{Engine, InstancePre, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p3::bindings as p3;

use super::export::{self, Function, Refusal, Returned};
use super::live::{self, Calls, Live, Obituary};
use super::{Exit, Streams, Termination};
use crate::code::{Code, Prepared};
use crate::limits::{Metered, Metering, PollCount, yield_at_ticks};
use crate::wasi::stdio::{Input, Output, Pieces};
use crate::wasi::{Host, Stdio, Surroundings};

/// What is run.
pub(super) enum Program {
    Module(InstancePre<Host>),
    Reactor(InstancePre<Host>),
    Component(CommandPre<Host>),
    /// With what is called in it beside its entry point.
    Concurrent(p3::CommandPre<Host>, Option<Calls>),
    Function(Function),
}

/// What a program's end is, as far as it says so itself.
pub(super) struct Ended {
    code: i32,
    /// A line for standard output, and one for standard error.
    output: Option<String>,
    complaint: Option<String>,
}

/// The returned future runs it.
pub(super) fn prepare(
    program: Program,
    args: &[String],
    surroundings: &Surroundings,
    streams: Streams,
    metering: Arc<Metering>,
    termination: Termination,
) -> impl Future<Output = Exit> + Send + use<> {
    let Streams { stdin, stdout, stderr, tty } = streams;
    let output = Output::new(stdout, tty, Pieces::AsWritten);
    let error = Output::new(stderr, tty, Pieces::AsWritten);
    let stdio = Stdio { input: Input::new(stdin, tty), output: output.clone(), error: error.clone() };
    let host = surroundings.host(args, stdio, metering.store_memory(), termination);
    let polls = PollCount::default();
    let mut store = Store::new(program.engine(), host);
    store.limiter(|host| &mut host.memory);
    yield_at_ticks(&mut store, &polls);
    let run = async move {
        let outcome = program.run(store).await.map_err(|failure| Exit::from_error(&failure));
        told(outcome, &output, &error).await
    };
    Metered::new(metering, polls, run)
}

/// Writes how a program ended, and waits until all of its output has been taken.
pub(super) async fn told(outcome: Result<Ended, Exit>, output: &Output, error: &Output) -> Exit {
    let (exit, complaint) = match outcome {
        Ok(ended) => {
            if let Some(line) = ended.output {
                output.write_line(&line).await;
            }
            (Exit::Code(ended.code), ended.complaint)
        }
        Err(exit) => {
            let complaint = exit.complaint();
            (exit, complaint)
        }
    };
    if let Some(line) = complaint {
        error.write_line(&line).await;
    }
    output.finish().await;
    error.finish().await;
    exit
}

impl Program {
    /// What `args` asks for of `code`: an exported function if the first begins with `#`, else its entry point.
    pub(super) fn of(code: &Code, args: &[String]) -> Result<Self, Refusal> {
        if let Some(name) = export::named(args) {
            return Ok(Self::Function(Function::find(code.prepared(), name, args.get(1..).unwrap_or_default())?));
        }
        match code.prepared() {
            Prepared::CommandP1(module) => Ok(Self::Module(module.clone())),
            Prepared::ReactorP1(module) => Ok(Self::Reactor(module.clone())),
            Prepared::CommandP2(component) => Ok(Self::Component(component.clone())),
            Prepared::CommandP3(component) => Ok(Self::Concurrent(component.clone(), None)),
            Prepared::HttpP2(proxy) => match CommandPre::new(proxy.instance_pre().clone()) {
                Ok(component) => Ok(Self::Component(component)),
                Err(_) => Err(Refusal::no_command(code.prepared())),
            },
            Prepared::HttpP3(service) => match p3::CommandPre::new(service.instance_pre().clone()) {
                Ok(component) => Ok(Self::Concurrent(component, None)),
                Err(_) => Err(Refusal::no_command(code.prepared())),
            },
        }
    }

    /// The way into the instance that it will run in, if that can be called.
    pub(super) fn way_in(&mut self) -> Option<(Live, Obituary)> {
        let Self::Concurrent(_, calls) = self else { return None };
        let (live, inside, obituary) = live::way();
        *calls = Some(inside);
        Some((live, obituary))
    }

    fn engine(&self) -> &Engine {
        match self {
            Program::Module(module) | Program::Reactor(module) => module.module().engine(),
            Program::Component(component) => component.engine(),
            Program::Concurrent(component, _) => component.engine(),
            Program::Function(function) => function.engine(),
        }
    }

    /// Runs it from instantiation to its end; consumes the store, so that all it held is given back before its exit is
    /// known.
    async fn run(self, mut store: Store<Host>) -> wasmtime::Result<Ended> {
        match self {
            Program::Module(module) => {
                let instance = module.instantiate_async(&mut store).await?;
                let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
                start.call_async(&mut store, ()).await?;
                Ok(Ended::with(0))
            }
            Program::Reactor(module) => {
                let instance = module.instantiate_async(&mut store).await?;
                let initialize = instance.get_typed_func::<(), ()>(&mut store, "_initialize")?;
                initialize.call_async(&mut store, ()).await?;
                // It can begin; each of its functions is called in an instance of its own, so nothing is kept of this one.
                drop(store);
                std::future::pending().await
            }
            Program::Component(component) => {
                let command = component.instantiate_async(&mut store).await?;
                let ended = command.wasi_cli_run().call_run(&mut store).await?;
                Ok(Ended::with(i32::from(ended.is_err())))
            }
            Program::Concurrent(component, calls) => {
                let instance = component.instance_pre().instantiate_async(&mut store).await?;
                let command = p3::Command::new(&mut store, &instance)?;
                let run = async |store: &Accessor<Host>| {
                    let run = command.wasi_cli_run().call_run(store);
                    match calls {
                        Some(calls) => calls.beside(run, store, instance).await,
                        None => run.await,
                    }
                };
                let ended = store.run_concurrent(run).await??;
                Ok(Ended::with(i32::from(ended.is_err())))
            }
            Program::Function(function) => Ok(function.call(&mut store).await?.into()),
        }
    }
}

impl From<Returned> for Ended {
    fn from(Returned { output, error }: Returned) -> Self {
        Self { code: i32::from(error.is_some()), output, complaint: error }
    }
}

impl Ended {
    fn with(code: i32) -> Self {
        Self { code, output: None, complaint: None }
    }
}
