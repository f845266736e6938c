//! One sandbox: a pod's identity, addresses and host ports, and the handle by which others reach it.
//!
//! ```text
//!   Ready ── stop ──► NotReady ── remove ──► gone
//!                        ▲
//!   after a restart of the runtime
//! ```
//! A sandbox never becomes ready again: the kubelet makes another one. Its [`task`] is the only writer of its state and
//! holds what the sandbox holds on the node. Containers are not in it: they know their sandbox.

pub(crate) mod network;
pub(crate) mod spec;
pub(crate) mod task;

use std::sync::Arc;

use cri::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::id::{Nanoseconds, SandboxId};
use crate::keyvalue;
use crate::sandbox::network::Addresses;
use crate::sandbox::spec::SandboxSpec;
use crate::service::error::ServiceError;
use crate::wasi::network::PodNetwork;

/// A sandbox, shared by all who ask about it.
pub(crate) struct Sandbox {
    pub(crate) id: SandboxId,
    pub(crate) spec: SandboxSpec,
    pub(crate) created_at: Nanoseconds,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) commands: mpsc::Sender<Command>,
    /// What its guests share through `wasi:keyvalue`.
    pub(crate) pairs: keyvalue::Memory,
}

/// Whether guests can run in a sandbox.
#[derive(Clone)]
pub(crate) enum State {
    Ready { network: Arc<PodNetwork> },
    NotReady,
}

/// What a sandbox's task is asked to do.
pub(crate) enum Command {
    /// Kill what runs in it and give back its addresses and ports.
    Stop(oneshot::Sender<Result<(), ServiceError>>),
    /// Stop it, and remove it with all its containers.
    Remove(oneshot::Sender<Result<(), ServiceError>>),
}

/// What outlives the process.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: SandboxId,
    pub(crate) created_at: Nanoseconds,
    pub(crate) spec: SandboxSpec,
    /// Until it is stopped.
    pub(crate) addresses: Option<Addresses>,
}

impl Sandbox {
    /// The span of everything that is logged about the pod.
    pub(crate) fn span(&self) -> tracing::Span {
        tracing::info_span!("pod", name = %self.spec.name, namespace = %self.spec.namespace, uid = %self.spec.uid)
    }

    /// The pod's network, while the sandbox is ready.
    pub(crate) fn network(&self) -> Option<Arc<PodNetwork>> {
        match &*self.state.borrow() {
            State::Ready { network } => Some(Arc::clone(network)),
            State::NotReady => None,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.state.borrow(), State::Ready { .. })
    }

    fn cri_state(&self) -> i32 {
        let state =
            if self.is_ready() { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready };
        state as i32
    }

    /// As `ListPodSandbox` shows it.
    pub(crate) fn item(&self) -> v1::PodSandbox {
        v1::PodSandbox {
            id: self.id.to_string(),
            metadata: Some(self.spec.metadata()),
            state: self.cri_state(),
            created_at: self.created_at.0,
            labels: self.spec.labels.clone(),
            annotations: self.spec.annotations.clone(),
            runtime_handler: self.spec.runtime_handler.clone(),
        }
    }

    /// As `PodSandboxStatus` shows it. The address of a sandbox that is not ready may be another's by now.
    pub(crate) fn status(&self) -> v1::PodSandboxStatus {
        let namespaces = &self.spec.namespaces;
        let options = v1::NamespaceOption {
            network: namespaces.network,
            pid: namespaces.pid,
            ipc: namespaces.ipc,
            ..Default::default()
        };
        let address = self.network().map(|network| network.address().to_string()).unwrap_or_default();
        v1::PodSandboxStatus {
            id: self.id.to_string(),
            metadata: Some(self.spec.metadata()),
            state: self.cri_state(),
            created_at: self.created_at.0,
            network: Some(v1::PodSandboxNetworkStatus { ip: address, additional_ips: Vec::new() }),
            linux: Some(v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options: Some(options) }) }),
            labels: self.spec.labels.clone(),
            annotations: self.spec.annotations.clone(),
            runtime_handler: self.spec.runtime_handler.clone(),
        }
    }

    /// Asks the task and waits for its answer.
    pub(crate) async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), ServiceError>>) -> Command,
    ) -> Result<(), ServiceError> {
        let (answer, answered) = oneshot::channel();
        let gone = || ServiceError::NoSandbox(self.id.to_string());
        self.commands.send(command(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
