//! How fast the pods of a Deployment become Ready: `wasklet`, whose pods run, beside `kwok`, whose pods are written down.
//!
//! Comes in: how many pods and rounds. Goes out: for each side pods per second from `kubectl apply` to the last Ready, and
//! the time from bind to Ready of each pod as a watcher sees both. The two take turns on one control plane, so that a
//! machine that slows down slows both. Never here: two Deployments at once.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use testbed::cluster::{Cluster, Namespace, has_condition};
use testbed::control_plane::{ControlPlane, Options as ControlPlaneOptions};
use testbed::{guests, tools};

use super::figures::{median, quantile};
use super::wasklet::{self, Running};
use crate::say;

const WASKLET_NODE: &str = "bench-wasklet";
const KWOK_NODE: &str = "bench-kwok";

/// A round that takes longer has failed.
const ROUND_WITHIN: Duration = Duration::from_secs(300);

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Pods of the Deployment
    #[arg(long, default_value_t = 500)]
    pods: usize,
    /// How often each side takes its turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// One turn of one side.
struct Round {
    /// From `kubectl apply` to the last Ready.
    took: Duration,
    /// From bind to Ready, of each pod.
    bind_to_ready: Vec<Duration>,
}

/// Measures and prints.
pub(super) async fn run(options: &Options) -> Result<()> {
    let binary = wasklet::release_binary()?;
    let simulator = tools::kwok()?;
    let dir = tempfile::tempdir().context("creating a directory")?;
    let layout = dir.path().join("guests");
    guests::build_wat(&layout)?;
    let flags = vec!["--node-cidr-mask-size=20".to_owned()];
    let cluster =
        Cluster::alone(ControlPlaneOptions { controller_manager_flags: flags, ..ControlPlaneOptions::default() })
            .await?;
    let control_plane = cluster.control_plane().context("the control plane is ours")?;

    let max_pods = options.pods + 10;
    let ours = wasklet::start(&binary, control_plane, WASKLET_NODE, dir.path(), &layout, max_pods)?;
    let theirs = start_kwok(&simulator, control_plane, dir.path())?;
    create_kwok_node(&cluster, max_pods).await?;
    for node in [WASKLET_NODE, KWOK_NODE] {
        cluster.await_node(node, is_ready).await.with_context(|| format!("waiting for node {node}"))?;
    }

    let (mut wasklet, mut kwok) = (Vec::new(), Vec::new());
    // The first turn of each side finds nothing compiled and nothing cached: it is not counted.
    for round in 0..=options.rounds {
        for (node, process, rounds) in [(WASKLET_NODE, &ours.0, &mut wasklet), (KWOK_NODE, &theirs.0, &mut kwok)] {
            let (before, _) = wasklet::usage(process)?;
            let one = cluster.with_namespace(async |namespace| turn(namespace, node, options.pods).await).await?;
            let (after, peak) = wasklet::usage(process)?;
            let counted = if round == 0 { " (not counted)" } else { "" };
            say(&format!(
                "{}, {:.2} CPU s, {} MB at most{counted}",
                line(node, &one),
                after - before,
                peak / 1_000_000
            ));
            if round > 0 {
                rounds.push(one);
            }
        }
    }
    summary(options, &wasklet, &kwok);
    Ok(())
}

fn line(node: &str, round: &Round) -> String {
    format!(
        "{node:14} {:6.1} pods/s, bind to Ready p50 {:4.0} ms, p99 {:4.0} ms",
        rate(round),
        quantile(&round.bind_to_ready, 50).as_secs_f64() * 1000.0,
        quantile(&round.bind_to_ready, 99).as_secs_f64() * 1000.0,
    )
}

#[expect(clippy::cast_precision_loss, reason = "pods are few")]
fn rate(round: &Round) -> f64 {
    round.bind_to_ready.len() as f64 / round.took.as_secs_f64()
}

fn summary(options: &Options, wasklet: &[Round], kwok: &[Round]) {
    let rates = |rounds: &[Round]| rounds.iter().map(rate).collect::<Vec<_>>();
    let ratios: Vec<f64> = wasklet.iter().zip(kwok).map(|(ours, theirs)| rate(ours) / rate(theirs)).collect();
    let times = |rounds: &[Round]| rounds.iter().flat_map(|round| round.bind_to_ready.clone()).collect::<Vec<_>>();
    let milliseconds = |rounds: &[Round], hundredths| quantile(&times(rounds), hundredths).as_secs_f64() * 1000.0;
    say(&format!(
        "\n{} pods of a Deployment, {} rounds, medians\n\
         {:<28}{:>10}{:>10}{:>8}\n\
         {:<28}{:>10.1}{:>10.1}{:>8.2}   (at least 0.8)\n\
         {:<28}{:>10.0}{:>10.0}\n\
         {:<28}{:>10.0}{:>10.0}          (at most 1000)",
        options.pods,
        options.rounds,
        "",
        "wasklet",
        "kwok",
        "ratio",
        "pods/s, apply to all Ready",
        median(&rates(wasklet)),
        median(&rates(kwok)),
        median(&ratios),
        "bind to Ready, p50, ms",
        milliseconds(wasklet, 50),
        milliseconds(kwok, 50),
        "bind to Ready, p99, ms",
        milliseconds(wasklet, 99),
        milliseconds(kwok, 99),
    ));
}

/// One Deployment on one node, from `kubectl apply` until the last of its pods is Ready.
async fn turn(namespace: &Namespace, node: &str, pods: usize) -> Result<Round> {
    let api: Api<Pod> = namespace.api();
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    // The watch stands before anything is there to be seen.
    while !matches!(events.next().await.context("the watch ended")?, Ok(Event::InitDone)) {}
    let began = Instant::now();
    let seen = async {
        let mut bound: HashMap<String, Instant> = HashMap::new();
        let mut ready: HashMap<String, Duration> = HashMap::new();
        while ready.len() < pods {
            let Ok(Event::Apply(pod) | Event::InitApply(pod)) = events.next().await.context("the watch ended")? else {
                continue;
            };
            let now = Instant::now();
            if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
                let bound_at = *bound.entry(pod.name_any()).or_insert(now);
                if has_condition(&pod, "Ready") {
                    ready.entry(pod.name_any()).or_insert(now - bound_at);
                }
            }
        }
        Ok::<_, anyhow::Error>(Round { took: began.elapsed(), bind_to_ready: ready.into_values().collect() })
    };
    let manifest = deployment(node, pods);
    let applied = namespace.apply(&manifest);
    let (round, applied) = tokio::join!(tokio::time::timeout(ROUND_WITHIN, seen), applied);
    applied?;
    let round = round.with_context(|| format!("{node}: not all pods are Ready after {ROUND_WITHIN:?}"))??;
    // Its pods would be made again while the namespace is emptied.
    namespace.kubectl(&["delete", "deployment", "bench", "--cascade=orphan"]).await?.succeeded()?;
    namespace.kubectl(&["delete", "replicasets", "--all", "--cascade=orphan"]).await?.succeeded()?;
    Ok(round)
}

fn deployment(node: &str, pods: usize) -> String {
    let image = guests::test_reference("http-answers");
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: bench}}
spec:
  replicas: {pods}
  selector: {{matchLabels: {{app: bench}}}}
  template:
    metadata: {{labels: {{app: bench}}}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      nodeSelector: {{kubernetes.io/hostname: {node}}}
      tolerations: [{{operator: Exists}}]
      containers:
      - name: main
        image: {image}
        ports: [{{containerPort: 8080}}]
"
    )
}

fn start_kwok(binary: &Path, control_plane: &ControlPlane, dir: &Path) -> Result<Running> {
    let stages = tools::kwok_stages()?;
    let log_path = dir.join("kwok.log");
    let log = File::create(&log_path).with_context(|| format!("creating {}", log_path.display()))?;
    let child: Child = Command::new(binary)
        .arg(format!("--kubeconfig={}", control_plane.kubeconfig().display()))
        .args(stages.iter().map(|file| format!("--config={}", file.display())))
        .args(["--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"])
        .args(["--cidr=10.250.0.0/16", "--node-ip=127.0.0.1", "--node-lease-duration-seconds=40"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing the log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", binary.display()))?;
    Ok(Running(child))
}

async fn create_kwok_node(cluster: &Cluster, max_pods: usize) -> Result<()> {
    let node: k8s_openapi::api::core::v1::Node = serde_json::from_value(serde_json::json!({
        "metadata": {
            "name": KWOK_NODE,
            "annotations": { "kwok.x-k8s.io/node": "fake" },
            "labels": { "kubernetes.io/hostname": KWOK_NODE, "kubernetes.io/os": "wasi" },
        },
        "spec": { "taints": [{ "key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule" }] },
        "status": {
            "capacity": { "cpu": "64", "memory": "256Gi", "pods": max_pods.to_string() },
            "allocatable": { "cpu": "64", "memory": "256Gi", "pods": max_pods.to_string() },
        },
    }))
    .context("building a node")?;
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(cluster.client());
    let created = nodes.create(&kube::api::PostParams::default(), &node).await.context("creating kwok's node")?;
    ensure!(created.metadata.uid.is_some(), "the API server gave kwok's node no uid");
    Ok(())
}

fn is_ready(node: &k8s_openapi::api::core::v1::Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
