//! The body of a status patch.
//!
//! Comes in: the status the API server has and the one it is to have. Goes out: a strategic merge patch that turns the one
//! into the other, names no condition that stays as it is, and carries the UID so that it can never hit a namesake; or
//! nothing, if they say the same.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// Lists that the API server merges by a key, where only the whole list is meant here.
const REPLACED_LISTS: [&str; 2] = ["hostIPs", "podIPs"];

pub(super) fn status_patch(uid: &str, had: &PodStatus, now: &PodStatus) -> Option<Value> {
    let (had, now) = (object(had), object(now));
    let mut patch = Map::new();
    for (field, value) in &now {
        let old = had.get(field);
        if old == Some(value) {
            continue;
        }
        let value = match field.as_str() {
            "conditions" => match conditions(old, value) {
                changed if changed.is_empty() => continue,
                changed => Value::Array(changed),
            },
            name if REPLACED_LISTS.contains(&name) => replaced(value),
            _ => merged(old, value),
        };
        patch.insert(field.clone(), value);
    }
    for field in had.keys().filter(|field| !now.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    (!patch.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": patch }))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Conditions are merged by their type: only those that changed are sent, with a null for each field that went, and a
/// word for each that went as a whole.
fn conditions(old: Option<&Value>, now: &Value) -> Vec<Value> {
    let (old, now) = (old.and_then(Value::as_array), now.as_array());
    let of_type = |list: Option<&'_ Vec<Value>>, wanted: &Value| {
        list.into_iter().flatten().find(|condition| condition["type"] == wanted["type"]).cloned()
    };
    let changed = now.into_iter().flatten().filter_map(|condition| {
        let old = of_type(old, condition);
        (old.as_ref() != Some(condition)).then(|| merged(old.as_ref(), condition))
    });
    let went = old.into_iter().flatten().filter(|condition| of_type(now, condition).is_none());
    let went = went.map(|condition| json!({ "$patch": "delete", "type": condition["type"] }));
    changed.chain(went).collect()
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

    fn check(had: Value, now: Value, wanted: &Value) {
        let status = |value| serde_json::from_value::<PodStatus>(value).unwrap();
        let patch = status_patch("u", &status(had), &status(now)).unwrap();
        assert_eq!(patch, json!({ "metadata": { "uid": "u" }, "status": *wanted }));
    }

    #[test]
    fn the_same_in_another_order_is_nothing() {
        let status = |types: [&str; 2]| {
            let conditions = types.map(|type_| json!({ "type": type_, "status": "True" }));
            serde_json::from_value::<PodStatus>(json!({ "phase": "Running", "conditions": conditions })).unwrap()
        };
        assert_eq!(status_patch("u", &status(["A", "B"]), &status(["B", "A"])), None);
    }

    #[test]
    fn a_condition_that_went_is_deleted() {
        check(
            json!({ "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Mine", "status": "True" }] }),
            json!({ "conditions": [{ "type": "Mine", "status": "True" }] }),
            &json!({ "conditions": [{ "$patch": "delete", "type": "Ready" }] }),
        );
    }

    #[test]
    fn only_what_changed_is_sent() {
        check(
            json!({ "phase": "Pending", "hostIP": "10.0.0.1" }),
            json!({ "phase": "Running", "hostIP": "10.0.0.1" }),
            &json!({ "phase": "Running" }),
        );
    }

    #[test]
    fn what_went_becomes_null() {
        check(
            json!({ "phase": "Pending", "reason": "X",
                    "conditions": [{ "type": "Ready", "status": "False", "reason": "R" }, { "type": "Mine", "status": "True" }] }),
            json!({ "phase": "Pending",
                    "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Mine", "status": "True" }] }),
            &json!({ "reason": null, "conditions": [{ "type": "Ready", "status": "True", "reason": null }] }),
        );
    }

    #[test]
    fn addresses_are_replaced_not_merged() {
        check(
            json!({ "podIPs": [{ "ip": "10.1.0.2" }] }),
            json!({ "podIPs": [{ "ip": "10.1.0.9" }] }),
            &json!({ "podIPs": [{ "$patch": "replace" }, { "ip": "10.1.0.9" }] }),
        );
    }

    #[test]
    fn container_statuses_are_whole() {
        let container =
            |count: i32| json!({ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": count });
        check(
            json!({ "containerStatuses": [container(0)] }),
            json!({ "containerStatuses": [container(1)] }),
            &json!({ "containerStatuses": [container(1)] }),
        );
    }
}
