//! Tests of `objects`.

use std::sync::Arc;
use std::time::Duration;

use decide::names::PodUid;
use decide::pod::{ConfigKind, Pod};
use k8s_openapi::api::core::v1 as api;
use serde_json::json;
use tokio::time::advance;

use super::mock_api::MockApi;
use super::{ObjectError, Objects, TokenRequest, references};

fn pod(uid: &str, spec: &str) -> Pod {
    let yaml = format!("{{metadata: {{name: p, namespace: ns, uid: {uid}}}, spec: {spec}}}");
    let api: api::Pod = serde_saphyr::from_str(&yaml).unwrap();
    decide::parse::parse(Arc::new(api)).unwrap()
}

fn pod_with_map(uid: &str) -> Pod {
    pod(uid, "{containers: [{name: c, image: i, envFrom: [{configMapRef: {name: m}}]}]}")
}

fn objects(server: &MockApi) -> Objects {
    Objects::of_api_at(server.client(), server.clock())
}

async fn value(objects: &Objects) -> Option<String> {
    let map = objects.config_map("ns", "m").await.unwrap()?;
    map.data.as_ref().and_then(|data| data.get("k")).cloned()
}

/// Waits until the ConfigMap's key says this.
async fn until(objects: &Objects, wanted: Option<&str>) {
    let mut changed = objects.changed();
    while value(objects).await.as_deref() != wanted {
        changed.changed().await.unwrap();
    }
}

#[test]
fn a_pod_refers_to_what_its_environment_volumes_and_pulls_name() {
    let spec = "{imagePullSecrets: [{name: pull}], \
                containers: [{name: c, image: i, envFrom: [{secretRef: {name: s1}}], env: [ \
                  {name: A, valueFrom: {configMapKeyRef: {name: m1, key: k}}}, \
                  {name: B, valueFrom: {secretKeyRef: {name: s2, key: k}}}]}], \
                volumes: [{name: v, configMap: {name: m2}}, {name: w, projected: {sources: [{secret: {name: s3}}]}}]}";
    let (maps, secrets) = references(&pod("u", spec));
    assert_eq!(maps, ["m1", "m2"]);
    assert_eq!(secrets, ["s1", "s2", "s3", "pull"]);
}

#[tokio::test(start_paused = true)]
async fn a_watched_object_is_read_and_followed() {
    let server = MockApi::new();
    server.put("configmaps", "ns", "m", json!({"data": {"k": "one"}}));
    let objects = objects(&server);
    objects.register(&pod_with_map("u"));
    assert_eq!(value(&objects).await.as_deref(), Some("one"));
    server.put("configmaps", "ns", "m", json!({"data": {"k": "two"}}));
    until(&objects, Some("two")).await;
    server.delete("configmaps", "ns", "m");
    until(&objects, None).await;
    server.put("configmaps", "ns", "m", json!({"data": {"k": "three"}}));
    until(&objects, Some("three")).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_is_watched_by_its_name_once_for_all_pods() {
    let server = MockApi::new();
    server.put("configmaps", "ns", "m", json!({"data": {"k": "one"}}));
    server.put("configmaps", "ns", "other", json!({}));
    let objects = objects(&server);
    for uid in ["u1", "u2"] {
        objects.register(&pod_with_map(uid));
        objects.register(&pod_with_map(uid));
    }
    until(&objects, Some("one")).await;
    objects.unregister(&PodUid::from("u1"));
    server.put("configmaps", "ns", "m", json!({"data": {"k": "two"}}));
    until(&objects, Some("two")).await;
    let asked = server.asked();
    let lists = asked.iter().filter(|asked| *asked == "configmaps metadata.name=m false").count();
    assert_eq!(lists, 1, "{asked:?}");
    assert!(asked.iter().all(|asked| !asked.starts_with("configmaps  ")), "never wider than one name: {asked:?}");

    // The last one gone, nothing is watched any more: the object is asked for.
    objects.unregister(&PodUid::from("u2"));
    assert!(super::lock(api_of(&objects)).seen("ns", "m").is_none());
    assert_eq!(value(&objects).await.as_deref(), Some("two"));
}

fn api_of(objects: &Objects) -> &std::sync::Mutex<super::Shelf<api::ConfigMap>> {
    match &objects.inner.backing {
        super::Backing::Api(api) => &api.config_maps,
        super::Backing::Manifest { .. } => panic!("these objects have an API server"),
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_away_the_last_object_serves() {
    let server = MockApi::new();
    server.put("configmaps", "ns", "m", json!({"data": {"k": "one"}}));
    let objects = objects(&server);
    objects.register(&pod_with_map("u"));
    until(&objects, Some("one")).await;
    server.set_away(true);
    advance(Duration::from_secs(120)).await;
    assert_eq!(value(&objects).await.as_deref(), Some("one"));
    server.put("configmaps", "ns", "m", json!({"data": {"k": "two"}}));
    server.set_away(false);
    until(&objects, Some("two")).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_never_seen_is_an_error_that_says_why() {
    let server = MockApi::new();
    server.set_forbidden(true);
    let objects = objects(&server);
    objects.register(&pod_with_map("u"));
    let error = objects.config_map("ns", "m").await.unwrap_err();
    assert!(matches!(error, ObjectError::Refused { .. }), "{error:?}");
    assert!(error.message().starts_with("reading ConfigMap ns/m: "), "{}", error.message());
    assert!(error.message().contains("no relationship found"), "{}", error.message());
    // The node authorizer has caught up with the pod.
    server.put("configmaps", "ns", "m", json!({"data": {"k": "one"}}));
    server.set_forbidden(false);
    until(&objects, Some("one")).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_is_none_and_not_an_error() {
    let server = MockApi::new();
    let objects = objects(&server);
    objects.register(&pod_with_map("u"));
    assert_eq!(objects.config_map("ns", "m").await.unwrap(), None);
    assert_eq!(objects.secret("ns", "never-named").await.unwrap(), None);
    let found = objects.configs("ns", &[(ConfigKind::ConfigMap, "m"), (ConfigKind::Secret, "s")]).await.unwrap();
    assert_eq!((found.config_maps.len(), found.secrets.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn services_are_listed_before_they_are_told() {
    let server = MockApi::new();
    server.put("services", "ns", "web", json!({"spec": {"clusterIP": "10.0.0.1"}}));
    let names =
        |services: Vec<Arc<api::Service>>| services.iter().filter_map(|one| one.metadata.name.clone()).collect();
    let found: Vec<String> = names(objects(&server).services().await.unwrap());
    assert_eq!(found, ["web"]);

    server.set_away(true);
    let error = objects(&server).services().await.unwrap_err();
    assert!(matches!(error, ObjectError::NoAnswer { .. }), "{error:?}");
}

fn request(audience: &str) -> TokenRequest {
    TokenRequest {
        namespace: "ns".to_owned(),
        service_account: "sa".to_owned(),
        pod_name: "p".to_owned(),
        pod_uid: PodUid::from("u"),
        audience: audience.to_owned(),
        expiration: Duration::from_secs(3600),
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_bound_to_its_pod_and_kept_until_it_is_due() {
    let server = MockApi::new();
    let objects = objects(&server);
    let token = objects.token(&request("")).await.unwrap();
    assert_eq!(token.token, "token-1");
    assert!(!format!("{token:?}").contains("token-1"), "a token is never shown: {token:?}");
    let asked = server.token_requests();
    assert_eq!(asked[0]["spec"]["boundObjectRef"], json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}));
    assert_eq!((&asked[0]["spec"]["expirationSeconds"], &asked[0]["spec"]["audiences"]), (&json!(3600), &json!(null)));

    // 75 % of its life are over: not due for anybody. 80 %: due for everybody.
    advance(Duration::from_secs(3600 * 75 / 100 - 1)).await;
    assert_eq!(objects.token(&request("")).await.unwrap().token, "token-1");
    advance(Duration::from_secs(3600 * 5 / 100 + 1)).await;
    assert_eq!(objects.token(&request("")).await.unwrap().token, "token-2");

    // Another audience is another token.
    assert_eq!(objects.token(&request("vault")).await.unwrap().token, "token-3");
    assert_eq!(server.token_requests()[2]["spec"]["audiences"], json!(["vault"]));
    objects.unregister(&PodUid::from("u"));
    assert_eq!(objects.token(&request("")).await.unwrap().token, "token-4");
}

#[tokio::test(start_paused = true)]
async fn a_long_token_is_renewed_after_a_day() {
    let server = MockApi::new();
    server.set_token_life(Duration::from_secs(365 * 24 * 3600));
    let objects = objects(&server);
    objects.token(&request("")).await.unwrap();
    advance(Duration::from_secs(24 * 3600 - 1)).await;
    assert_eq!(objects.token(&request("")).await.unwrap().token, "token-1");
    advance(Duration::from_secs(1)).await;
    assert_eq!(objects.token(&request("")).await.unwrap().token, "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_due_serves_until_it_ends() {
    let server = MockApi::new();
    let objects = objects(&server);
    objects.token(&request("")).await.unwrap();
    server.set_away(true);
    advance(Duration::from_secs(3599)).await;
    assert_eq!(objects.token(&request("")).await.unwrap().token, "token-1");
    advance(Duration::from_secs(1)).await;
    let error = objects.token(&request("")).await.unwrap_err();
    assert!(error.message().starts_with("requesting a token for ServiceAccount ns/sa: "), "{}", error.message());
}

#[tokio::test]
async fn a_manifest_has_its_own_objects_and_no_tokens() {
    let map = serde_saphyr::from_str("{metadata: {name: m}, data: {k: one}}").unwrap();
    let secret =
        serde_saphyr::from_str("{metadata: {name: s, namespace: ns}, stringData: {k: text}, data: {b: AAE=}}").unwrap();
    let objects = Objects::of_manifest(vec![map], vec![secret]);
    assert!(objects.config_map("default", "m").await.unwrap().is_some());
    assert_eq!(objects.config_map("ns", "m").await.unwrap(), None);
    let secret = objects.secret("ns", "s").await.unwrap().unwrap();
    let data = secret.data.as_ref().unwrap();
    assert_eq!((data["k"].0.as_slice(), data["b"].0.as_slice()), (&b"text"[..], &[0, 1][..]));
    assert_eq!(objects.services().await.unwrap().len(), 0);
    let error = objects.token(&request("")).await.unwrap_err();
    assert!(error.message().contains("needs an API server"), "{}", error.message());
}

#[tokio::test(start_paused = true)]
async fn a_runtime_class_is_its_handler_and_classes_are_watched_once_one_is_named() {
    let server = MockApi::new();
    server.put("runtimeclasses", "", "wasmtime-spin-v2", json!({"handler": "spin"}));
    let objects = objects(&server);
    assert!(!server.asked().iter().any(|asked| asked.starts_with("runtimeclasses")));
    assert_eq!(objects.runtime_handler("wasmtime-spin-v2").await.unwrap(), "spin");
    let missing = objects.runtime_handler("other").await.unwrap_err();
    assert_eq!(missing.message(), "RuntimeClass \"other\" not found");
    server.set_away(true);
    advance(Duration::from_secs(120)).await;
    assert_eq!(objects.runtime_handler("wasmtime-spin-v2").await.unwrap(), "spin");

    let alone = Objects::of_manifest(Vec::new(), Vec::new());
    assert_eq!(alone.runtime_handler("wasklet").await.unwrap(), "wasklet");
}
