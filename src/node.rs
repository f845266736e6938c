//! `wasklet kubelet`: a node of a cluster, or of static pods alone.
//!
//! Comes in: the kubelet's flags. Goes out: the runtime half (in this process, or behind a socket), the pod half, the node
//! object and the kubelet's HTTP API, until SIGTERM.

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use decide::admission::Capacity;
use decide::parse::is_extended_resource;
use decide::pod::Resources;
use decide::quantity;
use k8s_openapi::api::core::v1::Node;
use kubelet::api::Client;
use kubelet::clock::Clock;
use kubelet::config::{Config, Host, LogFormat as Format, ManifestUrl, RuntimeEndpoint};
use kubelet::dns::DnsSettings;
use kubelet::flags::KubeletFlags;
use kubelet::metrics::Metrics;
use kubelet::node::{NodeAgent, NodeView};
use kubelet::objects::Objects;
use kubelet::server::{self, Pods, Server, ServerError};
use kubelet::sources::files::FileSource;
use kubelet::sources::http::{self, HttpSource};
use kubelet::sources::identity::Naming;
use kubelet::tables::View;
use kubelet::{Kubelet, Setup, node};
use tokio::sync::watch;

use crate::assemble::{self, RuntimePlace, StopSignals};
use crate::registries::RegistryArgs;
use crate::terminal::{self, LogFormat};

/// How long the node object may take before pods are admitted by what the machine alone says.
const NODE_KNOWN: Duration = Duration::from_secs(30);

/// What guests in this process get when it ends: they cannot outlive it, and the API server is told at the next start.
const STOP_GRACE: Duration = Duration::from_secs(2);

pub(crate) fn run(flags: &KubeletFlags) -> anyhow::Result<ExitCode> {
    let config = Config::resolve(flags, &Host::detect())?;
    start_log(&config)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let tokio = assemble::tokio_runtime()?;
    let result = tokio.block_on(run_node(Arc::new(config)));
    tokio.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    // klog's numbers: 2 is what nodes run with, 4 and more is debugging.
    let level = match config.verbosity {
        0..=3 => "info",
        _ => "debug,hyper=info,h2=info,tower=info,kube=info,cranelift=info,wasmtime=info",
    };
    let format = match config.log_format {
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    };
    terminal::start_log(level, format)
}

async fn run_node(config: Arc<Config>) -> anyhow::Result<()> {
    let api = match &config.kubeconfig {
        Some(path) => Some(kubelet::api::connect(path).await?),
        None if config.static_pod_path.is_some() || config.static_pod_url.is_some() => None,
        None => bail!(
            "nothing to run: give --kubeconfig to join a cluster, or --pod-manifest-path or --manifest-url to run \
             static pods"
        ),
    };
    let host_ips = node::addresses(&config.node);
    let (runtime, embedded) = connect_runtime(&config, &host_ips).await?;
    let mut parts = assemble_kubelet(&config, api, runtime, host_ips).await?;
    let mut stop = StopSignals::listen()?;
    let result = tokio::select! {
        () = stop.next() => Ok(()),
        () = parts.kubelet.broken() => Err(anyhow::anyhow!("a task of the pods' half broke; the lines above say which")),
        _ = parts.tasks.join_next() => Err(anyhow::anyhow!("a task of the node broke; the lines above say which")),
    };
    tracing::info!("stopping; pods are left to the next start");
    drop(parts);
    if let Some(runtime) = embedded {
        runtime.shutdown(STOP_GRACE).await;
    }
    result
}

/// The runtime half: in this process, or where the configuration says.
async fn connect_runtime(
    config: &Config,
    host_ips: &[IpAddr],
) -> anyhow::Result<(cri::Client, Option<Arc<wasm::Runtime>>)> {
    let socket = match &config.runtime {
        RuntimeEndpoint::Embedded => {
            let place = RuntimePlace {
                state_dir: config.root_dir.join("runtime"),
                shared_dir: config.root_dir.clone(),
                layouts: config.images.layouts.clone(),
                registries: RegistryArgs {
                    insecure_registry: config.images.insecure_registries.clone(),
                    registry_hosts_dir: config.images.registry_hosts.clone(),
                    image_trust_policy: config.images.trust_policy.clone(),
                },
                node_address: *host_ips.first().context("this machine has no address for pods; --node-ip gives one")?,
                pod_addresses: pod_addresses(config),
            };
            wasm::raise_walls();
            let runtime = assemble::open_runtime(place).await?;
            let client =
                cri::Client::with_request_timeout(cri::in_memory(runtime.routes()), config.runtime_request_timeout);
            return Ok((client, Some(runtime)));
        }
        RuntimeEndpoint::Unix(socket) => socket,
    };
    let channel = cri::unix(&socket.to_string_lossy())?;
    let client = cri::Client::with_request_timeout(channel, config.runtime_request_timeout);
    let version = client.version().await.map_err(|error| anyhow::anyhow!("{error}: {}", error.message()))?;
    if config.kubeconfig.is_none() && config.pod_cidr.is_none() {
        tracing::warn!("there is no API server: give --pod-cidr if the runtime gives each pod an address of its own");
    }
    tracing::info!(socket = %socket.display(), runtime = version.runtime_name, version = version.runtime_version, "connected");
    Ok((client, None))
}

/// Nobody gives a kubelet without an API server a podCIDR, but whoever starts it.
fn pod_addresses(config: &Config) -> wasm::PodAddressMode {
    if config.kubeconfig.is_some() || config.pod_cidr.is_some() {
        return wasm::PodAddressMode::Auto;
    }
    tracing::info!("there is no API server and no --pod-cidr: all pods share the node's address");
    wasm::PodAddressMode::Host
}

/// What runs until it is dropped.
struct Parts {
    kubelet: Kubelet,
    _server: Option<Server>,
    tasks: tokio::task::JoinSet<()>,
}

async fn assemble_kubelet(
    config: &Arc<Config>,
    api: Option<Client>,
    runtime: cri::Client,
    host_ips: Vec<IpAddr>,
) -> anyhow::Result<Parts> {
    let clock = Clock::System;
    let metrics = Arc::new(Metrics::new(config.node_name.clone()));
    let counted = Arc::clone(&metrics);
    let runtime =
        runtime.observed_by(Arc::new(move |call, took, failed| counted.runtime_operation(call, took, failed)));
    let mut tasks = tokio::task::JoinSet::new();
    let objects = match &api {
        Some(client) => Objects::of_api(client.clone()),
        None => Objects::of_manifest(Vec::new(), Vec::new()),
    };
    let (recorder, records) = kubelet::events::Recorder::new();
    let serving = config.server.enabled;
    let addresses = host_ips.clone();
    let (agent, view) = NodeAgent::new(node::Setup {
        api: api.clone(),
        runtime: runtime.clone(),
        config: Arc::clone(config),
        kubelet_port: serving.then(|| config.server.address.port()),
        recorder: recorder.clone(),
        clock,
    });
    tasks.spawn(agent.run());
    let (capacity, allocatable) = follow_capacity(view.clone(), config, &mut tasks);
    // Pods are admitted by what the node can hold, so the node must be known first; but pods that are there already do
    // not wait for an API server that is away.
    let mut object = view.object.clone();
    if tokio::time::timeout(NODE_KNOWN, object.wait_for(Option::is_some)).await.is_err() {
        tracing::warn!("the Node object is not known after {NODE_KNOWN:?}; admitting pods without it");
    }
    let naming = Naming { node_name: config.node_name.clone(), suffix: true };
    let (path, period) = (config.static_pod_path.clone(), config.file_check_frequency);
    let files = path.map(|path| FileSource { path, naming: naming.clone(), period });
    let url = config.static_pod_url.clone().map(|of| http_source(of, naming)).transpose()?;
    let kubelet = Kubelet::start(Setup {
        node_name: config.node_name.clone(),
        runtime: runtime.clone(),
        api: api.clone(),
        files,
        url,
        by_hand: false,
        objects,
        root_dir: config.root_dir.clone(),
        pod_logs: config.pod_logs_dir.clone(),
        sync_frequency: config.sync_frequency,
        dns: DnsSettings::of_config(&config.dns).context("reading resolvConf")?,
        pulls: config.pulls.clone(),
        image_gc: Some(config.image_gc),
        capacity,
        allocatable,
        host_ips: watch::channel(host_ips).1,
        recorder,
        records,
        event_rate: config.events,
        metrics: Arc::clone(&metrics),
        clock,
    });
    let pods: Arc<dyn Pods> = Arc::new(View {
        tables: Arc::clone(kubelet.tables()),
        mirrors: kubelet.mirrors().cloned(),
        pod_logs: config.pod_logs_dir.clone(),
        changes: kubelet.changes().clone(),
    });
    if let Some(address) = config.healthz {
        server::serve_healthz(address, Arc::clone(&pods)).await?;
    }
    let server = if serving {
        let (config, reload_every) = (Arc::clone(config), server::RELOAD_EVERY);
        let standalone = api.is_none();
        let started = server::start(server::Setup { config, api, pods, metrics, addresses, reload_every }).await;
        match started {
            // Static pods alone need nobody to ask about them, and the port never opens to everybody.
            Err(error @ (ServerError::NoAuthentication { .. } | ServerError::NoAuthorization { .. })) if standalone => {
                tracing::warn!("the kubelet's API is not served: {error}");
                None
            }
            started => Some(started?),
        }
    } else {
        None
    };
    Ok(Parts { kubelet, _server: server, tasks })
}

fn http_source(of: ManifestUrl, naming: Naming) -> anyhow::Result<HttpSource> {
    let client = http::client(&of.url).context("making a client for staticPodURL")?;
    Ok(HttpSource { client, url: of.url, headers: of.headers, naming, period: of.check_frequency })
}

/// Keeps what pods may use as the Node object says it.
fn follow_capacity(
    view: NodeView,
    config: &Config,
    tasks: &mut tokio::task::JoinSet<()>,
) -> (watch::Receiver<Capacity>, watch::Receiver<Resources>) {
    let pods = u64::from(config.node.max_pods);
    let before = Capacity { pods, node_name: config.node_name.clone(), ..Capacity::default() };
    let (capacity, capacities) = watch::channel(before);
    let (allocatable, allocatables) = watch::channel(Resources::default());
    let mut object = view.object;
    tasks.spawn(async move {
        loop {
            if let Some(node) = object.borrow_and_update().clone() {
                let known = capacity_of(&node, pods);
                allocatable.send_replace(known.allocatable);
                capacity.send_replace(known);
            }
            if object.changed().await.is_err() {
                return;
            }
        }
    });
    (capacities, allocatables)
}

fn capacity_of(node: &Node, max_pods: u64) -> Capacity {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let said = |name: &str| allocatable.and_then(|resources| resources.get(name)).map(|quantity| quantity.0.as_str());
    let whole = |name: &str| said(name).and_then(|text| quantity::whole(text).ok());
    let names = allocatable.into_iter().flatten().map(|(name, _)| name);
    let extended = names.filter(|name| is_extended_resource(name));
    Capacity {
        pods: whole("pods").unwrap_or(max_pods),
        extended: extended.filter_map(|name| Some((name.clone(), whole(name)?))).collect(),
        allocatable: Resources {
            cpu_millis: said("cpu").and_then(|text| quantity::millis(text).ok()),
            memory_bytes: whole("memory"),
            ephemeral_storage_bytes: whole("ephemeral-storage"),
        },
        node_name: node.metadata.name.clone().unwrap_or_default(),
        labels: node.metadata.labels.clone().unwrap_or_default(),
        taints: node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default(),
    }
}
