//! What is read of a locked application, and what of one is refused.

use serde_json::{Value, json};

use super::*;

fn digest(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string()
}

/// An application of one component and one static answer, as spin pushes it.
fn locked() -> Value {
    json!({
        "spin_lock_version": 1,
        "must_understand": ["host_requirements"],
        "host_requirements": { "local_service_chaining": "optional" },
        "metadata": {
            "name": "shop", "version": "1.2.0", "origin": "file:///shop/spin.toml",
            "triggers": { "http": { "base": "/app" } }
        },
        "variables": { "greeting": { "default": "hello" }, "token": { "secret": true } },
        "triggers": [
            { "id": "trigger--api", "trigger_type": "http",
              "trigger_config": { "component": "api", "route": "/api/...", "executor": { "type": "http" } } },
            { "id": "trigger--gone", "trigger_type": "http",
              "trigger_config": { "route": "/old", "static_response": { "status_code": 410, "body": "gone" } } },
            { "id": "trigger--inner", "trigger_type": "http",
              "trigger_config": { "component": "api", "route": { "private": true } } }
        ],
        "components": [{
            "id": "api",
            "metadata": { "allowed_outbound_hosts": ["https://{{ host }}"], "key_value_stores": ["default"] },
            "source": { "content_type": "application/wasm", "digest": digest("wasm") },
            "env": { "LEVEL": "info" },
            "files": [
                { "path": "static/logo.svg", "digest": digest("logo") },
                { "path": "small.txt", "inline": "c21hbGw", "digest": digest("small") }
            ],
            "config": { "greeting": "{{ greeting }}" }
        }]
    })
}

fn read(app: &Value) -> Result<Application, SpinError> {
    Application::read(app.to_string().as_bytes())
}

/// What is said of the application once this is changed.
#[track_caller]
fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut app = locked();
    change(&mut app);
    read(&app).unwrap_err().to_string()
}

#[test]
fn a_locked_application_is_read_with_all_that_it_runs_by() {
    let app = read(&locked()).unwrap();
    assert_eq!((app.name.as_str(), app.version.as_deref(), app.base.as_str()), ("shop", Some("1.2.0"), "/app"));
    assert_eq!(app.variables["greeting"].default.as_deref(), Some("hello"));
    assert_eq!(app.variables["token"].default, None);
    let routes: Vec<_> = app.triggers.iter().map(|trigger| trigger.route.as_deref()).collect();
    assert_eq!(routes, [Some("/api/..."), Some("/old"), None]);
    let Answers::Static(gone) = &app.triggers[1].answers else { panic!("{app:?}") };
    assert_eq!((gone.status_code, gone.body.as_str()), (410, "gone"));
    let [api] = app.components.as_slice() else { panic!("{app:?}") };
    assert_eq!(api.wasm.to_string(), digest("wasm"));
    assert_eq!(api.files[0].content, FileContent::Blob(digest("logo").parse().unwrap()));
    assert_eq!(api.files[1].content, FileContent::Inline(b"small".to_vec()));
    assert_eq!((api.key_value_stores.as_slice(), api.env["LEVEL"].as_str()), (&["default".to_owned()][..], "info"));
}

#[test]
fn the_base_of_an_older_form_is_found() {
    let mut app = locked();
    app["spin_lock_version"] = 0.into();
    app["metadata"] = json!({ "name": "old", "trigger": { "type": "http", "base": "/older" } });
    assert_eq!(read(&app).unwrap().base, "/older");
    app["metadata"] = json!({});
    assert_eq!(read(&app).unwrap().base, "/");
}

#[test]
fn what_is_not_served_is_refused_by_its_name() {
    let said = refused(|app| app["must_understand"] = json!(["time_travel"]));
    assert!(said.contains("time_travel"), "{said}");
    let said = refused(|app| app["host_requirements"]["local_service_chaining"] = "required".into());
    assert!(said.contains("local_service_chaining"), "{said}");
    let said = refused(|app| app["triggers"][0]["trigger_type"] = "redis".into());
    assert!(said.contains("trigger--api") && said.contains("redis"), "{said}");
    let said = refused(|app| app["triggers"][0]["trigger_config"]["executor"]["type"] = "wagi".into());
    assert!(said.contains("wagi"), "{said}");
    let said = refused(|app| app["components"][0]["dependencies"] = json!({ "a:b/c": {} }));
    assert!(said.contains("component api has dependencies"), "{said}");
    let said = refused(|app| app["components"][0]["id"] = "web".into());
    assert!(said.contains("trigger--api names the component \"api\""), "{said}");
    let said = refused(|app| app["triggers"][1]["trigger_config"]["component"] = "api".into());
    assert!(said.contains("trigger--gone must have either"), "{said}");
}

#[test]
fn files_stay_where_they_belong() {
    for path in ["../secret", "/etc/passwd", "a/../../b", ""] {
        let said = refused(|app| app["components"][0]["files"][0]["path"] = path.into());
        assert!(said.contains("no plain relative path"), "{path}: {said}");
    }
    let said = refused(|app| app["components"][0]["files"][1]["inline"] = "*".into());
    assert!(said.contains("small.txt") && said.contains("base64"), "{said}");
    let said = refused(|app| app["components"][0]["files"][0] = json!({ "path": "x", "source": "file:///x" }));
    assert!(said.contains("the file x has no digest"), "{said}");
}

#[test]
fn only_known_versions_of_a_locked_application_are_taken() {
    assert_eq!(name(br#"{"spin_lock_version":1,"metadata":{"name":"shop"},"components":[]}"#).unwrap(), "shop");
    assert_eq!(name(br#"{"spin_lock_version":0}"#).unwrap(), "");
    for bad in ["", "{}", r#"{"spin_lock_version":2}"#, r#"{"spin_lock_version":"1"}"#] {
        assert!(name(bad.as_bytes()).is_err(), "{bad}");
    }
}
