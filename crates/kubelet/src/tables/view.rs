//! The two tables as the HTTP API reads them.

use std::path::PathBuf;
use std::sync::Arc;

use decide::names::PodUid;
use decide::plan::Stage;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::mpsc;

use super::{ObservedPod, Tables};
use crate::effects::messages;
use crate::mirrors::Mirrors;
use crate::server::Pods;
use crate::sources::Change;

/// What the server sees.
pub struct View {
    /// The tables.
    pub tables: Arc<Tables>,
    /// What the API server shows of the node's own pods, where there is one.
    pub mirrors: Option<Arc<Mirrors>>,
    /// Where container logs are.
    pub pod_logs: PathBuf,
    /// The dispatcher's queue: closed when its loop has ended, full when it no longer moves.
    pub changes: mpsc::Sender<Change>,
}

fn with_status(object: &Pod, status: PodStatus) -> Arc<Pod> {
    Arc::new(Pod { status: Some(status), ..object.clone() })
}

fn shown(row: &ObservedPod) -> Arc<Pod> {
    with_status(&row.object, row.status.clone())
}

impl View {
    fn row(&self, pod: &Pod) -> Option<Arc<ObservedPod>> {
        self.tables.observed.get(&PodUid::from(pod.metadata.uid.as_deref()?))
    }
}

impl Pods for View {
    fn list(&self) -> Vec<Arc<Pod>> {
        let desired = self.tables.desired.all().into_iter();
        desired
            .map(|(uid, row)| match self.tables.observed.get(&uid) {
                Some(observed) => with_status(&row.object, observed.status.clone()),
                None => Arc::clone(&row.object),
            })
            .collect()
    }

    fn static_pods(&self) -> (usize, usize) {
        let desired = self.tables.desired.all();
        let own = desired.iter().filter(|(_, row)| row.origin.is_static()).count();
        (own, self.mirrors.as_ref().map_or(0, |mirrors| mirrors.count()))
    }

    fn running(&self) -> Vec<Arc<Pod>> {
        let observed = self.tables.observed.all().into_iter();
        let runs = |row: &Arc<ObservedPod>| matches!(row.stage, Stage::Running | Stage::Terminating { .. });
        observed.map(|(_, row)| row).filter(runs).map(|row| shown(&row)).collect()
    }

    fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.tables.observed_by_name(namespace, name).map(|row| shown(&row))
    }

    fn log_path(&self, pod: &Pod, container: &str, container_id: &str) -> Option<PathBuf> {
        let row = self.row(pod)?;
        let instance = row.containers.iter().find(|instance| instance.id.as_str() == container_id)?;
        let identity = messages::identity_of(&row.object.metadata);
        (instance.name.as_str() == container)
            .then(|| messages::log_file(&self.pod_logs, &identity, container, instance.attempt))
    }

    fn is_running(&self, pod: &Pod, container_id: &str) -> bool {
        let Some(row) = self.row(pod) else { return false };
        let status = &row.status;
        let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten().any(|status| {
            let id = status.container_id.as_deref().and_then(|id| id.split_once("://"));
            let ended = status.state.as_ref().is_some_and(|state| state.terminated.is_some());
            id.is_some_and(|(_, id)| id == container_id) && !ended
        })
    }

    fn is_alive(&self) -> bool {
        !self.changes.is_closed() && self.changes.capacity() > 0
    }
}
