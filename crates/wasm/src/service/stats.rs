//! What containers and sandboxes use.
//!
//! CPU is the time that the guests were run, host calls included. Memory is what they hold, touched or not: the sum of
//! their linear memories and tables, which is also what their limit is held against.

use std::sync::Arc;

use cri::v1;

use crate::container::{Container, State};
use crate::id::Nanoseconds;
use crate::runtime::Core;
use crate::sandbox::Sandbox;
use crate::service::sandboxes::has_labels;

#[derive(Clone, Copy, Default)]
struct Used {
    cpu_nanoseconds: u64,
    memory_bytes: u64,
}

fn used(container: &Container) -> Used {
    match &*container.state.borrow() {
        State::Created => Used::default(),
        State::Running { guest, .. } => {
            let usage = guest.usage();
            let cpu_nanoseconds = u64::try_from(usage.cpu.as_nanos()).unwrap_or(u64::MAX);
            Used { cpu_nanoseconds, memory_bytes: usage.memory_bytes }
        }
        State::Exited(exited) => Used { cpu_nanoseconds: exited.cpu_nanoseconds, memory_bytes: 0 },
    }
}

impl Used {
    fn cpu(self, timestamp: Nanoseconds) -> v1::CpuUsage {
        v1::CpuUsage {
            timestamp: timestamp.0,
            usage_core_nano_seconds: Some(v1::UInt64Value { value: self.cpu_nanoseconds }),
            ..Default::default()
        }
    }

    fn memory(self, timestamp: Nanoseconds, limit_bytes: Option<u64>) -> v1::MemoryUsage {
        let bytes = |value| Some(v1::UInt64Value { value });
        v1::MemoryUsage {
            timestamp: timestamp.0,
            working_set_bytes: bytes(self.memory_bytes),
            usage_bytes: bytes(self.memory_bytes),
            rss_bytes: bytes(self.memory_bytes),
            available_bytes: limit_bytes.and_then(|limit| bytes(limit.saturating_sub(self.memory_bytes))),
            ..Default::default()
        }
    }
}

/// What one container uses; one that has ended has used CPU and holds no memory.
pub(super) fn of_container(container: &Container) -> v1::ContainerStats {
    let (now, used) = (Nanoseconds::now(), used(container));
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: container.id.to_string(),
            metadata: Some(container.metadata()),
            labels: container.spec.labels.clone(),
            annotations: container.spec.annotations.clone(),
        }),
        cpu: Some(used.cpu(now)),
        memory: Some(used.memory(now, container.resources.borrow().limits().memory_bytes)),
        ..Default::default()
    }
}

fn is_running(container: &Container) -> bool {
    matches!(*container.state.borrow(), State::Running { .. })
}

impl Core {
    /// The running containers that pass the filter.
    pub(super) fn list_container_stats(&self, filter: &v1::ContainerStatsFilter) -> Vec<v1::ContainerStats> {
        let containers = self.registry().containers();
        let wanted = |container: &&Arc<Container>| {
            is_running(container)
                && container.id.as_str().starts_with(&filter.id)
                && container.sandbox_id.as_str().starts_with(&filter.pod_sandbox_id)
                && has_labels(&container.spec.labels, &filter.label_selector)
        };
        containers.iter().filter(wanted).map(|container| of_container(container)).collect()
    }

    /// What the containers of a sandbox use together.
    pub(super) fn sandbox_stats(&self, sandbox: &Sandbox) -> v1::PodSandboxStats {
        let containers = self.containers_of(&sandbox.id);
        let now = Nanoseconds::now();
        let sum = containers.iter().map(|container| used(container)).fold(Used::default(), |sum, used| Used {
            cpu_nanoseconds: sum.cpu_nanoseconds.saturating_add(used.cpu_nanoseconds),
            memory_bytes: sum.memory_bytes.saturating_add(used.memory_bytes),
        });
        let running: Vec<_> = containers.iter().filter(|container| is_running(container)).collect();
        v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes {
                id: sandbox.id.to_string(),
                metadata: Some(sandbox.spec.metadata()),
                labels: sandbox.spec.labels.clone(),
                annotations: sandbox.spec.annotations.clone(),
            }),
            linux: Some(v1::LinuxPodSandboxStats {
                cpu: Some(sum.cpu(now)),
                memory: Some(sum.memory(now, None)),
                process: Some(v1::ProcessUsage {
                    timestamp: now.0,
                    process_count: Some(v1::UInt64Value { value: running.len() as u64 }),
                }),
                containers: running.iter().map(|container| of_container(container)).collect(),
                ..Default::default()
            }),
            windows: None,
        }
    }

    /// The ready sandboxes that pass the filter.
    pub(super) fn list_sandbox_stats(&self, filter: &v1::PodSandboxStatsFilter) -> Vec<v1::PodSandboxStats> {
        let sandboxes = self.registry().sandboxes();
        let wanted = |sandbox: &&Arc<Sandbox>| {
            sandbox.is_ready()
                && sandbox.id.as_str().starts_with(&filter.id)
                && has_labels(&sandbox.spec.labels, &filter.label_selector)
        };
        sandboxes.iter().filter(wanted).map(|sandbox| self.sandbox_stats(sandbox)).collect()
    }
}
