//! The containers of a pod: what each is there for and what it is made of.

use super::enforced::Enforced;
use super::env::{EnvFrom, EnvVar};
use super::hook::Hooks;
use super::probe::Probes;
use super::resources::Resources;
use super::restart::Restart;
use crate::names::{ContainerName, VolumeName};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a container is there for: which list of the spec it stands in, and how it is to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// One of `initContainers`: runs to its end before what comes after it begins.
    Init,
    /// One of `initContainers` with `restartPolicy: Always`: begins in their order and goes on beside the main ones.
    Sidecar,
    /// One of `containers`: what the pod is for.
    Main,
    /// One of `ephemeralContainers`: added to a pod that runs, started once.
    Ephemeral,
}

/// `spec.containers`: at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Containers(Vec<Container>);

impl Containers {
    /// `None` if there is none.
    #[must_use]
    pub fn new(containers: Vec<Container>) -> Option<Self> {
        (!containers.is_empty()).then_some(Containers(containers))
    }

    /// In the order of the spec.
    pub fn iter(&self) -> std::slice::Iter<'_, Container> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Containers {
    type Item = &'a Container;
    type IntoIter = std::slice::Iter<'a, Container>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// One container of the spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// `name`, unique in the pod whatever its role.
    pub name: ContainerName,
    /// What it is there for.
    pub role: Role,
    /// When it is started again.
    pub restart: Restart,
    /// `image`, as written.
    pub image: String,
    /// `imagePullPolicy`, with the API server's defaulting for pods of files.
    pub pull_policy: PullPolicy,
    /// `command`, not yet expanded; empty: the image's entrypoint.
    pub command: Vec<String>,
    /// `args`, not yet expanded; empty: the image's, unless there is a command.
    pub args: Vec<String>,
    /// `workingDir`.
    pub working_dir: Option<String>,
    /// `env`, in order: later ones may refer to earlier ones.
    pub env: Vec<EnvVar>,
    /// `envFrom`, in order: later ones win.
    pub env_from: Vec<EnvFrom>,
    /// `ports`.
    pub ports: Vec<Port>,
    /// `resources.limits`.
    pub limits: Resources,
    /// `resources.requests`; where one is absent and a limit is set, the limit.
    pub requests: Resources,
    /// Of `resources.requests`, or else of its limits: extended resources by name, in whole units. They are counted at
    /// admission; a guest is given nothing for them.
    pub extended: BTreeMap<String, u64>,
    /// `resizePolicy`.
    pub resize_policy: ResizePolicy,
    /// `lifecycle`.
    pub hooks: Hooks,
    /// `volumeMounts`.
    pub mounts: Vec<Mount>,
    /// `startupProbe`, `livenessProbe` and `readinessProbe`.
    pub probes: Probes,
    /// `stdin`.
    pub stdin: bool,
    /// `stdinOnce`.
    pub stdin_once: bool,
    /// `tty`.
    pub tty: bool,
    /// `securityContext.readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `terminationMessagePath`.
    pub termination_message_path: String,
    /// `terminationMessagePolicy`.
    pub termination_message_policy: TerminationMessagePolicy,
}

impl Container {
    /// What the runtime is to hold it to.
    #[must_use]
    pub fn enforced(&self) -> Enforced {
        Enforced::of(&self.requests, &self.limits)
    }
}

/// `resizePolicy`: whether the container is restarted when it is to have more or less of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResizePolicy {
    /// `RestartContainer` for `cpu`.
    pub restart_for_cpu: bool,
    /// `RestartContainer` for `memory`.
    pub restart_for_memory: bool,
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry before every start.
    Always,
    /// Pull what is not on the node.
    IfNotPresent,
    /// Only what is on the node.
    Never,
}

/// `terminationMessagePolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminationMessagePolicy {
    /// Only the file counts.
    File,
    /// The end of the log when the file is empty and the container failed.
    FallbackToLogsOnError,
}

/// One `ports` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `name`.
    pub name: Option<String>,
    /// `containerPort`.
    pub container_port: u16,
    /// `protocol`.
    pub protocol: Protocol,
    /// `hostPort`; with `hostNetwork` always the container port.
    pub host_port: Option<u16>,
    /// `hostIP`; absent: every address.
    pub host_ip: Option<IpAddr>,
}

/// `protocol` of a port. SCTP is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One `volumeMounts` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name; the pod has one of that name.
    pub volume: VolumeName,
    /// `mountPath`, absolute, without `..`.
    pub path: String,
    /// `readOnly`.
    pub read_only: bool,
    /// Which part of the volume.
    pub sub_path: SubPath,
}

/// Which part of a volume is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubPath {
    /// `subPath`: relative, without `..`; empty is the whole volume.
    Plain(String),
    /// `subPathExpr`: the same, with `$(VAR)` for variables of the container's environment.
    Expression(String),
}
