//! Environment variables from everywhere Kubernetes takes them from, and what happens while their source is missing.

use anyhow::{Context, Result};

use crate::bed::PATIENCE;
use crate::bed::scene::{address, container, on_shared_node, waiting_reason};

#[tokio::test]
async fn variables_come_from_everywhere() -> Result<()> {
    on_shared_node(async |scene| {
        let objects = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: pa55word}
---
apiVersion: v1
kind: Service
metadata: {name: my-db}
spec:
  ports: [{name: sql, port: 5432}]
"#;
        scene.namespace.apply(objects).await?;
        let spec = r#"
restartPolicy: Never
containers:
- name: main
  image: test.invalid/guests/environment:v1
  resources: {limits: {memory: 64Mi, cpu: 250m}, requests: {cpu: 10m}}
  env:
  - {name: PLAIN, value: "as it is"}
  - {name: EXPANDED, value: "<$(PLAIN)> $$(PLAIN) $(NOBODY)"}
  - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
  - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
  - {name: ABSENT, valueFrom: {secretKeyRef: {name: keys, key: none, optional: true}}}
  - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
  - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
  - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
  - {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
  - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
  - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
  - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
  envFrom:
  - {prefix: KEY_, secretRef: {name: keys}}
  - {configMapRef: {name: settings}}
  - {configMapRef: {name: nowhere, optional: true}}
"#;
        scene.apply_pod("env", spec).await?;
        let pod = scene.namespace.await_phase("env", "Succeeded").await?;
        let log = scene.log("env", "main").await?;
        let lines: Vec<&str> = log.lines().collect();
        let node = scene.node.name();
        for expected in [
            "PLAIN=as it is".to_owned(),
            "EXPANDED=<as it is> $(PLAIN) $(NOBODY)".to_owned(),
            "COLOUR=green".to_owned(),
            "PASSWORD=pa55word".to_owned(),
            "NAME=env".to_owned(),
            format!("NAMESPACE={}", scene.namespace.name()),
            format!("NODE={node}"),
            "ACCOUNT=default".to_owned(),
            format!("HOST_IP={}", scene.node.address()),
            format!("POD_IP={}", address(&pod)?),
            "MEMORY=64".to_owned(),
            "CPU=250".to_owned(),
            "KEY_password=pa55word".to_owned(),
            "colour=green".to_owned(),
            "KUBERNETES_SERVICE_PORT=443".to_owned(),
            "MY_DB_SERVICE_PORT_SQL=5432".to_owned(),
        ] {
            assert!(lines.contains(&expected.as_str()), "{expected:?} is not in {lines:#?}");
        }
        for prefix in ["ABSENT=", "KEPT_BACK=", "PATH=/usr"] {
            assert!(!lines.iter().any(|line| line.starts_with(prefix)), "{prefix} is in {lines:#?}");
        }
        let service = scene.kubectl(&["get", "service", "my-db", "--output=jsonpath={.spec.clusterIP}"]).await?;
        assert!(lines.contains(&format!("MY_DB_SERVICE_HOST={service}").as_str()), "{service} is not in {lines:#?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_missing_source_is_told_and_waited_for() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
restartPolicy: Never
containers:
- name: main
  image: test.invalid/guests/environment:v1
  env:
  - {name: COLOUR, valueFrom: {configMapKeyRef: {name: later, key: colour}}}
";
        scene.apply_pod("waits", spec).await?;
        let waits = |pod: &_| waiting_reason(pod, "main") == Some("CreateContainerConfigError");
        let pod = scene.namespace.await_pod("waits", PATIENCE, waits).await?;
        let state = container(&pod, "main").and_then(|status| status.state.clone()).context("no state")?;
        let message = state.waiting.and_then(|waiting| waiting.message).unwrap_or_default();
        assert!(message.contains("later"), "the message does not name the ConfigMap: {message:?}");
        assert_eq!(pod.status.and_then(|status| status.phase).as_deref(), Some("Pending"));

        scene.kubectl(&["create", "configmap", "later", "--from-literal=colour=red"]).await?;
        scene.namespace.await_phase("waits", "Succeeded").await?;
        let log = scene.log("waits", "main").await?;
        assert!(log.lines().any(|line| line == "COLOUR=red"), "{log}");
        Ok(())
    })
    .await
}
