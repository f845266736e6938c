//! A pod in CRI's words.
//!
//! Comes in: our [`Pod`], its container, and what was resolved for it. Goes out: the messages that `RunPodSandbox` and
//! `CreateContainer` take. Never here: I/O; what these say follows from their arguments alone.

use std::path::{Path, PathBuf};

use cri::names::{ContainerAnnotations, ContainerPort, PodIdentity, PortProtocol};
use cri::v1;
use decide::event::Failure;
use decide::names::ImageId;
use decide::pod::{Container, Pod, Port, Protocol, Resources, TerminationMessagePolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};

use crate::environment::ContainerEnvironment;

/// CPU time is dealt out per this period, as the kubelet's `cpuCFSQuotaPeriod` says by default.
const CPU_PERIOD_MICROSECONDS: i64 = 100_000;
/// The kernel's shares of one CPU, in which CRI counts requests.
const SHARES_PER_CPU: u64 = 1024;
/// The kernel takes no fewer.
const FEWEST_SHARES: u64 = 2;

/// Who the pod is, as labels.
pub fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity { name: pod.name.name.clone(), namespace: pod.name.namespace.clone(), uid: pod.uid.as_str().to_owned() }
}

/// `<pod logs>/<namespace>_<name>_<uid>`
pub fn log_directory(pod_logs: &Path, pod: &Pod) -> PathBuf {
    pod_logs.join(format!("{}_{}_{}", pod.name.namespace, pod.name.name, pod.uid))
}

/// The log of one instance of a container, by the pod's own object.
pub fn log_file(pod_logs: &Path, pod: &ObjectMeta, container: &str, attempt: u32) -> PathBuf {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let directory = format!("{}_{}_{}", text(&pod.namespace), text(&pod.name), text(&pod.uid));
    pod_logs.join(directory).join(log_path(container, attempt))
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
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pod.name.name.clone(),
            uid: pod.uid.as_str().to_owned(),
            namespace: pod.name.namespace.clone(),
            attempt,
        }),
        hostname: hostname.unwrap_or_default(),
        log_directory: log_directory(pod_logs, pod).to_string_lossy().into_owned(),
        dns_config: Some(dns),
        port_mappings: if pod.network.host_network { Vec::new() } else { ports.collect() },
        labels: identity(pod).sandbox_labels(&pod.labels).into_iter().collect(),
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
            resources: Some(resources(&container.requests, &container.limits)),
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

/// Requests and limits as the kernel would take them; the runtime reads a quota and a limit out of them.
pub fn resources(requests: &Resources, limits: &Resources) -> v1::LinuxContainerResources {
    let requested = requests.cpu_millis.or(limits.cpu_millis).unwrap_or(0);
    let shares = (requested.saturating_mul(SHARES_PER_CPU) / 1000).max(FEWEST_SHARES);
    let quota = limits.cpu_millis.map_or(0, |millis| signed(millis).saturating_mul(CPU_PERIOD_MICROSECONDS / 1000));
    v1::LinuxContainerResources {
        cpu_period: CPU_PERIOD_MICROSECONDS,
        cpu_quota: quota,
        cpu_shares: signed(shares),
        memory_limit_in_bytes: limits.memory_bytes.map_or(0, signed),
        ..Default::default()
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_quota_and_requests_become_shares() {
        let of = |cpu, memory| Resources { cpu_millis: cpu, memory_bytes: memory, ephemeral_storage_bytes: None };
        let made = resources(&of(Some(250), None), &of(Some(500), Some(64 << 20)));
        assert_eq!((made.cpu_quota, made.cpu_period, made.cpu_shares), (50_000, 100_000, 256));
        assert_eq!(made.memory_limit_in_bytes, 64 << 20);
        let unlimited = resources(&of(None, None), &of(None, None));
        assert_eq!((unlimited.cpu_quota, unlimited.cpu_shares, unlimited.memory_limit_in_bytes), (0, 2, 0));
    }
}
