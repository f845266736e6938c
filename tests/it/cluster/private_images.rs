//! Images that not everybody may have: pull secrets that are right, wrong and missing, and what a stranger gets of an image
//! that is on the node already.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;

use crate::bed::guests::wat;
use crate::bed::node::NodeOptions;
use crate::bed::registry::Registry;
use crate::bed::scene::{Scene, on_own_node, waiting_reason};
use crate::bed::{PATIENCE, until};

const PASSWORD: &str = "p4ssw0rd-of-alice";
const WRONG: &str = "wr0ng-of-alice";

fn secret(name: &str, host: &str, password: &str) -> String {
    let config = serde_json::json!({ "auths": { host: { "username": "alice", "password": password } } });
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
type: kubernetes.io/dockerconfigjson
stringData: {{.dockerconfigjson: '{config}'}}
---
"
    )
}

fn pod(image: &str, more: &str) -> String {
    format!(
        "\nrestartPolicy: Never\n{more}\ncontainers: [{{name: main, image: '{image}', imagePullPolicy: IfNotPresent}}]\n"
    )
}

/// Waits until `kubectl describe` says all of `words`; a password is never among them.
async fn described(scene: &Scene<'_>, name: &str, words: &[&str]) -> Result<()> {
    until(&format!("the description of {name}"), PATIENCE, async || {
        let told = scene.kubectl(&["describe", "pod", name]).await?;
        for word in words {
            ensure!(told.contains(word), "{word:?} is not in {told}");
        }
        for secret in [PASSWORD, WRONG] {
            ensure!(!told.contains(secret), "{secret} is in {told}");
        }
        Ok(())
    })
    .await
}

async fn refused(scene: &Scene<'_>, name: &str, reason: &str, words: &[&str]) -> Result<()> {
    let waits = |pod: &Pod| matches!(waiting_reason(pod, "main"), Some(found) if found == reason || found == "ImagePullBackOff");
    scene.namespace.await_pod(name, PATIENCE, waits).await?;
    described(scene, name, words).await
}

#[tokio::test]
async fn a_private_image_is_for_those_with_its_secret() -> Result<()> {
    let registry = Registry::start_private("alice", PASSWORD).await?;
    registry.push("v1", &wat::prints_and_exits("let in\n", 0))?;
    let image = registry.reference("v1");
    on_own_node("private", NodeOptions::default(), async |scene| {
        let account = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: puller}
imagePullSecrets: [{name: right}]
";
        let secrets = format!(
            "{}{}{account}",
            secret("right", registry.host(), PASSWORD),
            secret("wrong", registry.host(), WRONG)
        );
        scene.namespace.apply(&secrets).await?;

        scene.apply_pod("wrong", &pod(&image, "imagePullSecrets: [{name: wrong}]")).await?;
        let denied = format!("Failed to pull image \"{image}\"");
        refused(
            scene,
            "wrong",
            "ErrImagePull",
            &[&denied, "the credentials given for it are not accepted", "Error: ErrImagePull"],
        )
        .await?;
        scene.apply_pod("missing", &pod(&image, "imagePullSecrets: [{name: nowhere}]")).await?;
        let missing =
            "Unable to retrieve some image pull secrets (nowhere); attempting to pull the image may not succeed.";
        refused(
            scene,
            "missing",
            "ErrImagePull",
            &["FailedToRetrieveImagePullSecret", missing, "no credentials were given"],
        )
        .await?;

        scene.apply_pod("right", &pod(&image, "imagePullSecrets: [{name: wrong}, {name: right}]")).await?;
        scene.namespace.await_phase("right", "Succeeded").await?;
        assert_eq!(scene.log("right", "main").await?, "let in\n");
        described(
            scene,
            "right",
            &[&format!("Successfully pulled image \"{image}\" in "), " including waiting). Image size: "],
        )
        .await?;

        // The image is here now. It is still not for everybody.
        scene.apply_pod("stranger", &pod(&image, "")).await?;
        refused(scene, "stranger", "ErrImagePull", &["no credentials were given (see imagePullSecrets)"]).await?;
        scene.apply_pod("by-account", &pod(&image, "serviceAccountName: puller")).await?;
        scene.namespace.await_phase("by-account", "Succeeded").await?;
        let present = format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
        described(scene, "by-account", &[&present]).await?;

        let log = scene.node.log_tail();
        ensure!(!log.contains(PASSWORD) && !log.contains(WRONG), "a password is in the node's log: {log}");
        for name in ["wrong", "missing", "stranger"] {
            scene.kubectl(&["delete", "pod", name, "--timeout=20s"]).await.context("deleting")?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_unsigned_image_is_refused_where_a_signature_is_needed() -> Result<()> {
    let registry = Registry::start().await?;
    registry.push("v1", &wat::prints_and_exits("", 0))?;
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("trust.yaml");
    std::fs::write(&policy, format!("images: [{{pattern: '{}/**', accept: false}}]\n", registry.host()))?;
    let flags = vec![format!("--image-trust-policy={}", policy.display())];
    on_own_node("trusting", NodeOptions { flags, ..NodeOptions::default() }, async |scene| {
        let image = registry.reference("v1");
        scene.apply_pod("unsigned", &pod(&image, "")).await?;
        let words = [
            "SignatureValidationFailed: ",
            "trust.yaml, images",
            "its entry rejects it",
            "Error: SignatureValidationFailed",
        ];
        refused(scene, "unsigned", "SignatureValidationFailed", &words).await?;
        scene.kubectl(&["delete", "pod", "unsigned", "--timeout=20s"]).await.map(drop)
    })
    .await
}
