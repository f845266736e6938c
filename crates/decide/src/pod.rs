//! A pod as wasklet understands it: parsed once, every default filled in, nothing in it that is not supported.
//!
//! Comes in through [`crate::parse::parse`]. Read by everything that decides. Never changed after that.

mod volume;

pub use volume::{
    DownwardContent, DownwardFile, FileSource, FileVolume, HostPathKind, KeyToPath, Volume, VolumeSource,
};

use crate::names::{ContainerName, PodName, PodUid, VolumeName};
use crate::time::Timestamp;
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A pod as a source wants it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: PodUid,
    /// Namespace and name.
    pub name: PodName,
    /// `metadata.generation`; absent for pods of files.
    pub generation: Option<i64>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.creationTimestamp`.
    pub created_at: Option<Timestamp>,
    /// When containers are started again.
    pub restart_policy: RestartPolicy,
    /// `spec.containers`, never empty.
    pub containers: Containers,
    /// `spec.volumes`.
    pub volumes: Vec<Volume>,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace: Duration,
    /// Whether and how the API object is being deleted.
    pub deletion: Option<Deletion>,
    /// `spec.activeDeadlineSeconds`, counted from the pod's start time.
    pub active_deadline: Option<Duration>,
    /// `spec.nodeName`.
    pub node_name: Option<String>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `spec.affinity.nodeAffinity`, the part that must hold.
    pub node_affinity: Option<api::NodeSelector>,
    /// `spec.serviceAccountName`.
    pub service_account: Option<String>,
    /// Names of `spec.imagePullSecrets`.
    pub image_pull_secrets: Vec<String>,
    /// `spec.enableServiceLinks`, default true.
    pub enable_service_links: bool,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<String>,
    /// Condition types of `spec.readinessGates`.
    pub readiness_gates: Vec<String>,
    /// `spec.overhead`, added to the containers' requests at admission.
    pub overhead: Resources,
    /// Addresses, host names and resolver of the pod.
    pub network: Network,
    /// What the pod asks for and wasklet does without, to be said in Events when the pod is admitted.
    pub warnings: Vec<crate::report::Report>,
    /// The object as the source gave it.
    pub api: Arc<api::Pod>,
}

/// Why a pod is not run: the pod's status carries both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// `status.reason`.
    pub reason: &'static str,
    /// The second half of `status.message`, after `Pod was rejected: `.
    pub message: String,
}

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// After an exit code other than 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// Whether a container that ended with `code` is started again.
    #[must_use]
    pub fn restarts_after(self, code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// A deletion of the API object that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it was asked for, by the API server's clock.
    pub requested_at: Timestamp,
    /// `metadata.deletionGracePeriodSeconds`.
    pub grace: Duration,
}

/// The containers of a pod: at least one, names unique.
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

    /// The container of that name.
    #[must_use]
    pub fn get(&self, name: &ContainerName) -> Option<&Container> {
        self.0.iter().find(|container| container.name == *name)
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
    /// `name`.
    pub name: ContainerName,
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
    /// `volumeMounts`.
    pub mounts: Vec<Mount>,
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

/// Amounts of what a node has to give; absent means unlimited (limits) or nothing asked (requests).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Local storage in bytes.
    pub ephemeral_storage_bytes: Option<u64>,
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
}

/// One `env` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvVar {
    /// `name`.
    pub name: String,
    /// Where the value comes from.
    pub value: EnvValue,
}

/// Where the value of an environment variable comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    /// `value`, with `$(VAR)` still in it.
    Literal(String),
    /// `valueFrom.fieldRef`.
    Field(FieldPath),
    /// `valueFrom.resourceFieldRef`.
    Resource(ResourceField),
    /// `valueFrom.configMapKeyRef`.
    ConfigMapKey(KeyRef),
    /// `valueFrom.secretKeyRef`.
    SecretKey(KeyRef),
}

/// A key of a ConfigMap or Secret in the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// The object.
    pub name: String,
    /// The key in it.
    pub key: String,
    /// Whether it may be missing.
    pub optional: bool,
}

/// One `envFrom` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFrom {
    /// Put before each key.
    pub prefix: String,
    /// The kind of object.
    pub kind: ConfigKind,
    /// The object.
    pub name: String,
    /// Whether it may be missing.
    pub optional: bool,
}

/// The two kinds of object that hold configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// A field of the pod that environment variables and downward API files may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldPath {
    /// `metadata.name`
    Name,
    /// `metadata.namespace`
    Namespace,
    /// `metadata.uid`
    Uid,
    /// `metadata.labels['key']`
    Label(String),
    /// `metadata.annotations['key']`
    Annotation(String),
    /// `metadata.labels`, files only
    Labels,
    /// `metadata.annotations`, files only
    Annotations,
    /// `spec.nodeName`
    NodeName,
    /// `spec.serviceAccountName`
    ServiceAccountName,
    /// `status.hostIP`
    HostIp,
    /// `status.hostIPs`
    HostIps,
    /// `status.podIP`
    PodIp,
    /// `status.podIPs`
    PodIps,
}

/// A `resourceFieldRef`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceField {
    /// Whose; absent: the container that asks.
    pub container: Option<ContainerName>,
    /// Limit or request.
    pub bound: Bound,
    /// Of what.
    pub resource: ResourceKind,
    /// The unit, in thousandths: 1 core or 1 byte is 1000.
    pub divisor_millis: u64,
}

/// Limit or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `limits.`
    Limit,
    /// `requests.`
    Request,
}

/// What a `resourceFieldRef` may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// `cpu`
    Cpu,
    /// `memory`
    Memory,
    /// `ephemeral-storage`
    EphemeralStorage,
}

/// Addresses, host names and resolver of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// `hostNetwork`: the node's own addresses.
    pub host_network: bool,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `hostnameOverride`.
    pub hostname_override: Option<String>,
    /// `subdomain`.
    pub subdomain: Option<String>,
    /// `setHostnameAsFQDN`.
    pub hostname_as_fqdn: bool,
    /// `hostAliases`: address and names.
    pub host_aliases: Vec<(String, Vec<String>)>,
    /// `dnsPolicy`.
    pub dns_policy: DnsPolicy,
    /// `dnsConfig.nameservers`.
    pub nameservers: Vec<String>,
    /// `dnsConfig.searches`.
    pub searches: Vec<String>,
    /// `dnsConfig.options`: name and value.
    pub dns_options: Vec<(String, Option<String>)>,
}

/// `dnsPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsPolicy {
    /// The cluster's resolver, but the node's for `hostNetwork` pods.
    #[default]
    ClusterFirst,
    /// The cluster's resolver, also with `hostNetwork`.
    ClusterFirstWithHostNet,
    /// The node's.
    Default,
    /// Only what `dnsConfig` says.
    None,
}
