//! The labels and annotations by which the kubelet and the runtime say what CRI has no field for.
//!
//! In comes who a pod or container is, out go the maps that CRI carries; and back. The keys are those of the kubelet, so
//! that `crictl` and monitoring that read them work here too. Never here: a Kubernetes object.

use std::collections::BTreeMap;
use std::num::ParseIntError;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::v1::PodSandboxMetadata;

/// Label of sandboxes and containers: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label of sandboxes and containers: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label of sandboxes and containers: the pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label of containers: the container's name in its pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation of containers: a hash of the container's spec; another one means that it was edited.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation of containers: how many of this name the pod had before.
pub const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation of containers: the file in the guest that the termination message is read from.
pub const CONTAINER_TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation of containers: `File` or `FallbackToLogsOnError`.
pub const CONTAINER_TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation of containers: the declared ports, as a JSON list in Kubernetes' own words.
pub const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";
/// Annotation of containers: the pod's grace period, in seconds.
pub const POD_TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation of pods: how many requests one instance of an HTTP guest may answer. Unless it is there, that is up to the
/// runtime.
pub const HTTP_REQUESTS_PER_INSTANCE: &str = "wasklet.dev/http-requests-per-instance";
/// In the info of a runtime's status: how many pods fit, as far as the runtime's process is concerned.
pub const PODS_AT_MOST: &str = "podsAtMost";

/// Labels or annotations as CRI carries them.
pub type Map = BTreeMap<String, String>;

/// An annotation that does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum AnnotationError {
    /// No number.
    #[error("annotation {key}: {value:?} is no number")]
    Number {
        /// The annotation.
        key: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        source: ParseIntError,
    },
    /// No JSON list of ports.
    #[error("annotation {CONTAINER_PORTS} is no list of container ports")]
    Ports(#[source] serde_json::Error),
}

/// Who a pod is, as its sandbox and its containers carry it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodIdentity {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`; for a pod out of a file the hash that stands for it.
    pub uid: String,
}

impl PodIdentity {
    /// The metadata of the pod's sandbox, `attempt` of them before it.
    #[must_use]
    pub fn sandbox_metadata(&self, attempt: u32) -> PodSandboxMetadata {
        let Self { name, namespace, uid } = self.clone();
        PodSandboxMetadata { name, uid, namespace, attempt }
    }

    /// The labels of the pod's sandbox: the pod's `own` with its identity over them.
    #[must_use]
    pub fn sandbox_labels(&self, own: &Map) -> Map {
        let mut labels = own.clone();
        labels.extend(self.labels());
        labels
    }

    /// The labels of one of the pod's containers.
    #[must_use]
    pub fn container_labels(&self, container: &str) -> Map {
        let mut labels = self.labels();
        labels.insert(CONTAINER_NAME.to_owned(), container.to_owned());
        labels
    }

    /// Whose sandbox or container carries `labels`; none if it is not a kubelet's.
    #[must_use]
    pub fn of(labels: &Map) -> Option<Self> {
        Some(Self {
            name: labels.get(POD_NAME)?.clone(),
            namespace: labels.get(POD_NAMESPACE)?.clone(),
            uid: labels.get(POD_UID)?.clone(),
        })
    }

    fn labels(&self) -> Map {
        [(POD_NAME, &self.name), (POD_NAMESPACE, &self.namespace), (POD_UID, &self.uid)]
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .into()
    }
}

/// The name of the container that carries `labels`.
#[must_use]
pub fn container_name(labels: &Map) -> Option<&str> {
    labels.get(CONTAINER_NAME).map(String::as_str)
}

/// What the kubelet wants to find again on a container after it was restarted itself, and what the runtime reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerAnnotations {
    /// A hash of the container's spec.
    pub hash: String,
    /// How many of this name the pod had before.
    pub restart_count: u32,
    /// The file in the guest that the termination message is read from.
    pub termination_message_path: String,
    /// `File` or `FallbackToLogsOnError`.
    pub termination_message_policy: String,
    /// The declared ports. The runtime serves an HTTP guest on the first TCP one.
    pub ports: Vec<ContainerPort>,
    /// The pod's grace period, in whole seconds.
    pub termination_grace_period: Option<Duration>,
}

impl ContainerAnnotations {
    /// As CRI carries them.
    ///
    /// # Errors
    /// Ports that JSON cannot hold; there are none such.
    pub fn to_map(&self) -> Result<Map, AnnotationError> {
        let mut map: Map = [
            (CONTAINER_HASH, self.hash.clone()),
            (CONTAINER_RESTART_COUNT, self.restart_count.to_string()),
            (CONTAINER_TERMINATION_MESSAGE_PATH, self.termination_message_path.clone()),
            (CONTAINER_TERMINATION_MESSAGE_POLICY, self.termination_message_policy.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if let Some(period) = self.termination_grace_period {
            map.insert(POD_TERMINATION_GRACE_PERIOD.to_owned(), period.as_secs().to_string());
        }
        if !self.ports.is_empty() {
            let ports = serde_json::to_string(&self.ports).map_err(AnnotationError::Ports)?;
            map.insert(CONTAINER_PORTS.to_owned(), ports);
        }
        Ok(map)
    }

    /// Out of a container's annotations. What is not there is empty, as on a container that no kubelet made.
    ///
    /// # Errors
    /// An annotation that is there and cannot be read.
    pub fn of(map: &Map) -> Result<Self, AnnotationError> {
        let text = |key: &str| map.get(key).cloned().unwrap_or_default();
        let ports = match map.get(CONTAINER_PORTS) {
            Some(json) => serde_json::from_str(json).map_err(AnnotationError::Ports)?,
            None => Vec::new(),
        };
        Ok(Self {
            hash: text(CONTAINER_HASH),
            restart_count: number(map, CONTAINER_RESTART_COUNT)?.unwrap_or(0),
            termination_message_path: text(CONTAINER_TERMINATION_MESSAGE_PATH),
            termination_message_policy: text(CONTAINER_TERMINATION_MESSAGE_POLICY),
            ports,
            termination_grace_period: number(map, POD_TERMINATION_GRACE_PERIOD)?.map(Duration::from_secs),
        })
    }
}

fn number<N>(map: &Map, key: &'static str) -> Result<Option<N>, AnnotationError>
where
    N: std::str::FromStr<Err = ParseIntError>,
{
    let Some(value) = map.get(key) else { return Ok(None) };
    match value.parse() {
        Ok(number) => Ok(Some(number)),
        Err(source) => Err(AnnotationError::Number { key, value: value.clone(), source }),
    }
}

/// A port as a pod's container declares it, in Kubernetes' JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// A name within the pod, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The port of the node that leads here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// The port at the pod's address.
    pub container_port: u16,
    /// What is spoken there.
    #[serde(default)]
    pub protocol: PortProtocol,
    /// The address of the node that `host_port` is bound to, or empty for all.
    #[serde(default, rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

/// A port's transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PortProtocol {
    /// What a port is that does not say.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
    /// Not supported by guests.
    Sctp,
}

#[cfg(test)]
mod tests;
