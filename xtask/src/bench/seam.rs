//! A runtime under measurement, spoken to through the seam as the kubelet does.
//!
//! Comes in: guests. Goes out: a `wasklet runtime` in a process of its own, its pods and containers, and what the process
//! holds. Never here: what is measured.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cri::names::{ContainerAnnotations, PodIdentity};
use cri::{Client, v1};
use testbed::guests;

use super::wasklet::{Running, kib, usage};

/// Addresses of the pods: more than any bench makes.
const POD_CIDR: &str = "10.251.0.0/16";
/// Until the runtime answers. Its state is new, so it has nothing to read.
const UP_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Until a container is in a state, which may have to compile first.
const STATE_WITHIN: Duration = Duration::from_secs(60);

/// A runtime in a process of its own. It ends with this value, and its pods with it.
pub(super) struct Runtime {
    pub(super) client: Client,
    pub(super) process: Running,
    place: tempfile::TempDir,
}

/// A sandbox.
pub(super) struct Pod {
    id: String,
    pub(super) address: IpAddr,
    identity: PodIdentity,
    config: v1::PodSandboxConfig,
}

/// What a process holds.
#[derive(Clone, Copy)]
pub(super) struct Held {
    /// In KiB: its own pages and its share of others'.
    pub(super) pss: u64,
    /// In KiB, for those.
    pub(super) page_tables: u64,
    /// Mappings, which `vm.max_map_count` bounds.
    pub(super) maps: u64,
    /// Open files.
    pub(super) files: u64,
}

impl Runtime {
    /// Starts one that knows the guests of `wasms` beside the usual ones, and waits until it answers.
    pub(super) async fn start(binary: &Path, wasms: &[(&str, Vec<u8>)]) -> Result<Self> {
        let place = tempfile::tempdir().context("making a directory")?;
        let layout = place.path().join("guests");
        guests::build_wat(&layout)?;
        for (name, wasm) in wasms {
            guests::packed(&layout, &guests::test_reference(name), wasm)?;
        }
        let socket = place.path().join("runtime.sock");
        let log = File::create(place.path().join("runtime.log")).context("creating the runtime's log")?;
        let mut command = Command::new(binary);
        command
            .args(["runtime", "--listen"])
            .arg(&socket)
            .arg("--state-dir")
            .arg(place.path().join("state"))
            .arg("--image-layout")
            .arg(&layout)
            .env_remove("WASKLET_IMAGE_LAYOUT")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log);
        let process = Running(command.spawn().with_context(|| format!("starting {}", binary.display()))?);
        let client = Client::new(cri::unix(&format!("unix://{}", socket.display())).context("naming the socket")?);
        let started = Instant::now();
        while client.version().await.is_err() {
            ensure!(started.elapsed() < UP_WITHIN, "the runtime does not answer after {UP_WITHIN:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        client.update_runtime_config(POD_CIDR).await?;
        Ok(Self { client, process, place })
    }

    /// Makes a sandbox.
    pub(super) async fn pod(&self, name: &str) -> Result<Pod> {
        let identity =
            PodIdentity { name: name.to_owned(), namespace: "bench".to_owned(), uid: format!("bench-{name}") };
        let config = v1::PodSandboxConfig {
            metadata: Some(identity.sandbox_metadata(0)),
            hostname: identity.name.clone(),
            log_directory: self.logs(&identity).display().to_string(),
            labels: identity.sandbox_labels(&BTreeMap::new()),
            ..v1::PodSandboxConfig::default()
        };
        let id = self.client.run_pod_sandbox(config.clone(), "").await?;
        let status = self.client.pod_sandbox_status(&id).await?.status.unwrap_or_default();
        let address = status.network.context("the sandbox has no network")?.ip;
        let address = address.parse().with_context(|| format!("{address:?} is no address"))?;
        Ok(Pod { id, address, identity, config })
    }

    /// Makes the container `main` of a guest, which is pulled first where it is not there yet.
    async fn create(&self, pod: &Pod, guest: &str, millis: Option<i64>) -> Result<String> {
        let name = guests::test_reference(guest);
        let image = v1::ImageSpec { image: name.clone(), ..v1::ImageSpec::default() };
        if self.client.image_status(image.clone()).await?.is_none() {
            self.client.pull_image(image.clone(), None, Some(pod.config.clone())).await?;
        }
        let annotations = ContainerAnnotations { hash: "1".to_owned(), ..ContainerAnnotations::default() };
        let resources = millis.map(|millis| v1::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: millis * 100,
            ..v1::LinuxContainerResources::default()
        });
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            image: Some(image),
            labels: pod.identity.container_labels("main"),
            annotations: annotations.to_map().context("writing annotations")?,
            log_path: "main.log".to_owned(),
            linux: resources
                .map(|resources| v1::LinuxContainerConfig { resources: Some(resources), ..Default::default() }),
            ..v1::ContainerConfig::default()
        };
        Ok(self.client.create_container(&pod.id, config, pod.config.clone()).await?)
    }

    /// Makes and starts a container.
    pub(super) async fn run(&self, pod: &Pod, guest: &str, millis: Option<i64>) -> Result<String> {
        let id = self.create(pod, guest, millis).await?;
        self.client.start_container(&id).await?;
        Ok(id)
    }

    /// Waits until a container has ended.
    pub(super) async fn ended(&self, id: &str) -> Result<v1::ContainerStatus> {
        let started = Instant::now();
        loop {
            let status = self.client.container_status(id).await?;
            if status.state() == v1::ContainerState::ContainerExited {
                return Ok(status);
            }
            ensure!(started.elapsed() < STATE_WITHIN, "container {id} has not ended after {STATE_WITHIN:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// So many pods that use all the CPU they get.
    pub(super) async fn loops(&self, number: usize) -> Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for number in 0..number {
            let pod = self.pod(&format!("loop-{number}")).await?;
            self.run(&pod, "loops", None).await?;
            pods.push(pod);
        }
        Ok(pods)
    }

    /// Removes sandboxes.
    pub(super) async fn remove_all(&self, pods: Vec<Pod>) -> Result<()> {
        for pod in pods {
            self.remove(pod).await?;
        }
        Ok(())
    }

    /// Removes a sandbox and what is in it.
    pub(super) async fn remove(&self, pod: Pod) -> Result<()> {
        self.client.stop_pod_sandbox(&pod.id).await?;
        self.client.remove_pod_sandbox(&pod.id).await?;
        Ok(())
    }

    /// The log of a pod's container.
    pub(super) fn log_of(&self, pod: &Pod) -> Result<String> {
        let path = self.logs(&pod.identity).join("main.log");
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// The CPU time the runtime has used so far, in seconds.
    pub(super) fn cpu(&self) -> Result<f64> {
        Ok(usage(&self.process.0)?.0)
    }

    /// What the runtime holds now.
    pub(super) fn held(&self) -> Result<Held> {
        let of = format!("/proc/{}", self.process.0.id());
        let maps = std::fs::read_to_string(format!("{of}/maps")).context("reading the runtime's mappings")?;
        let files = std::fs::read_dir(format!("{of}/fd")).context("reading the runtime's open files")?;
        Ok(Held {
            pss: kib(&self.process.0, "smaps_rollup", "Pss:")?,
            page_tables: kib(&self.process.0, "status", "VmPTE:")?,
            maps: maps.lines().count() as u64,
            files: files.count() as u64,
        })
    }

    fn logs(&self, identity: &PodIdentity) -> PathBuf {
        self.place.path().join("logs").join(&identity.name)
    }
}
