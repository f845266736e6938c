//! Holds `docs/support.md` and the table behind it true: no field of the API is missing, none is made up, and what is
//! said to be refused is.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads files, and fails by stopping")]

#[path = "support/full.rs"]
mod full;

use decide::parse::parse;
use decide::support::{Said, Standing, TABLE, of_containers, render};
use k8s_openapi::api::core::v1 as api;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

fn full_spec() -> Value {
    serde_json::to_value(full::full::<api::PodSpec>()).unwrap()
}

fn standings() -> BTreeMap<&'static str, Standing> {
    TABLE.iter().map(|row| (row.path, row.standing)).collect()
}

/// Maps of the API: below them are the user's keys.
fn is_map(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap();
    matches!(name, "nodeSelector" | "overhead" | "limits" | "requests")
}

/// The fields the table has to answer for: everything, but what stands below a field that is not honoured.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(elements) => elements.iter().for_each(|element| fields(element, &format!("{path}[]"), found)),
        Value::Object(inner) if !is_map(path) => {
            for (name, value) in inner {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let like = of_containers(&path).filter(|like| standings().contains_key(like.as_str()));
                let row = standings().get(like.as_deref().unwrap_or(&path)).copied();
                let honoured = row.is_none_or(|row| matches!(row, Standing::Honoured { .. }));
                if like.is_none() || standings().contains_key(path.as_str()) {
                    found.insert(path.clone());
                }
                if honoured {
                    fields(value, &path, found);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_table_has_every_field_of_the_api_and_no_other() {
    let mut found = BTreeSet::new();
    fields(&full_spec(), "", &mut found);
    let listed: BTreeSet<String> = TABLE.iter().map(|row| row.path.to_owned()).collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&found).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "missing in the table: {missing:#?}, not in the API: {unknown:#?}"
    );
    assert_eq!(listed.len(), TABLE.len(), "a field is listed twice");
    assert!(found.len() > 250, "the walk found {} fields only", found.len());
}

/// The value that the full spec has at `path`; where any text will not do, one of those that the API has.
fn value_at(path: &str) -> Value {
    if path == "dnsPolicy" {
        return json!("None");
    }
    let mut value = full_spec();
    for part in path.split('.') {
        value = value[part.trim_end_matches("[]")].take();
        if part.ends_with("[]") {
            value = value[0].take();
        }
    }
    value
}

/// A pod that sets `path` to `value`, and beside it no more than a pod needs.
fn pod_with(path: &str, value: Value) -> api::Pod {
    let mut spec = json!({ "containers": [{ "name": "c", "image": "i" }] });
    let mut place = &mut spec;
    for part in path.split('.') {
        let (name, listed) = (part.trim_end_matches("[]"), part.ends_with("[]"));
        place = &mut place[name];
        if listed {
            if place.is_null() {
                *place = match name.ends_with("ontainers") {
                    true => json!([{ "name": "v", "image": "i" }]),
                    false => json!([{ "name": "v" }]),
                };
            }
            place = &mut place[0];
        }
    }
    *place = value;
    let spec: api::PodSpec = serde_json::from_value(spec).unwrap();
    let metadata = json!({ "name": "p", "namespace": "n", "uid": "u" });
    api::Pod { metadata: serde_json::from_value(metadata).unwrap(), spec: Some(spec), status: None }
}

#[test]
fn what_is_refused_is_refused_by_name() {
    for row in TABLE {
        let Standing::Refused { reason, hint, .. } = row.standing else {
            continue;
        };
        let refused = parse(Arc::new(pod_with(row.path, value_at(row.path)))).err();
        let rejection = refused.map(|refused| refused.rejection);
        let rejection = rejection.unwrap_or_else(|| panic!("{} is said to be refused and is not", row.path));
        assert_eq!(rejection.reason, reason, "{}", row.path);
        let place = format!("spec.{} is not supported by wasklet: {hint}", row.path.replace("[]", "[0]"));
        assert_eq!(rejection.message, place);
    }
}

#[test]
fn what_is_ignored_does_not_keep_a_pod_from_running() {
    for row in TABLE {
        let said = match row.standing {
            Standing::Ignored { said: Said::Never, .. } => false,
            Standing::Ignored { said: Said::Unless(_), .. } => true,
            Standing::Honoured { .. } | Standing::Refused { .. } | Standing::Like { .. } => continue,
        };
        // Beside what is ignored may stand what must be there: volumes and their sources are looked at apart.
        if row.path.starts_with("volumes") || row.path.contains("volumeMounts") {
            continue;
        }
        let pod = parse(Arc::new(pod_with(row.path, value_at(row.path))));
        let pod = pod.map_err(|refused| format!("{}: {}", row.path, refused.rejection.message)).unwrap();
        let place = format!("spec.{}", row.path.replace("[]", "[0]"));
        let says = pod.warnings.iter().any(|report| report.message.contains(&place));
        assert_eq!(says, said, "{}: {:?}", row.path, pod.warnings);
    }
}

#[test]
fn what_is_refused_in_a_container_is_refused_in_an_init_container_and_left_out_in_an_ephemeral_one() {
    let asks = json!({ "containers": [{ "name": "c", "image": "i", "securityContext": { "privileged": true } }] });
    let pod_with = |list: &str| {
        let mut spec = json!({ "containers": [{ "name": "main", "image": "i" }] });
        spec[list] = asks["containers"].clone();
        let metadata = serde_json::from_value(json!({ "name": "p", "namespace": "n", "uid": "u" })).unwrap();
        let spec = Some(serde_json::from_value(spec).unwrap());
        parse(Arc::new(api::Pod { metadata, spec, status: None }))
    };
    let refused = pod_with("initContainers").map_err(|refused| refused.rejection).unwrap_err();
    assert!(refused.message.starts_with("spec.initContainers[0].securityContext.privileged"), "{}", refused.message);
    let pod = pod_with("ephemeralContainers").map_err(|refused| refused.rejection).unwrap();
    assert_eq!(pod.ephemeral_containers, []);
    assert!(pod.warnings[0].message.starts_with("spec.ephemeralContainers[0].securityContext.privileged"));
}

#[test]
fn values_that_ask_for_nothing_are_not_mentioned() {
    for row in TABLE {
        let values = match row.standing {
            Standing::Ignored { said: Said::Unless(values), .. } => values,
            Standing::Refused { unless, .. } => unless,
            _ => continue,
        };
        for value in values.iter().filter(|_| !row.path.contains("volumeMounts")) {
            let pod = parse(Arc::new(pod_with(row.path, json!(value)))).map_err(|refused| refused.rejection.message);
            assert_eq!(pod.map(|pod| pod.warnings), Ok(Vec::new()), "{}: {value}", row.path);
        }
    }
}

#[test]
fn the_page_is_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/support.md");
    if std::env::var_os("UPDATE_SUPPORT").is_some() {
        std::fs::write(&file, render()).unwrap();
    }
    let page = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(page == render(), "docs/support.md is not the table: UPDATE_SUPPORT=1 writes it");
}
