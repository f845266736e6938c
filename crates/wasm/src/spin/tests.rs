//! What a plan has of an application, and what keeps one from being run.

use serde_json::{Value, json};

use super::*;

fn locked() -> Value {
    let source = json!({ "content_type": "application/wasm", "digest": Digest::of(b"wasm").to_string() });
    json!({
        "spin_lock_version": 0,
        "metadata": { "name": "shop" },
        "variables": { "host": { "default": "api.example" } },
        "triggers": [
            { "id": "a", "trigger_type": "http", "trigger_config": { "component": "api", "route": "/api/..." } },
            { "id": "b", "trigger_type": "http", "trigger_config": { "component": "web", "route": "/..." } },
            { "id": "c", "trigger_type": "http", "trigger_config": { "component": "api", "route": "/v1/api" } },
            { "id": "d", "trigger_type": "http",
              "trigger_config": { "route": "/gone", "static_response": { "status_code": 410 } } },
            { "id": "e", "trigger_type": "http",
              "trigger_config": { "component": "inner", "route": { "private": true } } }
        ],
        "components": [
            { "id": "web", "source": source },
            { "id": "api", "source": source, "config": { "url": "https://{{ host }}/v1" },
              "metadata": { "allowed_outbound_hosts": ["https://{{ host }}"], "key_value_stores": ["default", "kept"] } },
            { "id": "inner", "source": source }
        ]
    })
}

const STORES: &str = "[key_value_store.kept]\ntype = \"spin\"\npath = \"/data\"\n";

fn plan(app: &Value, environment: &[(&str, &str)], config: Option<&str>) -> Result<Plan, PlanError> {
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Plan::new(app.to_string().as_bytes(), &environment, config)
}

#[test]
fn a_plan_has_the_components_that_can_be_asked_and_all_their_values() {
    let plan = plan(&locked(), &[("SPIN_VARIABLE_HOST", "db.example")], Some(STORES)).unwrap();
    let ids: Vec<_> = plan.parts.iter().map(|part| part.id.as_str()).collect();
    assert_eq!(ids, ["api", "web"]);
    let parts: Vec<_> = plan.answers.iter().map(|it| matches!(it, Answer::Part(_))).collect();
    assert_eq!(parts, [true, true, true, false]);
    let api = &plan.parts[0];
    assert_eq!(api.variables, [("url".to_owned(), "https://db.example/v1".to_owned())]);
    assert!(api.hosts.allows_url("https", "db.example", None) && !api.hosts.allows_url("https", "api.example", None));
    assert_eq!(api.stores["default"], Store::Pod);
    assert_eq!(api.stores["kept"], Store::Volume("/data".to_owned()));
    assert_eq!((plan.port, plan.name.as_str()), (None, "shop"));
}

#[test]
fn the_environment_says_where_it_is_served_and_which_components_run() {
    let environment = [("SPIN_HTTP_LISTEN_ADDR", "0.0.0.0:8080"), ("SPIN_COMPONENTS_TO_RETAIN", "web, inner")];
    let plan = plan(&locked(), &environment, Some(STORES)).unwrap();
    assert_eq!(plan.port, Some(8080));
    assert_eq!(plan.parts.iter().map(|part| part.id.as_str()).collect::<Vec<_>>(), ["web"]);
}

#[test]
fn what_keeps_an_application_from_being_run_is_named() {
    let said = |environment: &[(&str, &str)], config| plan(&locked(), environment, config).unwrap_err().to_string();
    assert!(said(&[], None).contains("\"kept\""), "{}", said(&[], None));
    let listen = said(&[("SPIN_HTTP_LISTEN_ADDR", "127.0.0.1:80")], Some(STORES));
    assert!(listen.contains("127.0.0.1:80"), "{listen}");
    assert!(said(&[("SPIN_COMPONENTS_TO_RETAIN", "other")], Some(STORES)).contains("\"other\""));
    assert!(said(&[("SPIN_MAX_INSTANCE_MEMORY", "1")], Some(STORES)).contains("resources.limits.memory"));
    let mut app = locked();
    app["components"][1]["metadata"]["allowed_outbound_hosts"] = json!(["everywhere"]);
    let hosts = plan(&app, &[], Some(STORES)).unwrap_err().to_string();
    assert!(hosts.contains("component api") && hosts.contains("everywhere"), "{hosts}");
    app["triggers"] = json!([]);
    assert!(matches!(plan(&app, &[], None), Err(PlanError::NoRoute)));
}
