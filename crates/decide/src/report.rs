//! Reports: what a Kubernetes Event about a pod will say. The kubelet's own reasons and words stand here, once.

use crate::event::Failure;
use crate::names::ContainerName;
use k8s_openapi::api::core::v1 as api;
use std::borrow::Cow;
use std::time::Duration;

/// Whether an Event is news or trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something went as planned.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Kind {
    /// The `type` of the Event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Normal => "Normal",
            Kind::Warning => "Warning",
        }
    }
}

/// One Kubernetes Event to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// News or trouble.
    pub kind: Kind,
    /// The Event's reason, in CamelCase.
    pub reason: Cow<'static, str>,
    /// What happened, for people.
    pub message: String,
    /// The container it happened to; the Event's `fieldPath` comes from it.
    pub container: Option<ContainerName>,
}

impl Report {
    /// News about the pod.
    #[must_use]
    pub fn normal(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Report { kind: Kind::Normal, reason: reason.into(), message: message.into(), container: None }
    }

    /// Trouble with the pod.
    #[must_use]
    pub fn warning(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Report { kind: Kind::Warning, reason: reason.into(), message: message.into(), container: None }
    }

    /// The same report, about one container of the pod.
    #[must_use]
    pub fn of(self, container: &ContainerName) -> Self {
        Report { container: Some(container.clone()), ..self }
    }

    /// The `involvedObject.fieldPath` of an Event about `pod`; empty when it concerns the whole pod.
    #[must_use]
    pub fn field_path(&self, pod: &api::Pod) -> String {
        let Some(name) = &self.container else {
            return String::new();
        };
        let spec = pod.spec.as_ref();
        let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
        let ephemeral = spec.and_then(|spec| spec.ephemeral_containers.as_ref()).into_iter().flatten();
        let list = if init.into_iter().any(|one| one.name == name.as_str()) {
            "initContainers"
        } else if ephemeral.into_iter().any(|one| one.name == name.as_str()) {
            "ephemeralContainers"
        } else {
            "containers"
        };
        format!("spec.{list}{{{name}}}")
    }
}

/// A pull begins. The effect that pulls says this, since it alone knows that the image was not there already.
#[must_use]
pub fn pulling(image: &str, container: &ContainerName) -> Report {
    Report::normal("Pulling", format!("Pulling image \"{image}\"")).of(container)
}

/// A pull is over: `took` from the first byte, `waited` from the request, `bytes` the image's size.
#[must_use]
pub fn pulled(image: &str, took: Duration, waited: Duration, bytes: u64, container: &ContainerName) -> Report {
    let message = format!(
        "Successfully pulled image \"{image}\" in {took:.3?} ({waited:.3?} including waiting). Image size: {bytes} bytes."
    );
    Report::normal("Pulled", message).of(container)
}

/// A pull has failed, or there was none: as the kubelet tells it, before it tells the reason.
#[must_use]
pub fn pull_failed(image: &str, failure: &Failure, container: &ContainerName) -> Report {
    let prefix = format!("image pull failed for {image} because ");
    let (reason, message) = match failure.reason {
        "ErrImageNeverPull" => ("ErrImageNeverPull", failure.message.clone()),
        "InvalidImageName" | "ImageInspectError" => ("InspectFailed", failure.message.clone()),
        // What the runtime said begins with the reason; the status says it in words.
        reason => {
            let said = failure.message.strip_prefix(&prefix).and_then(|rest| rest.split_once(": "));
            let said = said.map_or_else(|| failure.message.clone(), |(_, said)| format!("{reason}: {said}"));
            ("Failed", format!("Failed to pull image \"{image}\": {said}"))
        }
    };
    Report::warning(reason, message).of(container)
}

/// Secrets that a pod names for its pulls and that cannot be used.
#[must_use]
pub fn pull_secrets_missing(names: &[&str]) -> Report {
    let names = names.join(", ");
    let message =
        format!("Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed.");
    Report::warning("FailedToRetrieveImagePullSecret", message)
}

/// The image was on the node already.
#[must_use]
pub fn image_present(image: &str, container: &ContainerName) -> Report {
    Report::normal(
        "Pulled",
        format!("Container image \"{image}\" already present on machine and can be accessed by the pod"),
    )
    .of(container)
}
