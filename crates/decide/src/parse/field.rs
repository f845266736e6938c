//! `fieldRef` and `resourceFieldRef`: which fields of a pod may be shown, and where.

use super::{invalid, unsupported_value};
use crate::names::ContainerName;
use crate::pod::{Bound, FieldPath, Rejection, ResourceField, ResourceKind};
use crate::quantity;
use k8s_openapi::api::core::v1 as api;

/// A field for an environment variable: whole maps cannot be one.
pub(super) fn for_env(api: &api::ObjectFieldSelector, place: &str) -> Result<FieldPath, Rejection> {
    match read(api, place)? {
        FieldPath::Labels | FieldPath::Annotations => Err(refusal(api, place)),
        path => Ok(path),
    }
}

/// A field for a downward API file: only metadata can be one.
pub(super) fn for_file(api: &api::ObjectFieldSelector, place: &str) -> Result<FieldPath, Rejection> {
    match api.field_path.starts_with("metadata.") {
        true => read(api, place),
        false => Err(refusal(api, place)),
    }
}

fn refusal(api: &api::ObjectFieldSelector, place: &str) -> Rejection {
    let instead = "a field that the downward API offers here";
    unsupported_value(&format!("{place}.fieldPath"), &format!("{:?}", api.field_path), instead)
}

fn read(api: &api::ObjectFieldSelector, place: &str) -> Result<FieldPath, Rejection> {
    match api.api_version.as_deref() {
        None | Some("" | "v1") => {}
        Some(other) => return Err(unsupported_value(&format!("{place}.apiVersion"), other, "v1")),
    }
    let path = match api.field_path.as_str() {
        "metadata.name" => FieldPath::Name,
        "metadata.namespace" => FieldPath::Namespace,
        "metadata.uid" => FieldPath::Uid,
        "metadata.labels" => FieldPath::Labels,
        "metadata.annotations" => FieldPath::Annotations,
        "spec.nodeName" => FieldPath::NodeName,
        "spec.serviceAccountName" => FieldPath::ServiceAccountName,
        "status.hostIP" => FieldPath::HostIp,
        "status.hostIPs" => FieldPath::HostIps,
        "status.podIP" => FieldPath::PodIp,
        "status.podIPs" => FieldPath::PodIps,
        other => {
            let key = |prefix| other.strip_prefix(prefix).and_then(|rest: &str| rest.strip_suffix("']"));
            match (key("metadata.labels['"), key("metadata.annotations['")) {
                (Some(key), _) => FieldPath::Label(key.to_owned()),
                (None, Some(key)) => FieldPath::Annotation(key.to_owned()),
                (None, None) => return Err(refusal(api, place)),
            }
        }
    };
    Ok(path)
}

pub(super) fn resource(api: &api::ResourceFieldSelector, place: &str) -> Result<ResourceField, Rejection> {
    let (bound, name) = match api.resource.split_once('.') {
        Some(("limits", name)) => (Bound::Limit, name),
        Some(("requests", name)) => (Bound::Request, name),
        _ => return Err(unknown_resource(api, place)),
    };
    let resource = match name {
        "cpu" => ResourceKind::Cpu,
        "memory" => ResourceKind::Memory,
        "ephemeral-storage" => ResourceKind::EphemeralStorage,
        _ => return Err(unknown_resource(api, place)),
    };
    let divisor = api.divisor.as_ref().map_or("", |quantity| quantity.0.as_str());
    let divisor_millis = match divisor {
        "" | "0" => 1000,
        text => quantity::millis(text).map_err(|error| invalid(format!("{place}.divisor: {error}")))?,
    };
    if divisor_millis == 0 {
        return Err(invalid(format!("{place}.divisor: {divisor} is nothing")));
    }
    let container = api.container_name.as_deref().filter(|name| !name.is_empty()).map(ContainerName::from);
    Ok(ResourceField { container, bound, resource, divisor_millis })
}

fn unknown_resource(api: &api::ResourceFieldSelector, place: &str) -> Rejection {
    let instead = "limits. or requests. of cpu, memory or ephemeral-storage";
    unsupported_value(&format!("{place}.resource"), &format!("{:?}", api.resource), instead)
}
