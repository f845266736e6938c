//! Waiting for an object to become what a test expects.
//!
//! Comes in: an object's name, a condition, a time. Goes out: the object, or an error that shows its state. Never
//! here: polling, or giving up because the API server went away for a while.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::kubectl::Kubectl;

/// How long the verbs without a time of their own wait: an image pull and a start on two busy cores, and some.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the condition holds of the object, `None` while there is none, and returns the object as it then is.
///
/// # Errors
/// If that does not come true in time; the error shows the object and its events.
pub async fn await_object<K>(
    api: &Api<K>,
    kubectl: &Kubectl,
    name: &str,
    within: Duration,
    holds: impl Fn(Option<&K>) -> bool,
) -> Result<Option<K>>
where
    K: Clone + Debug + DeserializeOwned + Resource<DynamicType = ()> + Send + 'static,
{
    let mut last_error = None;
    let watched = async {
        let mut states = pin!(watch_object(api.clone(), name).default_backoff());
        while let Some(state) = states.next().await {
            match state {
                Ok(object) if holds(object.as_ref()) => return Some(object),
                Ok(_) => last_error = None,
                Err(error) => last_error = Some(error),
            }
        }
        None
    };
    if let Ok(Some(object)) = tokio::time::timeout(within, watched).await {
        return Ok(object);
    }
    let kind = K::kind(&());
    let watch = last_error.map(|error| format!("\nthe last watch failed: {error}")).unwrap_or_default();
    let state = describe::<K>(kubectl, name).await;
    bail!("{kind} {name} did not become what was expected in {within:?}{watch}\n{state}")
}

/// Whether the pod's condition of this type is true.
pub fn has_condition(pod: &Pod, condition: &str) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|each| each.type_ == condition && each.status == "True")
}

/// The object whole, and what `kubectl describe` makes of it and its events.
async fn describe<K: Resource<DynamicType = ()>>(kubectl: &Kubectl, name: &str) -> String {
    let (plural, group) = (K::plural(&()), K::group(&()));
    let object = if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") };
    let mut text = String::new();
    for arguments in [["get", "--output=yaml", &object, name], ["describe", "--show-events", &object, name]] {
        match kubectl.run(&arguments, "").await {
            Ok(output) => text.extend([output.stdout, output.stderr]),
            Err(error) => text.push_str(&format!("{error:#}\n")),
        }
    }
    text
}
