//! The mirrors of static pods: what the API server shows of pods that it did not give.
//!
//! Comes in: the mirrors that the watch of this node's pods tells of, and the tables. Goes out: mirrors made and deleted as
//! [`decide::mirror`] says, with the node's own credentials, and word to the publisher that there is a mirror to write a
//! status to. Never here: anything about how a pod runs; a static pod does not notice what becomes of its mirror.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use decide::mirror::{self, MirrorWork, StaticPod};
use decide::names::{PodName, PodUid};
use decide::plan::Stage;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::api::{CallError, within};
use crate::sources::uid_of;
use crate::status::Publisher;
use crate::tables::Tables;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(15);
/// The pause after work on a mirror that failed, doubled for each further one…
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// …up to this.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// The mirrors of this node that the API server has.
#[derive(Debug)]
pub struct Mirrors {
    known: Mutex<Known>,
    version: watch::Sender<u64>,
    publisher: Publisher,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether all have been told of.
    listed: bool,
    mirrors: BTreeMap<PodUid, Arc<Pod>>,
}

impl Mirrors {
    /// None are known yet. The publisher hears of each that comes or changes.
    pub fn new(publisher: Publisher) -> Self {
        Self { known: Mutex::default(), version: watch::Sender::new(0), publisher }
    }

    /// The mirror that shows the pod with this UID.
    pub(crate) fn of(&self, pod: &PodUid) -> Option<Arc<Pod>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.mirrors.values().find(|mirror| mirror::shows(mirror).as_ref() == Some(pod)).cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).mirrors.len()
    }

    /// These are all.
    pub(crate) fn all(&self, mirrors: BTreeMap<PodUid, Arc<Pod>>) {
        let shown: Vec<_> = mirrors.values().filter_map(|mirror| mirror::shows(mirror)).collect();
        self.change(|known| *known = Known { listed: true, mirrors });
        shown.into_iter().for_each(|uid| self.publisher.changed(uid));
    }

    /// This one is new or changed.
    pub(crate) fn set(&self, mirror: Pod) {
        let (Some(uid), Some(shown)) = (uid_of(&mirror), mirror::shows(&mirror)) else { return };
        self.change(|known| known.mirrors.insert(uid, Arc::new(mirror)));
        self.publisher.changed(shown);
    }

    /// This one is no more.
    pub(crate) fn gone(&self, uid: &PodUid) {
        self.change(|known| known.mirrors.remove(uid));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// None until all have been told of.
    fn listed(&self) -> Option<Vec<Arc<Pod>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.listed.then(|| known.mirrors.values().cloned().collect())
    }
}

/// What keeps the mirrors.
pub(crate) struct Keeper {
    /// The way to the API server.
    pub(crate) client: kube::Client,
    /// Whose pods these are.
    pub(crate) node_name: String,
    /// What is wanted, and what still ends.
    pub(crate) tables: Arc<Tables>,
    /// What the API server has.
    pub(crate) mirrors: Arc<Mirrors>,
    /// Whether every source has said what it wants.
    pub(crate) all_heard: watch::Receiver<bool>,
}

/// Work that failed so often, and is not tried again before then.
struct Failed {
    times: u32,
    until: Instant,
}

impl Keeper {
    /// Keeps them until cancelled.
    pub(crate) async fn run(mut self) {
        let mut failed: HashMap<PodName, Failed> = HashMap::new();
        let (mut desired, mut observed) = (self.tables.desired.changes(), self.tables.observed.changes());
        let mut told = self.mirrors.version.subscribe();
        loop {
            desired.mark_unchanged();
            observed.mark_unchanged();
            told.mark_unchanged();
            let complete = *self.all_heard.borrow_and_update();
            let mut due = Vec::new();
            if let Some(mirrors) = self.mirrors.listed() {
                due = mirror::work(&self.static_pods(), mirrors.iter().map(|mirror| &**mirror), complete);
            }
            failed.retain(|name, _| due.iter().any(|work| work.name == *name));
            let now = Instant::now();
            due.retain(|work| failed.get(&work.name).is_none_or(|failed| failed.until <= now));
            for work in due {
                let name = work.name.clone();
                if let Err(error) = self.perform(work).await {
                    let times = failed.get(&name).map_or(0, |failed| failed.times);
                    tell(&name, &error, times);
                    let pause = FIRST_RETRY.saturating_mul(1 << times.min(8)).min(LAST_RETRY);
                    let until = Instant::now() + pause.mul_f64(0.75 + rand::random::<f64>() / 2.0);
                    failed.insert(name, Failed { times: times.saturating_add(1), until });
                } else {
                    failed.remove(&name);
                }
            }
            let retry = failed.values().map(|failed| failed.until).min();
            tokio::select! {
                Ok(()) = desired.changed() => {}
                Ok(()) = observed.changed() => {}
                Ok(()) = told.changed() => {}
                Ok(()) = self.all_heard.changed() => {}
                () = until(retry) => {}
            }
        }
    }

    /// The static pods by name. One that still ends comes before the one that waits for its name.
    fn static_pods(&self) -> BTreeMap<PodName, StaticPod> {
        let mut pods = BTreeMap::new();
        // This is looked at with every change of any pod, and most nodes have few static ones.
        for (uid, row) in self.tables.desired.those(|row| row.origin.is_static()) {
            let name = mirror::name_of(&row.object);
            // Of two that want one name, the one that has it.
            let has_it = self.tables.observed.get(&uid).is_some();
            if has_it || !pods.contains_key(&name) {
                pods.insert(name, StaticPod::Wanted(Arc::clone(&row.object)));
            }
        }
        for (uid, row) in self.tables.observed.those(|row| row.origin.is_static() && row.stage != Stage::Released) {
            if self.tables.desired.get(&uid).is_none() {
                pods.insert(mirror::name_of(&row.object), StaticPod::Ending);
            }
        }
        pods
    }

    async fn perform(&self, work: MirrorWork) -> Result<(), CallError> {
        let MirrorWork { name, delete, create } = work;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &name.namespace);
        for uid in delete {
            let parameters = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(uid.as_str().to_owned()), resource_version: None }),
                ..DeleteParams::default()
            };
            match within(CALL, pods.delete(&name.name, &parameters)).await {
                Ok(_) => tracing::info!(namespace = name.namespace, name = name.name, %uid, "a mirror is deleted"),
                // It went meanwhile, and perhaps another has come.
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => return Err(error),
            }
            self.mirrors.gone(&uid);
        }
        let Some(pod) = create else { return Ok(()) };
        let node = within(CALL, Api::<Node>::all(self.client.clone()).get(&self.node_name)).await?;
        if node.metadata.deletion_timestamp.is_some() {
            // Its mirrors would go with it.
            return Ok(());
        }
        let created = within(CALL, pods.create(&PostParams::default(), &mirror::object(&pod, &node))).await?;
        tracing::info!(namespace = name.namespace, name = name.name, "a mirror is made");
        self.mirrors.set(created);
        Ok(())
    }
}

fn tell(name: &PodName, error: &CallError, times: u32) {
    let PodName { namespace, name } = name;
    // A mirror that the watch has not told of yet is there already, too: only one that stays there is worth a word.
    let said_at = u32::from(error.is_conflict());
    let error = error as &dyn std::error::Error;
    if times == said_at {
        tracing::warn!(namespace, name, error, "the mirror of a static pod; trying again");
    } else {
        tracing::debug!(namespace, name, error, times, "the mirror of a static pod; trying again");
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
