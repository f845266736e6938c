//! What the server reads of pods, and which container's log is meant by a name.
//!
//! In come names, out go pods with their current status, log files, or a refusal in the kubelet's words. Never here: a
//! change of a pod.

use std::{path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

/// The pods as the server reads them; implemented over the two tables.
pub trait Pods: Send + Sync + 'static {
    /// Every pod that is desired, each with its current status.
    fn list(&self) -> Vec<Arc<Pod>>;

    /// How many of those are the node's own, and how many mirrors of them the API server has.
    fn static_pods(&self) -> (usize, usize);

    /// Every pod that has a running sandbox, desired or not.
    fn running(&self) -> Vec<Arc<Pod>>;

    /// The pod of this name, with its current status; one that still ends counts, too.
    fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;

    /// Where the log of one container instance is written. `container_id` has no scheme.
    fn log_path(&self, pod: &Pod, container: &str, container_id: &str) -> Option<PathBuf>;

    /// Whether that instance may still write to its log.
    fn is_running(&self, pod: &Pod, container_id: &str) -> bool;

    /// Whether the kubelet still does its work: the loop that hands changes to workers has moved lately.
    fn is_alive(&self) -> bool;
}

/// Why there is no log. The texts are the kubelet's, which people and tests know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum LogError {
    #[error("pod {pod:?} does not exist")]
    NoPod { pod: String },
    #[error("container {container:?} not found in pod {pod:?}")]
    NoContainer { pod: String, container: String },
    #[error("container {container:?} in pod {pod:?} is not available")]
    NotAvailable { pod: String, container: String },
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious { pod: String, container: String },
    #[error("container {container:?} in pod {pod:?} is terminated")]
    Terminated { pod: String, container: String },
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting { pod: String, container: String, reason: String },
    #[error("failed to open the log of container {container:?} in pod {pod:?}: {message}")]
    Unreadable { pod: String, container: String, message: String },
}

impl LogError {
    /// Whether the request named something that is not there, rather than something that has no log yet.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoPod { .. } | Self::NoContainer { .. })
    }
}

/// The id, without scheme, of the container instance whose log is meant: the running one before the last terminated one,
/// or with `previous` the one before.
///
/// # Errors
/// There is no such container, or no such instance of it.
pub fn container_with_log(pod: &Pod, container: &str, previous: bool) -> Result<String, LogError> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let (pod_name, container_name) = (|| name.clone(), || container.to_owned());
    if !names(pod).any(|known| known == container) {
        return Err(LogError::NoContainer { pod: name, container: container.to_owned() });
    }
    let status = pod.status.as_ref().and_then(|status| status_of(status, container));
    let Some(status) = status else {
        return Err(LogError::NotAvailable { pod: name, container: container.to_owned() });
    };
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.clone().unwrap_or_default().terminated;
    let last_id = last.as_ref().and_then(|last| without_scheme(last.container_id.as_deref()));
    let terminated = || LogError::Terminated { pod: pod_name(), container: container_name() };
    if previous {
        return last_id.ok_or_else(|| LogError::NoPrevious { pod: pod_name(), container: container_name() });
    }
    if state.running.is_some() {
        let waiting = || waiting(pod_name(), container_name(), None);
        return without_scheme(status.container_id.as_deref()).ok_or_else(waiting);
    }
    if let Some(ended) = state.terminated {
        return without_scheme(ended.container_id.as_deref()).or(last_id).ok_or_else(terminated);
    }
    if last.is_some() {
        return last_id.ok_or_else(terminated);
    }
    Err(waiting(pod_name(), container_name(), state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref())))
}

fn waiting(pod: String, container: String, reason: Option<&str>) -> LogError {
    let reason = match reason {
        Some("ErrImagePull") => "image can't be pulled".to_owned(),
        Some("ImagePullBackOff") => "trying and failing to pull image".to_owned(),
        Some(reason) => reason.to_owned(),
        None => "no logs yet".to_owned(),
    };
    LogError::Waiting { pod, container, reason }
}

fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| {
        let init = spec.init_containers.iter().flatten().map(|container| container.name.as_str());
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| container.name.as_str());
        spec.containers.iter().map(|container| container.name.as_str()).chain(init).chain(ephemeral)
    })
}

fn status_of<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == container)
}

/// `ID` of `wasklet://ID`; none where it is empty.
fn without_scheme(id: Option<&str>) -> Option<String> {
    let id = id?;
    let id = id.split_once("://").map_or(id, |(_, id)| id);
    (!id.is_empty()).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "c" }], "initContainers": [{ "name": "i" }] },
            "status": { "containerStatuses": [status] },
        }))
        .unwrap()
    }

    fn status(state: &serde_json::Value, last: &serde_json::Value) -> serde_json::Value {
        json!({ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
            "containerID": "wasklet://now", "state": state, "lastState": last })
    }

    #[test]
    fn the_right_instance_is_found() {
        let (running, nothing) = (json!({ "running": {} }), json!({}));
        let ended = |id: &str| json!({ "terminated": { "exitCode": 1, "containerID": id } });
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
        let find = |state: &serde_json::Value, last: &serde_json::Value, previous| {
            container_with_log(&pod(&status(state, last)), "c", previous).map_err(|error| error.to_string())
        };
        let ok = |id: &str| Ok(id.to_owned());
        assert_eq!(find(&running, &ended("wasklet://old"), false), ok("now"));
        assert_eq!(find(&running, &ended("wasklet://old"), true), ok("old"));
        assert_eq!(find(&ended("wasklet://one"), &nothing, false), ok("one"));
        assert_eq!(find(&ended(""), &ended("wasklet://old"), false), ok("old"));
        assert_eq!(find(&waiting("CrashLoopBackOff"), &ended("wasklet://old"), false), ok("old"));
        let refusals = [
            (find(&running, &nothing, true), "previous terminated container \"c\" in pod \"p\" not found"),
            (find(&ended(""), &nothing, false), "container \"c\" in pod \"p\" is terminated"),
            (
                find(&waiting("ContainerCreating"), &nothing, false),
                "container \"c\" in pod \"p\" is waiting to start: ContainerCreating",
            ),
            (
                find(&waiting("ImagePullBackOff"), &nothing, false),
                "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image",
            ),
        ];
        for (found, wanted) in refusals {
            assert_eq!(found, Err(wanted.to_owned()));
        }
        let of = |container| container_with_log(&pod(&status(&running, &nothing)), container, false).unwrap_err();
        assert_eq!(of("x").to_string(), "container \"x\" not found in pod \"p\"");
        assert!(of("x").is_not_found());
        assert_eq!(of("i").to_string(), "container \"i\" in pod \"p\" is not available");
    }
}
