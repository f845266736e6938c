//! Tests of `env`.

use super::field::Facts;
use super::service;
use super::{Configs, ContainerEnvironment, EnvError, environment};
use crate::parse::parse;
use crate::pod::{ConfigKind, Pod, Resources};
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeMap;
use std::sync::Arc;

fn read<T: serde::de::DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).unwrap()
}

/// A pod of one container, with these lines of YAML in it.
fn pod(container: &str) -> Pod {
    let container: serde_json::Value = read(container);
    let mut api: api::Pod = read(
        "metadata: {name: p, namespace: ns, uid: u-1, labels: {app: web}}\n\
         spec: {nodeName: n1, serviceAccountName: sa, containers: [{name: c, image: i}]}",
    );
    let mut whole = serde_json::to_value(&api.spec.as_ref().unwrap().containers[0]).unwrap();
    whole.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    api.spec.as_mut().unwrap().containers[0] = serde_json::from_value(whole).unwrap();
    parse(Arc::new(api)).unwrap()
}

fn configs() -> Configs {
    let map = read("{metadata: {name: m}, data: {a: from-map, b: other}, binaryData: {bin: AAEC}}");
    let secret = read("{metadata: {name: s}, data: {a: c2VjcmV0, bad: //4=}}");
    Configs {
        config_maps: [("m".to_owned(), Arc::new(map))].into(),
        secrets: [("s".to_owned(), Arc::new(secret))].into(),
    }
}

fn resolve(container: &str) -> Result<ContainerEnvironment, EnvError> {
    let pod = pod(container);
    let allocatable = Resources { cpu_millis: Some(1500), memory_bytes: Some(3 << 30), ephemeral_storage_bytes: None };
    let (pod_ips, host_ips) =
        (["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()], ["192.0.2.1".parse().unwrap()]);
    let facts = Facts { pod_ips: &pod_ips, host_ips: &host_ips, allocatable: &allocatable };
    let services = [service("ns", "db", "10.96.0.9"), service("other", "far", "10.96.0.8")];
    environment(&pod, pod.containers.iter().next().unwrap(), &facts, &configs(), &services)
}

fn env(container: &str) -> BTreeMap<String, String> {
    resolve(container).unwrap().env.into_iter().collect()
}

fn check(container: &str, variable: &str, expected: &str) {
    assert_eq!(env(container).get(variable).map(String::as_str), Some(expected), "{container}");
}

fn check_error(container: &str, expected: &str) {
    assert_eq!(resolve(container).unwrap_err().to_string(), expected, "{container}");
}

fn service(namespace: &str, name: &str, address: &str) -> Arc<api::Service> {
    Arc::new(read(&format!(
        "{{metadata: {{namespace: {namespace}, name: {name}}}, \
          spec: {{clusterIP: {address:?}, ports: [{{port: 5432, name: pg-wire}}, {{port: 53, protocol: UDP}}]}}}}"
    )))
}

#[test]
fn later_variables_see_earlier_ones() {
    let container = "env: [{name: A, value: one}, {name: B, value: '$(A) $(C)'}, {name: C, value: '$(B)'}]";
    check(container, "B", "one $(C)");
    check(container, "C", "one $(C)");
}

#[test]
fn env_wins_over_env_from_and_env_from_over_services() {
    let both =
        "{envFrom: [{configMapRef: {name: m}}, {secretRef: {name: s2, optional: true}}], env: [{name: a, value: x}]}";
    check(both, "a", "x");
    check(both, "b", "other");
    check("envFrom: [{configMapRef: {name: m}, prefix: P_}]", "P_a", "from-map");
    check("env: [{name: DB_SERVICE_HOST, value: mine}]", "DB_SERVICE_HOST", "mine");
    check("env: [{name: X, value: '$(DB_PORT)'}]", "X", "tcp://10.96.0.9:5432");
}

#[test]
fn fields_of_the_pod_are_shown() {
    let of = |path: &str| format!("env: [{{name: F, valueFrom: {{fieldRef: {{fieldPath: {path:?}}}}}}}]");
    let expected = [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "sa"),
        ("status.hostIP", "192.0.2.1"),
        ("status.hostIPs", "192.0.2.1"),
        ("status.podIP", "10.0.0.5"),
        ("status.podIPs", "10.0.0.5,fd00::5"),
    ];
    for (path, value) in expected {
        check(&of(path), "F", value);
    }
}

#[test]
fn resources_are_divided_and_rounded_up() {
    let of = |resource: &str, divisor: &str, resources: &str| {
        format!(
            "{{resources: {resources}, env: [{{name: R, valueFrom: {{resourceFieldRef: \
             {{resource: {resource}, divisor: {divisor:?}}}}}}}]}}"
        )
    };
    let some = "{limits: {cpu: 1250m, memory: 100Mi}, requests: {cpu: 100m, memory: 64Mi}}";
    let cases = [
        ("limits.cpu", "0", some, "2"),
        ("limits.cpu", "1m", some, "1250"),
        ("requests.cpu", "1", some, "1"),
        ("limits.memory", "1Mi", some, "100"),
        ("limits.memory", "", some, "104857600"),
        ("limits.memory", "1M", some, "105"),
        ("requests.memory", "1Gi", some, "1"),
        ("limits.cpu", "1m", "{}", "1500"),
        ("limits.memory", "1Gi", "{}", "3"),
        ("requests.memory", "1", "{}", "0"),
        ("limits.ephemeral-storage", "1", "{}", "0"),
    ];
    for (resource, divisor, resources, expected) in cases {
        check(&of(resource, divisor, resources), "R", expected);
    }
}

#[test]
fn keys_are_read_and_what_is_optional_may_be_missing() {
    let from = |kind: &str, name: &str, key: &str, optional: bool| {
        let reference = format!("{{name: {name}, key: {key}, optional: {optional}}}");
        format!("env: [{{name: K, value: '', valueFrom: {{{kind}KeyRef: {reference}}}}}]")
    };
    check(&from("configMap", "m", "a", false), "K", "from-map");
    check(&from("secret", "s", "a", true), "K", "secret");
    for (kind, name, key) in [("configMap", "m", "none"), ("configMap", "none", "a"), ("secret", "none", "a")] {
        assert_eq!(env(&from(kind, name, key, true)).get("K"), None, "{kind} {name} {key}");
    }
    check_error(&from("configMap", "none", "a", false), "configmap \"none\" not found");
    check_error(&from("secret", "none", "a", false), "secret \"none\" not found");
    check_error(&from("configMap", "m", "k", false), "couldn't find key k in ConfigMap ns/m");
    check_error(&from("configMap", "m", "bin", false), "couldn't find key bin in ConfigMap ns/m");
    check_error(&from("secret", "s", "k", false), "couldn't find key k in Secret ns/s");
}

#[test]
fn what_no_variable_can_hold_is_refused_without_showing_it() {
    let error = resolve("envFrom: [{secretRef: {name: s}}]").unwrap_err();
    assert_eq!(error, EnvError::NotText { namespace: "ns".into(), name: "s".into(), key: "bad".into() });
    let error = resolve("envFrom: [{configMapRef: {name: m}, prefix: 'X='}]").unwrap_err();
    assert!(matches!(error, EnvError::Name { kind: ConfigKind::ConfigMap, .. }), "{error}");
    check_error("envFrom: [{configMapRef: {name: none}}]", "configmap \"none\" not found");
    let container = "env: [{name: R, valueFrom: {resourceFieldRef: {resource: limits.cpu, containerName: nobody}}}]";
    check_error(container, "environment variable R: container nobody not found");
}

#[test]
fn command_and_arguments_are_expanded_with_the_whole_environment() {
    let container =
        "{command: [run, '$(A)', '$$(A)'], args: ['$(DB_SERVICE_HOST):$(NONE)'], env: [{name: A, value: x}]}";
    let made = resolve(container).unwrap();
    assert_eq!(made.command, ["run", "x", "$(A)"]);
    assert_eq!(made.args, ["10.96.0.9:$(NONE)"]);
}

#[test]
fn services_of_the_namespace_have_the_variables_of_docker_links() {
    let variables = env("{}");
    let expected = [
        ("DB_SERVICE_HOST", "10.96.0.9"),
        ("DB_SERVICE_PORT", "5432"),
        ("DB_SERVICE_PORT_PG_WIRE", "5432"),
        ("DB_PORT", "tcp://10.96.0.9:5432"),
        ("DB_PORT_5432_TCP", "tcp://10.96.0.9:5432"),
        ("DB_PORT_5432_TCP_PROTO", "tcp"),
        ("DB_PORT_5432_TCP_PORT", "5432"),
        ("DB_PORT_5432_TCP_ADDR", "10.96.0.9"),
        ("DB_PORT_53_UDP", "udp://10.96.0.9:53"),
        ("DB_PORT_53_UDP_PROTO", "udp"),
        ("DB_PORT_53_UDP_PORT", "53"),
        ("DB_PORT_53_UDP_ADDR", "10.96.0.9"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(variables, expected.into());
}

#[test]
fn every_pod_is_told_of_the_api_server_and_none_of_headless_services() {
    let services = [service("default", "kubernetes", "fd00::1"), service("ns", "db", "None"), service("ns", "x", "")];
    let told = service::variables(&services, "ns", false);
    assert_eq!(told["KUBERNETES_SERVICE_HOST"], "fd00::1");
    assert_eq!(told["KUBERNETES_PORT_5432_TCP"], "tcp://[fd00::1]:5432");
    assert!(told.keys().all(|name| name.starts_with("KUBERNETES_")), "{told:?}");

    let own = [service("ns", "kubernetes", "10.0.0.2"), service("default", "kubernetes", "10.0.0.1")];
    for services in [[Arc::clone(&own[0]), Arc::clone(&own[1])], [Arc::clone(&own[1]), Arc::clone(&own[0])]] {
        assert_eq!(service::variables(&services, "ns", true)["KUBERNETES_SERVICE_HOST"], "10.0.0.2");
        assert_eq!(service::variables(&services, "ns", false)["KUBERNETES_SERVICE_HOST"], "10.0.0.1");
    }
}
