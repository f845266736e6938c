//! `wasklet run`: a pod with no cluster.
//!
//! Comes in: a manifest, a .wasm file or an image. Goes out: the same kubelet core and the same CRI seam as on a node, with
//! the command line in place of the API server; the guests' output on ours, and their exit code as ours. Never here: a
//! second way to run a container.

mod adhoc;
mod leftovers;
mod screen;
mod target;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use decide::admission::Capacity;
use decide::pod::Resources;
use decide::pulled::VerificationPolicy;
use kubelet::clock::Clock;
use kubelet::config::EventRate;
use kubelet::dns::DnsSettings;
use kubelet::events::Recorder;
use kubelet::metrics::Metrics;
use kubelet::objects::Objects;
use kubelet::pulls::PullOptions;
use kubelet::sources::{Change, uid_of};
use kubelet::tables::Origin;
use kubelet::{Kubelet, Setup};
use tokio::sync::watch;

use crate::assemble::{self, RuntimePlace, StopSignals};
use crate::registries::RegistryArgs;
use crate::terminal::{self, LogFormat};
use screen::Screen;
use target::Target;

/// How long cleaning up after the last container may take before we leave it at that.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// The node's name in pods that run with no node.
const NODE_NAME: &str = "localhost";

#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// A manifest (.yaml, .json), a .wasm file, or an image
    #[arg(value_name = "POD.yaml|FILE.wasm|IMAGE")]
    target: String,
    /// An environment variable for FILE.wasm or IMAGE: NAME=VALUE, or NAME to pass on our own (repeatable)
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<adhoc::Env>,
    /// A host directory for FILE.wasm or IMAGE, at a path of the guest (repeatable)
    #[arg(long, value_name = "HOST:GUEST[:ro]")]
    volume: Vec<adhoc::Volume>,
    /// A port of this machine that leads to a port of FILE.wasm or IMAGE (repeatable)
    #[arg(long, short, value_name = "[IP:]HOST_PORT:PORT")]
    publish: Vec<adhoc::Publish>,
    /// An annotation of the pod around FILE.wasm or IMAGE (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<adhoc::Annotation>,
    /// The address that pods get
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    node_ip: IpAddr,
    /// An OCI layout, or a tar archive of one or of docker save, to look for images in before any registry (repeatable)
    #[arg(long, value_name = "PATH", env = "WASKLET_IMAGE_LAYOUT")]
    image_layout: Vec<PathBuf>,
    #[command(flatten)]
    registries: RegistryArgs,
    /// Where images and compiled code are kept between runs
    #[arg(
        long,
        value_name = "DIR",
        help = "Where images and compiled code are kept between runs [default: /var/lib/wasklet for root, \
                else wasklet in the user's state directory]"
    )]
    state_dir: Option<PathBuf>,
    /// Say what the node does: -v its events, -vv its decisions
    #[arg(short, action = clap::ArgAction::Count)]
    v: u8,
    /// Arguments for FILE.wasm or IMAGE
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let level = match args.v {
        0 => "error",
        1 => "info",
        _ => "debug,hyper=info,h2=info,tower=info,cranelift=info,wasmtime=info",
    };
    terminal::start_log(level, LogFormat::Text)?;
    let tokio = assemble::tokio_runtime()?;
    let result = tokio.block_on(run_pods(args));
    // A thread that still reads standard input cannot be ended; it must not hold us up.
    tokio.shutdown_background();
    result
}

async fn run_pods(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let state = args.state_dir.clone().map_or_else(assemble::state_dir, Ok)?;
    let place = run_directory(&state)?;
    let target = Target::read(args, place.path())?;
    let mut layouts = args.image_layout.clone();
    layouts.extend(target.layout.clone());
    let runtime = assemble::open_runtime(RuntimePlace {
        state_dir: place.path().join("runtime"),
        shared_dir: state,
        layouts,
        registries: args.registries.clone(),
        node_address: args.node_ip,
        pod_addresses: wasm::PodAddressMode::Host,
    })
    .await?;
    let client = cri::Client::new(cri::in_memory(runtime.routes()));
    let kubelet = start_kubelet(args, place.path(), client.clone(), &target);

    let mut stop = StopSignals::listen()?;
    let pods: BTreeMap<_, _> =
        target.manifest.pods.iter().filter_map(|pod| Some((uid_of(pod)?, Arc::new(pod.clone())))).collect();
    kubelet.changes().send(Change::All(Origin::File, pods)).await.context("starting the pod")?;

    let mut screen = Screen::new(
        kubelet.tables().clone(),
        client,
        place.path().join("logs"),
        target.manifest.pods.len(),
        target.one_shot,
    );
    let stopped = screen.until_ended(stop.next()).await;
    kubelet.changes().send(Change::All(Origin::File, BTreeMap::new())).await.context("stopping the pod")?;
    let code = match stopped {
        screen::Ended::ByItself => {
            if tokio::time::timeout(CLEAN_UP, screen.until_gone()).await.is_err() {
                tracing::warn!("leaving what is left of the pod after {CLEAN_UP:?}");
            }
            screen.exit_code()
        }
        screen::Ended::Asked => {
            terminal::say("wasklet: stopping; once more to stop at once");
            tokio::select! {
                () = screen.until_gone() => screen.exit_code(),
                () = stop.next() => ExitCode::from(130),
            }
        }
        screen::Ended::CannotRun => ExitCode::from(125),
    };
    screen.flush().await;
    drop(kubelet);
    runtime.shutdown(Duration::ZERO).await;
    Ok(code)
}

/// A directory of this run alone, gone with it. What runs that were killed have left goes now.
fn run_directory(state: &Path) -> anyhow::Result<tempfile::TempDir> {
    let runs = state.join("run");
    let step = || format!("making a directory for this run in {}; --state-dir names another place", runs.display());
    std::fs::create_dir_all(&runs).with_context(step)?;
    leftovers::remove(&runs);
    tempfile::Builder::new().prefix("").tempdir_in(&runs).with_context(step)
}

fn start_kubelet(args: &RunArgs, place: &Path, runtime: cri::Client, target: &Target) -> Kubelet {
    let manifest = &target.manifest;
    let (recorder, records) = Recorder::new();
    Kubelet::start(Setup {
        node_name: NODE_NAME.to_owned(),
        runtime,
        api: None,
        files: None,
        url: None,
        by_hand: true,
        objects: Objects::of_manifest(manifest.config_maps.clone(), manifest.secrets.clone()),
        root_dir: place.to_owned(),
        pod_logs: place.join("logs"),
        sync_frequency: Duration::from_secs(60),
        dns: DnsSettings::of_host(),
        pulls: PullOptions {
            parallel: Some(4),
            // Whoever runs this may read the store anyway.
            verification: VerificationPolicy::NeverVerify,
            login_directories: PullOptions::default_login_directories(place, home()),
            ..PullOptions::beneath(place)
        },
        // What is shared with other nodes of this user is not given up by one of them.
        image_gc: None,
        capacity: fixed(anything_that_runs_here()),
        allocatable: fixed(Resources::default()),
        host_ips: fixed(vec![args.node_ip]),
        recorder,
        records,
        event_rate: EventRate::UNLIMITED,
        metrics: Arc::new(Metrics::new(NODE_NAME)),
        clock: Clock::System,
    })
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
}

/// No bounds but the machine's, and the labels of a wasklet node, which manifests select.
fn anything_that_runs_here() -> Capacity {
    Capacity {
        pods: u64::MAX,
        allocatable: Resources::default(),
        extended: BTreeMap::new(),
        node_name: NODE_NAME.to_owned(),
        labels: decide::node::own_labels(NODE_NAME),
        taints: Vec::new(),
    }
}

fn fixed<T>(value: T) -> watch::Receiver<T> {
    watch::channel(value).1
}
