//! The two maps everything reads: what is desired of each pod, and what was last observed of it.
//!
//! Comes in: desired pods from the sources, observed pods from each pod's worker (its only writer). Goes out: snapshots,
//! and a version that moves with every change. Never here: a decision, an await, a third map.

mod view;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use decide::names::{ContainerId, ContainerName, PodUid};
use decide::plan::Stage;
use k8s_openapi::api::core::v1 as api;
use tokio::sync::watch;

pub use view::View;

/// Where a desired pod was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The API server: status is published there and the object is deleted there.
    Api,
    /// A manifest file: this node's disk is the only owner.
    File,
    /// A URL.
    Http,
}

impl Origin {
    /// The kubelet's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::File => "file",
            Self::Http => "http",
        }
    }

    /// Whether its pods are this node's own: the API server has but mirrors of them.
    pub fn is_static(self) -> bool {
        self != Self::Api
    }
}

/// A pod as its source gives it.
#[derive(Clone, Debug)]
pub struct DesiredPod {
    /// The object, verbatim.
    pub object: Arc<api::Pod>,
    /// Who gave it.
    pub origin: Origin,
}

/// One started or startable container of a pod, as far as logs and attach need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedContainer {
    /// The container's name in the pod.
    pub name: ContainerName,
    /// The runtime's id.
    pub id: ContainerId,
    /// Counts from 0; the same number stands in the log file's name.
    pub attempt: u32,
}

/// What a pod's worker last knew of it.
#[derive(Clone, Debug)]
pub struct ObservedPod {
    /// The object the status belongs to.
    pub object: Arc<api::Pod>,
    /// Who gave the object.
    pub origin: Origin,
    /// The status as the API server should have it.
    pub status: api::PodStatus,
    /// Every instance the runtime still knows, older first.
    pub containers: Vec<ObservedContainer>,
    /// How far the pod's life has come.
    pub stage: Stage,
}

/// One of the two maps.
#[derive(Debug)]
pub struct Table<T> {
    rows: RwLock<HashMap<PodUid, Arc<T>>>,
    version: watch::Sender<u64>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: RwLock::default(), version: watch::Sender::new(0) }
    }
}

impl<T> Table<T> {
    /// The row of one pod.
    pub fn get(&self, uid: &PodUid) -> Option<Arc<T>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// All rows, in no order.
    pub fn all(&self) -> Vec<(PodUid, Arc<T>)> {
        self.those(|_| true)
    }

    /// The rows that `is_wanted`, in no order.
    pub fn those(&self, is_wanted: impl Fn(&T) -> bool) -> Vec<(PodUid, Arc<T>)> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = rows.iter().filter(|(_, row)| is_wanted(row));
        wanted.map(|(uid, row)| (uid.clone(), Arc::clone(row))).collect()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A version that moves whenever a row does. Read it before the rows, so that no change is missed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn set(&self, uid: PodUid, row: T) {
        self.rows.write().unwrap_or_else(PoisonError::into_inner).insert(uid, Arc::new(row));
        self.moved();
    }

    pub(crate) fn remove(&self, uid: &PodUid) -> Option<Arc<T>> {
        let removed = self.rows.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
        if removed.is_some() {
            self.moved();
        }
        removed
    }

    fn moved(&self) {
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }
}

/// Both maps.
#[derive(Debug, Default)]
pub struct Tables {
    /// What the sources want.
    pub desired: Table<DesiredPod>,
    /// What the workers know.
    pub observed: Table<ObservedPod>,
}

impl Tables {
    /// The observed pod of this name. Where an old pod still ends while its successor is there, the successor.
    pub fn observed_by_name(&self, namespace: &str, name: &str) -> Option<Arc<ObservedPod>> {
        let created = |pod: &ObservedPod| pod.object.metadata.creation_timestamp.clone();
        self.observed
            .all()
            .into_iter()
            .map(|(_, pod)| pod)
            .filter(|pod| {
                pod.object.metadata.namespace.as_deref() == Some(namespace)
                    && pod.object.metadata.name.as_deref() == Some(name)
            })
            .max_by(|a, b| created(a).cmp(&created(b)))
    }
}
