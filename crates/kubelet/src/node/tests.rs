//! The node against an API server that keeps one Node and its Lease, and against the scripted runtime.

mod api_server;

use std::net::IpAddr;

use cri::fake::Fake;
use serde_json::Value;

use self::api_server::ApiServer;
use super::*;
use crate::{config::Host, flags::KubeletFlags};

const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    api: ApiServer,
    runtime: Fake,
    view: NodeView,
    events: tokio::sync::mpsc::Receiver<EventRecord>,
    _task: tokio::task::JoinSet<()>,
}

fn config(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    let host = Host { hostname: "wasm-1".to_owned(), is_root: true, user_state: None, home: None };
    let mut config = Config::resolve(&KubeletFlags::default(), &host).unwrap();
    config.node.addresses = vec![IpAddr::from([10, 0, 0, 7])];
    config.node.status_update_frequency = Duration::from_millis(20);
    config.node.lease_duration = Duration::from_millis(400);
    change(&mut config);
    Arc::new(config)
}

/// Starts a node before or after the API server is there.
fn start(api: ApiServer, runtime: Fake, config: Arc<Config>) -> Bed {
    let (recorder, events) = Recorder::new();
    let (agent, view) = NodeAgent::new(Setup {
        api: Some(api.client()),
        runtime: runtime.client(),
        config,
        kubelet_port: Some(10250),
        recorder,
        clock: Clock::System,
    });
    let mut task = tokio::task::JoinSet::new();
    task.spawn(agent.run());
    Bed { api, runtime, view, events, _task: task }
}

impl Bed {
    /// Waits until the API server's node is as wanted.
    async fn node(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = self.api.until(|state| state.node.clone().filter(&wanted));
        time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("the node stays {:?}", self.api.node()))
    }

    async fn event(&mut self, reason: &str) -> EventRecord {
        let search = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if event.reason == reason {
                    return event;
                }
            }
        };
        time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("no event {reason}"))
    }
}

fn ready(node: &Value) -> Option<(&str, &str)> {
    let conditions = node["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    Some((ready["status"].as_str()?, ready["message"].as_str()?))
}

#[tokio::test]
async fn a_node_registers_becomes_ready_and_stays_alive() {
    let api = ApiServer::start().await;
    let mut bed = start(api, Fake::new(), config(|_| {}));
    bed.event("Starting").await;
    let node = bed.node(|node| ready(node).is_some_and(|(status, _)| status == "True")).await;
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/arch"], "wasm32-wasi");
    assert_eq!(node["spec"]["taints"][0]["key"], "kubernetes.io/arch");
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], KUBELET_VERSION);
    let event = bed.event("NodeReady").await;
    assert_eq!(event.message, "Node wasm-1 status is now: NodeReady");

    let renewed = |times: usize| bed.api.until(move |state| (state.lease_writes > times).then(|| state.lease.clone()));
    let lease = time::timeout(PATIENCE, renewed(3)).await.unwrap().unwrap();
    let owners = lease["metadata"]["ownerReferences"].as_array().unwrap();
    assert_eq!(owners.len(), 1);
    assert_eq!((&owners[0]["kind"], &owners[0]["uid"]), (&"Node".into(), &node["metadata"]["uid"]));
    assert_eq!(lease["spec"]["holderIdentity"], "wasm-1");
    assert!(lease["spec"]["renewTime"].is_string());
}

#[tokio::test]
async fn the_address_range_reaches_the_runtime_and_is_seen() {
    let api = ApiServer::start().await;
    let mut bed = start(api, Fake::new(), config(|_| {}));
    bed.node(|_| true).await;
    assert_eq!(*bed.view.pod_cidr.borrow(), None);
    bed.api.change(|node| node["spec"]["podCIDR"] = "10.9.0.0/24".into());
    time::timeout(PATIENCE, bed.view.pod_cidr.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert_eq!(bed.view.pod_cidr.borrow().as_deref(), Some("10.9.0.0/24"));
    let told = bed.runtime.until_calls(|calls| calls.iter().any(|call| call.call == "UpdateRuntimeConfig"));
    time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(bed.runtime.pod_cidr().as_deref(), Some("10.9.0.0/24"));
}

#[tokio::test]
async fn a_node_is_as_ready_as_its_runtime() {
    let runtime = Fake::new();
    runtime.script().network_ready(false);
    let bed = start(ApiServer::start().await, runtime, config(|_| {}));
    let node = bed.node(|node| ready(node).is_some()).await;
    let (status, message) = ready(&node).unwrap();
    assert_eq!(status, "False");
    assert!(message.starts_with("container runtime network not ready: NetworkReady=false"), "{message}");
    bed.runtime.script().network_ready(true);
    bed.node(|node| ready(node).is_some_and(|(status, _)| status == "True")).await;
}

#[tokio::test]
async fn an_unchanged_status_is_not_sent_again() {
    let bed = start(ApiServer::start().await, Fake::new(), config(|_| {}));
    bed.node(|node| ready(node).is_some_and(|(status, _)| status == "True")).await;
    let looks = |calls: &[cri::fake::Call]| calls.iter().filter(|call| call.call == "Status").count();
    let before = looks(&bed.runtime.calls());
    time::timeout(PATIENCE, bed.runtime.until_calls(|calls| looks(calls) > before + 10)).await.unwrap();
    // The first report says everything; a second may carry what the watch brought meanwhile.
    assert!(bed.api.status_writes() <= 2, "{} writes", bed.api.status_writes());
}

#[tokio::test]
async fn a_node_that_is_there_keeps_its_taints_and_gets_its_labels() {
    let api = ApiServer::start().await;
    api.put(serde_json::json!({
        "metadata": { "name": "wasm-1", "labels": { "theirs": "stays" } },
        "spec": { "taints": [{ "key": "maintenance", "effect": "NoSchedule" }], "podCIDR": "10.8.0.0/24" },
        "status": {},
    }));
    let bed = start(
        api,
        Fake::new(),
        config(|config| {
            config.node.labels.insert("pool".to_owned(), "wasm".to_owned());
        }),
    );
    let node = bed.node(|node| ready(node).is_some()).await;
    assert_eq!(node["metadata"]["labels"]["theirs"], "stays");
    assert_eq!(node["metadata"]["labels"]["pool"], "wasm");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/os"], "wasi");
    assert_eq!(node["spec"]["taints"].as_array().unwrap().len(), 1);
    assert_eq!(node["spec"]["taints"][0]["key"], "maintenance");
}

#[tokio::test]
async fn an_api_server_that_is_away_is_waited_for() {
    let api = ApiServer::start().await;
    api.refuse(true);
    let mut bed = start(api, Fake::new(), config(|_| {}));
    bed.api.until(|state| (state.refused > 2).then_some(())).await;
    bed.api.refuse(false);
    bed.node(|node| ready(node).is_some_and(|(status, _)| status == "True")).await;
    time::timeout(PATIENCE, bed.view.object.wait_for(Option::is_some)).await.unwrap().unwrap();
}

#[tokio::test]
async fn without_an_api_server_the_node_is_shown_all_the_same() {
    let (recorder, _events) = Recorder::new();
    let runtime = Fake::new();
    let (agent, mut view) = NodeAgent::new(Setup {
        api: None,
        runtime: runtime.client(),
        config: config(|config| config.pod_cidr = Some("10.7.0.0/24".to_owned())),
        kubelet_port: None,
        recorder,
        clock: Clock::System,
    });
    let task = tokio::spawn(agent.run());
    let node = time::timeout(PATIENCE, view.object.wait_for(Option::is_some)).await.unwrap().unwrap().clone().unwrap();
    assert!(is_ready(node.status.as_ref().unwrap()));
    assert_eq!(runtime.pod_cidr().as_deref(), Some("10.7.0.0/24"));
    task.abort();
}

#[test]
fn objects_come_in_any_order() {
    let node = |uid: &str, version: &str| {
        let mut node = api::Node::default();
        (node.metadata.uid, node.metadata.resource_version) = (Some(uid.to_owned()), Some(version.to_owned()));
        node
    };
    assert!(is_newer(&node("a", "9"), &node("a", "10")));
    assert!(!is_newer(&node("a", "10"), &node("a", "9")));
    assert!(!is_newer(&node("a", "10"), &node("a", "10")));
    assert!(is_newer(&node("a", "10"), &node("b", "9")), "another life");
    assert!(is_newer(&node("a", "x"), &node("a", "9")), "unreadable versions");
}
