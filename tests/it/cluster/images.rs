//! Images that cannot be had: what the status and the events say, and what heals. Images of files, run and mounted.

use std::path::Path;

use anyhow::{Context, Result};
use image::Digest;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tar::{Builder, Header};

use crate::bed::guests::wat;
use crate::bed::node::NodeOptions;
use crate::bed::registry::Registry;
use crate::bed::scene::{container, on_own_node, on_shared_node, waiting_reason};
use crate::bed::{PATIENCE, ports};

fn never(image: &str, policy: &str) -> String {
    format!(
        "
restartPolicy: Never
containers:
- name: main
  image: {image}
  imagePullPolicy: {policy}
"
    )
}

fn message(pod: &Pod) -> String {
    let waiting = container(pod, "main").and_then(|status| status.state.clone()?.waiting);
    waiting.and_then(|waiting| waiting.message).unwrap_or_default()
}

#[tokio::test]
async fn an_image_that_is_missing_is_told_and_pulled_once_it_is_there() -> Result<()> {
    let registry = Registry::start().await?;
    let flags = vec![format!("--insecure-registry={}", registry.host())];
    on_own_node("pulls", NodeOptions { flags, ..NodeOptions::default() }, async |scene| {
        let image = registry.reference("later");
        scene.apply_pod("later", &never(&image, "IfNotPresent")).await?;
        let failed = |pod: &Pod| waiting_reason(pod, "main") == Some("ErrImagePull");
        let pod = scene.namespace.await_pod("later", PATIENCE, failed).await?;
        assert!(message(&pod).contains(&image), "{}", message(&pod));
        let backs_off = |pod: &Pod| waiting_reason(pod, "main") == Some("ImagePullBackOff");
        let pod = scene.namespace.await_pod("later", PATIENCE, backs_off).await?;
        assert!(message(&pod).starts_with(&format!("Back-off pulling image \"{image}\"")), "{}", message(&pod));
        assert_eq!(pod.status.context("no status")?.phase.as_deref(), Some("Pending"));

        registry.push("later", &wat::prints_and_exits("pulled at last\n", 0))?;
        scene.namespace.await_phase("later", "Succeeded").await?;
        assert_eq!(scene.log("later", "main").await?, "pulled at last\n");
        crate::bed::until("the events of the pull", PATIENCE, async || {
            let events = scene.kubectl(&["events", "--for=pod/later"]).await?;
            for words in ["Pulling image", "Failed to pull image", "Error: ErrImagePull", "Successfully pulled image"] {
                anyhow::ensure!(events.contains(words), "{words:?} is not in {events}");
            }
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_image_that_never_comes_does_not_keep_its_pod_from_going() -> Result<()> {
    on_shared_node(async |scene| {
        // Nobody listens there.
        let image = format!("127.0.0.1:{}/nobody/nothing:v1", ports::free()?);
        scene.apply_pod("unreachable", &never(&image, "Always")).await?;
        scene.apply_pod("forbidden", &never("test.invalid/not/here:v1", "Never")).await?;
        scene.apply_pod("misspelt", &never("\"Not An Image\"", "IfNotPresent")).await?;

        let failed =
            |pod: &Pod| matches!(waiting_reason(pod, "main"), Some("RegistryUnavailable" | "ImagePullBackOff"));
        let pod = scene.namespace.await_pod("unreachable", PATIENCE, failed).await?;
        assert!(message(&pod).contains(&image), "{}", message(&pod));
        let never = |pod: &Pod| waiting_reason(pod, "main") == Some("ErrImageNeverPull");
        let pod = scene.namespace.await_pod("forbidden", PATIENCE, never).await?;
        assert!(message(&pod).contains("test.invalid/not/here:v1"), "{}", message(&pod));
        let invalid = |pod: &Pod| waiting_reason(pod, "main") == Some("InvalidImageName");
        let pod = scene.namespace.await_pod("misspelt", PATIENCE, invalid).await?;
        assert!(message(&pod).contains("Not An Image"), "{}", message(&pod));

        for pod in ["unreachable", "forbidden", "misspelt"] {
            scene.kubectl(&["delete", "pod", pod, "--timeout=20s"]).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_guest_that_cannot_be_run_is_told() -> Result<()> {
    on_shared_node(async |scene| {
        scene.apply_pod("foreign", &never("test.invalid/guests/unknown-import:v1", "IfNotPresent")).await?;
        let told = |pod: &Pod| {
            let waits = message(pod);
            let ended = container(pod, "main").and_then(|status| status.state.clone()?.terminated);
            let ended = ended.and_then(|ended| ended.message).unwrap_or_default();
            waits.contains("acme:rockets/engine") || ended.contains("acme:rockets/engine")
        };
        scene.namespace.await_pod("foreign", PATIENCE, told).await?;
        Ok(())
    })
    .await
}

const FILES: &str = "test.invalid/ordinary/files:v1";

/// An archive of these files.
fn tar(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_slice())?;
    }
    Ok(builder.into_inner()?)
}

/// Writes an OCI archive of one image, as a build without a platform makes it: a program that prints a file, and the file.
fn write_ordinary_image(to: &Path) -> Result<()> {
    let layer =
        tar(&[("app/read.wasm".to_owned(), wat::reads()), ("data/greeting".to_owned(), b"from the image\n".to_vec())])?;
    let config = json!({"architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["read.wasm"], "Cmd": ["/data/greeting"], "Env": ["PATH=/app"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}});
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut blob = |media_type: &str, content: Vec<u8>| -> Value {
        let digest = Digest::of(&content);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
        files.push((format!("blobs/sha256/{}", digest.hex()), content));
        descriptor
    };
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().into());
    let layer = blob("application/vnd.oci.image.layer.v1.tar", layer);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
    let mut entry = blob("application/vnd.oci.image.manifest.v1+json", manifest.into());
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": FILES});
    files.push(("index.json".to_owned(), json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into()));
    std::fs::write(to, tar(&files)?).with_context(|| format!("writing {}", to.display()))
}

#[tokio::test]
async fn an_image_of_files_runs_and_is_a_volume() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("files.tar");
    write_ordinary_image(&archive)?;
    let flags = vec![format!("--image-layout={}", archive.display())];
    on_own_node("files", NodeOptions { flags, ..NodeOptions::default() }, async |scene| {
        scene.apply_pod("runs", &never(FILES, "IfNotPresent")).await?;
        let mounts = format!(
            "
restartPolicy: Never
volumes:
- name: data
  image: {{reference: {FILES}, pullPolicy: IfNotPresent}}
containers:
- name: main
  image: test.invalid/guests/reads:v1
  args: [/volume/data/greeting]
  volumeMounts:
  - {{name: data, mountPath: /volume}}
"
        );
        scene.apply_pod("mounts", &mounts).await?;
        for pod in ["runs", "mounts"] {
            scene.namespace.await_phase(pod, "Succeeded").await?;
            assert_eq!(scene.log(pod, "main").await?, "from the image\n", "{pod}");
        }
        // The node names both images once it has reported again.
        crate::bed::until("the node's images", PATIENCE, async || {
            let images = scene.kubectl(&["get", "node", scene.node.name(), "-o", "jsonpath={.status.images}"]).await?;
            for image in [FILES, "test.invalid/guests/reads:v1"] {
                anyhow::ensure!(images.contains(image), "{image} is not in {images}");
            }
            Ok(())
        })
        .await
    })
    .await
}
