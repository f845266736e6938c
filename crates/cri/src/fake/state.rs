//! The fake's state, and the changes it may take.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use tonic::Status;

use super::calls::Call;
use super::images::Images;
use super::script::{Exec, Outcome};
use crate::v1::{self, ContainerEventType, ContainerState, PodSandboxState};

/// Where addresses come from until the kubelet tells a range.
const DEFAULT_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 0);

/// All that the fake knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) sandboxes: BTreeMap<String, Sandbox>,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) images: Images,
    pub(super) outcomes: BTreeMap<String, Starts>,
    /// By image and command.
    pub(super) execs: BTreeMap<(String, Vec<String>), Execs>,
    pub(super) faults: BTreeMap<&'static str, VecDeque<Status>>,
    pub(super) delays: BTreeMap<&'static str, Duration>,
    pub(super) calls: Vec<Call>,
    pub(super) network_ready: bool,
    pub(super) pod_cidr: Option<String>,
    /// The last number given to a sandbox or container.
    pub(super) last: u32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            images: Images::default(),
            outcomes: BTreeMap::new(),
            execs: BTreeMap::new(),
            faults: BTreeMap::new(),
            delays: BTreeMap::new(),
            calls: Vec::new(),
            network_ready: true,
            pod_cidr: None,
            last: 0,
        }
    }
}

/// What the script says of an image's starts.
#[derive(Debug)]
pub(super) struct Starts {
    pub(super) next: VecDeque<Outcome>,
    pub(super) always: Outcome,
    pub(super) lines: Vec<String>,
    pub(super) shows_itself: bool,
}

impl Default for Starts {
    fn default() -> Self {
        Self { next: VecDeque::new(), always: Outcome::RunForever, lines: Vec::new(), shows_itself: false }
    }
}

/// What the script says of a command.
#[derive(Debug, Default)]
pub(super) struct Execs {
    pub(super) next: VecDeque<Exec>,
    pub(super) always: Option<Exec>,
}

#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) config: v1::PodSandboxConfig,
    pub(super) metadata: v1::PodSandboxMetadata,
    pub(super) runtime_handler: String,
    pub(super) created_at: i64,
    pub(super) stage: SandboxStage,
}

#[derive(Debug)]
pub(super) enum SandboxStage {
    /// With its address, unless it is the node's or there is no network.
    Ready {
        address: Option<Ipv4Addr>,
    },
    NotReady,
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) sandbox_id: String,
    pub(super) config: v1::ContainerConfig,
    pub(super) metadata: v1::ContainerMetadata,
    /// The image's name and id.
    pub(super) image: String,
    pub(super) image_id: String,
    pub(super) log: Option<PathBuf>,
    pub(super) created_at: i64,
    pub(super) stage: ContainerStage,
}

#[derive(Debug)]
pub(super) enum ContainerStage {
    Created,
    Running { started_at: i64, ignores_stop: bool },
    Exited(Exit),
}

#[derive(Debug)]
pub(super) struct Exit {
    /// 0 when it never ran.
    pub(super) started_at: i64,
    pub(super) finished_at: i64,
    pub(super) code: i32,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What goes to the event streams.
#[derive(Debug, Clone)]
pub(super) enum Feed {
    Event(Box<v1::ContainerEventResponse>),
    /// The runtime died.
    Down,
}

/// The word that goes with an exit code.
pub(super) fn reason_of(code: i32) -> &'static str {
    if code == 0 { "Completed" } else { "Error" }
}

impl State {
    pub(super) fn next_fault(&mut self, call: &str) -> Option<Status> {
        self.faults.get_mut(call)?.pop_front()
    }

    pub(super) fn execs_of(&mut self, image: &str, command: &[&str]) -> &mut Execs {
        let command = command.iter().copied().map(str::to_owned).collect();
        self.images.publish(image);
        self.execs.entry((image.to_owned(), command)).or_default()
    }

    pub(super) fn next_number(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    pub(super) fn sandbox(&self, id: &str) -> Result<&Sandbox, Status> {
        self.sandboxes.get(id).ok_or_else(|| Status::not_found(format!("no sandbox {id:?}")))
    }

    pub(super) fn container(&self, id: &str) -> Result<&Container, Status> {
        self.containers.get(id).ok_or_else(|| Status::not_found(format!("no container {id:?}")))
    }

    /// The name that the record of calls shows for a sandbox.
    pub(super) fn pod_name(&self, id: &str) -> String {
        self.sandboxes.get(id).map_or_else(|| id.to_owned(), |found| found.metadata.name.clone())
    }

    /// The name that the record of calls shows for a container.
    pub(super) fn container_name(&self, id: &str) -> String {
        self.containers.get(id).map_or_else(|| id.to_owned(), |found| found.metadata.name.clone())
    }

    /// An address of the pod range that no ready sandbox has.
    pub(super) fn free_address(&self) -> Option<Ipv4Addr> {
        let network = self
            .pod_cidr
            .as_deref()
            .and_then(|cidr| cidr.split('/').next())
            .and_then(|network| network.parse().ok())
            .unwrap_or(DEFAULT_NETWORK);
        (1..u32::from(u16::MAX)).map(|host| Ipv4Addr::from_bits(network.to_bits() + host)).find(|candidate| {
            !self.sandboxes.values().any(|sandbox| {
                    matches!(&sandbox.stage, SandboxStage::Ready { address } if address.as_ref() == Some(candidate))
                })
        })
    }

    /// Ends a container that is running. False if it is not.
    pub(super) fn end(&mut self, id: &str, now: i64, code: i32, reason: &'static str, message: &str) -> bool {
        let Some(container) = self.containers.get_mut(id) else { return false };
        let ContainerStage::Running { started_at, .. } = container.stage else { return false };
        container.stage =
            ContainerStage::Exited(Exit { started_at, finished_at: now, code, reason, message: message.to_owned() });
        true
    }

    pub(super) fn crash(&mut self, now: i64) {
        for sandbox in self.sandboxes.values_mut() {
            sandbox.stage = SandboxStage::NotReady;
        }
        for container in self.containers.values_mut() {
            let started_at = match container.stage {
                ContainerStage::Created => 0,
                ContainerStage::Running { started_at, .. } => started_at,
                ContainerStage::Exited(_) => continue,
            };
            container.stage = ContainerStage::Exited(Exit {
                started_at,
                finished_at: now,
                code: 255,
                reason: "Unknown",
                message: String::new(),
            });
        }
    }

    /// The containers of a sandbox, by their ids.
    pub(super) fn containers_of(&self, sandbox_id: &str) -> Vec<String> {
        self.containers
            .values()
            .filter(|container| container.sandbox_id == sandbox_id)
            .map(|container| container.id.clone())
            .collect()
    }

    /// What tells of `kind` having happened to a container, with all that is known of its pod.
    pub(super) fn event(&self, kind: ContainerEventType, container_id: &str, sandbox_id: &str, now: i64) -> Feed {
        Feed::Event(Box::new(v1::ContainerEventResponse {
            container_id: container_id.to_owned(),
            container_event_type: kind.into(),
            created_at: now,
            pod_sandbox_status: self.sandboxes.get(sandbox_id).map(Sandbox::status),
            containers_statuses: self
                .containers
                .values()
                .filter(|container| container.sandbox_id == sandbox_id)
                .map(Container::status)
                .collect(),
        }))
    }
}

impl Sandbox {
    pub(super) fn state(&self) -> PodSandboxState {
        match self.stage {
            SandboxStage::Ready { .. } => PodSandboxState::SandboxReady,
            SandboxStage::NotReady => PodSandboxState::SandboxNotready,
        }
    }

    pub(super) fn status(&self) -> v1::PodSandboxStatus {
        let ip = match &self.stage {
            SandboxStage::Ready { address: Some(address) } => address.to_string(),
            _ => String::new(),
        };
        v1::PodSandboxStatus {
            id: self.id.clone(),
            metadata: Some(self.metadata.clone()),
            state: self.state().into(),
            created_at: self.created_at,
            network: Some(v1::PodSandboxNetworkStatus { ip, additional_ips: Vec::new() }),
            linux: None,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }
}

impl Container {
    pub(super) fn state(&self) -> ContainerState {
        match self.stage {
            ContainerStage::Created => ContainerState::ContainerCreated,
            ContainerStage::Running { .. } => ContainerState::ContainerRunning,
            ContainerStage::Exited(_) => ContainerState::ContainerExited,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.stage, ContainerStage::Running { .. })
    }

    pub(super) fn status(&self) -> v1::ContainerStatus {
        let mut status = v1::ContainerStatus {
            id: self.id.clone(),
            metadata: Some(self.metadata.clone()),
            state: self.state().into(),
            created_at: self.created_at,
            image: self.config.image.clone(),
            image_ref: self.image_id.clone(),
            image_id: self.image_id.clone(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            resources: self
                .config
                .linux
                .as_ref()
                .map(|linux| v1::ContainerResources { linux: linux.resources.clone(), windows: None }),
            log_path: self.log.as_ref().map(|log| log.display().to_string()).unwrap_or_default(),
            ..v1::ContainerStatus::default()
        };
        match &self.stage {
            ContainerStage::Created => {}
            ContainerStage::Running { started_at, .. } => status.started_at = *started_at,
            ContainerStage::Exited(exit) => {
                status.started_at = exit.started_at;
                status.finished_at = exit.finished_at;
                status.exit_code = exit.code;
                status.reason = exit.reason.to_owned();
                status.message = exit.message.clone();
            }
        }
        status
    }
}

/// Whether all of `selector` stands in `labels`.
pub(super) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
