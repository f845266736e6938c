//! A pod in CRI's words.
//!
//! Comes in: our [`Pod`], its container, and what was resolved for it. Goes out: the messages that `RunPodSandbox` and
//! `CreateContainer` take. Never here: I/O; what these say follows from their arguments alone.

use std::path::{Path, PathBuf};

use cri::names::{ContainerAnnotations, ContainerPort, PodIdentity, PortProtocol};
use cri::v1;
use decide::event::Failure;
use decide::names::ImageId;
use decide::pod::{CPU_PERIOD_MICROS, Container, Enforced, Pod, Port, Protocol, TerminationMessagePolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};

use crate::environment::ContainerEnvironment;

/// Who the pod is, as labels.
pub fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity { name: pod.name.name.clone(), namespace: pod.name.namespace.clone(), uid: pod.uid.as_str().to_owned() }
}

/// The same by the pod's own object.
pub fn identity_of(object: &ObjectMeta) -> PodIdentity {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    PodIdentity { name: text(&object.name), namespace: text(&object.namespace), uid: text(&object.uid) }
}

/// Where a pod's logs are: `<pod logs>/<namespace>_<name>_<uid>`
pub fn log_directory(pod_logs: &Path, pod: &PodIdentity) -> PathBuf {
    pod_logs.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
}

/// The log of one instance of a container.
pub fn log_file(pod_logs: &Path, pod: &PodIdentity, container: &str, attempt: u32) -> PathBuf {
    log_directory(pod_logs, pod).join(log_path(container, attempt))
}

/// A container's log, beneath its pod's directory: `<container>/<attempt>.log`
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The sandbox of a pod. Without a host name it has the node's.
pub fn sandbox(
    pod: &Pod,
    attempt: u32,
    pod_logs: &Path,
    hostname: Option<String>,
    dns: v1::DnsConfig,
) -> v1::PodSandboxConfig {
    let network = if pod.network.host_network { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
    let ports = pod.lasting_containers().flat_map(|container| &container.ports).filter_map(port_mapping);
    let identity = identity(pod);
    v1::PodSandboxConfig {
        metadata: Some(identity.sandbox_metadata(attempt)),
        hostname: hostname.unwrap_or_default(),
        log_directory: log_directory(pod_logs, &identity).to_string_lossy().into_owned(),
        dns_config: Some(dns),
        port_mappings: if pod.network.host_network { Vec::new() } else { ports.collect() },
        labels: identity.sandbox_labels(&pod.labels).into_iter().collect(),
        annotations: pod.annotations.clone().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(v1::NamespaceOption { network: network.into(), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        windows: None,
    }
}

fn port_mapping(port: &Port) -> Option<v1::PortMapping> {
    let protocol = match port.protocol {
        Protocol::Tcp => v1::Protocol::Tcp,
        Protocol::Udp => v1::Protocol::Udp,
    };
    Some(v1::PortMapping {
        protocol: protocol.into(),
        container_port: port.container_port.into(),
        host_port: port.host_port?.into(),
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    })
}

/// One instance of a container.
pub fn container(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: &ImageId,
    environment: ContainerEnvironment,
    mounts: Vec<v1::Mount>,
) -> Result<v1::ContainerConfig, Failure> {
    let annotations = annotations(pod, container, attempt).to_map();
    let annotations = annotations.map_err(|error| {
        Failure::new("CreateContainerConfigError", format!("annotations of the container: {error}"))
    })?;
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.as_str().to_owned(), attempt }),
        image: Some(v1::ImageSpec {
            image: image.as_str().to_owned(),
            user_specified_image: container.image.clone(),
            ..Default::default()
        }),
        command: environment.command,
        args: environment.args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: environment.env.into_iter().map(|(key, value)| v1::KeyValue { key, value: value.into_bytes() }).collect(),
        mounts,
        labels: identity(pod).container_labels(container.name.as_str()).into_iter().collect(),
        annotations: annotations.into_iter().collect(),
        log_path: log_path(container.name.as_str(), attempt),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources(&container.enforced())),
            security_context: Some(v1::LinuxContainerSecurityContext {
                readonly_rootfs: container.read_only_root,
                ..Default::default()
            }),
        }),
        ..Default::default()
    })
}

fn annotations(pod: &Pod, container: &Container, attempt: u32) -> ContainerAnnotations {
    let policy = match container.termination_message_policy {
        TerminationMessagePolicy::File => "File",
        TerminationMessagePolicy::FallbackToLogsOnError => "FallbackToLogsOnError",
    };
    ContainerAnnotations {
        hash: spec_hash(container),
        restart_count: attempt,
        termination_message_path: container.termination_message_path.clone(),
        termination_message_policy: policy.to_owned(),
        ports: container.ports.iter().map(annotated_port).collect(),
        termination_grace_period: Some(pod.grace),
    }
}

fn annotated_port(port: &Port) -> ContainerPort {
    ContainerPort {
        name: port.name.clone().unwrap_or_default(),
        host_port: port.host_port,
        container_port: port.container_port,
        protocol: match port.protocol {
            Protocol::Tcp => PortProtocol::Tcp,
            Protocol::Udp => PortProtocol::Udp,
        },
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

/// Name and image, as the kubelet's own hash takes: another value means that the instance is of another edition.
fn spec_hash(container: &Container) -> String {
    let mut hash = Sha256::new();
    hash.update(container.name.as_str());
    hash.update([0]);
    hash.update(&container.image);
    hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// What the runtime is to hold a container to. A limit that there is not is one below 0: in an update, 0 would leave the
/// limit there is.
pub fn resources(enforced: &Enforced) -> v1::LinuxContainerResources {
    let limit = |amount: Option<u64>| amount.map_or(-1, signed);
    v1::LinuxContainerResources {
        cpu_period: signed(CPU_PERIOD_MICROS),
        cpu_quota: limit(enforced.cpu_quota_micros),
        cpu_shares: signed(enforced.cpu_shares),
        memory_limit_in_bytes: limit(enforced.memory_limit_bytes),
        ..Default::default()
    }
}

/// What the runtime says that it holds a container to.
pub fn enforced(resources: &v1::LinuxContainerResources) -> Enforced {
    let limit = |amount: i64| u64::try_from(amount).ok().filter(|amount| *amount > 0);
    let period = limit(resources.cpu_period).unwrap_or(CPU_PERIOD_MICROS);
    Enforced {
        cpu_quota_micros: limit(resources.cpu_quota).map(|quota| quota.saturating_mul(CPU_PERIOD_MICROS) / period),
        cpu_shares: u64::try_from(resources.cpu_shares).unwrap_or(0),
        memory_limit_bytes: limit(resources.memory_limit_in_bytes),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_the_runtime_is_what_is_heard_from_it() {
        let limited = Enforced { cpu_quota_micros: Some(50_000), cpu_shares: 256, memory_limit_bytes: Some(64 << 20) };
        let said = resources(&limited);
        assert_eq!((said.cpu_quota, said.cpu_period, said.cpu_shares), (50_000, 100_000, 256));
        assert_eq!(said.memory_limit_in_bytes, 64 << 20);
        let unlimited = Enforced { cpu_quota_micros: None, cpu_shares: 2, memory_limit_bytes: None };
        assert_eq!((resources(&unlimited).cpu_quota, resources(&unlimited).memory_limit_in_bytes), (-1, -1));
        for one in [limited, unlimited] {
            assert_eq!(enforced(&resources(&one)), one);
        }
        let other_period = v1::LinuxContainerResources { cpu_period: 50_000, cpu_quota: 25_000, ..Default::default() };
        assert_eq!(enforced(&other_period).cpu_limit_millis(), Some(500));
    }
}
