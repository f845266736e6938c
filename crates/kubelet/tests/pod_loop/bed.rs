//! A node for tests: the pod half of the kubelet over the scripted runtime, with pods by hand or from a mock API server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cri::fake::Fake;
use cri::v1::{ContainerState, PodSandboxState};
use decide::admission::Capacity;
use decide::names::PodUid;
use decide::pod::Resources;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Secret};
use kubelet::clock::Clock;
use kubelet::config::EventRate;
use kubelet::dns::DnsSettings;
use kubelet::events::Recorder;
use kubelet::metrics::Metrics;
use kubelet::objects::Objects;
use kubelet::pulls::PullOptions;
use kubelet::sources::Change;
use kubelet::sources::files::FileSource;
use kubelet::sources::http::HttpSource;
use kubelet::sources::identity::Naming;
use kubelet::tables::{ObservedPod, Origin};
use kubelet::{Kubelet, Setup};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::api_server::ApiServer;

/// Nothing that a test waits for takes longer, by the paused clock.
const PATIENCE: Duration = Duration::from_secs(4 * 60 * 60);

/// A node. Dropping its kubelet leaves the runtime as it is.
pub(crate) struct Bed {
    pub(crate) fake: Fake,
    pub(crate) runtime: cri::Client,
    pub(crate) folder: tempfile::TempDir,
    began: Instant,
    clock: Clock,
    capacity: watch::Sender<Capacity>,
    /// Whether it reads what is at [`Bed::manifest`].
    reads_manifests: bool,
    /// A URL it asks for manifests.
    manifests_at: Option<HttpSource>,
    kubelet: Option<Kubelet>,
    pulls: PullOptions,
    secrets: Vec<Secret>,
}

impl Bed {
    /// A node whose pods come by hand.
    pub(crate) fn new() -> Self {
        let mut bed = Self::without_kubelet();
        bed.start();
        bed
    }

    /// A node whose pods come from the API server.
    pub(crate) fn of(api: &ApiServer) -> Self {
        let mut bed = Self::without_kubelet();
        bed.join(api);
        bed
    }

    /// A node with Secrets, whose pods come by hand and whose pulls are not as usual.
    pub(crate) fn with_pulls(secrets: Vec<Secret>, change: impl FnOnce(&mut PullOptions)) -> Self {
        let mut bed = Self::without_kubelet();
        bed.secrets = secrets;
        change(&mut bed.pulls);
        bed.start();
        bed
    }

    /// A node whose pods come from manifests and from the API server.
    pub(crate) fn of_manifests(api: &ApiServer) -> Self {
        let mut bed = Self::without_kubelet();
        bed.reads_manifests = true;
        bed.join(api);
        bed
    }

    /// A node whose pods come from manifests, some of them from a URL, and from the API server, if there is one.
    pub(crate) fn of_url(source: HttpSource, api: Option<&ApiServer>) -> Self {
        let mut bed = Self::without_kubelet();
        (bed.reads_manifests, bed.manifests_at) = (true, Some(source));
        match api {
            Some(api) => bed.join(api),
            None => bed.start(),
        }
        bed
    }

    /// Where a manifest of its is.
    pub(crate) fn manifest(&self, name: &str) -> PathBuf {
        self.folder.path().join("manifests").join(name)
    }

    pub(crate) fn without_kubelet() -> Self {
        let fake = Fake::new();
        let (runtime, folder) = (fake.client(), tempfile::tempdir().unwrap());
        let capacity = Capacity { pods: 10_000, node_name: "node".into(), ..Capacity::default() };
        let capacity = watch::Sender::new(capacity);
        let pulls = PullOptions { parallel: Some(4), ..PullOptions::beneath(folder.path()) };
        let (began, clock) = (Instant::now(), Clock::tokio());
        Self {
            fake,
            runtime,
            folder,
            began,
            clock,
            capacity,
            reads_manifests: false,
            manifests_at: None,
            kubelet: None,
            pulls,
            secrets: Vec::new(),
        }
    }

    /// Starts the kubelet, perhaps again.
    pub(crate) fn start(&mut self) {
        self.kubelet = Some(Kubelet::start(self.setup(None)));
    }

    /// Starts the kubelet as part of a cluster.
    pub(crate) fn join(&mut self, api: &ApiServer) {
        self.kubelet = Some(Kubelet::start(self.setup(Some(api.client()))));
    }

    /// Ends the kubelet, as `kill -9` would: what it had begun is broken off.
    pub(crate) fn kill(&mut self) {
        self.kubelet = None;
    }

    fn setup(&self, api: Option<kube::Client>) -> Setup {
        let (recorder, records) = Recorder::new();
        Setup {
            node_name: "node".into(),
            runtime: self.runtime.clone(),
            by_hand: api.is_none() && !self.reads_manifests,
            api,
            files: self.reads_manifests.then(|| FileSource {
                path: self.folder.path().join("manifests"),
                naming: naming(),
                period: Duration::from_secs(20),
            }),
            url: self.manifests_at.clone(),
            objects: Objects::of_manifest(Vec::new(), self.secrets.clone()),
            root_dir: self.folder.path().to_owned(),
            pod_logs: self.folder.path().join("logs"),
            sync_frequency: Duration::from_secs(60),
            dns: DnsSettings::of_host(),
            pulls: self.pulls.clone(),
            image_gc: None,
            capacity: self.capacity.subscribe(),
            allocatable: watch::channel(Resources::default()).1,
            host_ips: watch::channel(vec![IpAddr::from([192, 0, 2, 1])]).1,
            recorder,
            records,
            event_rate: EventRate::UNLIMITED,
            metrics: Arc::new(Metrics::new("node")),
            clock: self.clock,
        }
    }

    /// The node has this much for its pods.
    pub(crate) fn has(&self, cpu_millis: u64, memory_bytes: u64) {
        self.capacity.send_modify(|capacity| {
            capacity.allocatable.cpu_millis = Some(cpu_millis);
            capacity.allocatable.memory_bytes = Some(memory_bytes);
        });
    }

    /// The node takes so many pods.
    pub(crate) fn takes(&self, pods: u64) {
        self.capacity.send_modify(|capacity| capacity.pods = pods);
    }

    pub(crate) fn kubelet(&self) -> &Kubelet {
        self.kubelet.as_ref().unwrap()
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    /// The pods that are wanted are these and no others.
    pub(crate) async fn want(&self, pods: &[Value]) {
        let pods: BTreeMap<PodUid, Arc<Pod>> = pods.iter().map(|pod| (uid(pod), Arc::new(read(pod)))).collect();
        self.send(Change::All(Origin::File, pods)).await;
    }

    pub(crate) async fn change(&self, pod: &Value) {
        self.send(Change::One(Origin::File, uid(pod), Arc::new(read(pod)))).await;
    }

    pub(crate) async fn send(&self, change: Change) {
        self.kubelet().changes().send(change).await.unwrap();
    }

    pub(crate) fn row(&self, pod: &Value) -> Option<Arc<ObservedPod>> {
        self.kubelet().tables().observed.get(&uid(pod))
    }

    /// Waits until the pod's row is as wanted, and gives it.
    pub(crate) async fn until(
        &self,
        pod: &Value,
        what: &str,
        wanted: impl Fn(&ObservedPod) -> bool,
    ) -> Arc<ObservedPod> {
        let mut changes = self.kubelet().tables().observed.changes();
        let found = async {
            loop {
                changes.mark_unchanged();
                if let Some(row) = self.row(pod).filter(|row| wanted(row)) {
                    return row;
                }
                changes.changed().await.unwrap();
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(row) => row,
            Err(_) => panic!("{} never came to: {what}; it is {:#?}", pod["metadata"]["name"], self.row(pod)),
        }
    }

    pub(crate) async fn until_running(&self, pod: &Value) -> Arc<ObservedPod> {
        self.until(pod, "running and ready", is_ready).await
    }

    pub(crate) async fn until_phase(&self, pod: &Value, phase: &str) -> Arc<ObservedPod> {
        self.until(pod, phase, |row| row.status.phase.as_deref() == Some(phase)).await
    }

    /// Waits until nothing is observed of the pod any more.
    pub(crate) async fn until_gone(&self, pod: &Value) {
        let mut changes = self.kubelet().tables().observed.changes();
        let gone = async {
            loop {
                changes.mark_unchanged();
                if self.row(pod).is_none() {
                    return;
                }
                changes.changed().await.unwrap();
            }
        };
        if timeout(PATIENCE, gone).await.is_err() {
            panic!("{} never went: {:#?}", pod["metadata"]["name"], self.row(pod));
        }
    }

    /// Seconds since the bed was made, by the paused clock.
    pub(crate) fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Waits for the n-th call of this name and says when it came, in seconds.
    pub(crate) async fn until_call(&self, call: &str, count: usize) -> u64 {
        let came = self.fake.until_calls(|calls| calls.iter().filter(|made| made.call == call).count() >= count);
        assert!(timeout(PATIENCE, came).await.is_ok(), "{call} never came {count} times: {:#?}", self.fake.changes());
        self.seconds()
    }

    pub(crate) fn count(&self, call: &str) -> usize {
        self.fake.calls().iter().filter(|made| made.call == call).count()
    }

    /// The ids of the containers that run.
    pub(crate) async fn alive(&self) -> Vec<String> {
        let all = self.runtime.list_containers(None).await.unwrap();
        all.into_iter().filter(|one| one.state() == ContainerState::ContainerRunning).map(|one| one.id).collect()
    }

    /// The names of the pods that have a ready sandbox, one for each.
    pub(crate) async fn ready_sandboxes(&self) -> Vec<String> {
        let all = self.runtime.list_pod_sandboxes(None).await.unwrap();
        let ready = all.into_iter().filter(|one| one.state() == PodSandboxState::SandboxReady);
        ready.map(|one| one.metadata.unwrap_or_default().name).collect()
    }

    /// Whether the runtime holds anything at all.
    pub(crate) async fn runtime_is_empty(&self) -> bool {
        let sandboxes = self.runtime.list_pod_sandboxes(None).await.unwrap();
        let containers = self.runtime.list_containers(None).await.unwrap();
        sandboxes.is_empty() && containers.is_empty()
    }
}

/// How static pods of the node are named.
pub(crate) fn naming() -> Naming {
    Naming { node_name: "node".into(), suffix: true }
}

/// A pod of one container, `main`.
pub(crate) fn pod(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "nodeName": "node", "dnsPolicy": "Default", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "containers": [{ "name": "main", "image": image, "imagePullPolicy": "IfNotPresent" }],
        },
    })
}

pub(crate) fn with(mut pod: Value, pointer: &str, value: impl Into<Value>) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[field] = value.into();
    pod
}

/// The pod, being deleted since `at`.
pub(crate) fn deleted(pod: &Value, at: jiff::Timestamp, grace: u32) -> Value {
    let deadline = decide::time::whole_seconds(decide::time::after(at, Duration::from_secs(grace.into())));
    let pod = with(pod.clone(), "/metadata/deletionTimestamp", deadline.to_string());
    with(pod, "/metadata/deletionGracePeriodSeconds", grace)
}

pub(crate) fn uid(pod: &Value) -> PodUid {
    PodUid::from(pod["metadata"]["uid"].as_str().unwrap())
}

fn read(pod: &Value) -> Pod {
    serde_json::from_value(pod.clone()).unwrap()
}

pub(crate) fn condition(row: &ObservedPod, type_: &str) -> bool {
    row.status.conditions.iter().flatten().any(|one| one.type_ == type_ && one.status == "True")
}

pub(crate) fn is_ready(row: &ObservedPod) -> bool {
    row.status.phase.as_deref() == Some("Running") && condition(row, "Ready")
}

/// The status of `main`.
pub(crate) fn main_container(row: &ObservedPod) -> ContainerStatus {
    row.status.container_statuses.as_ref().and_then(|all| all.first()).cloned().unwrap_or_default()
}

/// The reason for which `main` waits, if it does.
pub(crate) fn waits_for(row: &ObservedPod) -> Option<String> {
    main_container(row).state?.waiting?.reason
}

pub(crate) fn restarts(row: &ObservedPod) -> i32 {
    main_container(row).restart_count
}
