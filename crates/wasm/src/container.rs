//! One container: what it is, how far it has come, and the handle by which others reach it.
//!
//! ```text
//!   Created ── start ──► Running ── its guest ends ──► Exited ── remove ──► gone
//!      │                                                  ▲
//!      └── start fails (128 StartError) ──────────────────┘
//! ```
//! A container never runs twice: a restart is another container. Its [`task`] is the only writer of its state; in come
//! [`Command`]s, out goes the state, by a watch channel and in its record.

pub(crate) mod config;
pub(crate) mod mounts;
pub(crate) mod root;
pub(crate) mod stdio;
pub(crate) mod task;

use std::sync::Arc;
use std::time::Duration;

use cri::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::container::config::{ContainerSpec, Resources};
use crate::container::stdio::Stdio;
use crate::guest::{Exit, Guest};
use crate::id::{ContainerId, Nanoseconds, SandboxId};
use crate::images::Programs;
use crate::service::error::ServiceError;

/// What containerd reports for containers that ended while nobody watched.
const UNKNOWN_EXIT: (i32, &str) = (255, "Unknown");
/// What Kubernetes reports for containers that could not be started.
const START_ERROR: (i32, &str) = (128, "StartError");
/// A killed guest ends within milliseconds; its log and its record may take longer.
const KILLED_WITHIN: Duration = Duration::from_secs(30);
/// A guest that a panic of ours ended says nothing about itself.
const PANIC_EXIT_CODE: i32 = 255;

/// A container, shared by all who ask about it.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) sandbox_id: SandboxId,
    /// But for its resources, which `resources` tells as they are now.
    pub(crate) spec: ContainerSpec,
    /// Absent in a container of an earlier process, in which nothing runs any more.
    pub(crate) programs: Option<Programs>,
    pub(crate) resources: watch::Receiver<Resources>,
    pub(crate) created_at: Nanoseconds,
    pub(crate) stdio: Arc<Stdio>,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) commands: mpsc::Sender<Command>,
}

/// How far a container has come.
#[derive(Clone)]
pub(crate) enum State {
    Created,
    Running { started_at: Nanoseconds, guest: Arc<Guest> },
    Exited(Exited),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exited {
    /// Absent if it never ran.
    pub(crate) started_at: Option<Nanoseconds>,
    pub(crate) finished_at: Nanoseconds,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// CPU time it used, in nanoseconds.
    pub(crate) cpu_nanoseconds: u64,
}

/// What a container's task is asked to do.
pub(crate) enum Command {
    /// Start the guest.
    Start(oneshot::Sender<Result<(), ServiceError>>),
    /// End the guest: ask it to stop, and kill it once `grace` is over. A shorter grace than an earlier one counts; the
    /// end is seen in the state.
    /// `heard` says that nothing asked before is still to come.
    Stop { grace: Duration, heard: oneshot::Sender<()> },
    /// Change the limits.
    Resize { resources: Resources, answer: oneshot::Sender<Result<(), ServiceError>> },
    /// Go on in a new log file.
    ReopenLog(oneshot::Sender<Result<(), ServiceError>>),
    /// Kill the guest if it runs, and remove all that is left of the container but its log.
    Remove(oneshot::Sender<Result<(), ServiceError>>),
}

/// What outlives the process.
#[derive(Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) sandbox_id: SandboxId,
    pub(crate) created_at: Nanoseconds,
    pub(crate) spec: ContainerSpec,
    pub(crate) state: RecordedState,
}

/// A [`State`] on disk.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum RecordedState {
    Created,
    Running { started_at: Nanoseconds },
    Exited(Exited),
}

impl State {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { .. } => "running",
            Self::Exited(_) => "exited",
        }
    }

    pub(crate) fn cri(&self) -> v1::ContainerState {
        match self {
            Self::Created => v1::ContainerState::ContainerCreated,
            Self::Running { .. } => v1::ContainerState::ContainerRunning,
            Self::Exited(_) => v1::ContainerState::ContainerExited,
        }
    }

    pub(crate) fn recorded(&self) -> RecordedState {
        match self {
            Self::Created => RecordedState::Created,
            Self::Running { started_at, .. } => RecordedState::Running { started_at: *started_at },
            Self::Exited(exited) => RecordedState::Exited(exited.clone()),
        }
    }
}

impl RecordedState {
    /// How a container went whose process is gone: its guest ended with that, nobody knows how. A container that was
    /// only created cannot be started any more either, as its code and its streams were in that process.
    pub(crate) fn after_restart(self) -> Exited {
        let started_at = match self {
            Self::Exited(exited) => return exited,
            Self::Running { started_at } => Some(started_at),
            Self::Created => None,
        };
        let (exit_code, reason) = UNKNOWN_EXIT;
        Exited {
            started_at,
            finished_at: Nanoseconds::now(),
            exit_code,
            reason: reason.to_owned(),
            message: "the runtime was restarted".to_owned(),
            cpu_nanoseconds: 0,
        }
    }
}

impl Exited {
    pub(crate) fn of(exit: Exit, started_at: Nanoseconds, cpu: Duration) -> Self {
        let (exit_code, reason) = (exit.code(), exit.reason());
        let (exit_code, message) = match exit {
            Exit::Trap { message } => (exit_code, message),
            Exit::HostPanic { message } => (PANIC_EXIT_CODE, format!("the runtime panicked: {message}")),
            Exit::OutOfMemory | Exit::Code(_) | Exit::Stopped | Exit::Killed => (exit_code, String::new()),
        };
        Self {
            started_at: Some(started_at),
            finished_at: Nanoseconds::now(),
            exit_code,
            reason: reason.to_owned(),
            message,
            cpu_nanoseconds: u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn not_started(error: &ServiceError) -> Self {
        let (exit_code, reason) = START_ERROR;
        Self {
            started_at: None,
            finished_at: Nanoseconds::now(),
            exit_code,
            reason: reason.to_owned(),
            message: crate::service::error::chain(error),
            cpu_nanoseconds: 0,
        }
    }
}

impl Container {
    pub(crate) fn metadata(&self) -> v1::ContainerMetadata {
        v1::ContainerMetadata { name: self.spec.name.clone(), attempt: self.spec.attempt }
    }

    fn image(&self) -> v1::ImageSpec {
        v1::ImageSpec {
            image: self.spec.image.clone(),
            user_specified_image: self.spec.user_specified_image.clone(),
            ..Default::default()
        }
    }

    /// As `ListContainers` shows it.
    pub(crate) fn item(&self) -> v1::Container {
        v1::Container {
            id: self.id.to_string(),
            pod_sandbox_id: self.sandbox_id.to_string(),
            metadata: Some(self.metadata()),
            image: Some(self.image()),
            image_ref: self.spec.image_ref.clone(),
            image_id: self.spec.image_id.clone(),
            state: self.state.borrow().cri() as i32,
            created_at: self.created_at.0,
            labels: self.spec.labels.clone(),
            annotations: self.spec.annotations.clone(),
        }
    }

    /// As `ContainerStatus` shows it.
    pub(crate) fn status(&self) -> v1::ContainerStatus {
        let state = self.state.borrow().clone();
        let mut status = v1::ContainerStatus {
            id: self.id.to_string(),
            metadata: Some(self.metadata()),
            state: state.cri() as i32,
            created_at: self.created_at.0,
            image: Some(self.image()),
            image_ref: self.spec.image_ref.clone(),
            image_id: self.spec.image_id.clone(),
            labels: self.spec.labels.clone(),
            annotations: self.spec.annotations.clone(),
            mounts: self.spec.mounts.iter().map(v1::Mount::from).collect(),
            log_path: self.spec.log_path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
            resources: Some((*self.resources.borrow()).into()),
            ..Default::default()
        };
        match state {
            State::Created => {}
            State::Running { started_at, .. } => status.started_at = started_at.0,
            State::Exited(exited) => {
                status.started_at = exited.started_at.map_or(0, |at| at.0);
                status.finished_at = exited.finished_at.0;
                status.exit_code = exited.exit_code;
                status.reason = exited.reason;
                status.message = exited.message;
            }
        }
        status
    }

    /// The guest, while it runs.
    pub(crate) fn guest(&self) -> Result<Arc<Guest>, ServiceError> {
        match &*self.state.borrow() {
            State::Running { guest, .. } => Ok(Arc::clone(guest)),
            other => Err(ServiceError::WrongState { id: self.id.clone(), state: other.name() }),
        }
    }

    /// Ends the guest, with `grace` to do so by itself, and waits for the end. A container that does not run, or that is
    /// removed meanwhile, is left as it is.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<(), ServiceError> {
        let ended = async {
            let (heard, told) = oneshot::channel();
            if self.commands.send(Command::Stop { grace, heard }).await.is_err() || told.await.is_err() {
                return;
            }
            // An error says that the container is gone altogether.
            let mut state = self.state.clone();
            let _ = state.wait_for(|state| !matches!(state, State::Running { .. })).await;
        };
        let late = |_elapsed| ServiceError::StillRunning(self.id.clone());
        tokio::time::timeout(grace.saturating_add(KILLED_WITHIN), ended).await.map_err(late)
    }

    /// Asks the task and waits for its answer.
    pub(crate) async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), ServiceError>>) -> Command,
    ) -> Result<(), ServiceError> {
        let (answer, answered) = oneshot::channel();
        let gone = || ServiceError::NoContainer(self.id.to_string());
        self.commands.send(command(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_reported_in_kubernetes_words() {
        let exited = |exit| {
            let exited = Exited::of(exit, Nanoseconds(1), Duration::from_micros(3));
            (exited.exit_code, exited.reason, exited.message)
        };
        let trap = || Exit::Trap { message: "unreachable".into() };
        let expected = |code, reason: &str, message: &str| (code, reason.to_owned(), message.to_owned());
        assert_eq!(exited(Exit::Code(0)), expected(0, "Completed", ""));
        assert_eq!(exited(Exit::Code(3)), expected(3, "Error", ""));
        assert_eq!(exited(trap()), expected(134, "Error", "unreachable"));
        assert_eq!(exited(Exit::OutOfMemory), expected(137, "OOMKilled", ""));
        assert_eq!(exited(Exit::Killed), expected(137, "Error", ""));
        assert_eq!(exited(Exit::Stopped), expected(143, "Error", ""));
        let panic = Exit::HostPanic { message: "index".into() };
        assert_eq!(exited(panic), expected(255, "Error", "the runtime panicked: index"));
    }

    #[test]
    fn what_a_restart_interrupted_is_unknown_and_what_ended_before_is_kept() {
        let ended = Exited::of(Exit::Code(7), Nanoseconds(1), Duration::ZERO);
        assert_eq!(RecordedState::Exited(ended.clone()).after_restart(), ended);
        let ran = RecordedState::Running { started_at: Nanoseconds(5) }.after_restart();
        assert_eq!((ran.started_at, ran.exit_code, ran.reason.as_str()), (Some(Nanoseconds(5)), 255, "Unknown"));
        assert_eq!(RecordedState::Created.after_restart().started_at, None);
    }
}
