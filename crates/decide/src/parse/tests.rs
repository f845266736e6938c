//! Tests of `parse`.

use super::parse;
use crate::pod::{
    FieldPath, FileSource, HostPathKind, Pod, Protocol, PullPolicy, Rejection, Restart, RestartPolicy, Role, SubPath,
    TerminationMessagePolicy, VolumeSource,
};
use crate::report::Report;
use k8s_openapi::api::core::v1 as api;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

const METADATA: &str = "metadata: {name: p, namespace: n, uid: u}";

fn read(object: &str) -> Result<Pod, Rejection> {
    let api: api::Pod = serde_saphyr::from_str(object).unwrap();
    parse(Arc::new(api)).map_err(|refused| refused.rejection)
}

fn spec(spec: &str) -> Result<Pod, Rejection> {
    read(&format!("{METADATA}\nspec: {spec}"))
}

/// A pod of one container with these fields.
fn container(fields: &str) -> Result<Pod, Rejection> {
    spec(&format!("{{containers: [{{name: c, image: i, {fields}}}]}}"))
}

fn volume(source: &str) -> Result<Pod, Rejection> {
    spec(&format!("{{containers: [{{name: c, image: i}}], volumes: [{{name: v, {source}}}]}}"))
}

fn check_rejected(pod: Result<Pod, Rejection>, reason: &str, message: &str) {
    let rejection = pod.map(|pod| pod.api).unwrap_err();
    assert_eq!((&*rejection.reason, rejection.message.as_str()), (reason, message));
}

#[test]
fn defaults_are_those_of_the_api() {
    let pod = container("").unwrap();
    assert!(pod.containers.iter().all(|one| one.restart == Restart::by(RestartPolicy::Always)));
    assert_eq!(pod.grace, Duration::from_secs(30));
    assert!(pod.enable_service_links && pod.warnings.is_empty() && pod.deletion.is_none());
    let container = pod.containers.iter().next().unwrap();
    assert_eq!(container.termination_message_path, "/dev/termination-log");
    assert_eq!(container.termination_message_policy, TerminationMessagePolicy::File);
}

#[test]
fn a_moving_tag_is_pulled_each_time() {
    let policy = |image: &str| {
        let pod = spec(&format!("{{containers: [{{name: c, image: {image:?}}}]}}")).unwrap();
        pod.containers.iter().next().unwrap().pull_policy
    };
    for image in ["web", "web:latest", "localhost:5000/web", "registry.example:5000/a/web:latest"] {
        assert_eq!(policy(image), PullPolicy::Always, "{image}");
    }
    for image in ["web:1", "localhost:5000/web:1", "web@sha256:0123", "web:latest@sha256:0123"] {
        assert_eq!(policy(image), PullPolicy::IfNotPresent, "{image}");
    }
}

#[test]
fn the_deletion_was_asked_for_a_grace_before_its_deadline() {
    let deleted = "metadata: {name: p, namespace: n, uid: u, deletionTimestamp: '2026-01-01T00:00:30Z', \
                   deletionGracePeriodSeconds: 30}\nspec: {containers: [{name: c, image: i}]}";
    let deletion = read(deleted).unwrap().deletion.unwrap();
    assert_eq!(deletion.requested_at.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(deletion.grace, Duration::from_secs(30));
}

#[test]
fn requests_follow_limits_and_ports_follow_the_host() {
    let pod = container("resources: {limits: {cpu: 500m, memory: 1Mi}, requests: {cpu: 100m}}").unwrap();
    let requests = pod.containers.iter().next().unwrap().requests;
    assert_eq!((requests.cpu_millis, requests.memory_bytes), (Some(100), Some(1 << 20)));
    let host = "{hostNetwork: true, containers: [{name: c, image: i, ports: [{containerPort: 80, protocol: UDP}]}]}";
    let port = spec(host).unwrap().containers.iter().next().unwrap().ports[0].clone();
    assert_eq!((port.host_port, port.protocol), (Some(80), Protocol::Udp));
}

#[test]
fn values_that_are_not_supported_are_refused_by_name() {
    let unsupported = "PodFeatureUnsupported";
    check_rejected(
        container("ports: [{containerPort: 80, protocol: SCTP}]"),
        unsupported,
        "spec.containers[0].ports[0].protocol: SCTP is not supported by wasklet; use TCP or UDP",
    );
    check_rejected(
        container("resources: {limits: {hugepages-2Mi: 1Gi}}"),
        unsupported,
        "spec.containers[0].resources.limits: hugepages-2Mi is not supported by wasklet; use cpu, memory, \
         ephemeral-storage or an extended resource",
    );
    check_rejected(
        spec("{os: {name: windows}, containers: [{name: c, image: i}]}"),
        "PodOSNotSupported",
        "Failed to admit pod as the OS field doesn't match node OS",
    );
    check_rejected(
        volume("emptyDir: {medium: HugePages}"),
        unsupported,
        "spec.volumes[0].emptyDir.medium: HugePages is not supported by wasklet; use Memory or nothing",
    );
    check_rejected(
        container("env: [{name: E, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}]"),
        unsupported,
        "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: \"metadata.labels\" is not supported by wasklet; use a \
         field that the downward API offers here",
    );
    check_rejected(
        container("restartPolicy: Never, restartPolicyRules: [{action: Stop, exitCodes: {operator: In, values: [1]}}]"),
        unsupported,
        "spec.containers[0].restartPolicyRules[0].action: Stop is not supported by wasklet; use Restart or \
         RestartAllContainers",
    );
}

#[test]
fn the_list_and_the_restart_policies_say_what_a_container_is_there_for() {
    let pod = spec(
        "{restartPolicy: Always, initContainers: [{name: a, image: i}, {name: b, image: i, restartPolicy: Always}, \
         {name: c, image: i, restartPolicy: Never}], containers: [{name: d, image: i}, {name: e, image: i, \
         restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [3]}}]}], \
         ephemeralContainers: [{name: f, image: i, targetContainerName: d}]}",
    )
    .unwrap();
    let kinds: Vec<_> = pod.all_containers().map(|one| (one.name.as_str(), one.role, one.restart.policy)).collect();
    let expected = [
        ("a", Role::Init, RestartPolicy::OnFailure),
        ("b", Role::Sidecar, RestartPolicy::Always),
        ("c", Role::Init, RestartPolicy::Never),
        ("d", Role::Main, RestartPolicy::Always),
        ("e", Role::Main, RestartPolicy::Never),
        ("f", Role::Ephemeral, RestartPolicy::Never),
    ];
    assert_eq!(kinds, expected);
    assert!(pod.container(&"e".into()).unwrap().restart.restarts_after(3));
    let twice = spec("{initContainers: [{name: c, image: i}], containers: [{name: c, image: i}]}");
    check_rejected(twice, "InvalidPod", "the containers of spec: the name \"c\" is there twice");
    let rules = "restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [3]}}]";
    let message = "spec.containers[0].restartPolicyRules needs spec.containers[0].restartPolicy beside it";
    check_rejected(container(rules), "InvalidPod", message);
}

#[test]
fn nothing_that_leads_out_of_its_place_passes() {
    let bad = [
        read("metadata: {name: p, namespace: ../n, uid: u}\nspec: {containers: [{name: c, image: i}]}"),
        read("metadata: {name: .., namespace: n, uid: u}\nspec: {containers: [{name: c, image: i}]}"),
        read("metadata: {name: p, namespace: n, uid: a/b}\nspec: {containers: [{name: c, image: i}]}"),
        read("metadata: {name: p, namespace: n}\nspec: {containers: [{name: c, image: i}]}"),
        read("metadata: {name: p, namespace: n, uid: u}"),
        spec("{containers: []}"),
        spec("{containers: [{name: c, image: i}, {name: c, image: i}]}"),
        spec("{containers: [{name: a/b, image: i}]}"),
        spec("{containers: [{name: c}]}"),
        container("volumeMounts: [{name: none, mountPath: /x}]"),
        container("env: [{name: 'A=B', value: x}]"),
        container("ports: [{containerPort: 0}]"),
        container("ports: [{containerPort: 65536}]"),
        container("resources: {requests: {cpu: lots}}"),
        volume("configMap: {name: m, items: [{key: k, path: ../x}]}"),
        volume("configMap: {name: m, items: [{key: k, path: /x}]}"),
        volume("configMap: {name: m, items: [{key: k, path: ..data}]}"),
        volume("configMap: {name: m, defaultMode: 4095}"),
        volume("configMap: {}"),
        volume("hostPath: {path: relative}"),
        volume("hostPath: {path: /a/../../etc}"),
    ];
    for (index, pod) in bad.into_iter().enumerate() {
        let rejection = pod.map(|pod| pod.api).unwrap_err();
        assert_eq!(rejection.reason, "InvalidPod", "{index}: {}", rejection.message);
    }
}

#[test]
fn a_part_of_a_volume_is_named_beneath_it() {
    let with = |part: &str| {
        let mount = format!("{{name: v, mountPath: /v, {part}}}");
        let pod = spec(&format!(
            "{{volumes: [{{name: v, emptyDir: {{}}}}], containers: [{{name: c, image: i, volumeMounts: [{mount}]}}]}}"
        ));
        pod.map(|pod| pod.containers.iter().next().unwrap().mounts[0].sub_path.clone())
    };
    assert_eq!(with("subPath: a/b"), Ok(SubPath::Plain("a/b".into())));
    assert_eq!(with("readOnly: true"), Ok(SubPath::Plain(String::new())));
    assert_eq!(with("subPathExpr: a/$(B)"), Ok(SubPath::Expression("a/$(B)".into())));
    let wrong =
        ["subPath: ../a", "subPath: a/../b", "subPath: /a", "subPathExpr: ../$(A)", "subPath: a, subPathExpr: a"];
    for part in wrong {
        let rejection = with(part).unwrap_err();
        assert_eq!(rejection.reason, "InvalidPod", "{part}");
        assert!(rejection.message.starts_with("spec.containers[0].volumeMounts[0].subPath"), "{}", rejection.message);
    }
}

#[test]
fn volumes_name_their_sources() {
    let source = |text: &str| volume(text).unwrap().volumes[0].source.clone();
    assert_eq!(source("emptyDir: {}"), VolumeSource::EmptyDir { in_memory: false, size_limit_bytes: None });
    let memory = VolumeSource::EmptyDir { in_memory: true, size_limit_bytes: Some(1024) };
    assert_eq!(source("emptyDir: {medium: Memory, sizeLimit: 1Ki}"), memory);
    for kind in ["File", "FileOrCreate", "Socket"] {
        let rejection = volume(&format!("hostPath: {{path: /srv, type: {kind}}}")).map(|pod| pod.api).unwrap_err();
        assert_eq!(rejection.reason, "PodFeatureUnsupported", "{kind}");
    }
    let host = VolumeSource::HostPath { path: "/srv".into(), kind: HostPathKind::DirectoryOrCreate };
    assert_eq!(source("hostPath: {path: /srv, type: DirectoryOrCreate}"), host);
    let image = VolumeSource::Image { reference: "a/b".into(), pull_policy: PullPolicy::Always };
    assert_eq!(source("image: {reference: a/b}"), image);
    assert!(volume("image: {pullPolicy: Never}").map(|pod| pod.api).unwrap_err().message.contains("reference"));
    let token = "projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 3607}}, \
                 {configMap: {name: kube-root-ca.crt}}, \
                 {downwardAPI: {items: [{path: namespace, fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}]}}]}";
    let VolumeSource::Files(files) = source(token) else { panic!("not files") };
    assert_eq!((files.plugin, files.default_mode, files.sources.len()), ("kubernetes.io~projected", 0o644, 3));
    assert!(
        matches!(&files.sources[0], FileSource::ServiceAccountToken { expiration, .. } if expiration.as_secs() == 3607)
    );
}

#[test]
fn keys_of_labels_may_hold_anything_but_the_closing_quote() {
    let path = |path: &str| {
        let pod = container(&format!("env: [{{name: E, valueFrom: {{fieldRef: {{fieldPath: {path:?}}}}}}}]"));
        let pod = pod.map_err(|rejection| rejection.reason)?;
        Ok::<_, Cow<'static, str>>(pod.containers.iter().next().unwrap().env[0].value.clone())
    };
    let label = FieldPath::Label("app.kubernetes.io/name".into());
    assert_eq!(path("metadata.labels['app.kubernetes.io/name']"), Ok(crate::pod::EnvValue::Field(label)));
    for wrong in ["metadata.labels[x]", "metadata.generation", "spec.containers", "status.phase", ""] {
        assert_eq!(path(wrong), Err("PodFeatureUnsupported".into()), "{wrong}");
    }
}

#[test]
fn what_is_ignored_is_said_once_for_the_pod() {
    let restricted = "{securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, containers: [{name: c, \
                      image: i, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}";
    assert_eq!(spec(restricted).unwrap().warnings, []);
    let asks = "{securityContext: {fsGroup: 1, runAsUser: 0}, containers: [{name: c, image: i, securityContext: \
                {capabilities: {add: [NET_ADMIN]}}}]}";
    let warnings = spec(asks).unwrap().warnings;
    let said: Vec<_> = warnings.iter().map(|report| (&*report.reason, report.message.as_str())).collect();
    let fields = "spec.containers[0].securityContext.capabilities.add, spec.securityContext.fsGroup, \
                  spec.securityContext.runAsUser";
    let message = format!("These fields have no effect here and are ignored: {fields}");
    assert_eq!(said, [("FieldsIgnored", message.as_str())]);
}

#[test]
fn names_that_would_break_a_hosts_file_are_refused() {
    let pod = |fields: &str| spec(&format!("{{containers: [{{name: c, image: i}}], {fields}}}"));
    let bad = [
        ("hostname: A", "spec.hostname"),
        ("subdomain: a.b", "spec.subdomain"),
        ("hostnameOverride: 'a b'", "spec.hostnameOverride"),
        ("hostAliases: [{ip: 192.0.2.1, hostnames: ['a\tb']}]", "spec.hostAliases[0].hostnames"),
        ("hostAliases: [{ip: '192.0.2.1 x', hostnames: [a]}]", "spec.hostAliases[0].ip"),
    ];
    for (fields, place) in bad {
        let rejection = pod(fields).map(|pod| pod.api).unwrap_err();
        assert_eq!(rejection.reason, "InvalidPod", "{fields}");
        assert!(rejection.message.starts_with(&format!("{place}: ")), "{fields}: {}", rejection.message);
    }
    assert!(pod("hostname: a-1, subdomain: b, hostAliases: [{ip: '::1', hostnames: [a.b, c]}]").is_ok());
}

#[test]
fn the_path_of_the_termination_message_is_made_plain() {
    let path = |path: &str| {
        let pod = container(&format!("terminationMessagePath: {path:?}"));
        pod.map(|pod| pod.containers.iter().next().unwrap().termination_message_path.clone())
    };
    for (given, plain) in [("/a/b", "/a/b"), ("a//./b/", "/a/b"), ("", "/dev/termination-log")] {
        assert_eq!(path(given).unwrap(), plain, "{given}");
    }
    for given in ["/", "/a/../b", "."] {
        assert_eq!(path(given).unwrap_err().reason, "InvalidPod", "{given}");
    }
}

#[test]
fn a_size_limit_that_nothing_holds_is_said() {
    let warned = |source: &str| volume(source).unwrap().warnings;
    let place = "spec.volumes[0].emptyDir.sizeLimit";
    let message = format!("These fields have no effect here and are ignored: {place}");
    assert_eq!(warned("emptyDir: {sizeLimit: 1Mi}"), [Report::normal("FieldsIgnored", message)]);
    assert_eq!(warned("emptyDir: {sizeLimit: 1Mi, medium: Memory}"), []);
    assert_eq!(warned("emptyDir: {}"), []);
}
