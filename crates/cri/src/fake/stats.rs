//! What the fake's containers use: a hundredth of a core and a megabyte each.

use tonic::Status;

use super::Fake;
use super::state::{Container, ContainerStage, selects};
use crate::v1;

const MEMORY_BYTES: u64 = 1024 * 1024;
const NANO_CORES: u64 = 10_000_000;

impl Fake {
    pub(super) async fn stats_of(&self, id: &str) -> Result<v1::ContainerStats, Status> {
        let name = self.state().container_name(id);
        self.enter("ContainerStats", &name).await?;
        let now = self.now();
        Ok(stats(self.state().container(id)?, now))
    }

    pub(super) async fn list_stats(&self, filter: v1::ContainerStatsFilter) -> Result<Vec<v1::ContainerStats>, Status> {
        self.enter("ListContainerStats", "").await?;
        let now = self.now();
        let state = self.state();
        let passes = |container: &&Container| {
            container.is_running()
                && (filter.id.is_empty() || filter.id == container.id)
                && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == container.sandbox_id)
                && selects(&filter.label_selector, &container.config.labels)
        };
        Ok(state.containers.values().filter(passes).map(|found| stats(found, now)).collect())
    }
}

fn stats(container: &Container, now: i64) -> v1::ContainerStats {
    let (nanoseconds, bytes) = match container.stage {
        ContainerStage::Running { started_at, .. } => (u64::try_from(now - started_at).unwrap_or(0), MEMORY_BYTES),
        ContainerStage::Created | ContainerStage::Exited(_) => (0, 0),
    };
    let value = |value| Some(v1::UInt64Value { value });
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: container.id.clone(),
            metadata: Some(container.metadata.clone()),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
        }),
        cpu: Some(v1::CpuUsage {
            timestamp: now,
            usage_core_nano_seconds: value(nanoseconds / 100),
            usage_nano_cores: value(if bytes > 0 { NANO_CORES } else { 0 }),
            psi: None,
        }),
        memory: Some(v1::MemoryUsage {
            timestamp: now,
            working_set_bytes: value(bytes),
            usage_bytes: value(bytes),
            ..v1::MemoryUsage::default()
        }),
        ..v1::ContainerStats::default()
    }
}
