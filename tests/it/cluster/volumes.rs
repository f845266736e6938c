//! Files of volumes as guests read them, and their change while they do.

use anyhow::Result;

use crate::bed::PATIENCE;
use crate::bed::scene::{on_shared_node, waiting_reason};

#[tokio::test]
async fn files_come_from_every_kind_of_volume() -> Result<()> {
    on_shared_node(async |scene| {
        let objects = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
binaryData: {raw: 3q2+7w==}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: pa55word}
";
        scene.namespace.apply(objects).await?;
        // Each container prints one file.
        let reads = |name: &str, path: &str| {
            format!(
                "
- name: {name}
  image: test.invalid/guests/reads:v1
  args: [{path}]
  volumeMounts:
  - {{name: settings, mountPath: /settings}}
  - {{name: keys, mountPath: /keys}}
  - {{name: about, mountPath: /about}}
  - {{name: all, mountPath: /all}}
  - {{name: keys, mountPath: /part, subPath: secret}}
"
            )
        };
        let account = "/var/run/secrets/kubernetes.io/serviceaccount";
        let files = [
            ("setting", "/settings/colour".to_owned()),
            ("key", "/keys/secret/password".to_owned()),
            ("part", "/part/password".to_owned()),
            ("label", "/about/labels".to_owned()),
            ("cpu", "/about/cpu".to_owned()),
            ("together", "/all/name".to_owned()),
            ("token", format!("{account}/token")),
            ("namespace", format!("{account}/namespace")),
            ("authority", format!("{account}/ca.crt")),
        ];
        let containers: String = files.iter().map(|(name, path)| reads(name, path).trim_start().to_owned()).collect();
        let spec = format!(
            "
restartPolicy: Never
volumes:
- name: settings
  configMap: {{name: settings}}
- name: keys
  secret: {{secretName: keys, items: [{{key: password, path: secret/password}}]}}
- name: about
  downwardAPI:
    items:
    - {{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}
    - {{path: cpu, resourceFieldRef: {{containerName: cpu, resource: requests.cpu, divisor: 1m}}}}
- name: all
  projected:
    sources:
    - configMap: {{name: settings}}
    - downwardAPI: {{items: [{{path: name, fieldRef: {{fieldPath: metadata.name}}}}]}}
containers:
{containers}"
        );
        let manifest =
            scene.node.pod("files", &spec).replace("  name: files\n", "  name: files\n  labels: {app: files}\n");
        scene.namespace.apply(&manifest).await?;
        scene.namespace.await_phase("files", "Succeeded").await?;
        for (name, expected) in [
            ("setting", "green"),
            ("key", "pa55word"),
            ("part", "pa55word"),
            ("label", "app=\"files\""),
            ("cpu", "0"),
            ("together", "files"),
            ("namespace", scene.namespace.name()),
        ] {
            assert_eq!(scene.log("files", name).await?.trim_end(), expected, "{name}");
        }
        let token = scene.log("files", "token").await?;
        assert_eq!(token.trim_end().split('.').count(), 3, "the token is no JWT: {token:?}");
        let authority = scene.log("files", "authority").await?;
        assert!(authority.starts_with("-----BEGIN CERTIFICATE-----"), "{authority:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_changed_configmap_reaches_a_guest_that_runs() -> Result<()> {
    on_shared_node(async |scene| {
        scene.kubectl(&["create", "configmap", "live", "--from-literal=colour=green"]).await?;
        let spec = "
terminationGracePeriodSeconds: 2
volumes:
- name: live
  configMap: {name: live}
containers:
- name: main
  image: test.invalid/guests/files:v1
  args: [watch, /live/colour]
  volumeMounts: [{name: live, mountPath: /live}]
";
        scene.apply_pod("watches", spec).await?;
        scene.await_log("watches", "main", |log| log == "green\n").await?;
        scene.kubectl(&["patch", "configmap", "live", "--patch", r#"{"data":{"colour":"red"}}"#]).await?;
        scene.await_log("watches", "main", |log| log == "green\nred\n").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_waits_for_a_volume_whose_source_is_missing() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "
restartPolicy: Never
volumes:
- name: later
  secret: {secretName: later}
- name: optional
  secret: {secretName: never, optional: true}
- name: scratch
  emptyDir: {}
containers:
- name: main
  image: test.invalid/guests/reads:v1
  args: [/later/password]
  volumeMounts:
  - {name: later, mountPath: /later}
  - {name: optional, mountPath: /optional}
  - {name: scratch, mountPath: /scratch}
";
        scene.apply_pod("waits", spec).await?;
        let waits = |pod: &_| waiting_reason(pod, "main") == Some("ContainerCreating");
        scene.namespace.await_pod("waits", PATIENCE, waits).await?;
        crate::bed::until("a FailedMount that names the Secret", PATIENCE, async || {
            let events = scene.kubectl(&["events", "--for=pod/waits", "--types=Warning"]).await?;
            anyhow::ensure!(events.contains("FailedMount") && events.contains("\"later\""), "{events}");
            Ok(())
        })
        .await?;
        scene.kubectl(&["create", "secret", "generic", "later", "--from-literal=password=pa55word"]).await?;
        scene.namespace.await_phase("waits", "Succeeded").await?;
        assert_eq!(scene.log("waits", "main").await?.trim_end(), "pa55word");
        Ok(())
    })
    .await
}
