//! A node of the cluster under test: `wasklet kubelet` in a process of its own.
//!
//! Comes in: a cluster, a name, further flags. Goes out: a node that is Ready, that can be killed and started again with
//! the same arguments, and that leaves neither a route nor a Node object. Never here: pods.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::DeleteParams;
use rustix::process::Signal;
use testbed::cluster::Cluster;
use tokio::sync::{Mutex, OnceCell};

use super::process::{self, Process, WASKLET};
use super::{PATIENCE, guests, ports, until, until_true};

mod api;
mod directory;

pub(crate) use api::{Caller, KubeletApi};
use directory::Directory;

/// How much of the node's log an error shows, in bytes.
const LOG_SHOWN: usize = 6000;

/// Keeps everything but the tests' own pods away, which tolerate whatever there is. The examples go to the shared node.
const OWN_TAINTS: &str = "kubernetes.io/arch=wasm32-wasi:NoSchedule,wasklet.test/own=true:NoSchedule";

/// A node. Dropping it stops it.
pub(crate) struct WasmNode {
    // They end in this order, and before their directory goes.
    process: Mutex<Option<Process>>,
    runtime: Mutex<Option<Process>>,
    name: String,
    address: IpAddr,
    port: u16,
    no_routes: bool,
    flags: Vec<String>,
    dir: Directory,
}

/// What a test wants different from the usual node.
#[derive(Default)]
pub(crate) struct NodeOptions {
    /// Further flags of `wasklet kubelet`.
    pub(crate) flags: Vec<String>,
    /// Pods run in `wasklet runtime`, a process of its own.
    pub(crate) runtime_apart: bool,
    /// The node may not change the machine's routes, whoever starts it.
    pub(crate) no_routes: bool,
}

impl WasmNode {
    /// The node that all tests share which do not stop it.
    pub(crate) async fn shared(cluster: &Cluster) -> Result<&'static WasmNode> {
        static SHARED: OnceCell<WasmNode> = OnceCell::const_new();
        let start = async || {
            let node = WasmNode::prepare(cluster, "shared", NodeOptions::default()).await?;
            node.start(cluster).await?;
            Ok(node)
        };
        SHARED.get_or_try_init(start).await
    }

    /// A node of one test.
    pub(crate) async fn own(cluster: &Cluster, name: &str, mut options: NodeOptions) -> Result<WasmNode> {
        options.flags.push(format!("--register-with-taints={OWN_TAINTS}"));
        let node = WasmNode::prepare(cluster, name, options).await?;
        node.start(cluster).await?;
        Ok(node)
    }

    async fn prepare(cluster: &Cluster, name: &str, options: NodeOptions) -> Result<WasmNode> {
        let name = format!("{name}-{}", std::process::id());
        let dir = Directory::create(&name)?;
        let (address, port) = (ports::own_address()?, ports::free()?);
        let config = dir.path().join("config.yaml");
        std::fs::write(&config, configuration(dir.path())).with_context(|| format!("writing {}", config.display()))?;
        let mut flags = vec![
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", cluster.node_kubeconfig(&name).await?.display()),
            format!("--client-ca-file={}", cluster.client_ca().await?.display()),
            format!("--hostname-override={name}"),
            format!("--root-dir={}", dir.path().join("root").display()),
            format!("--cert-dir={}", dir.path().join("pki").display()),
            format!("--node-ip={address}"),
            format!("--port={port}"),
            "--healthz-port=0".into(),
            "--v=4".into(),
        ];
        let mut runtime = None;
        if options.runtime_apart {
            // The longest path of a socket is short, and cargo's directory may be deep.
            let socket = std::env::temp_dir().join(format!("wasklet-{name}.sock"));
            runtime = Some(start_runtime(dir.path(), &socket, address).await?);
            flags.push(format!("--container-runtime-endpoint=unix://{}", socket.display()));
        } else {
            flags.push(format!("--image-layout={}", guests::all().await?.display()));
        }
        flags.extend(options.flags);
        let (process, runtime, no_routes) = (Mutex::default(), Mutex::new(runtime), options.no_routes);
        Ok(WasmNode { process, runtime, name, address, port, no_routes, flags, dir })
    }

    /// Starts it, for the first time or again, and waits until it serves and is Ready.
    pub(crate) async fn start(&self, cluster: &Cluster) -> Result<()> {
        let started = self.started(cluster).await;
        started.with_context(|| format!("starting node {}; its log ends with:\n{}", self.name, self.log_tail()))
    }

    async fn started(&self, cluster: &Cluster) -> Result<()> {
        let mut process = self.process.lock().await;
        ensure!(!process.as_ref().is_some_and(Process::runs), "it runs");
        let process = process.insert(Process::start(self.command()?).await?);
        let api = self.api(cluster, Caller::Administrator).await?;
        let serves = until("its healthz", PATIENCE, async || api.get("/healthz").await?.succeeded().map(drop));
        let ready = async {
            serves.await?;
            cluster.await_node(&self.name, is_ready).await
        };
        tokio::select! {
            ready = ready => ready.map(drop),
            code = process.await_end(PATIENCE * 2) => anyhow::bail!("it ended with {}", code?),
        }
    }

    fn command(&self) -> Result<Command> {
        let mut command = if self.no_routes {
            let mut command = process::command("setpriv");
            command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", WASKLET]);
            command
        } else {
            process::command(WASKLET)
        };
        command.arg("kubelet").args(&self.flags);
        logs_to(&mut command, &self.log_path())?;
        Ok(command)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// The port of its API.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its `--root-dir`.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Where the logs of its pods are.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    /// Its own API, as somebody.
    pub(crate) async fn api(&self, cluster: &Cluster, caller: Caller) -> Result<KubeletApi> {
        KubeletApi::of(cluster, self.address, self.port, caller).await
    }

    /// `kill -9`: nothing is drained, nothing written.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.process.lock().await.as_mut().context("the node was never started")?.kill().await
    }

    /// Stops it where it stands: it neither does nor says anything, and does not know.
    pub(crate) async fn freeze(&self) -> Result<()> {
        self.process.lock().await.as_ref().context("the node was never started")?.signal(Signal::STOP);
        Ok(())
    }

    /// Lets it go on from there.
    pub(crate) async fn thaw(&self) -> Result<()> {
        self.process.lock().await.as_ref().context("the node was never started")?.signal(Signal::CONT);
        Ok(())
    }

    /// Stops it in order.
    pub(crate) async fn stop(&self) -> Result<()> {
        let process = self.process.lock().await.take().context("the node does not run")?;
        let stopped = end(process).await;
        stopped.with_context(|| format!("stopping node {}; its log ends with:\n{}", self.name, self.log_tail()))
    }

    /// Stops it, and sees that it leaves no route; its Node object is removed as an administrator would.
    pub(crate) async fn retire(&self, cluster: &Cluster) -> Result<()> {
        let nodes: Api<Node> = Api::all(cluster.client());
        let cidr = nodes.get(&self.name).await?.spec.and_then(|spec| spec.pod_cidr);
        self.stop().await?;
        if let Some(runtime) = self.runtime.lock().await.take() {
            end(runtime).await.context("stopping its runtime")?;
        }
        let network = cidr.as_deref().and_then(|cidr| cidr.split_once('/')).context("the node has no podCIDR")?.0;
        let IpAddr::V4(network) = network.parse::<IpAddr>()? else { return Ok(()) };
        let first = std::net::Ipv4Addr::from(u32::from(network) + 2);
        ensure!(!ports::is_local(first.into()), "the route of its podCIDR {} is still there", cidr.unwrap_or_default());
        nodes.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_SHOWN)..]).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("wasklet.log")
    }

    /// The two lines of a pod's spec that bring it to this node, each after this indent.
    pub(crate) fn scheduling(&self, indent: &str) -> String {
        let name = &self.name;
        format!(
            "{indent}nodeSelector: {{kubernetes.io/hostname: {name}}}\n{indent}tolerations: [{{operator: Exists}}]\n"
        )
    }

    /// A pod of this name for this node; `spec` is YAML, from its first column.
    pub(crate) fn pod(&self, name: &str, spec: &str) -> String {
        let spec: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
        let scheduling = self.scheduling("  ");
        format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n{scheduling}{spec}---\n")
    }
}

/// What there is no flag for: logs are this node's own, not the machine's.
pub(crate) fn configuration(dir: &Path) -> String {
    let logs = dir.join("logs");
    format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\npodLogsDir: {}\n", logs.display())
}

/// The runtime half alone, once it listens.
async fn start_runtime(dir: &Path, socket: &Path, address: IpAddr) -> Result<Process> {
    let mut command = process::command(WASKLET);
    command.arg("runtime").arg("--listen").arg(socket).arg("--state-dir").arg(dir.join("runtime"));
    command.arg("--image-layout").arg(guests::all().await?).arg(format!("--node-ip={address}"));
    let log = dir.join("runtime.log");
    logs_to(&mut command, &log)?;
    let runtime = Process::start(command).await?;
    let listens = until_true("the runtime's socket", PATIENCE, async || socket.exists()).await;
    listens.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    Ok(runtime)
}

fn logs_to(command: &mut Command, path: &Path) -> Result<()> {
    let log = File::options().create(true).append(true).open(path);
    let log = log.with_context(|| format!("opening {}", path.display()))?;
    command.stdout(log.try_clone()?).stderr(log);
    Ok(())
}

/// Asks a process to end, and sees that it does so in order.
async fn end(mut process: Process) -> Result<()> {
    process.signal(Signal::TERM);
    let code = process.await_end(PATIENCE).await?;
    ensure!(code == 0, "it ended with {code}");
    Ok(())
}

/// Whether the node says that it is ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
