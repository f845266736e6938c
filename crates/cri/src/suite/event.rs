//! Checks of the event stream.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{self, Instant};

use super::pod::Pod;
use super::{Checked, Failure, PATIENCE, Seam, ensure};
use crate::v1::{ContainerEventResponse, ContainerEventType, ContainerState};

/// Created, started, stopped, deleted: each once, in this order, with the pod's status beside it.
///
/// # Errors
/// The check does not hold.
pub async fn a_whole_life_is_told(seam: &Seam) -> Checked {
    let mut events = seam.client.container_events().await?;
    let pod = Pod::run(seam).await?;
    let id = pod.start("main", &seam.images.parked).await?;
    seam.client.stop_container(&id, Duration::from_secs(1)).await?;
    seam.client.remove_container(&id).await?;

    let mut told: Vec<ContainerEventResponse> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let last = ContainerEventType::ContainerDeletedEvent;
    while told.last().is_none_or(|event| event.container_event_type() != last) {
        let Ok(next) = time::timeout_at(deadline, events.next()).await else {
            return Err(Failure::Expectation(format!("only this is told: {told:?}")));
        };
        match next {
            Some(event) => told.extend(Some(event?).filter(|event| event.container_id == id)),
            None => return Err(Failure::Expectation(format!("the stream ended after {told:?}"))),
        }
    }
    let kinds: Vec<_> = told.iter().map(ContainerEventResponse::container_event_type).collect();
    let life = [
        ContainerEventType::ContainerCreatedEvent,
        ContainerEventType::ContainerStartedEvent,
        ContainerEventType::ContainerStoppedEvent,
        ContainerEventType::ContainerDeletedEvent,
    ];
    ensure!(kinds == life, "not a whole life in its order: {kinds:?}");
    ensure!(told.iter().all(|event| event.created_at > 0), "no time: {told:?}");
    let of_pod =
        |event: &ContainerEventResponse| event.pod_sandbox_status.as_ref().is_some_and(|status| status.id == pod.id);
    ensure!(told.iter().all(of_pod), "without its pod's status: {told:?}");
    let stopped = told[2].containers_statuses.iter().find(|status| status.id == id);
    ensure!(
        stopped.is_some_and(|status| status.state() == ContainerState::ContainerExited),
        "told of a stop that the status beside it does not know: {:?}",
        told[2]
    );
    pod.remove().await
}
