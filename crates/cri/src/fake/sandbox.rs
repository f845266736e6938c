//! What calls do to sandboxes.

use super::state::{Sandbox, SandboxStage, selects};
use super::{Fake, state};
use crate::v1::{self, ContainerEventType, NamespaceMode};
use tonic::Status;

impl Fake {
    pub(super) async fn run_sandbox(&self, request: v1::RunPodSandboxRequest) -> Result<String, Status> {
        let (config, metadata) = request
            .config
            .and_then(|config| config.metadata.clone().map(|metadata| (config, metadata)))
            .ok_or_else(|| Status::invalid_argument("a sandbox needs metadata"))?;
        self.enter("RunPodSandbox", &metadata.name).await?;
        let now = self.now();
        let mut state = self.state();
        if let Some(other) = state.sandboxes.values().find(|other| other.metadata == metadata) {
            return Err(Status::already_exists(format!(
                "sandbox {} is attempt {} of pod {}/{} already",
                other.id, metadata.attempt, metadata.namespace, metadata.name
            )));
        }
        let address = if state.network_ready && !on_host_network(&config) {
            let free = state.free_address();
            Some(free.ok_or_else(|| Status::resource_exhausted("no address is free"))?)
        } else {
            None
        };
        let id = format!("{}-{}", metadata.name, state.next_number());
        state.sandboxes.insert(
            id.clone(),
            Sandbox {
                id: id.clone(),
                config,
                metadata,
                runtime_handler: request.runtime_handler,
                created_at: now,
                stage: SandboxStage::Ready { address },
            },
        );
        drop(state);
        self.turned();
        Ok(id)
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
        let name = self.state().pod_name(id);
        self.enter("StopPodSandbox", &name).await?;
        let containers = self.state().containers_of(id);
        for container in containers {
            self.end(&container, 137, state::reason_of(137), "");
        }
        if let Some(sandbox) = self.state().sandboxes.get_mut(id) {
            sandbox.stage = SandboxStage::NotReady;
        }
        self.turned();
        Ok(())
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        let name = self.state().pod_name(id);
        self.enter("RemovePodSandbox", &name).await?;
        let containers = self.state().containers_of(id);
        for container in containers {
            self.delete(&container);
        }
        self.state().sandboxes.remove(id);
        self.turned();
        Ok(())
    }

    pub(super) async fn sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatusResponse, Status> {
        let name = self.state().pod_name(id);
        self.enter("PodSandboxStatus", &name).await?;
        let timestamp = self.now();
        let state = self.state();
        let status = state.sandbox(id)?.status();
        let containers_statuses = state
            .containers
            .values()
            .filter(|container| container.sandbox_id == id)
            .map(state::Container::status)
            .collect();
        Ok(v1::PodSandboxStatusResponse {
            status: Some(status),
            containers_statuses,
            timestamp,
            ..v1::PodSandboxStatusResponse::default()
        })
    }

    pub(super) async fn list_sandboxes(&self, filter: v1::PodSandboxFilter) -> Result<Vec<v1::PodSandbox>, Status> {
        self.enter("ListPodSandbox", "").await?;
        let state = self.state();
        let passes = |sandbox: &&Sandbox| {
            (filter.id.is_empty() || filter.id == sandbox.id)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state() == sandbox.state())
                && selects(&filter.label_selector, &sandbox.config.labels)
        };
        let listed = |sandbox: &Sandbox| v1::PodSandbox {
            id: sandbox.id.clone(),
            metadata: Some(sandbox.metadata.clone()),
            state: sandbox.state().into(),
            created_at: sandbox.created_at,
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
            runtime_handler: sandbox.runtime_handler.clone(),
        };
        Ok(state.sandboxes.values().filter(passes).map(listed).collect())
    }

    /// Ends a running container and tells of it.
    pub(super) fn end(&self, id: &str, code: i32, reason: &'static str, message: &str) {
        let now = self.now();
        let mut state = self.state();
        if state.end(id, now, code, reason, message) {
            let sandbox_id = state.containers.get(id).map(|ended| ended.sandbox_id.clone());
            let event =
                state.event(ContainerEventType::ContainerStoppedEvent, id, &sandbox_id.unwrap_or_default(), now);
            // Sent under the lock, so that events keep the order of what they tell. No reader is no error.
            let _ = self.shared.feed.send(event);
        }
        drop(state);
        self.turned();
    }

    /// Removes a container, ends it first if it runs, and tells of both.
    pub(super) fn delete(&self, id: &str) {
        self.end(id, 137, state::reason_of(137), "");
        let now = self.now();
        let mut state = self.state();
        if let Some(container) = state.containers.remove(id) {
            let event = state.event(ContainerEventType::ContainerDeletedEvent, id, &container.sandbox_id, now);
            let _ = self.shared.feed.send(event);
        }
        drop(state);
        self.turned();
    }
}

fn on_host_network(config: &v1::PodSandboxConfig) -> bool {
    config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .and_then(|context| context.namespace_options.as_ref())
        .is_some_and(|options| options.network() == NamespaceMode::Node)
}
