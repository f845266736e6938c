//! Counts against the lines that tell of them, and against docs/metrics.md.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning, ContainerStatus, PodStatus};

use super::*;

const NONE: PodCounts<'static> = PodCounts { desired: &[], static_pods: 0, mirrors: 0, running: 0 };

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line}\nis missing in\n{text}");
}

#[test]
fn operations_have_the_kubelets_names() {
    for (call, name) in [
        ("StartContainer", "start_container"),
        ("RunPodSandbox", "run_podsandbox"),
        ("PodSandboxStatus", "podsandbox_status"),
        ("Version", "version"),
    ] {
        assert_eq!(operation_type(call), name);
    }
}

#[test]
fn what_happened_is_counted() {
    let metrics = Metrics::new("wasm-1");
    metrics.runtime_operation("StartContainer", Duration::from_millis(3), false);
    metrics.runtime_operation("StartContainer", Duration::from_secs(60), true);
    metrics.container_start_failed(ContainerKind::Init, "ErrImagePull");
    metrics.pod_started(Duration::from_millis(7));
    metrics.http_request("GET", "exec");
    let text = metrics.render(NONE);
    has(&text, "kubelet_runtime_operations_total{operation_type=\"start_container\"} 2");
    has(&text, "kubelet_runtime_operations_errors_total{operation_type=\"start_container\"} 1");
    let duration = "kubelet_runtime_operations_duration_seconds";
    has(&text, &format!("{duration}_bucket{{operation_type=\"start_container\",le=\"0.0025\"}} 0"));
    has(&text, &format!("{duration}_bucket{{operation_type=\"start_container\",le=\"0.005\"}} 1"));
    has(&text, &format!("{duration}_bucket{{operation_type=\"start_container\",le=\"+Inf\"}} 2"));
    has(&text, &format!("{duration}_sum{{operation_type=\"start_container\"}} 60.003"));
    has(&text, &format!("{duration}_count{{operation_type=\"start_container\"}} 2"));
    has(&text, "kubelet_started_containers_errors_total{code=\"ErrImagePull\",container_type=\"init_container\"} 1");
    has(&text, "kubelet_pod_start_duration_seconds_count 1");
    has(&text, "kubelet_started_pods_total 0");
    has(
        &text,
        "kubelet_http_requests_total{long_running=\"true\",method=\"GET\",path=\"exec\",server_type=\"readwrite\"} 1",
    );
}

#[test]
fn pods_are_counted_when_somebody_asks() {
    let running = ContainerStatus {
        state: Some(ContainerState { running: Some(ContainerStateRunning::default()), ..ContainerState::default() }),
        ..ContainerStatus::default()
    };
    let pod = Pod {
        status: Some(PodStatus { container_statuses: Some(vec![running]), ..PodStatus::default() }),
        ..Pod::default()
    };
    let desired = [Arc::new(pod.clone()), Arc::new(pod)];
    let counts = PodCounts { desired: &desired, static_pods: 1, mirrors: 1, running: 2 };
    let text = Metrics::new("a\"b\\c").render(counts);
    has(&text, "kubelet_mirror_pods 1");
    has(&text, "kubelet_desired_pods{static=\"\"} 1");
    has(&text, "kubelet_desired_pods{static=\"true\"} 1");
    has(&text, "kubelet_running_pods 2");
    has(&text, "kubelet_running_containers{container_state=\"running\"} 2");
    has(&text, "kubelet_node_name{node=\"a\\\"b\\\\c\"} 1");
}

#[test]
fn every_metric_is_described_in_the_docs() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
    let metrics = Metrics::new("wasm-1");
    let text = metrics.render(NONE) + &metrics.render_probes();
    let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in &names {
        assert!(docs.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
    }
    let described = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for name in described {
        assert!(names.contains(&name), "docs/metrics.md describes {name}, which is not served");
    }
}

#[test]
fn labels_cannot_eat_the_memory() {
    let metrics = Metrics::new("wasm-1");
    for number in 0..5000 {
        metrics.container_start_failed(ContainerKind::Container, &format!("Reason{number}"));
    }
    let text = metrics.render(NONE);
    assert_eq!(text.matches("\nkubelet_started_containers_errors_total{").count(), 1000);
}
