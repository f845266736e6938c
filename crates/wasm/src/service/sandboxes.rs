//! Calls about sandboxes: run, stop, remove, look, list.

use std::sync::Arc;

use cri::v1;
use cri::v1::ContainerEventType;
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use crate::id::{Nanoseconds, SandboxId};
use crate::keyvalue;
use crate::runtime::Core;
use crate::sandbox::network::{Addresses, Network};
use crate::sandbox::spec::SandboxSpec;
use crate::sandbox::task::{self, COMMANDS, Held};
use crate::sandbox::{Command, Sandbox, State};
use crate::service::error::ServiceError;

/// Addresses that are given back unless the sandbox is made.
struct Lease<'a> {
    network: &'a Network,
    addresses: Option<Addresses>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(addresses) = self.addresses.take() {
            self.network.release(addresses);
        }
    }
}

impl Core {
    /// Makes a sandbox. A caller that stops waiting leaves nothing behind.
    pub(super) async fn run_sandbox(
        self: &Arc<Self>,
        request: v1::RunPodSandboxRequest,
    ) -> Result<SandboxId, ServiceError> {
        if self.closing.is_cancelled() {
            return Err(ServiceError::ShuttingDown);
        }
        let config = request.config.ok_or_else(|| ServiceError::invalid("config", "missing"))?;
        let spec = SandboxSpec::parse(config, request.runtime_handler)?;
        let addresses = self.network.lease(spec.host_network())?;
        let mut lease = Lease { network: &self.network, addresses: Some(addresses) };
        let forwarders = task::publish(&spec, addresses, self.network.node()).await?;
        let network = Arc::new(task::pod_network(&spec, addresses));

        let (state, watched) = watch::channel(State::Ready { network });
        let (commands, asked) = mpsc::channel(COMMANDS);
        let sandbox = Arc::new(Sandbox {
            id: SandboxId::random(),
            spec,
            created_at: Nanoseconds::now(),
            state: watched,
            commands,
            pairs: keyvalue::Memory::default(),
        });
        self.registry().insert_sandbox(Arc::clone(&sandbox))?;
        // From here on the sandbox is there, and its task gives back what it holds.
        lease.addresses = None;
        let held = Held { addresses: Some(addresses), forwarders };
        let task = task::Task { core: Arc::clone(self), sandbox: Arc::clone(&sandbox), state, commands: asked, held };
        tokio::spawn(task.run().instrument(sandbox.span()));
        if let Err(error) = self.record_sandbox(&sandbox, addresses).await {
            sandbox.ask(Command::Remove).await?;
            return Err(error);
        }
        tracing::info!(sandbox = %sandbox.id, pod = %sandbox.spec.name, namespace = %sandbox.spec.namespace,
            address = %addresses.address(), "sandbox ready");
        for event in [ContainerEventType::ContainerCreatedEvent, ContainerEventType::ContainerStartedEvent] {
            self.emit(event, sandbox.id.as_str(), &sandbox);
        }
        Ok(sandbox.id.clone())
    }

    async fn record_sandbox(self: &Arc<Self>, sandbox: &Sandbox, addresses: Addresses) -> Result<(), ServiceError> {
        let record = task::record(sandbox, Some(addresses));
        let core = Arc::clone(self);
        let written =
            tokio::task::spawn_blocking(move || core.sandbox_records.write(record.id.as_str(), &record)).await;
        Ok(written.map_err(|_| ServiceError::ShuttingDown)??)
    }

    /// Stops a sandbox; one that is stopped or gone stays so.
    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), ServiceError> {
        let found = self.registry().sandbox(id);
        match found {
            Ok(sandbox) => gone_is_fine(sandbox.ask(Command::Stop).await),
            Err(error) => gone_is_fine(Err(error)),
        }
    }

    /// Removes a sandbox with its containers; one that is gone stays so.
    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), ServiceError> {
        let found = self.registry().sandbox(id);
        match found {
            Ok(sandbox) => gone_is_fine(sandbox.ask(Command::Remove).await),
            Err(error) => gone_is_fine(Err(error)),
        }
    }

    pub(super) fn sandbox_status(
        &self,
        request: &v1::PodSandboxStatusRequest,
    ) -> Result<v1::PodSandboxStatusResponse, ServiceError> {
        let sandbox = self.registry().sandbox(&request.pod_sandbox_id)?;
        let containers = self.containers_of(&sandbox.id);
        Ok(v1::PodSandboxStatusResponse {
            status: Some(sandbox.status()),
            containers_statuses: containers.iter().map(|container| container.status()).collect(),
            timestamp: Nanoseconds::now().0,
            ..Default::default()
        })
    }

    pub(super) fn list_sandboxes(&self, filter: &v1::PodSandboxFilter) -> Vec<v1::PodSandbox> {
        let sandboxes = self.registry().sandboxes_with(&filter.label_selector);
        let items = sandboxes.iter().map(|sandbox| sandbox.item());
        items
            .filter(|item| {
                item.id.starts_with(&filter.id)
                    && filter.state.is_none_or(|wanted| wanted.state == item.state)
                    && has_labels(&item.labels, &filter.label_selector)
            })
            .collect()
    }
}

/// Whether all of `wanted` are among `labels`.
pub(super) fn has_labels(labels: &cri::names::Map, wanted: &cri::names::Map) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn gone_is_fine(result: Result<(), ServiceError>) -> Result<(), ServiceError> {
    match result {
        Err(ServiceError::NoSandbox(_)) => Ok(()),
        other => other,
    }
}
