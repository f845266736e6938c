//! One running guest: what a container asks for comes in as a [`GuestSpec`], how it went comes out as an [`Exit`].
//!
//! ```text
//!   start ──► running ──► exited(Code | Trap | OutOfMemory | Stopped | Killed | HostPanic)
//!               │  request_stop: an HTTP guest stops accepting, finishes what it began, Code(0);
//!               │                a command that waits for its termination ends by itself;
//!               │                any other ends at once, or when its stop handler has: Stopped (143)
//!               └─ kill, or dropping the Guest: Killed (137) within about one tick
//! ```
//! A guest never outlives its [`Guest`], never runs on the caller's tokio runtime, and a panic while it runs ends
//! this guest only. Beside it, or in its own instance, run commands ([`exec`]), which end with it. Nothing here knows of pods, log files or
//! restarts.

pub mod application;
mod command;
pub mod exec;
mod export;
mod http;
mod live;
mod outcome;
mod stop;
mod termination;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::code::{Code, Kind};
use crate::engine::Engines;
use crate::keyvalue;
use crate::limits::{Limits, MemoryInUse, Metering};
use crate::wasi::network::PodNetwork;
use crate::wasi::{Pod, Surroundings};

pub use application::Application;
pub use export::Refusal;
pub use outcome::Exit;
pub(crate) use termination::Termination;

use command::Program;
use exec::COMMANDS;
use live::{Live, Obituary};
use stop::StopHandler;

/// How long the end of a guest waits for its tasks to notice. They do within a tick or two; what does not is not to keep a
/// killed container from being gone.
const LINGER: Duration = Duration::from_millis(40);

/// Everything one guest needs to run. Nothing else of the node is within its reach.
pub struct GuestSpec {
    /// The compiled code, from [`Engines::code`].
    pub code: Arc<Code>,
    /// The whole argument vector; the first is the program's own name, or `#` and the name of an exported function that
    /// is called with the others.
    pub args: Vec<String>,
    /// The environment, in order. `HOSTNAME` and `PWD` are added from the fields below where they are absent.
    pub env: Vec<(String, String)>,
    /// Where the guest starts. WASI gives it to p2 guests as the initial directory; p1 guests see `PWD` only.
    pub working_dir: Option<String>,
    /// Host directories and where the guest sees them; the root directory is one of them, as `/`.
    pub mounts: Vec<Mount>,
    /// What the guest reads as its standard input.
    pub stdin: Stdin,
    /// Where standard output goes: see [`OutputSink`].
    pub stdout: OutputSink,
    /// Where standard error goes; with a terminal, give a clone of `stdout`.
    pub stderr: OutputSink,
    /// Whether the guest is told that its standard streams are a terminal.
    pub tty: bool,
    /// The pod's addresses, shared by all guests of the pod.
    pub network: Arc<PodNetwork>,
    /// How an HTTP guest is served. Commands ignore it.
    pub http: Http,
    /// Memory and CPU limits.
    pub limits: Limits,
    /// The pod's host name.
    pub hostname: String,
    /// What the guests of the pod share through `wasi:keyvalue`.
    pub pairs: keyvalue::Memory,
    /// The Spin application that the code, with its environment and mounts, is the first component of.
    pub application: Option<Application>,
}

/// How an HTTP guest is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http {
    /// The port at the pod's address.
    pub port: u16,
    /// How many requests one instance may answer; one keeps clients apart. None is one for a handler of WASI 0.2, and 128
    /// for one of 0.3, which may have 16 of them at a time.
    pub requests_per_instance: Option<NonZeroU32>,
}

impl Default for Http {
    /// Port 80, and as many requests as suit the kind of guest.
    fn default() -> Self {
        Self { port: 80, requests_per_instance: None }
    }
}

/// Where one output stream goes: a bounded channel whose receiver the caller owns.
///
/// Pieces are at most 16 KiB and may be any part of a line (of concurrent HTTP requests: whole lines). A full
/// channel makes the guest wait; a dropped receiver makes its writes fail as a closed pipe would. The channel
/// closes when the guest has ended and all it wrote has been handed over, just before its [`Exit`] is known.
pub type OutputSink = mpsc::Sender<Bytes>;

/// The standard streams of a program.
pub struct Streams {
    /// What it reads.
    pub stdin: Stdin,
    /// Where its output goes.
    pub stdout: OutputSink,
    /// Where its complaints go; with a terminal, a clone of `stdout`.
    pub stderr: OutputSink,
    /// Whether it is told that they are a terminal.
    pub tty: bool,
}

/// A guest's standard input.
#[derive(Debug)]
pub enum Stdin {
    /// At its end from the beginning.
    Empty,
    /// Bytes as they arrive; dropping the sender is the end of input. HTTP guests get no input.
    Pipe(mpsc::Receiver<Bytes>),
}

/// A host directory in the guest's file tree. Every open by the guest resolves the path again beneath it, so that
/// an atomic `..data` swap shows at once; nothing above it can be reached. Single files cannot be mounted, and no link
/// on the way to the directory is followed.
#[derive(Debug, Clone)]
pub struct Mount {
    /// The directory on the host.
    pub host: PathBuf,
    /// The absolute path the guest sees it at.
    pub guest: String,
    /// Whether writes fail.
    pub read_only: bool,
}

/// Why a guest could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// A mount's host directory cannot be opened.
    #[error("mount {guest}: cannot open the host directory {}", host.display())]
    Mount {
        /// The path in the guest.
        guest: String,
        /// The directory on the host.
        host: PathBuf,
        /// What opening it said.
        #[source]
        source: io::Error,
    },
    /// The HTTP listener could not be bound.
    #[error("cannot listen on {address} for HTTP: {}", listen_hint(source))]
    Listen {
        /// The address and port.
        address: SocketAddr,
        /// What binding said.
        #[source]
        source: io::Error,
    },
    /// What the arguments name cannot be run.
    #[error(transparent)]
    Program(#[from] Refusal),
    /// The guest runtime has been shut down.
    #[error("the node is shutting down; no guest can be started")]
    ShuttingDown,
}

fn listen_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "the port is already in use there",
        io::ErrorKind::AddrNotAvailable => "this node does not have that address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "binding failed",
    }
}

/// What a guest has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// CPU time spent running it, host calls included.
    pub cpu: Duration,
    /// Bytes of linear memory and tables it holds now, as declared by the guest (touched or not).
    pub memory_bytes: u64,
}

/// A handle on one guest. Dropping it kills the guest.
pub struct Guest {
    ground: Ground,
    listening: Option<SocketAddr>,
    /// The guest's own task, and those of its commands.
    tasks: TaskTracker,
    /// A place for each command that may run at one time.
    commands: Arc<Semaphore>,
    termination: Termination,
    kill: CancellationToken,
    exit: watch::Receiver<Option<Exit>>,
}

/// What a guest runs on, and commands beside it.
#[derive(Clone)]
struct Ground {
    engines: Arc<Engines>,
    code: Arc<Code>,
    surroundings: Arc<Surroundings>,
    metering: Arc<Metering>,
    /// The way into the guest's own instance, where that can be called.
    live: Option<Live>,
}

/// How a guest is run.
enum Entry {
    Requests(http::Handler),
    Program(Program),
}

impl Entry {
    /// Who answers HTTP does that, unless one of its functions is named.
    fn of(code: &Code, args: &[String]) -> Result<Self, Refusal> {
        match http::Handler::of(code).filter(|_| export::named(args).is_none()) {
            Some(handler) => Ok(Self::Requests(handler)),
            None => Ok(Self::Program(Program::of(code, args)?)),
        }
    }

    /// The way into the instance that it will run in, if that can be called.
    fn way_in(&mut self) -> Option<(Live, Obituary)> {
        match self {
            Self::Requests(_) => None,
            Self::Program(program) => program.way_in(),
        }
    }
}

/// Starts a guest. When this returns, an HTTP guest's listener is bound and accepting; a command is being
/// instantiated. Opens the mounts' directories, so it may touch the disk for a moment.
///
/// # Errors
/// See [`StartError`]. What goes wrong inside the guest, from its instantiation on, is its [`Exit`].
pub fn start(engines: &Arc<Engines>, spec: GuestSpec) -> Result<Guest, StartError> {
    let runtime = engines.runtime().ok_or(StartError::ShuttingDown)?;
    let _context = runtime.enter();
    let GuestSpec { code, args, env, working_dir, mounts, stdin, stdout, stderr, tty, .. } = spec;
    let pod = Pod { network: spec.network, hostname: spec.hostname, pairs: spec.pairs };
    let surroundings = Surroundings::new(env, working_dir, mounts, pod.clone())?;
    let (surroundings, application) = match spec.application {
        None => (surroundings, None),
        Some(application) => {
            let (first, routed) = application.routed(&pod)?;
            (surroundings.held_to(first), Some(routed))
        }
    };
    let surroundings = Arc::new(surroundings);
    let metering = Arc::new(Metering::new(&spec.limits, engines.ticker(), engines.turns()));
    let mut entry = Entry::of(&code, &args)?;
    let (live, obituary) = entry.way_in().unzip();
    let ground = Ground { engines: Arc::clone(engines), code, surroundings, metering, live };
    let streams = Streams { stdin, stdout, stderr, tty };
    let (termination, kill) = (Termination::default(), CancellationToken::new());
    let (tasks, requests) = (TaskTracker::new(), TaskTracker::new());
    let handler = StopHandler::new(ground.clone(), &streams, termination.of_a_command());
    let mut listening = None;
    let run: BoxFuture<'static, Exit> = match entry {
        Entry::Requests(requests_handler) => {
            let (surroundings, termination) = (Arc::clone(&ground.surroundings), termination.clone());
            let (http, heard) = (spec.http, termination.clone());
            let served = http::Served { args, surroundings, streams, http, termination: heard, application };
            let server =
                http::prepare(engines, requests_handler, served, Arc::clone(&ground.metering), requests.clone())?;
            listening = Some(server.address());
            stop::server(server.serve(), termination, handler).boxed()
        }
        Entry::Program(program) => {
            let (metering, heard) = (Arc::clone(&ground.metering), termination.clone());
            let run = command::prepare(program, &args, &ground.surroundings, streams, metering, heard);
            let run = match obituary {
                Some(obituary) => obituary.of(run).boxed(),
                None => run.boxed(),
            };
            stop::command(run, termination.clone(), handler).boxed()
        }
    };
    let (ended, exit) = watch::channel(None);
    runtime.spawn(supervise(run, kill.clone(), [tasks.clone(), requests], ended));
    let commands = Arc::new(Semaphore::new(COMMANDS));
    Ok(Guest { ground, listening, tasks, commands, termination, kill, exit })
}

/// Sees a guest to its end, and then says so.
async fn supervise(
    run: BoxFuture<'static, Exit>,
    kill: CancellationToken,
    trackers: [TaskTracker; 2],
    ended: watch::Sender<Option<Exit>>,
) {
    let [tasks, requests] = trackers;
    let exit = to_the_end(tasks.spawn(run), &kill).await;
    // Its commands end with it.
    kill.cancel();
    // All its tasks end at their next yield, and give back what they held. One that does not (a fill of all its memory
    // is a single instruction) is not waited for.
    tasks.close();
    requests.close();
    if tokio::time::timeout(LINGER, join(tasks.wait(), requests.wait())).await.is_err() {
        tracing::debug!("{} tasks of a guest outlive it for a moment", tasks.len() + requests.len());
    }
    ended.send_replace(Some(exit));
}

/// Waits for the end of a program, which a panic of ours may be, and ends it when it is to be killed.
async fn to_the_end(run: JoinHandle<Exit>, kill: &CancellationToken) -> Exit {
    let mut run = AbortOnDropHandle::new(run);
    tokio::select! {
        biased;
        () = kill.cancelled() => Exit::Killed,
        ended = &mut run => match ended.map_err(JoinError::try_into_panic) {
            Ok(exit) => exit,
            Err(Ok(panic)) => Exit::from_panic(panic.as_ref()),
            Err(Err(_)) => Exit::Killed,
        },
    }
}

/// Resolves once an end is known. One that nobody will ever tell is that of the guest runtime.
async fn known(mut exit: watch::Receiver<Option<Exit>>) -> Exit {
    match exit.wait_for(Option::is_some).await {
        Ok(exit) => exit.clone().unwrap_or(Exit::Killed),
        Err(_) => Exit::Killed,
    }
}

impl Guest {
    /// What kind of guest this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.ground.code.kind()
    }

    /// The address an HTTP guest is served on.
    #[must_use]
    pub fn listening(&self) -> Option<SocketAddr> {
        self.listening
    }

    /// Resolves once the guest has ended, at once if it has; may be called any number of times.
    pub fn exited(&self) -> impl Future<Output = Exit> + Send + use<> {
        known(self.exit.clone())
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Asks the guest to end within `grace`, of which the caller keeps count: it kills the guest when that is over. What
    /// comes of it stands at the top.
    pub fn request_stop(&self, grace: Duration) {
        self.termination.ask(grace);
    }

    /// Ends the guest within about one tick (5 ms), and is said to have ended within 50 ms, whatever it does.
    pub fn kill(&self) {
        self.kill.cancel();
    }

    /// From now on these are its limits, for what runs already too. A new CPU limit is felt within 100 ms.
    ///
    /// # Errors
    /// It holds more memory than that. Then all limits stay as they were.
    pub fn set_limits(&self, limits: &Limits) -> Result<(), MemoryInUse> {
        self.ground.metering.set_limits(limits)
    }

    /// What it has used so far, its commands included; CPU time stays readable after the end.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage { cpu: self.ground.metering.cpu_used(), memory_bytes: self.ground.metering.memory_used() }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_ours_ends_the_guest_and_nothing_else() {
        let (ended, mut exit) = watch::channel(None);
        let run = async { panic!("a bug of the node") }.boxed();
        supervise(run, CancellationToken::new(), [TaskTracker::new(), TaskTracker::new()], ended).await;
        let exit = exit.borrow_and_update().clone();
        assert_eq!(exit, Some(Exit::HostPanic { message: "a bug of the node".to_owned() }));
    }
}
