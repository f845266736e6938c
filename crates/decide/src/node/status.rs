//! The status: capacity, conditions, addresses, nodeInfo, images.
//!
//! Comes in: [`Input`], the status the API server has, and the time. Goes out: the next status, whether it is worth
//! sending, and the strategic merge patch that sends only what is ours. A condition's transition time moves only with its
//! status; conditions, resources and fields of others pass through untouched.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeRuntimeHandler,
        NodeStatus, NodeSystemInfo,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use serde_json::{Map, Value, json};

use super::{Change, Input, Runtime};
use crate::parse::is_extended_resource;
use crate::quantity::Amount;

/// Names of one image that the status carries, the kubelet's number.
const MAX_IMAGE_NAMES: usize = 5;
/// What of Kubernetes' newer features this node has, by name: the scheduler gives a pod that needs one only to a node that
/// declares it.
const DECLARED_FEATURES: [&str; 1] = ["RestartAllContainersOnContainerExits"];

/// A condition as it is now.
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// The next status.
#[must_use]
pub fn status(input: &Input, previous: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let mut next = previous.cloned().unwrap_or_default();
    let (capacity, allocatable) = resources(input, pods(input, previous));
    next.capacity.get_or_insert_default().extend(capacity);
    // What an operator says that the machine has besides is pods' to take, as on a stock node.
    let listed = next.capacity.iter().flatten().filter(|(name, _)| is_extended_resource(name));
    let listed: Vec<_> = listed.map(|(name, amount)| (name.clone(), amount.clone())).collect();
    next.allocatable.get_or_insert_default().extend(allocatable.into_iter().chain(listed));
    next.addresses = Some(addresses(input));
    next.daemon_endpoints = Some(NodeDaemonEndpoints {
        kubelet_endpoint: input.kubelet_port.map(|port| DaemonEndpoint { port: port.into() }),
    });
    next.node_info = Some(node_info(input, previous));
    next.declared_features = Some(DECLARED_FEATURES.map(str::to_owned).to_vec());
    if let Runtime::Answered(runtime) = &input.runtime {
        next.images = Some(images(input, &runtime.images));
        next.runtime_handlers = (!runtime.handlers.is_empty()).then(|| {
            let handlers = runtime.handlers.iter();
            handlers.map(|name| NodeRuntimeHandler { name: Some(name.clone()), features: None }).collect()
        });
    }
    let conditions = next.conditions.get_or_insert_default();
    for condition in conditions_now(&input.runtime) {
        set(conditions, condition, now);
    }
    next
}

/// How many pods fit. A runtime that does not answer has as much room as it said last.
fn pods(input: &Input, previous: Option<&NodeStatus>) -> u32 {
    let said = match &input.runtime {
        Runtime::Answered(runtime) => runtime.pods_at_most,
        Runtime::Unreachable { .. } => {
            let known = previous.and_then(|status| status.capacity.as_ref()?.get("pods"));
            known.and_then(|pods| pods.0.parse().ok())
        }
    };
    said.map_or(input.max_pods, |pods| pods.min(input.max_pods))
}

/// Capacity and allocatable.
fn resources(input: &Input, pods: u32) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
    let (machine, reserved, eviction) = (&input.machine, &input.reserved, &input.hard_eviction);
    let cpu = Amount::units(machine.cpu_cores.into());
    let memory = Amount::units(machine.memory_bytes);
    let storage = Amount::units(machine.ephemeral_storage_bytes);
    let pods = Amount::units(pods.into());
    let free_memory = memory.minus(reserved.memory).minus(eviction.memory_available.of(memory));
    let free_storage = storage.minus(reserved.ephemeral_storage).minus(eviction.nodefs_available.of(storage));
    let map = |cpu: Amount, memory: Amount, storage: Amount| {
        BTreeMap::from([
            ("cpu".to_owned(), cpu.decimal()),
            ("memory".to_owned(), memory.binary()),
            ("ephemeral-storage".to_owned(), storage.binary()),
            ("pods".to_owned(), pods.decimal()),
        ])
    };
    (map(cpu, memory, storage), map(cpu.minus(reserved.cpu), free_memory, free_storage))
}

fn addresses(input: &Input) -> Vec<NodeAddress> {
    let internal = input.addresses.iter().map(|ip| ("InternalIP", ip.to_string()));
    let all = internal.chain([("Hostname", input.hostname.clone())]);
    all.map(|(kind, address)| NodeAddress { type_: kind.to_owned(), address }).collect()
}

fn node_info(input: &Input, previous: Option<&NodeStatus>) -> NodeSystemInfo {
    let machine = &input.machine;
    let known =
        previous.and_then(|status| status.node_info.as_ref()).map(|info| info.container_runtime_version.clone());
    let runtime = match &input.runtime {
        Runtime::Answered(runtime) => format!("{}://{}", runtime.name, runtime.version),
        // The field is required; a runtime that never answered has no name yet.
        Runtime::Unreachable { .. } => known.unwrap_or_else(|| "wasklet://unknown".to_owned()),
    };
    NodeSystemInfo {
        architecture: "wasm32-wasi".to_owned(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: runtime,
        kernel_version: machine.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: input.kubelet_version.clone(),
        machine_id: machine.machine_id.clone(),
        operating_system: "wasi".to_owned(),
        os_image: machine.os_image.clone(),
        running_in_user_namespace: None,
        swap: None,
        system_uuid: machine.system_uuid.clone(),
    }
}

/// The largest images first, as many as are wanted.
fn images(input: &Input, found: &[super::Image]) -> Vec<ContainerImage> {
    let mut found: Vec<_> = found.iter().filter(|image| !image.names.is_empty()).collect();
    found.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    let wanted = found.iter().take(input.max_images.unwrap_or(usize::MAX));
    wanted
        .map(|image| ContainerImage {
            names: Some(image.names.iter().take(MAX_IMAGE_NAMES).cloned().collect()),
            size_bytes: i64::try_from(image.size_bytes).ok(),
        })
        .collect()
}

/// The kubelet's conditions with the kubelet's words.
fn conditions_now(runtime: &Runtime) -> [Condition; 4] {
    let condition = |kind, holds, reason, message: &str| Condition { kind, holds, reason, message: message.to_owned() };
    let ready = match not_ready(runtime) {
        None => condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
        Some(why) => condition("Ready", false, "KubeletNotReady", &why),
    };
    let memory = "kubelet has sufficient memory available";
    [
        condition("MemoryPressure", false, "KubeletHasSufficientMemory", memory),
        condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready,
    ]
}

/// Why pods cannot run, if they cannot.
fn not_ready(runtime: &Runtime) -> Option<String> {
    let answer = match runtime {
        Runtime::Unreachable { message } => return Some(format!("container runtime is down: {message}")),
        Runtime::Answered(answer) => answer,
    };
    let wanted = [("RuntimeReady", "container runtime"), ("NetworkReady", "container runtime network")];
    let broken: Vec<String> = wanted
        .iter()
        .filter_map(|(kind, what)| match answer.conditions.iter().find(|condition| condition.kind == *kind) {
            Some(condition) if condition.holds => None,
            Some(condition) => Some(format!(
                "{what} not ready: {kind}=false reason:{} message:{}",
                condition.reason, condition.message
            )),
            None => Some(format!("{what} not ready: the runtime does not report {kind}")),
        })
        .collect();
    match broken.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

fn set(conditions: &mut Vec<NodeCondition>, new: Condition, now: Timestamp) {
    let now = Time(crate::time::whole_seconds(now));
    let holds = if new.holds { "True" } else { "False" };
    let found = conditions.iter().position(|condition| condition.type_ == new.kind);
    let since = found
        .and_then(|index| conditions.get(index))
        .filter(|old| old.status == holds)
        .and_then(|old| old.last_transition_time.clone());
    let condition = NodeCondition {
        type_: new.kind.to_owned(),
        status: holds.to_owned(),
        reason: Some(new.reason.to_owned()),
        message: Some(new.message),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(since.unwrap_or(now)),
    };
    match found.and_then(|index| conditions.get_mut(index)) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// Whether to send the status: something other than the heartbeat changed, or the last one is `every` old.
#[must_use]
pub fn needs_report(
    known: &NodeStatus,
    next: &NodeStatus,
    last_report: Option<Timestamp>,
    now: Timestamp,
    every: SignedDuration,
) -> bool {
    last_report.is_none_or(|last| now.duration_since(last) >= every) || timeless(known) != timeless(next)
}

fn timeless(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    // An API server leaves empty lists and zeros out, which says the same.
    status.images = status.images.filter(|images| !images.is_empty());
    status.daemon_endpoints = status
        .daemon_endpoints
        .filter(|endpoints| endpoints.kubelet_endpoint.as_ref().is_some_and(|endpoint| endpoint.port != 0));
    status
}

/// The strategic merge patch from the status the API server has to the next one. Conditions merge by type, resources by
/// name, so that those of others are not touched; addresses are replaced as a whole.
#[must_use]
pub fn status_patch(known: &NodeStatus, next: &NodeStatus) -> Value {
    let mut patch = Map::new();
    let mut put = |name: &str, differs: bool, value: Value| {
        if differs {
            patch.insert(name.to_owned(), value);
        }
    };
    let new_quantities = |old: &Option<BTreeMap<String, Quantity>>, new: &Option<BTreeMap<String, Quantity>>| {
        let new = new.iter().flatten();
        let changed = new.filter(|(name, value)| old.as_ref().and_then(|old| old.get(*name)) != Some(value));
        changed.map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>()
    };
    let capacity = new_quantities(&known.capacity, &next.capacity);
    put("capacity", !capacity.is_empty(), Value::Object(capacity));
    let allocatable = new_quantities(&known.allocatable, &next.allocatable);
    put("allocatable", !allocatable.is_empty(), Value::Object(allocatable));
    let conditions: Vec<_> = next
        .conditions
        .iter()
        .flatten()
        .filter(|new| !known.conditions.iter().flatten().any(|old| old == *new))
        .collect();
    put("conditions", !conditions.is_empty(), json!(conditions));
    let addresses = next.addresses.iter().flatten().map(|address| json!(address));
    let replaced: Vec<Value> = std::iter::once(json!({ "$patch": "replace" })).chain(addresses).collect();
    put("addresses", known.addresses != next.addresses, json!(replaced));
    put("daemonEndpoints", known.daemon_endpoints != next.daemon_endpoints, json!(next.daemon_endpoints));
    put("nodeInfo", known.node_info != next.node_info, json!(next.node_info));
    put("declaredFeatures", known.declared_features != next.declared_features, json!(next.declared_features));
    put("images", known.images != next.images, json!(next.images));
    put("runtimeHandlers", known.runtime_handlers != next.runtime_handlers, json!(next.runtime_handlers));
    json!({ "status": patch })
}

/// What is worth an Event between two statuses; with no status before, everything that holds.
#[must_use]
pub fn changes(node_name: &str, previous: Option<&NodeStatus>, next: &NodeStatus) -> Vec<Change> {
    let holds = |status: Option<&NodeStatus>, kind: &str| {
        let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        conditions.find(|condition| condition.type_ == kind).map(|condition| condition.status == "True")
    };
    let events = [
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", "NodeReady", "NodeNotReady"),
    ];
    let changed = events.into_iter().filter_map(|(kind, yes, no)| {
        let now = holds(Some(next), kind)?;
        let reason = if now { yes } else { no };
        (holds(previous, kind) != Some(now))
            .then(|| Change { reason, message: format!("Node {node_name} status is now: {reason}") })
    });
    changed.collect()
}
