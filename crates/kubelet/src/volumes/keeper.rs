//! One task for each prepared pod: it makes the pod's files follow the API objects, the pod's labels and its tokens.
//!
//! It wakes when an object or the pod changes, when a token is due, and now and then to look whether the disk still holds
//! what it should. What fails leaves the files as they were, and is tried again with a growing, jittered pause.

use std::sync::Arc;
use std::time::Duration;

use decide::pod::{Pod, VolumeSource};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use super::files::Projection;
use super::{Gate, Shared, hold, not_set_up};

/// The pause after the first failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A token that is due is good for a while yet; this keeps the tries to renew it apart.
const SHORTEST_WAIT: Duration = Duration::from_secs(10);

pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) gate: Gate,
    pub(super) pod: watch::Receiver<Arc<Pod>>,
    /// Moves when any object changes; subscribed to before the first content was made.
    pub(super) objects: watch::Receiver<u64>,
    /// What the volumes were made from so far.
    pub(super) projection: Projection,
}

impl Keeper {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let wait = self.wait(failures, self.shared.objects.clock().now());
            let looks_at_disk = tokio::select! {
                Ok(()) = self.objects.changed() => false,
                Ok(()) = self.pod.changed() => false,
                () = sleep(wait) => true,
            };
            let pod = Arc::clone(&self.pod.borrow_and_update());
            if looks_at_disk {
                self.projection = Projection::default();
            }
            self.projection.renew_at = None;
            failures = match self.round(&pod).await {
                Ok(()) => 0,
                Err(message) => {
                    tracing::warn!(pod = %pod.name, "{message}; the files stay as they are");
                    failures.saturating_add(1)
                }
            };
        }
    }

    async fn round(&mut self, pod: &Pod) -> Result<(), String> {
        let held = hold(Arc::clone(&self.gate)).await.map_err(|error| error.message())?;
        let mut first = Ok(());
        for volume in &pod.volumes {
            let VolumeSource::Files(files) = &volume.source else { continue };
            let projected = self.shared.project(pod, volume, files, &held, &mut self.projection).await;
            // The others go on: one missing object must not let another pod's token run out.
            first = first.and(projected.map_err(|error| not_set_up(volume, &error).message));
        }
        first
    }

    /// How long until the next look, with nothing happening.
    fn wait(&self, failures: u32, now: Timestamp) -> Duration {
        let period = self.shared.options.sync_frequency;
        let until = match (failures, self.projection.renew_at) {
            (0, Some(due)) => decide::time::between(now, due).max(SHORTEST_WAIT).min(period),
            (0, None) => period,
            (failures, _) => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(period),
        };
        // Pods that started together need not look together.
        until.mul_f64(0.9 + rand::random::<f64>() * 0.1)
    }
}
