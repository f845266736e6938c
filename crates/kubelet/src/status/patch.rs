//! The body of a status patch.
//!
//! Comes in: the status the API server had and the one that is true. Goes out: a strategic merge patch that turns the one
//! into the other, leaves the conditions of others alone, and carries the UID so that it can never hit a namesake.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// Lists that the API server merges by a key, where only the whole list is meant here.
const REPLACED_LISTS: [&str; 2] = ["hostIPs", "podIPs"];

pub(super) fn status_patch(uid: &str, had: Option<&PodStatus>, now: &PodStatus) -> Value {
    let had = had.map(object).unwrap_or_default();
    let now = object(now);
    let mut patch = Map::new();
    for (field, value) in &now {
        let old = had.get(field);
        if old == Some(value) {
            continue;
        }
        let value = match field.as_str() {
            "conditions" => conditions(old, value),
            name if REPLACED_LISTS.contains(&name) => replaced(value),
            _ => merged(old, value),
        };
        patch.insert(field.clone(), value);
    }
    for field in had.keys().filter(|field| !now.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    json!({ "metadata": { "uid": uid }, "status": patch })
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Conditions are merged by their type: only those that changed are sent, with a null for each field that went.
fn conditions(old: Option<&Value>, now: &Value) -> Value {
    let (old, now) = (old.and_then(Value::as_array), now.as_array());
    let of_type = |wanted: &Value| old.into_iter().flatten().find(|condition| condition["type"] == wanted["type"]);
    let changed = now.into_iter().flatten().filter(|condition| of_type(condition) != Some(*condition));
    changed.map(|condition| merged(of_type(condition), condition)).collect()
}

fn replaced(list: &Value) -> Value {
    let elements = list.as_array().into_iter().flatten().cloned();
    std::iter::once(json!({ "$patch": "replace" })).chain(elements).collect()
}

/// A map with a null for each field that went; anything else as it is.
fn merged(old: Option<&Value>, now: &Value) -> Value {
    let (Some(Value::Object(old)), Value::Object(now)) = (old, now) else {
        return now.clone();
    };
    let mut fields: Map<String, Value> =
        now.iter().map(|(field, value)| (field.clone(), merged(old.get(field), value))).collect();
    for field in old.keys().filter(|field| !now.contains_key(*field)) {
        fields.insert(field.clone(), Value::Null);
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(had: Value, now: Value, wanted: Value) {
        let status = |value| serde_json::from_value::<PodStatus>(value).unwrap();
        let patch = status_patch("u", Some(&status(had)), &status(now));
        assert_eq!(patch, json!({ "metadata": { "uid": "u" }, "status": wanted }));
    }

    #[test]
    fn only_what_changed_is_sent() {
        check(
            json!({ "phase": "Pending", "hostIP": "10.0.0.1" }),
            json!({ "phase": "Running", "hostIP": "10.0.0.1" }),
            json!({ "phase": "Running" }),
        );
    }

    #[test]
    fn what_went_becomes_null() {
        check(
            json!({ "phase": "Pending", "reason": "X",
                    "conditions": [{ "type": "Ready", "status": "False", "reason": "R" }, { "type": "Mine", "status": "True" }] }),
            json!({ "phase": "Pending",
                    "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Mine", "status": "True" }] }),
            json!({ "reason": null, "conditions": [{ "type": "Ready", "status": "True", "reason": null }] }),
        );
    }

    #[test]
    fn addresses_are_replaced_not_merged() {
        check(
            json!({ "podIPs": [{ "ip": "10.1.0.2" }] }),
            json!({ "podIPs": [{ "ip": "10.1.0.9" }] }),
            json!({ "podIPs": [{ "$patch": "replace" }, { "ip": "10.1.0.9" }] }),
        );
    }

    #[test]
    fn container_statuses_are_whole() {
        let container = |count: i32| {
            json!({ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": count })
        };
        check(
            json!({ "containerStatuses": [container(0)] }),
            json!({ "containerStatuses": [container(1)] }),
            json!({ "containerStatuses": [container(1)] }),
        );
    }
}
