//! What the kubelet counts, under the kubelet's own metric names; docs/metrics.md lists them.
//!
//! In come events worth counting, from wherever they happen; out goes Prometheus' text format when somebody asks. Label
//! values come from closed sets, so that the memory is bounded. Never here: a count that is not true.

mod course;
mod family;
mod prober;
mod process;

use std::{fmt::Write as _, time::Duration};

use k8s_openapi::api::core::v1::Pod;

use self::family::{Counters, Histograms, write_sample, write_type};
use crate::node::KUBELET_VERSION;

/// Upper bounds in seconds for calls and steps.
const STEPS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds in seconds for what may include a pull.
const STARTS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0,
    180.0, 240.0, 300.0, 600.0,
];

/// Everything that is counted. One for the process, shared.
#[derive(Debug)]
pub struct Metrics {
    node_name: String,
    runtime_operations: Counters<1>,
    runtime_operations_errors: Counters<1>,
    runtime_operations_duration: Histograms<1>,
    pod_worker_duration: Histograms<1>,
    pod_start_duration: Histograms<0>,
    started_pods: Counters<0>,
    started_containers: Counters<1>,
    started_containers_errors: Counters<2>,
    preemptions: Counters<1>,
    image_garbage_collected: Counters<1>,
    http_requests: Counters<4>,
    probes: prober::Probes,
}

/// Which of a pod's three lists a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerKind {
    /// `spec.containers`.
    Container,
    /// `spec.initContainers`.
    Init,
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

impl ContainerKind {
    fn label(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Init => "init_container",
            Self::Ephemeral => "ephemeral_container",
        }
    }
}

/// The pods at the moment of a scrape.
#[derive(Debug, Clone, Copy)]
pub struct PodCounts<'a> {
    /// What is desired, with current status.
    pub desired: &'a [std::sync::Arc<Pod>],
    /// How many of those are the node's own.
    pub static_pods: usize,
    /// How many mirrors of such pods the API server has.
    pub mirrors: usize,
    /// How many have a running sandbox.
    pub running: usize,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            runtime_operations: Counters::new(["operation_type"]),
            runtime_operations_errors: Counters::new(["operation_type"]),
            runtime_operations_duration: Histograms::new(["operation_type"], STEPS),
            pod_worker_duration: Histograms::new(["operation_type"], STEPS),
            pod_start_duration: Histograms::new([], STARTS),
            started_pods: Counters::new([]),
            started_containers: Counters::new(["container_type"]),
            started_containers_errors: Counters::new(["code", "container_type"]),
            preemptions: Counters::new(["preemption_signal"]),
            image_garbage_collected: Counters::new(["reason"]),
            http_requests: Counters::new(["long_running", "method", "path", "server_type"]),
            probes: prober::Probes::default(),
        }
    }

    /// A call of the runtime is over. `call` is CRI's name of it, as in `StartContainer`.
    pub fn runtime_operation(&self, call: &str, took: Duration, failed: bool) {
        let operation = operation_type(call);
        self.runtime_operations.add([&operation]);
        if failed {
            self.runtime_operations_errors.add([&operation]);
        }
        self.runtime_operations_duration.observe([&operation], took);
    }

    /// A pod's worker has carried out one step: `create`, `update`, `sync` or `terminating`.
    pub fn pod_worker(&self, operation: &'static str, took: Duration) {
        self.pod_worker_duration.observe([operation], took);
    }

    /// A pod's sandbox is about to be made.
    pub fn pod_starting(&self) {
        self.started_pods.add([]);
    }

    /// A pod runs, so long after the kubelet first saw it.
    pub fn pod_started(&self, took: Duration) {
        self.pod_start_duration.observe([], took);
    }

    /// A container is about to be started.
    pub fn container_starting(&self, kind: ContainerKind) {
        self.started_containers.add([kind.label()]);
    }

    /// It could not be; `reason` is the waiting reason, as in `ErrImagePull`.
    pub fn container_start_failed(&self, kind: ContainerKind, reason: &str) {
        self.started_containers_errors.add([reason, kind.label()]);
    }

    /// A pod ends so that a critical one has room; `signal` is the resource that was short.
    pub fn preempted(&self, signal: &str) {
        self.preemptions.add([signal]);
    }

    /// An unused image was removed, for its age (`age`) or because the disk was too full (`space`).
    pub fn image_collected(&self, reason: &'static str) {
        self.image_garbage_collected.add([reason]);
    }

    /// A request of the HTTP API; `path` is one of the server's own, never the client's.
    pub(crate) fn http_request(&self, method: &str, path: &str) {
        let long_running = matches!(path, "exec" | "attach" | "portForward");
        self.http_requests.add([if long_running { "true" } else { "false" }, method, path, "readwrite"]);
    }

    /// All of it as text.
    pub fn render(&self, pods: PodCounts<'_>) -> String {
        let mut text = String::with_capacity(16 * 1024);
        let out = &mut text;
        self.render_pods(out, pods);
        self.runtime_operations.render(
            out,
            "kubelet_runtime_operations_total",
            "Cumulative number of runtime operations by operation type.",
        );
        self.runtime_operations_errors.render(
            out,
            "kubelet_runtime_operations_errors_total",
            "Cumulative number of runtime operation errors by operation type.",
        );
        self.runtime_operations_duration.render(
            out,
            "kubelet_runtime_operations_duration_seconds",
            "Duration in seconds of runtime operations, by operation type.",
        );
        self.pod_worker_duration.render(
            out,
            "kubelet_pod_worker_duration_seconds",
            "Duration in seconds to sync a single pod, by operation type.",
        );
        self.pod_start_duration.render(
            out,
            "kubelet_pod_start_duration_seconds",
            "Duration in seconds from the kubelet seeing a pod for the first time to the pod running.",
        );
        self.started_pods.render(out, "kubelet_started_pods_total", "Cumulative number of pods started.");
        self.started_containers.render(
            out,
            "kubelet_started_containers_total",
            "Cumulative number of containers started.",
        );
        self.started_containers_errors.render(
            out,
            "kubelet_started_containers_errors_total",
            "Cumulative number of errors when starting containers.",
        );
        self.preemptions.render(
            out,
            "kubelet_preemptions",
            "Cumulative number of pod preemptions by preemption resource",
        );
        self.image_garbage_collected.render(
            out,
            "kubelet_image_garbage_collected_total",
            "Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
        );
        self.http_requests.render(
            out,
            "kubelet_http_requests_total",
            "Number of the http requests received since the server started.",
        );
        process::render(out);
        text
    }

    fn render_pods(&self, out: &mut String, pods: PodCounts<'_>) {
        write_type(out, "kubelet_node_name", "The node's name. The count is always 1.", "gauge");
        write_sample(out, "kubelet_node_name", &[("node", &self.node_name)], 1.0);
        write_type(out, "kubernetes_build_info", "What was built. The count is always 1.", "gauge");
        let (major, minor) = ("1", KUBELET_VERSION.split('.').nth(1).unwrap_or_default());
        let labels =
            [("git_version", KUBELET_VERSION), ("major", major), ("minor", minor), ("platform", "wasi/wasm32")];
        write_sample(out, "kubernetes_build_info", &labels, 1.0);

        write_type(out, "kubelet_desired_pods", "The number of pods the kubelet is told to run.", "gauge");
        for (label, count) in [("", pods.desired.len().saturating_sub(pods.static_pods)), ("true", pods.static_pods)] {
            write_sample(out, "kubelet_desired_pods", &[("static", label)], as_f64(count));
        }
        let help = "The number of mirror pods the kubelet will try to create (one per admitted static pod)";
        write_type(out, "kubelet_mirror_pods", help, "gauge");
        write_sample(out, "kubelet_mirror_pods", &[], as_f64(pods.mirrors));
        write_type(out, "kubelet_running_pods", "Number of pods that have a running pod sandbox.", "gauge");
        write_sample(out, "kubelet_running_pods", &[], as_f64(pods.running));
        write_type(out, "kubelet_running_containers", "Number of containers, by their state.", "gauge");
        let (mut running, mut exited) = (0, 0);
        for status in pods.desired.iter().filter_map(|pod| pod.status.as_ref()) {
            let lists =
                [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
            for state in lists.into_iter().flatten().flatten().filter_map(|container| container.state.as_ref()) {
                running += usize::from(state.running.is_some());
                exited += usize::from(state.terminated.is_some());
            }
        }
        for (state, count) in [("exited", exited), ("running", running)] {
            write_sample(out, "kubelet_running_containers", &[("container_state", state)], as_f64(count));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of pods are far below 2^52")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

/// The kubelet's word for a CRI call: `run_podsandbox` for `RunPodSandbox`.
fn operation_type(call: &str) -> String {
    let mut snake = String::with_capacity(call.len() + 4);
    for letter in call.replace("PodSandbox", "Podsandbox").chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        let _ = write!(snake, "{}", letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests;
