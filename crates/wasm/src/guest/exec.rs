//! Commands beside a running guest: an argument vector and streams come in, a handle on the command goes out.
//!
//! A command is a new instance of the guest's own code, or of a program beside it, over the guest's files, environment,
//! network and limits: of its entry point, which gets the arguments, or of an exported function (see [`super::export`]).
//! What it uses is charged to the guest. It ends with the guest, with its [`Exec`], or by itself, and never takes the
//! guest with it. Only where the guest is a command of WASI 0.3 its exported functions are called in the instance that its
//! program runs in (see [`super::live`]).

use std::future::Future;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::command::{self, Program};
pub(crate) use super::export::named;
use super::export::{Function, Refusal};
use super::{Exit, Ground, Guest, StartError, Streams, Termination, known, to_the_end};
use crate::code::Code;

/// Commands that may run at one time beside one guest: far more than probes, hooks and people need.
pub(super) const COMMANDS: usize = 64;

/// What is to be run beside a guest.
pub struct ExecSpec {
    /// The program, if it is another than the guest's own.
    pub code: Option<Arc<Code>>,
    /// The whole argument vector, of at least one: the program's own name, or `#` and an exported function's name.
    pub args: Vec<String>,
    /// Its standard streams.
    pub streams: Streams,
}

/// Why a command could not be started.
#[derive(Debug, Error)]
pub enum ExecError {
    /// The guest has ended.
    #[error("the guest has ended")]
    Ended,
    /// Too many run already.
    #[error("{COMMANDS} commands run in it already")]
    TooMany,
    /// The guest has nothing that the arguments name, or cannot be called so.
    #[error(transparent)]
    Refused(Refusal),
    /// What it needs of the node is not there.
    #[error(transparent)]
    Start(StartError),
}

/// A command that runs or has ended. Dropping it kills the command.
pub struct Exec {
    kill: CancellationToken,
    exit: watch::Receiver<Option<Exit>>,
}

impl Guest {
    /// Starts a command.
    ///
    /// # Errors
    /// See [`ExecError`]. What goes wrong inside the command is its [`Exit`].
    pub fn exec(&self, spec: ExecSpec) -> Result<Exec, ExecError> {
        if self.exit().is_some() {
            return Err(ExecError::Ended);
        }
        let place = Arc::clone(&self.commands).try_acquire_owned().map_err(|_| ExecError::TooMany)?;
        let runtime = self.ground.engines.runtime().ok_or(ExecError::Start(StartError::ShuttingDown))?;
        let _context = runtime.enter();
        let run = self.ground.run(spec, self.termination.of_a_command())?;
        let (run, kill) = match run {
            Run::New(run) => (run, self.kill.child_token()),
            // The guest's end is its own, and it says how that came.
            Run::Live(run) => (run, CancellationToken::new()),
        };
        let (ended, exit) = watch::channel(None);
        let killed = kill.clone();
        let run = self.tasks.spawn(run);
        runtime.spawn(async move {
            ended.send_replace(Some(to_the_end(run, &killed).await));
            drop(place);
        });
        Ok(Exec { kill, exit })
    }
}

/// What runs a command to its end.
pub(super) enum Run {
    /// In an instance of its own.
    New(BoxFuture<'static, Exit>),
    /// In the guest's.
    Live(BoxFuture<'static, Exit>),
}

impl Ground {
    /// What runs a command to its end.
    pub(super) fn run(&self, spec: ExecSpec, termination: Termination) -> Result<Run, ExecError> {
        let ExecSpec { code, args, streams } = spec;
        let live = self.live.as_ref().filter(|_| code.is_none());
        let code = code.as_ref().unwrap_or(&self.code);
        let program = match (Program::of(code, &args).map_err(ExecError::Refused)?, live) {
            (Program::Function(Function::Component { call, .. }), Some(live)) => {
                return Ok(Run::Live(live.call(call, streams).boxed()));
            }
            (program, _) => program,
        };
        if matches!(program, Program::Reactor(_)) {
            return Err(ExecError::Refused(Refusal::no_command(code.prepared())));
        }
        let metering = Arc::clone(&self.metering);
        let run = command::prepare(program, &args, &self.surroundings, streams, metering, termination);
        // Of the pool, requests have all places but some that are kept for commands.
        let slots = code.kind().is_http().then(|| Arc::clone(&self.engines.command_instances));
        let run = async move {
            let _slot = match slots {
                Some(slots) => slots.acquire_owned().await.ok(),
                None => None,
            };
            run.await
        };
        Ok(Run::New(run.boxed()))
    }
}

impl Exec {
    /// Resolves once the command has ended, at once if it has.
    pub fn exited(&self) -> impl Future<Output = Exit> + Send + use<> {
        known(self.exit.clone())
    }

    /// Ends the command within about one tick (5 ms), whatever it does.
    pub fn kill(&self) {
        self.kill.cancel();
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}
