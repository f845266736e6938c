//! Checks of containers.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use super::pod::Pod;
use super::{Checked, Failure, Seam, ensure, refused};
use crate::names::{CONTAINER_NAME, POD_UID};
use crate::v1::{ContainerFilter, ContainerState, ContainerStateValue, KeyValue};

/// What a kill may take beyond the grace, on a machine that is busy with the rest of the tests.
pub(super) const MARGIN: Duration = Duration::from_secs(10);

/// What CRI leaves open: how a call is refused that comes at the wrong time.
pub(super) const WRONG_TIME: [Code; 4] =
    [Code::FailedPrecondition, Code::AlreadyExists, Code::InvalidArgument, Code::Unknown];

/// Create, start, exit 0, and what it wrote is at `log_directory/log_path` in CRI's format.
///
/// # Errors
/// The check does not hold.
pub async fn it_runs_to_its_end_and_leaves_a_log(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let (_, status) = pod.complete("main", &seam.images.exits_zero).await?;
    ensure!(status.exit_code == 0, "exit code {}: {status:?}", status.exit_code);
    ensure!(status.reason == "Completed", "reason {:?} of an exit 0", status.reason);
    ensure!(
        status.log_path == pod.log_file("main").display().to_string(),
        "the log is told to be at {:?}",
        status.log_path
    );
    pod.await_log("main", |lines| lines.iter().any(|line| line.stream == "stdout")).await?;
    pod.remove().await
}

/// An exit code other than 0 and 1, as it was.
///
/// # Errors
/// The check does not hold.
pub async fn its_exit_code_is_told(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let (_, status) = pod.complete("main", &seam.images.exits_seven).await?;
    ensure!(status.exit_code == 7, "exit code {}: {status:?}", status.exit_code);
    ensure!(status.reason == "Error", "reason {:?} of an exit 7", status.reason);
    pod.remove().await
}

/// CREATED, RUNNING, EXITED, with a time for each that has come and none for the others.
///
/// # Errors
/// The check does not hold.
pub async fn its_states_and_times_are_in_order(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let id = pod.create("main", &seam.images.parked).await?;
    let status = seam.client.container_status(&id).await?;
    ensure!(status.state() == ContainerState::ContainerCreated, "not created: {status:?}");
    let created = status.created_at;
    ensure!(created > 0, "no time of creation: {status:?}");
    ensure!(status.started_at == 0 && status.finished_at == 0, "too early: {status:?}");

    seam.client.start_container(&id).await?;
    let status = seam.client.container_status(&id).await?;
    ensure!(status.state() == ContainerState::ContainerRunning, "not running: {status:?}");
    let started = status.started_at;
    ensure!(status.created_at == created && started >= created, "out of order: {status:?}");
    ensure!(status.finished_at == 0, "finished while it runs: {status:?}");

    seam.client.stop_container(&id, Duration::from_secs(1)).await?;
    let status = pod.await_state(&id, ContainerState::ContainerExited).await?;
    ensure!((status.created_at, status.started_at) == (created, started), "other times than before: {status:?}");
    ensure!(status.finished_at >= started, "out of order: {status:?}");
    pod.remove().await
}

/// Neither while it runs nor after its end does a container start again.
///
/// # Errors
/// The check does not hold.
pub async fn it_starts_only_once(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let running = pod.start("running", &seam.images.parked).await?;
    refused(seam.client.start_container(&running).await, &WRONG_TIME)?;
    let status = seam.client.container_status(&running).await?;
    ensure!(status.state() == ContainerState::ContainerRunning, "it ended by that: {status:?}");
    let (ended, _) = pod.complete("ended", &seam.images.exits_zero).await?;
    refused(seam.client.start_container(&ended).await, &WRONG_TIME)?;
    pod.remove().await
}

/// A runtime does not pull by itself.
///
/// # Errors
/// The check does not hold.
pub async fn it_needs_its_image_on_the_node(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let config = pod.container("main", &seam.images.missing)?;
    let created = seam.client.create_container(&pod.id, config, pod.config.clone()).await;
    let error = refused(created, &[Code::NotFound])?;
    ensure!(error.message().contains(&seam.images.missing), "the image is not named: {:?}", error.message());
    pod.remove().await
}

/// What the kubelet gives, the guest gets.
///
/// # Errors
/// The check does not hold.
pub async fn environment_and_arguments_reach_the_guest(seam: &Seam) -> Checked {
    let Some(image) = &seam.images.shows_itself else { return Ok(()) };
    let pod = Pod::run(seam).await?;
    let mut config = pod.container("main", image)?;
    config.args = ["--greeting", "hello world"].map(str::to_owned).into();
    config.envs = vec![KeyValue { key: "SUITE_WORD".to_owned(), value: b"a=b c".to_vec() }];
    let id = pod.create_from(config).await?;
    seam.client.start_container(&id).await?;
    pod.await_log("main", |lines| {
        let has = |text: &str| lines.iter().any(|line| line.text == text);
        has("--greeting") && has("hello world") && has("SUITE_WORD=a=b c")
    })
    .await?;
    pod.remove().await
}

/// A guest that waits has ended when its stop returns: 143 if it was asked, 137 if it was killed, never 0.
///
/// # Errors
/// The check does not hold.
pub async fn a_parked_guest_stops(seam: &Seam) -> Checked {
    stops_within(seam, &seam.images.parked, Duration::from_secs(2)).await
}

/// A guest that never yields has ended when its stop returns, not long after its grace.
///
/// # Errors
/// The check does not hold.
pub async fn a_spinning_guest_is_killed_after_its_grace(seam: &Seam) -> Checked {
    stops_within(seam, &seam.images.spins, Duration::from_secs(1)).await
}

async fn stops_within(seam: &Seam, image: &str, grace: Duration) -> Checked {
    let pod = Pod::run(seam).await?;
    let id = pod.start("main", image).await?;
    let asked = Instant::now();
    seam.client.stop_container(&id, grace).await?;
    let took = asked.elapsed();
    ensure!(took < grace + MARGIN, "a stop with {grace:?} of grace took {took:?}");
    let status = seam.client.container_status(&id).await?;
    ensure!(status.state() == ContainerState::ContainerExited, "not ended: {status:?}");
    ensure!([137, 143].contains(&status.exit_code), "exit code {}", status.exit_code);
    pod.remove().await
}

/// A running container may be removed at once.
///
/// # Errors
/// The check does not hold.
pub async fn removing_it_kills_it(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    for image in [&seam.images.parked, &seam.images.spins] {
        let id = pod.start("main", image).await?;
        seam.client.remove_container(&id).await?;
        refused(seam.client.container_status(&id).await, &[Code::NotFound])?;
        let left = seam.client.list_containers(Some(in_sandbox(&pod))).await?;
        ensure!(left.is_empty(), "still listed: {left:?}");
    }
    pod.remove().await
}

/// Stopping and removing twice is no error, nor is the removal of what was never there.
///
/// # Errors
/// The check does not hold.
pub async fn stop_and_remove_may_be_repeated(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let (id, before) = pod.complete("main", &seam.images.exits_seven).await?;
    seam.client.stop_container(&id, Duration::ZERO).await?;
    seam.client.stop_container(&id, Duration::from_secs(1)).await?;
    let after = seam.client.container_status(&id).await?;
    ensure!(after == before, "a stop changed what had ended: {before:?}, then {after:?}");
    seam.client.remove_container(&id).await?;
    seam.client.remove_container(&id).await?;
    seam.client.remove_container("no-such-container").await?;
    pod.remove().await
}

/// What the kubelet will look for after its own restart is all there.
///
/// # Errors
/// The check does not hold.
pub async fn its_metadata_comes_back(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let config = pod.container("main", &seam.images.parked)?;
    let id = pod.create_from(config.clone()).await?;
    let status = seam.client.container_status(&id).await?;
    ensure!(status.metadata == config.metadata, "other metadata: {status:?}");
    ensure!(status.labels == config.labels, "other labels: {status:?}");
    ensure!(status.annotations == config.annotations, "other annotations: {status:?}");
    ensure!(!status.image_ref.is_empty(), "no image: {status:?}");
    let listed = seam.client.list_containers(Some(in_sandbox(&pod))).await?;
    let [listed] = listed.as_slice() else {
        return Err(Failure::Expectation(format!("one container is listed as {listed:?}")));
    };
    ensure!(listed.id == id && listed.pod_sandbox_id == pod.id, "other ids: {listed:?}");
    ensure!(listed.metadata == config.metadata, "other metadata: {listed:?}");
    ensure!(listed.labels == config.labels, "other labels: {listed:?}");
    ensure!(listed.annotations == config.annotations, "other annotations: {listed:?}");
    ensure!(listed.created_at == status.created_at, "another time: {listed:?}");
    pod.remove().await
}

fn in_sandbox(pod: &Pod<'_>) -> ContainerFilter {
    ContainerFilter { pod_sandbox_id: pod.id.clone(), ..ContainerFilter::default() }
}

/// By id, by state, by labels, by sandbox, and by several together.
///
/// # Errors
/// The check does not hold.
pub async fn lists_are_filtered(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let other = Pod::run(seam).await?;
    let running = pod.start("running", &seam.images.parked).await?;
    let created = pod.create("created", &seam.images.parked).await?;
    let elsewhere = other.start("running", &seam.images.parked).await?;
    let state = |state: ContainerState| Some(ContainerStateValue { state: state.into() });
    let label = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let any = ContainerFilter::default;
    let cases: [(&str, ContainerFilter, &[&String]); 8] = [
        ("everything", any(), &[&running, &created, &elsewhere]),
        ("id", ContainerFilter { id: created.clone(), ..any() }, &[&created]),
        ("sandbox", in_sandbox(&pod), &[&running, &created]),
        ("state", ContainerFilter { state: state(ContainerState::ContainerRunning), ..any() }, &[&running, &elsewhere]),
        (
            "state and sandbox",
            ContainerFilter { state: state(ContainerState::ContainerCreated), ..in_sandbox(&pod) },
            &[&created],
        ),
        ("a label", ContainerFilter { label_selector: label(POD_UID, &other.identity.uid), ..any() }, &[&elsewhere]),
        (
            "a label and sandbox",
            ContainerFilter { label_selector: label(CONTAINER_NAME, "running"), ..in_sandbox(&pod) },
            &[&running],
        ),
        ("id and another sandbox", ContainerFilter { id: running.clone(), ..in_sandbox(&other) }, &[]),
    ];
    for (by, filter, wanted) in cases {
        let listed = seam.client.list_containers(Some(filter)).await?;
        for id in [&running, &created, &elsewhere] {
            let has = listed.iter().any(|container| container.id == *id);
            ensure!(has == wanted.contains(&id), "by {by}: {id} in {listed:?}");
        }
    }
    other.remove().await?;
    pod.remove().await
}

/// What a running container uses is told, by its id and in the list of its sandbox.
///
/// # Errors
/// The check does not hold.
pub async fn running_it_has_stats(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let id = pod.start("main", &seam.images.parked).await?;
    let stats = seam.client.container_stats(&id).await?;
    let named = |stats: &crate::v1::ContainerStats| stats.attributes.as_ref().is_some_and(|found| found.id == id);
    ensure!(named(&stats), "of another container: {stats:?}");
    let cpu = stats.cpu.as_ref();
    ensure!(
        cpu.is_some_and(|cpu| cpu.timestamp > 0 && cpu.usage_core_nano_seconds.is_some()),
        "no CPU time: {stats:?}"
    );
    let memory = stats.memory.as_ref();
    ensure!(
        memory.is_some_and(|memory| memory.timestamp > 0 && memory.working_set_bytes.is_some()),
        "no working set: {stats:?}"
    );
    let filter = crate::v1::ContainerStatsFilter {
        pod_sandbox_id: pod.id.clone(),
        ..crate::v1::ContainerStatsFilter::default()
    };
    let listed = seam.client.list_container_stats(Some(filter)).await?;
    ensure!(listed.len() == 1 && named(&listed[0]), "the list is {listed:?}");
    pod.remove().await
}

/// After its log was moved away and reopened, there is one at its path again.
///
/// # Errors
/// The check does not hold.
pub async fn a_moved_log_is_reopened(seam: &Seam) -> Checked {
    let pod = Pod::run(seam).await?;
    let id = pod.start("main", &seam.images.parked).await?;
    pod.await_log("main", |_| true).await?;
    let log = pod.log_file("main");
    fs::rename(&log, log.with_extension("log.1")).map_err(|source| Failure::Step { step: "moving a log", source })?;
    seam.client.reopen_container_log(&id).await?;
    ensure!(log.is_file(), "{} is not there again", log.display());
    pod.remove().await
}

/// An id that nobody gave is NOT_FOUND where it matters.
///
/// # Errors
/// The check does not hold.
pub async fn an_unknown_container_is_not_found(seam: &Seam) -> Checked {
    let unknown = "no-such-container";
    refused(seam.client.container_status(unknown).await, &[Code::NotFound])?;
    refused(seam.client.start_container(unknown).await, &[Code::NotFound])?;
    refused(seam.client.container_stats(unknown).await, &[Code::NotFound])?;
    refused(seam.client.reopen_container_log(unknown).await, &[Code::NotFound])?;
    let attached = seam.client.attach(unknown, futures::stream::pending()).await;
    refused(attached.map(|_| ()), &[Code::NotFound])?;
    Ok(())
}
