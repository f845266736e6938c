//! The task of one container, the only writer of its state.
//!
//! In come commands and the guest's exit, out go states, records and events, in this order: what the state says has been
//! recorded, and an exited container's log is complete. The task ends when its container is removed, or with the
//! runtime; then it writes nothing any more, as a killed process would not.

use std::sync::Arc;
use std::time::Duration;

use cri::v1::ContainerEventType;
use image::Lease;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::code::Code;
use crate::container::config::{ContainerSpec, Resources};
use crate::container::mounts::TerminationMessage;
use crate::container::root::Root;
use crate::container::stdio::{self, Output, Reopen};
use crate::container::{Command, Container, ContainerRecord, Exited, State};
use crate::guest::{self, Application, Exit, Guest, GuestSpec, Http, Mount};
use crate::id::Nanoseconds;
use crate::log::Log;
use crate::runtime::Core;
use crate::sandbox::Sandbox;
use crate::service::error::{ServiceError, chain};
use crate::wasi::network::PodNetwork;

/// Stops, log rotations and a removal that may wait for the task.
pub(crate) const COMMANDS: usize = 16;
/// What the guest wrote is in this process already; a log on a disk that hangs does not keep the exit from being seen.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// A grace period nobody lives to see the end of.
const LONGEST_GRACE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// All that it takes to run the guest of a container that was created.
pub(crate) struct Launch {
    pub(crate) code: Arc<Code>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: Option<String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) files: Files,
    pub(crate) tty: bool,
    pub(crate) network: Arc<PodNetwork>,
    pub(crate) http: Http,
    pub(crate) hostname: String,
    pub(crate) termination_message: Option<TerminationMessage>,
    /// The Spin application that the code is the first component of.
    pub(crate) application: Option<Application>,
}

/// What the guest's files need for as long as it runs: its root mounted, its images not removed.
pub(crate) struct Files {
    #[expect(dead_code, reason = "held to be dropped")]
    pub(crate) root: Root,
    #[expect(dead_code, reason = "held to be dropped")]
    pub(crate) leases: Vec<Lease>,
}

/// One container's task.
pub(crate) struct Task {
    pub(crate) core: Arc<Core>,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) container: Arc<Container>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) resources: watch::Sender<Resources>,
    pub(crate) commands: mpsc::Receiver<Command>,
}

/// A guest that runs, and what goes with it.
struct Running {
    guest: Arc<Guest>,
    started_at: Nanoseconds,
    pump: JoinHandle<()>,
    /// Tells the pump that the guest has ended.
    ended: CancellationToken,
    reopen: mpsc::Sender<Reopen>,
    termination_message: Option<TerminationMessage>,
    files: Files,
}

/// Why a stage of the container is over.
enum Next {
    Start(oneshot::Sender<Result<(), ServiceError>>),
    Exited(Exit),
    Remove(oneshot::Sender<Result<(), ServiceError>>),
    /// The runtime ends.
    Abandon,
}

impl Task {
    /// From creation to removal.
    pub(crate) async fn run(mut self, launch: Launch) {
        let removal = match self.created().await {
            Next::Start(answer) => match self.start(launch).await {
                Ok(running) => {
                    answer.send(Ok(())).ok();
                    self.running(running).await
                }
                Err(error) => {
                    self.exit(Exited::not_started(&error)).await;
                    answer.send(Err(error)).ok();
                    self.exited().await
                }
            },
            other => {
                drop(launch);
                other
            }
        };
        self.end(removal).await;
    }

    /// From the restart of the runtime to removal, for a container of an earlier process.
    pub(crate) async fn run_exited(mut self) {
        let removal = self.exited().await;
        self.end(removal).await;
    }

    async fn next_command(&mut self) -> Option<Command> {
        tokio::select! {
            biased;
            () = self.core.closing.cancelled() => None,
            command = self.commands.recv() => command,
        }
    }

    async fn created(&mut self) -> Next {
        loop {
            match self.next_command().await {
                None => return Next::Abandon,
                Some(Command::Start(answer)) => return Next::Start(answer),
                Some(Command::Remove(answer)) => return Next::Remove(answer),
                // It has not been started, so there is nothing to stop; its sandbox keeps it from being started.
                Some(Command::Stop { heard, .. }) => drop(heard.send(())),
                Some(Command::Resize { resources, answer }) => drop(answer.send(self.resize(None, resources).await)),
                Some(Command::ReopenLog(answer)) => drop(answer.send(Err(self.wrong_state()))),
            }
        }
    }

    async fn start(&mut self, launch: Launch) -> Result<Running, ServiceError> {
        if !self.sandbox.is_ready() {
            return Err(ServiceError::SandboxNotReady(self.sandbox.id.clone()));
        }
        let Output { stdout, stderr, pump } = stdio::output(launch.tty);
        let spec = GuestSpec {
            code: launch.code,
            args: launch.args,
            env: launch.env,
            working_dir: launch.working_dir,
            mounts: launch.mounts,
            stdin: self.container.stdio.guest_stdin(),
            stdout,
            stderr,
            tty: launch.tty,
            network: launch.network,
            http: launch.http,
            limits: self.resources.borrow().limits(),
            hostname: launch.hostname,
            pairs: self.sandbox.pairs.clone(),
            application: launch.application,
        };
        // Before the guest, so that a log file is there whatever becomes of the guest.
        let log = Log::open(self.container.spec.log_path.clone()).await;
        let engines = Arc::clone(&self.core.engines);
        let started = tokio::task::spawn_blocking(move || guest::start(&engines, spec)).await;
        let guest = started
            .map_err(|_| ServiceError::ShuttingDown)?
            .map_err(|source| ServiceError::Start { id: self.container.id.clone(), source })?;

        let (reopen, reopen_requests) = mpsc::channel(1);
        let stdio = Arc::clone(&self.container.stdio);
        let ended = CancellationToken::new();
        let told = ended.clone();
        let pump = tokio::spawn(async move { pump.run(log, &stdio, reopen_requests, told).await });
        let running = Running {
            guest: Arc::new(guest),
            started_at: Nanoseconds::now(),
            pump,
            ended,
            reopen,
            termination_message: launch.termination_message,
            files: launch.files,
        };
        self.enter(State::Running { started_at: running.started_at, guest: Arc::clone(&running.guest) }).await;
        tracing::info!(container = %self.container.id, name = %self.container.spec.name, "container started");
        self.core.emit(ContainerEventType::ContainerStartedEvent, self.container.id.as_str(), &self.sandbox);
        Ok(running)
    }

    /// Until the container is removed: its guest ends before that in any case.
    async fn running(&mut self, running: Running) -> Next {
        let mut removal = None;
        let exit = match self.guest_runs(&running).await {
            Next::Exited(exit) => exit,
            Next::Remove(answer) => {
                running.guest.kill();
                removal = Some(answer);
                running.guest.exited().await
            }
            Next::Abandon | Next::Start(_) => {
                running.guest.kill();
                running.pump.abort();
                return Next::Abandon;
            }
        };
        let exited = Exited::of(exit, running.started_at, running.guest.usage().cpu);
        self.drain(running).await;
        self.exit(exited).await;
        match removal {
            Some(answer) => Next::Remove(answer),
            None => self.exited().await,
        }
    }

    async fn guest_runs(&mut self, running: &Running) -> Next {
        let core = Arc::clone(&self.core);
        let exited = running.guest.exited();
        tokio::pin!(exited);
        let mut kill_at: Option<Instant> = None;
        loop {
            let kill = async {
                match kill_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let command = tokio::select! {
                biased;
                () = core.closing.cancelled() => return Next::Abandon,
                exit = &mut exited => return Next::Exited(exit),
                () = kill => {
                    running.guest.kill();
                    kill_at = None;
                    continue;
                }
                command = self.commands.recv() => command,
            };
            match command {
                None => return Next::Abandon,
                Some(Command::Start(answer)) => drop(answer.send(Err(self.wrong_state()))),
                Some(Command::Remove(answer)) => return Next::Remove(answer),
                Some(Command::Stop { grace, heard }) => {
                    heard.send(()).ok();
                    let grace = grace.min(LONGEST_GRACE);
                    // Without any time there is nothing to ask for: the kill is not to race with a guest's own end.
                    if !grace.is_zero() {
                        running.guest.request_stop(grace);
                    }
                    let at = Instant::now() + grace;
                    kill_at = Some(kill_at.map_or(at, |earlier| earlier.min(at)));
                }
                Some(Command::Resize { resources, answer }) => {
                    drop(answer.send(self.resize(Some(&running.guest), resources).await));
                }
                // Answered by the pump, so that a log on a slow disk does not hold up a stop.
                Some(Command::ReopenLog(answer)) => {
                    tokio::spawn(reopen_log(running.reopen.clone(), answer, Arc::clone(&self.container)));
                }
            }
        }
    }

    /// Waits until all that the guest wrote is in its log, and its last word where the kubelet reads it.
    async fn drain(&self, mut running: Running) {
        running.ended.cancel();
        if tokio::time::timeout(DRAIN_WITHIN, &mut running.pump).await.is_err() {
            tracing::warn!(container = %self.container.id, "the log does not take the last lines in time: they are lost");
            running.pump.abort();
        }
        if let Some(message) = running.termination_message {
            let copied = tokio::task::spawn_blocking(move || message.copy_out()).await;
            if let Ok(Err(error)) = copied {
                tracing::warn!(container = %self.container.id, %error, "the termination message cannot be copied");
            }
        }
        // Now that nothing of it is needed any more.
        drop(running.files);
    }

    async fn exited(&mut self) -> Next {
        loop {
            match self.next_command().await {
                None => return Next::Abandon,
                Some(Command::Remove(answer)) => return Next::Remove(answer),
                Some(Command::Stop { heard, .. }) => drop(heard.send(())),
                Some(Command::Start(answer) | Command::ReopenLog(answer) | Command::Resize { answer, .. }) => {
                    drop(answer.send(Err(self.wrong_state())));
                }
            }
        }
    }

    async fn exit(&mut self, exited: Exited) {
        tracing::info!(
            container = %self.container.id, name = %self.container.spec.name, exit_code = exited.exit_code,
            reason = exited.reason, message = exited.message, "container exited"
        );
        self.container.stdio.close();
        self.enter(State::Exited(exited)).await;
        self.core.emit(ContainerEventType::ContainerStoppedEvent, self.container.id.as_str(), &self.sandbox);
    }

    /// Gives the guest its new limits, then says so.
    async fn resize(&mut self, guest: Option<&Guest>, change: Resources) -> Result<(), ServiceError> {
        let resources = self.resources.borrow().changed(change);
        if let Some(guest) = guest {
            let refused = |problem| ServiceError::Resize { name: self.container.spec.name.clone(), problem };
            guest.set_limits(&resources.limits()).map_err(refused)?;
        }
        self.resources.send_replace(resources);
        let state = self.state.borrow().clone();
        self.record(&state).await;
        tracing::info!(
            container = %self.container.id, name = %self.container.spec.name, limits = ?resources.limits(), "container resized"
        );
        Ok(())
    }

    async fn enter(&mut self, state: State) {
        self.record(&state).await;
        self.state.send_replace(state);
    }

    async fn record(&self, state: &State) {
        let record = record(&self.container, state);
        let (core, id) = (Arc::clone(&self.core), self.container.id.clone());
        let written = tokio::task::spawn_blocking(move || core.container_records.write(id.as_str(), &record)).await;
        if let Ok(Err(error)) = written {
            // The container goes on: after a restart of the runtime it will be said to have ended, nobody knows how.
            tracing::error!(container = %self.container.id, error = %chain(&error), "the container's state is not recorded");
        }
    }

    async fn end(self, next: Next) {
        self.container.stdio.close();
        let Next::Remove(answer) = next else { return };
        let (core, id) = (Arc::clone(&self.core), self.container.id.clone());
        let removed = tokio::task::spawn_blocking(move || core.container_records.remove(id.as_str())).await;
        self.core.forget_container(&self.container);
        self.core.emit(ContainerEventType::ContainerDeletedEvent, self.container.id.as_str(), &self.sandbox);
        if let Ok(Err(error)) = removed {
            // The container is gone; what is left of its directory is swept away at the next start.
            tracing::warn!(container = %self.container.id, error = %chain(&error), "files of the container are left");
        }
        answer.send(Ok(())).ok();
    }

    fn wrong_state(&self) -> ServiceError {
        ServiceError::WrongState { id: self.container.id.clone(), state: self.state.borrow().name() }
    }
}

/// A container as it outlives the process.
pub(crate) fn record(container: &Container, state: &State) -> ContainerRecord {
    ContainerRecord {
        id: container.id.clone(),
        sandbox_id: container.sandbox_id.clone(),
        created_at: container.created_at,
        spec: ContainerSpec { resources: *container.resources.borrow(), ..container.spec.clone() },
        state: state.recorded(),
    }
}

async fn reopen_log(
    pump: mpsc::Sender<Reopen>,
    answer: oneshot::Sender<Result<(), ServiceError>>,
    container: Arc<Container>,
) {
    let (reopened, result) = oneshot::channel();
    let exited = || ServiceError::WrongState { id: container.id.clone(), state: "exited" };
    let result = match pump.send(reopened).await {
        Ok(()) => result.await.map_err(|_| exited()),
        Err(_) => Err(exited()),
    };
    let log_error = |source| ServiceError::Log { id: container.id.clone(), source };
    answer.send(result.and_then(|reopened| reopened.map_err(log_error))).ok();
}
