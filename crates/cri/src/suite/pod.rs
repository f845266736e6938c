//! A sandbox for one check, with what a kubelet would give it.

use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time;

use super::log::{self, Line};
use super::{Checked, Failure, PATIENCE, Seam};
use crate::names::{ContainerAnnotations, PodIdentity};
use crate::v1::{self, ContainerState};

/// Between two looks at a state that must come.
const LOOK: Duration = Duration::from_millis(20);

/// Tells the pods of one process from one another.
static PODS: AtomicU32 = AtomicU32::new(0);

/// A sandbox of one check. Its containers are named by the images they are of.
pub(super) struct Pod<'a> {
    seam: &'a Seam,
    pub(super) id: String,
    pub(super) identity: PodIdentity,
    pub(super) config: v1::PodSandboxConfig,
    logs: TempDir,
}

impl<'a> Pod<'a> {
    /// Runs a sandbox.
    pub(super) async fn run(seam: &'a Seam) -> Checked<Self> {
        let logs = tempfile::Builder::new()
            .prefix("cri-suite-")
            .tempdir()
            .map_err(|source| Failure::Step { step: "making a log directory", source })?;
        let number = PODS.fetch_add(1, Ordering::Relaxed);
        let identity = PodIdentity {
            name: format!("suite-{number}"),
            namespace: "seam".to_owned(),
            // The directory's name is unique on this machine, whichever process made it.
            uid: format!(
                "{}-{number}-{}",
                process::id(),
                logs.path().file_name().unwrap_or_default().to_string_lossy()
            ),
        };
        let config = v1::PodSandboxConfig {
            metadata: Some(identity.sandbox_metadata(0)),
            hostname: identity.name.clone(),
            log_directory: logs.path().display().to_string(),
            labels: identity.sandbox_labels(&[("suite".to_owned(), "seam".to_owned())].into()),
            annotations: [("suite/why".to_owned(), "a check".to_owned())].into(),
            ..v1::PodSandboxConfig::default()
        };
        let id = seam.client.run_pod_sandbox(config.clone(), "").await?;
        Ok(Self { seam, id, identity, config, logs })
    }

    /// The runtime it is in.
    pub(super) fn seam(&self) -> &'a Seam {
        self.seam
    }

    /// What a container `name` of `image` is made from.
    pub(super) fn container(&self, name: &str, image: &str) -> Checked<v1::ContainerConfig> {
        let annotations = ContainerAnnotations { hash: "1".to_owned(), ..Default::default() };
        let annotations = annotations.to_map().map_err(|error| Failure::Expectation(error.to_string()))?;
        Ok(v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() }),
            labels: self.identity.container_labels(name),
            annotations,
            log_path: log_path(name),
            ..v1::ContainerConfig::default()
        })
    }

    /// Pulls `image` and makes a container `name` of it.
    pub(super) async fn create(&self, name: &str, image: &str) -> Checked<String> {
        let config = self.container(name, image)?;
        self.create_from(config).await
    }

    /// Pulls the image of `config`, unless it is on the node, and makes a container.
    pub(super) async fn create_from(&self, mut config: v1::ContainerConfig) -> Checked<String> {
        let client = &self.seam.client;
        let image = config.image.clone().unwrap_or_default();
        if client.image_status(image.clone()).await?.is_none() {
            let sandbox = Some(self.config.clone());
            // As the kubelet does: made from what the pull gave, with the name that the user wrote beside it.
            let pulled = time::timeout(PATIENCE, client.pull_image(image.clone(), None, sandbox));
            let image_ref =
                pulled.await.map_err(|_| Failure::Expectation(format!("no end of the pull of {}", image.image)))??;
            config.image =
                Some(v1::ImageSpec { image: image_ref, user_specified_image: image.image, ..v1::ImageSpec::default() });
        }
        Ok(client.create_container(&self.id, config, self.config.clone()).await?)
    }

    /// Makes and starts a container `name` of `image`.
    pub(super) async fn start(&self, name: &str, image: &str) -> Checked<String> {
        let id = self.create(name, image).await?;
        self.seam.client.start_container(&id).await?;
        Ok(id)
    }

    /// Makes and starts a container `name` of `image` and waits for its end.
    pub(super) async fn complete(&self, name: &str, image: &str) -> Checked<(String, v1::ContainerStatus)> {
        let id = self.start(name, image).await?;
        let status = self.await_state(&id, ContainerState::ContainerExited).await?;
        Ok((id, status))
    }

    /// Waits for a container to be in `state`, and gives its status then.
    pub(super) async fn await_state(&self, id: &str, state: ContainerState) -> Checked<v1::ContainerStatus> {
        let deadline = time::Instant::now() + PATIENCE;
        loop {
            let status = self.seam.client.container_status(id).await?;
            if status.state() == state {
                return Ok(status);
            }
            if time::Instant::now() > deadline {
                return Err(Failure::Expectation(format!(
                    "container {id} is {} and not {} after {PATIENCE:?}",
                    status.state().as_str_name(),
                    state.as_str_name(),
                )));
            }
            time::sleep(LOOK).await;
        }
    }

    /// Where the log of container `name` is.
    pub(super) fn log_file(&self, name: &str) -> PathBuf {
        self.logs.path().join(log_path(name))
    }

    /// Waits until the log of container `name` satisfies `wanted`, and gives it.
    pub(super) async fn await_log(&self, name: &str, wanted: impl Fn(&[Line]) -> bool) -> Checked<Vec<Line>> {
        let deadline = time::Instant::now() + PATIENCE;
        loop {
            let seen = log::read(&self.log_file(name));
            match seen {
                Ok(lines) if wanted(&lines) => return Ok(lines),
                _ if time::Instant::now() < deadline => time::sleep(LOOK).await,
                Ok(lines) => {
                    return Err(Failure::Expectation(format!(
                        "the log of {name} holds after {PATIENCE:?} only {lines:?}"
                    )));
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Stops and removes the sandbox.
    pub(super) async fn remove(self) -> Checked {
        self.seam.client.stop_pod_sandbox(&self.id).await?;
        self.seam.client.remove_pod_sandbox(&self.id).await?;
        Ok(())
    }
}

/// Of a container's first instance, below the sandbox's log directory. Flat: the kubelet would make a directory.
fn log_path(name: &str) -> String {
    format!("{name}-0.log")
}
