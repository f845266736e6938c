//! Checks of pod sandboxes.

use std::net::IpAddr;

use tonic::Code;

use super::pod::Pod;
use super::{Checked, Seam, ensure, refused};
use crate::names::POD_UID;
use crate::v1::{
    ContainerConfig, ContainerState, PodSandboxConfig, PodSandboxFilter, PodSandboxState, PodSandboxStateValue,
};

/// READY after its run, with all it was given; NOTREADY after its stop; unknown after its removal.
///
/// # Errors
/// The check does not hold.
pub async fn a_sandbox_is_ready_then_stopped_then_gone(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let status = seam.client.pod_sandbox_status(&pod.id).await?.status.unwrap_or_default();
    ensure!(status.id == pod.id, "the status of {} is of {}", pod.id, status.id);
    ensure!(status.state() == PodSandboxState::SandboxReady, "not ready: {status:?}");
    ensure!(status.created_at > 0, "no time of creation: {status:?}");
    ensure!(status.metadata == pod.config.metadata, "other metadata: {status:?}");
    ensure!(status.labels == pod.config.labels, "other labels: {status:?}");
    ensure!(status.annotations == pod.config.annotations, "other annotations: {status:?}");
    seam.client.stop_pod_sandbox(&pod.id).await?;
    let status = seam.client.pod_sandbox_status(&pod.id).await?.status.unwrap_or_default();
    ensure!(status.state() == PodSandboxState::SandboxNotready, "still ready: {status:?}");
    seam.client.remove_pod_sandbox(&pod.id).await?;
    refused(seam.client.pod_sandbox_status(&pod.id).await, &[Code::NotFound])?;
    Ok(())
}

/// A sandbox has an address from its run on, if the network is ready.
///
/// # Errors
/// The check does not hold.
pub async fn a_ready_network_gives_an_address(seam: &Seam) -> Checked {
    let conditions = seam.client.status(false).await?.status.unwrap_or_default().conditions;
    let ready = conditions.iter().any(|found| found.r#type == "NetworkReady" && found.status);
    if !ready {
        return Ok(());
    }
    let pod = Pod::run(seam).await?;
    let status = seam.client.pod_sandbox_status(&pod.id).await?.status.unwrap_or_default();
    let ip = status.network.clone().unwrap_or_default().ip;
    ensure!(ip.parse::<IpAddr>().is_ok(), "{ip:?} is no address: {status:?}");
    pod.remove().await
}

/// Stopping and removing twice is no error, nor is either of what was never there.
///
/// # Errors
/// The check does not hold.
pub async fn stop_and_remove_may_be_repeated(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    seam.client.stop_pod_sandbox(&pod.id).await?;
    seam.client.stop_pod_sandbox(&pod.id).await?;
    seam.client.remove_pod_sandbox(&pod.id).await?;
    seam.client.remove_pod_sandbox(&pod.id).await?;
    seam.client.stop_pod_sandbox(&pod.id).await?;
    seam.client.remove_pod_sandbox("no-such-sandbox").await?;
    Ok(())
}

/// Its containers have ended when the stop returns.
///
/// # Errors
/// The check does not hold.
pub async fn stopping_a_sandbox_ends_its_containers(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let parked = pod.start("parked", &seam.images.parked).await?;
    let spins = pod.start("spins", &seam.images.spins).await?;
    seam.client.stop_pod_sandbox(&pod.id).await?;
    for id in [parked, spins] {
        let status = seam.client.container_status(&id).await?;
        ensure!(status.state() == ContainerState::ContainerExited, "not ended: {status:?}");
        ensure!(status.exit_code != 0, "killed, and yet a success: {status:?}");
    }
    pod.remove().await
}

/// Its containers go with it, also without a stop before.
///
/// # Errors
/// The check does not hold.
pub async fn removing_a_sandbox_removes_its_containers(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let id = pod.start("parked", &seam.images.parked).await?;
    seam.client.remove_pod_sandbox(&pod.id).await?;
    refused(seam.client.container_status(&id).await, &[Code::NotFound])?;
    refused(seam.client.pod_sandbox_status(&pod.id).await, &[Code::NotFound])?;
    Ok(())
}

/// By id, by state, by labels, and by all together.
///
/// # Errors
/// The check does not hold.
pub async fn lists_are_filtered(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let other = Pod::run(seam).await?;
    seam.client.stop_pod_sandbox(&other.id).await?;
    let state = |state: PodSandboxState| Some(PodSandboxStateValue { state: state.into() });
    let uid = |pod: &Pod<'_>| [(POD_UID.to_owned(), pod.identity.uid.clone())].into();
    let any = PodSandboxFilter::default;
    let ready = state(PodSandboxState::SandboxReady);
    let stopped = state(PodSandboxState::SandboxNotready);
    let cases = [
        ("everything", any(), true, true),
        ("id", PodSandboxFilter { id: pod.id.clone(), ..any() }, true, false),
        ("ready", PodSandboxFilter { state: ready, ..any() }, true, false),
        ("not ready", PodSandboxFilter { state: stopped, ..any() }, false, true),
        ("labels", PodSandboxFilter { label_selector: uid(&other), ..any() }, false, true),
        ("id and state", PodSandboxFilter { id: pod.id.clone(), state: stopped, ..any() }, false, false),
        ("id and labels", PodSandboxFilter { id: pod.id.clone(), label_selector: uid(&other), ..any() }, false, false),
    ];
    for (by, filter, has_pod, has_other) in cases {
        let listed = seam.client.list_pod_sandboxes(Some(filter)).await?;
        let has = |id: &str| listed.iter().any(|sandbox| sandbox.id == id);
        ensure!(has(&pod.id) == has_pod, "by {by}: {} in {listed:?}", pod.id);
        ensure!(has(&other.id) == has_other, "by {by}: {} in {listed:?}", other.id);
    }
    other.remove().await?;
    pod.remove().await
}

/// An id that nobody gave is NOT_FOUND where it matters.
///
/// # Errors
/// The check does not hold.
pub async fn an_unknown_sandbox_is_not_found(seam: &Seam) -> Checked {
    let unknown = "no-such-sandbox";
    refused(seam.client.pod_sandbox_status(unknown).await, &[Code::NotFound])?;
    let pod = Pod::run(seam).await?;
    let config: ContainerConfig = pod.container("lost", &seam.images.parked)?;
    let sandbox: PodSandboxConfig = pod.config.clone();
    refused(seam.client.create_container(unknown, config, sandbox).await, &[Code::NotFound])?;
    pod.remove().await
}
