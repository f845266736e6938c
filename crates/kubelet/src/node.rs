//! The node: registered, reported and kept alive.
//!
//! In come the configuration, the runtime's answers, facts of the machine, and the Node object the API server has. Out go
//! that object, its status, its lease, events about it, and the pods' address range to the runtime. What the object says
//! is decided by [`decide::node`]. Without an API server the object is made and shown to the rest of the kubelet all the
//! same. Never here: pods.

mod lease;
mod machine;
mod register;
mod runtime;

use std::{sync::Arc, time::Duration};

use decide::node::Input;
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as api;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{sync::watch, time};
use tracing::{debug, info, warn};

pub use self::machine::addresses;
use crate::{
    api::{CallError, within},
    clock::Clock,
    config::{Config, NodeOptions},
    events::{EventRecord, Recorder, node_reference},
};

/// What the node says the kubelet's version is: the Kubernetes version whose contract it keeps, and our own as build
/// metadata, which version comparisons leave out.
pub const KUBELET_VERSION: &str = concat!("v1.37.2+wasklet.", env!("CARGO_PKG_VERSION"));

/// How long one call of the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a node that is not ready is looked at again; the kubelet, too, hurries at its start.
const NOT_READY_PAUSE: Duration = Duration::from_secs(1);

/// What the node is made of.
pub struct Setup {
    /// The API server, where there is one.
    pub api: Option<kube::Client>,
    /// The runtime.
    pub runtime: cri::Client,
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Where the HTTP API listens; `None` where it does not.
    pub kubelet_port: Option<u16>,
    /// Where events about the node go.
    pub recorder: Recorder,
    /// The time.
    pub clock: Clock,
}

/// The node as the rest of the kubelet sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// The Node object, as the API server has it or, without one, as it would be; `None` until it is first known, and
    /// after it was deleted.
    pub object: watch::Receiver<Option<Arc<api::Node>>>,
    /// The pods' address ranges, comma-separated where there are two; `None` until they are assigned.
    pub pod_cidr: watch::Receiver<Option<String>>,
}

/// The node's own tasks.
pub struct NodeAgent {
    setup: Setup,
    object: watch::Sender<Option<Arc<api::Node>>>,
    pod_cidr: watch::Sender<Option<String>>,
}

impl NodeAgent {
    /// The agent, and what others see of it.
    pub fn new(setup: Setup) -> (Self, NodeView) {
        let (object, objects) = watch::channel(None);
        let standalone = setup.config.pod_cidr.clone().filter(|_| setup.api.is_none());
        let (pod_cidr, pod_cidrs) = watch::channel(standalone);
        (Self { setup, object, pod_cidr }, NodeView { object: objects, pod_cidr: pod_cidrs })
    }

    /// Keeps the node until it is dropped.
    pub async fn run(self) {
        info!(node = self.setup.config.node_name, version = KUBELET_VERSION, "keeping the node");
        self.record("Starting", "Starting kubelet.".to_owned());
        let Some(client) = self.setup.api.clone() else { return self.keep_status(None).await };
        let nodes: Api<api::Node> = Api::all(client.clone());
        let lease = lease::Lease {
            client,
            node_name: self.setup.config.node_name.clone(),
            duration: self.setup.config.node.lease_duration,
            object: self.object.subscribe(),
            clock: self.setup.clock,
        };
        tokio::join!(self.watch(nodes.clone()), self.keep_status(Some(nodes)), lease.keep());
    }

    /// Follows the object.
    async fn watch(&self, nodes: Api<api::Node>) {
        let ours = watcher::Config::default().fields(&format!("metadata.name={}", self.setup.config.node_name));
        let mut events = watcher(nodes, ours).default_backoff().boxed();
        let mut listed = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = None,
                Ok(watcher::Event::InitApply(node)) => listed = Some(node),
                Ok(watcher::Event::InitDone) => match listed.take() {
                    Some(node) => self.learn(node),
                    None => self.forget(),
                },
                Ok(watcher::Event::Apply(node)) => self.learn(node),
                Ok(watcher::Event::Delete(_)) => self.forget(),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "watching the Node object; trying again");
                }
            }
        }
    }

    /// Takes a newer object in.
    fn learn(&self, node: api::Node) {
        let cidr = pod_cidr(&node);
        let newer = self.object.send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| is_newer(known, &node));
            if newer {
                *known = Some(Arc::new(node));
            }
            newer
        });
        if newer && cidr.is_some() {
            self.pod_cidr.send_if_modified(|known| {
                let differs = *known != cidr;
                if differs {
                    *known = cidr;
                }
                differs
            });
        }
    }

    fn forget(&self) {
        if self.object.send_replace(None).is_some() {
            // As with any kubelet: whoever deleted it wants it gone.
            warn!("the Node object was deleted; it is registered again when wasklet starts again");
        }
    }

    /// Registers the node, then keeps its status true.
    async fn keep_status(&self, nodes: Option<Api<api::Node>>) {
        let mut runtime = runtime::RuntimeView::new(self.setup.runtime.clone());
        let machine = machine::machine(&self.setup.config.root_dir);
        let mut pod_cidr = self.pod_cidr.subscribe();
        let mut report = Report::default();
        let mut registered = !self.setup.config.node.register;
        let options = &self.setup.config.node;
        loop {
            let cidr = pod_cidr.borrow_and_update().clone();
            let input = self.input(machine.clone(), runtime.look(cidr.as_deref()).await);
            match &nodes {
                Some(nodes) => {
                    if !registered {
                        let registration = register::Registration { nodes, input: &input, clock: self.setup.clock };
                        self.learn(registration.until_done().await);
                        registered = true;
                    }
                    if let Err(error) = self.report(nodes, &input, &mut report, options).await {
                        let error = &error as &dyn std::error::Error;
                        warn!(error, "reporting the node's status; trying again");
                    }
                }
                None => self.show(&input, &mut report),
            }
            let pause = if report.ready { options.status_update_frequency } else { NOT_READY_PAUSE };
            // Many nodes started at once should not report at once.
            let pause = pause.mul_f64(0.96 + rand::random::<f64>() * 0.08);
            let _ = time::timeout(pause, pod_cidr.changed()).await;
        }
    }

    fn input(&self, machine: decide::node::Machine, runtime: decide::node::Runtime) -> Input {
        let (config, options) = (&self.setup.config, &self.setup.config.node);
        Input {
            name: config.node_name.clone(),
            hostname: config.node_name.clone(),
            labels: options.labels.clone(),
            taints: options.taints.clone(),
            provider_id: options.provider_id.clone(),
            addresses: addresses(options),
            kubelet_port: self.setup.kubelet_port,
            kubelet_version: KUBELET_VERSION.to_owned(),
            machine,
            runtime,
            max_pods: options.max_pods,
            max_images: options.max_images,
            reserved: options.reserved,
            hard_eviction: options.hard_eviction,
        }
    }

    /// Sends the status, if it is worth sending.
    async fn report(
        &self,
        nodes: &Api<api::Node>,
        input: &Input,
        report: &mut Report,
        options: &NodeOptions,
    ) -> Result<(), CallError> {
        let Some(node) = self.object.borrow().clone() else {
            report.ready = false;
            return Ok(());
        };
        let now = self.setup.clock.now();
        let known = node.status.clone().unwrap_or_default();
        let next = decide::node::status(input, Some(&known), now);
        report.ready = is_ready(&next);
        let every = SignedDuration::try_from(options.status_report_frequency).unwrap_or(SignedDuration::MAX);
        if !decide::node::needs_report(&known, &next, report.sent_at, now, every) {
            return Ok(());
        }
        let patch = Patch::Strategic(decide::node::status_patch(&known, &next));
        let sent = within(CALL_TIMEOUT, nodes.patch_status(&input.name, &PatchParams::default(), &patch)).await;
        if sent.as_ref().is_err_and(CallError::is_not_found) {
            self.forget();
            return Ok(());
        }
        self.learn(sent?);
        debug!(ready = report.ready, "the node's status is reported");
        for change in decide::node::changes(&input.name, report.last.as_ref(), &next) {
            self.record(change.reason, change.message);
        }
        report.sent_at = Some(now);
        report.last = Some(next);
        Ok(())
    }

    /// Without an API server: the object as it would be.
    fn show(&self, input: &Input, report: &mut Report) {
        let now = self.setup.clock.now();
        let mut node = decide::node::desired_node(input, now);
        let status = decide::node::status(input, report.last.as_ref(), now);
        report.ready = is_ready(&status);
        node.status = Some(status.clone());
        for change in decide::node::changes(&input.name, report.last.as_ref(), &status) {
            self.record(change.reason, change.message);
        }
        report.last = Some(status);
        self.object.send_if_modified(|known| {
            let differs = known.as_deref() != Some(&node);
            if differs {
                *known = Some(Arc::new(node));
            }
            differs
        });
    }

    fn record(&self, reason: &str, message: String) {
        self.setup.recorder.record(EventRecord {
            about: node_reference(&self.setup.config.node_name),
            warning: false,
            reason: reason.to_owned(),
            message,
        });
    }
}

/// What was reported last.
#[derive(Default)]
struct Report {
    sent_at: Option<Timestamp>,
    last: Option<api::NodeStatus>,
    ready: bool,
}

fn is_ready(status: &api::NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn pod_cidr(node: &api::Node) -> Option<String> {
    let spec = node.spec.as_ref()?;
    let several = spec.pod_cidrs.as_ref().filter(|cidrs| !cidrs.is_empty()).map(|cidrs| cidrs.join(","));
    several.or_else(|| spec.pod_cidr.clone()).filter(|cidr| !cidr.is_empty())
}

/// Whether `other` comes after `known`: the watch and our own writes bring objects in any order.
fn is_newer(known: &api::Node, other: &api::Node) -> bool {
    let version = |node: &api::Node| node.resource_version().and_then(|version| version.parse::<u64>().ok());
    match (version(known), version(other)) {
        (Some(known_version), Some(version)) if known.uid() == other.uid() => version > known_version,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
