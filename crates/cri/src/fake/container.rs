//! What calls do to containers.

use std::path::Path;
use std::time::Duration;

use tokio::time;
use tonic::Status;

use super::images::Images;
use super::script::Outcome;
use super::state::{Container, ContainerStage, Exit, SandboxStage, reason_of, selects};
use super::{Fake, log};
use crate::v1::{self, ContainerEventType};

impl Fake {
    pub(super) async fn create(&self, request: v1::CreateContainerRequest) -> Result<String, Status> {
        let (config, metadata) = request
            .config
            .and_then(|config| config.metadata.clone().map(|metadata| (config, metadata)))
            .ok_or_else(|| Status::invalid_argument("a container needs metadata"))?;
        self.enter("CreateContainer", &metadata.name).await?;
        let now = self.now();
        let mut state = self.state();
        let sandbox = state.sandbox(&request.pod_sandbox_id)?;
        if !matches!(sandbox.stage, SandboxStage::Ready { .. }) {
            return Err(Status::failed_precondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        let sandbox_id = sandbox.id.clone();
        let log = log_file(&sandbox.config.log_directory, &config.log_path);
        let reference = config.image.clone().unwrap_or_default().image;
        let image = state
            .images
            .find(&reference)
            .ok_or_else(|| Status::not_found(format!("image {reference:?} is not on the node")))?;
        let taken =
            state.containers.values().find(|other| other.sandbox_id == sandbox_id && other.metadata == metadata);
        if let Some(other) = taken {
            return Err(Status::already_exists(format!(
                "container {} is attempt {} of {:?} already",
                other.id, metadata.attempt, metadata.name
            )));
        }
        let id = format!("{}-{}", metadata.name, state.next_number());
        state.containers.insert(
            id.clone(),
            Container {
                id: id.clone(),
                sandbox_id: sandbox_id.clone(),
                config,
                metadata,
                image: Images::name_of(&image),
                image_id: image.id,
                log,
                created_at: now,
                stage: ContainerStage::Created,
            },
        );
        let event = state.event(ContainerEventType::ContainerCreatedEvent, &id, &sandbox_id, now);
        let _ = self.shared.feed.send(event);
        drop(state);
        self.turned();
        Ok(id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), Status> {
        let name = self.state().container_name(id);
        self.enter("StartContainer", &name).await?;
        let now = self.now();
        let (log, written, outcome) = {
            let mut state = self.state();
            let container = state.container(id)?;
            if !matches!(container.stage, ContainerStage::Created) {
                return Err(Status::failed_precondition(format!(
                    "container {id} is {}, and only a created one can start",
                    container.state().as_str_name()
                )));
            }
            if !matches!(state.sandbox(&container.sandbox_id)?.stage, SandboxStage::Ready { .. }) {
                return Err(Status::failed_precondition(format!("sandbox {} is not ready", container.sandbox_id)));
            }
            let (log, image) = (container.log.clone(), container.image.clone());
            let mut written = own_words(&container.config);
            let starts = state.outcomes.entry(image).or_default();
            if !starts.shows_itself {
                written.clear();
            }
            written.splice(0..0, starts.lines.iter().cloned());
            let outcome = starts.next.pop_front().unwrap_or_else(|| starts.always.clone());
            (log, written, outcome)
        };
        if let Some(log) = log {
            log::write(&log, now, &written)
                .map_err(|error| Status::internal(format!("log {}: {error}", log.display())))?;
        }
        self.begin(id, now, outcome)
    }

    /// Moves a created container on, as its outcome says.
    fn begin(&self, id: &str, now: i64, outcome: Outcome) -> Result<(), Status> {
        let mut state = self.state();
        let sandbox_id = state.container(id)?.sandbox_id.clone();
        let Some(container) = state.containers.get_mut(id) else {
            return Err(Status::not_found(format!("no container {id:?}")));
        };
        if let Outcome::FailStart(message) = outcome {
            container.stage = ContainerStage::Exited(Exit {
                started_at: 0,
                finished_at: now,
                code: 128,
                reason: "StartError",
                message: message.clone(),
            });
            drop(state);
            self.turned();
            return Err(Status::unknown(message));
        }
        container.stage = ContainerStage::Running { started_at: now, ignores_stop: outcome == Outcome::IgnoreStop };
        let event = state.event(ContainerEventType::ContainerStartedEvent, id, &sandbox_id, now);
        let _ = self.shared.feed.send(event);
        drop(state);
        self.turned();
        match outcome {
            Outcome::ExitAfter { code, delay } => self.end_after(id, delay, code, reason_of(code)),
            Outcome::OutOfMemoryAfter { delay } => self.end_after(id, delay, 137, "OOMKilled"),
            Outcome::RunForever | Outcome::IgnoreStop | Outcome::FailStart(_) => {}
        }
        Ok(())
    }

    fn end_after(&self, id: &str, delay: Duration, code: i32, reason: &'static str) {
        let (fake, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            time::sleep(delay).await;
            fake.end(&id, code, reason, "");
        });
    }

    pub(super) async fn stop(&self, id: &str, grace: Duration) -> Result<(), Status> {
        let name = self.state().container_name(id);
        self.enter("StopContainer", &name).await?;
        let stage_ignores_stop = match self.state().containers.get(id).map(|found| &found.stage) {
            Some(ContainerStage::Running { ignores_stop, .. }) => *ignores_stop,
            _ => return Ok(()),
        };
        if !stage_ignores_stop && !grace.is_zero() {
            self.end(id, 143, reason_of(143), "");
            return Ok(());
        }
        let ended = self.until(|state| !state.containers.get(id).is_some_and(Container::is_running));
        if time::timeout(grace, ended).await.is_err() {
            self.end(id, 137, reason_of(137), "");
        }
        Ok(())
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), Status> {
        let name = self.state().container_name(id);
        self.enter("RemoveContainer", &name).await?;
        self.delete(id);
        Ok(())
    }

    pub(super) async fn status_of(&self, id: &str) -> Result<v1::ContainerStatus, Status> {
        let name = self.state().container_name(id);
        self.enter("ContainerStatus", &name).await?;
        Ok(self.state().container(id)?.status())
    }

    pub(super) async fn list(&self, filter: v1::ContainerFilter) -> Result<Vec<v1::Container>, Status> {
        self.enter("ListContainers", "").await?;
        let state = self.state();
        let passes = |container: &&Container| {
            (filter.id.is_empty() || filter.id == container.id)
                && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == container.sandbox_id)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state() == container.state())
                && selects(&filter.label_selector, &container.config.labels)
        };
        let listed = |container: &Container| v1::Container {
            id: container.id.clone(),
            pod_sandbox_id: container.sandbox_id.clone(),
            metadata: Some(container.metadata.clone()),
            image: container.config.image.clone(),
            image_ref: container.image_id.clone(),
            state: container.state().into(),
            created_at: container.created_at,
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
            image_id: container.image_id.clone(),
        };
        Ok(state.containers.values().filter(passes).map(listed).collect())
    }

    pub(super) async fn reopen_log(&self, id: &str) -> Result<(), Status> {
        let name = self.state().container_name(id);
        self.enter("ReopenContainerLog", &name).await?;
        let now = self.now();
        let log = {
            let state = self.state();
            let container = state.container(id)?;
            if !container.is_running() {
                return Err(Status::failed_precondition(format!("container {id} is not running")));
            }
            container.log.clone()
        };
        match log {
            Some(log) => {
                log::write(&log, now, &[]).map_err(|error| Status::internal(format!("log {}: {error}", log.display())))
            }
            None => Ok(()),
        }
    }
}

fn log_file(directory: &str, path: &str) -> Option<std::path::PathBuf> {
    (!directory.is_empty() && !path.is_empty()).then(|| Path::new(directory).join(path))
}

/// What a guest that shows its arguments and environment writes.
fn own_words(config: &v1::ContainerConfig) -> Vec<String> {
    let environment = config.envs.iter().map(|env| format!("{}={}", env.key, String::from_utf8_lossy(&env.value)));
    config.command.iter().chain(&config.args).cloned().chain(environment).collect()
}
