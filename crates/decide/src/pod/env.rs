//! Where the environment of a container, and files of the downward API, come from.

use crate::names::ContainerName;

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
