//! The volumes of pods, as directories of the node.
//!
//! Comes in: a pod, and the API objects it names. Goes out: the kubelet's own directory layout, and CRI's mounts of it:
//!
//! ```text
//!   <root>/pods/<uid>/volumes/kubernetes.io~{configmap,secret,projected,downward-api,empty-dir}/<name>
//! ```
//! and beside these the few single files that the kubelet adds to each container ([`pod_files`]). Each path is handed over
//! without any link in it: the runtime follows none.
//! While a pod is prepared, a keeper of its own follows the objects, the pod's labels and its tokens. Never here: what is
//! in a file (the pure core makes it), or when volumes are wanted (the plan says it).

mod atomic;
mod empty_dir;
mod error;
mod files;
mod host_path;
mod keeper;
mod layout;
mod mounts;
mod pod_files;
mod remove;
mod sub_path;
mod tmpfs;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use decide::event::Failure;
use decide::names::PodUid;
use decide::pod::{Pod, Resources, Volume, VolumeSource};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::objects::Objects;

pub use error::VolumeError;
use files::Projection;
use layout::Layout;
pub use pod_files::Hosts;
pub(crate) use pod_files::is_termination_message;

/// How long work on the node's disk may take: as long as a hung network file system is waited for.
const DISK: Duration = Duration::from_secs(120);

/// What volumes need to know beside the pods.
pub struct VolumeOptions {
    /// How often a volume is looked at although nothing happened.
    pub sync_frequency: Duration,
    /// The node's addresses, the primary one first.
    pub host_ips: watch::Receiver<Vec<IpAddr>>,
    /// What a container without limits may use.
    pub allocatable: watch::Receiver<Resources>,
}

/// All pods' volumes on this node. Dropping it leaves them where they are, and no longer follows objects.
pub struct Volumes {
    shared: Arc<Shared>,
    kept: SyncMutex<HashMap<PodUid, Kept>>,
}

/// What the keepers work with.
struct Shared {
    layout: Layout,
    objects: Objects,
    options: VolumeOptions,
}

/// One writer at a time for each pod's directory. Whoever works on the disk holds it until that is done, even if the
/// task that waits for the work was dropped.
type Gate = Arc<Mutex<()>>;
type Held = Arc<OwnedMutexGuard<()>>;

/// A pod whose volumes are, or are being, prepared.
struct Kept {
    pod: watch::Sender<Arc<Pod>>,
    gate: Gate,
    keeper: Option<AbortOnDropHandle<()>>,
}

impl Volumes {
    /// Volumes beneath `root_dir`, which is made when the first pod needs it.
    #[must_use]
    pub fn new(root_dir: PathBuf, objects: Objects, options: VolumeOptions) -> Self {
        let shared = Arc::new(Shared { layout: Layout::new(root_dir), objects, options });
        Self { shared, kept: SyncMutex::default() }
    }

    /// Makes every volume of the pod, with its content, and keeps that up to date from now on. What is there already is
    /// taken over, and what an earlier process left half done is done.
    ///
    /// # Errors
    /// `FailedMount`, in the kubelet's words. What was made stays; trying again goes on from there.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), Failure> {
        let pod = Arc::new(pod.clone());
        // Before anything is read: what changes from now on, the keeper sees.
        let objects_changed = self.shared.objects.changed();
        let (gate, pod_changed) = self.begin(&pod);
        let of_pod = |error: VolumeError| failed_mount(format!("preparing volumes: {}", error.message()));
        let held = hold(Arc::clone(&gate)).await.map_err(of_pod)?;
        let mut projection = Projection::default();
        for volume in &pod.volumes {
            self.shared
                .set_up(&pod, volume, &held, &mut projection)
                .await
                .map_err(|error| not_set_up(volume, &error))?;
        }
        let shared = Arc::clone(&self.shared);
        let keeper = keeper::Keeper { shared, gate, pod: pod_changed, objects: objects_changed, projection };
        if pod.volumes.iter().any(|volume| matches!(volume.source, VolumeSource::Files(_))) {
            let task = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
            if let Some(kept) = self.lock().get_mut(&pod.uid) {
                kept.keeper = Some(task);
            }
        }
        Ok(())
    }

    fn begin(&self, pod: &Arc<Pod>) -> (Gate, watch::Receiver<Arc<Pod>>) {
        let mut pods = self.lock();
        let kept = pods.entry(pod.uid.clone()).or_insert_with(|| Kept {
            pod: watch::Sender::new(Arc::clone(pod)),
            gate: Gate::default(),
            keeper: None,
        });
        kept.keeper = None;
        kept.pod.send_replace(Arc::clone(pod));
        (Arc::clone(&kept.gate), kept.pod.subscribe())
    }

    /// The pod's labels or annotations may have changed: files that show them follow. Nothing happens to a pod that is not
    /// prepared. Volumes do not change while their pod runs.
    pub fn update(&self, pod: &Pod) {
        let pods = self.lock();
        let Some(kept) = pods.get(&pod.uid) else { return };
        if kept.pod.borrow().volumes == pod.volumes {
            kept.pod.send_replace(Arc::new(pod.clone()));
        } else {
            tracing::warn!(pod = %pod.name, "the volumes of a pod that runs cannot be changed; they stay as they are");
        }
    }

    /// Ends the keeper, unmounts what was mounted and removes the pod's directory. Done already is done.
    ///
    /// # Errors
    /// `FailedUnMount`: something could not be removed, or is not ours to remove.
    pub async fn release(&self, uid: &PodUid) -> Result<(), Failure> {
        let kept = self.lock().remove(uid);
        let gate = kept.map_or_else(Gate::default, |kept| kept.gate);
        let released = async {
            let directory = self.shared.layout.pod(uid)?;
            let held = hold(gate).await?;
            on_disk(&held, move || remove::pod(&directory)).await
        };
        let failed = |error: VolumeError| {
            Failure::new("FailedUnMount", format!("removing the volumes of pod {uid}: {}", error.message()))
        };
        released.await.map_err(failed)
    }

    /// Removes what is left of pods that are not among these: they went while no kubelet was there. What cannot be removed
    /// is told in the log and tried again by the next sweep.
    pub async fn sweep(&self, known: &HashSet<PodUid>) {
        let layout = self.shared.layout.clone();
        let held = Arc::new(Gate::default().lock_owned().await);
        let pods = match on_disk(&held, move || layout.pods()).await {
            Ok(pods) => pods,
            Err(error) => {
                tracing::warn!("looking for volumes that are left over: {}", error.message());
                return;
            }
        };
        for uid in pods.into_iter().filter(|uid| !known.contains(uid)) {
            if self.lock().contains_key(&uid) {
                continue;
            }
            match self.release(&uid).await {
                Ok(()) => tracing::info!(%uid, "removed volumes of a pod that is no more"),
                Err(failure) => tracing::warn!(%uid, "{}", failure.message),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PodUid, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    async fn set_up(
        &self,
        pod: &Pod,
        volume: &Volume,
        held: &Held,
        projection: &mut Projection,
    ) -> Result<(), VolumeError> {
        match &volume.source {
            VolumeSource::Files(files) => self.project(pod, volume, files, held, projection).await,
            VolumeSource::EmptyDir { in_memory, size_limit_bytes } => {
                let directory = self.layout.volume(&pod.uid, volume)?;
                let memory = in_memory.then(|| empty_dir::tmpfs_size(pod, *size_limit_bytes, &self.options));
                on_disk(held, move || empty_dir::set_up(&directory, memory)).await
            }
            VolumeSource::HostPath { path, kind } => {
                let (path, kind) = (PathBuf::from(path), *kind);
                on_disk(held, move || host_path::set_up(&path, kind)).await
            }
            // The runtime has its files; they are pulled before a container is made that mounts them.
            VolumeSource::Image { .. } => Ok(()),
        }
    }
}

fn failed_mount(message: impl Into<String>) -> Failure {
    Failure::new("FailedMount", message)
}

fn not_set_up(volume: &Volume, error: &VolumeError) -> Failure {
    failed_mount(format!("MountVolume.SetUp failed for volume {:?} : {}", volume.name.as_str(), error.message()))
}

async fn hold(gate: Gate) -> Result<Held, VolumeError> {
    timeout(DISK, gate.lock_owned()).await.map(Arc::new).map_err(|_| VolumeError::TimedOut)
}

/// Runs work on the disk where it may block, and keeps the pod's directory until it has ended.
async fn on_disk<T: Send + 'static>(
    held: &Held,
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    let held = Arc::clone(held);
    let working = spawn_blocking(move || {
        let result = work();
        drop(held);
        result
    });
    match timeout(DISK, working).await {
        Ok(Ok(result)) => result,
        Ok(Err(source)) => Err(VolumeError::Broken { source }),
        Err(_) => Err(VolumeError::TimedOut),
    }
}

#[cfg(test)]
mod tests;
