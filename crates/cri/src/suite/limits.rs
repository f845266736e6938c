//! Checks of limits that change while a container runs.

use std::time::Duration;

use tonic::Code;

use super::container::WRONG_TIME;
use super::pod::Pod;
use super::{Checked, Seam, ensure, refused};
use crate::v1::{ContainerState, LinuxContainerResources};

/// Its status shows the limits it was given last, and it goes on under them; once it has ended there is nothing to limit.
///
/// # Errors
/// The check does not hold.
pub async fn they_change_while_a_container_runs(seam: &Seam) -> Checked {
    const MEBIBYTE: i64 = 1024 * 1024;
    let pod = Pod::run(seam).await?;
    let mut config = pod.container("main", &seam.images.parked)?;
    let limits = |cpu_quota, memory_limit_in_bytes| LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota,
        memory_limit_in_bytes,
        ..LinuxContainerResources::default()
    };
    config.linux.get_or_insert_default().resources = Some(limits(50_000, 64 * MEBIBYTE));
    let id = pod.create_from(config).await?;
    seam.client.start_container(&id).await?;
    for (quota, memory) in [(20_000, 96 * MEBIBYTE), (100_000, 48 * MEBIBYTE)] {
        seam.client.update_container_resources(&id, limits(quota, memory)).await?;
        let status = seam.client.container_status(&id).await?;
        ensure!(status.state() == ContainerState::ContainerRunning, "not running: {status:?}");
        let told = status.resources.and_then(|resources| resources.linux).unwrap_or_default();
        ensure!((told.cpu_quota, told.memory_limit_in_bytes) == (quota, memory), "other limits are told: {told:?}");
    }
    seam.client.stop_container(&id, Duration::ZERO).await?;
    refused(seam.client.update_container_resources(&id, limits(20_000, 0)).await, &WRONG_TIME)?;
    let unknown = seam.client.update_container_resources("no-such-container", limits(20_000, 0)).await;
    refused(unknown, &[Code::NotFound])?;
    pod.remove().await
}
