//! API `Pod` in, our [`Pod`] or a rejection out. Nothing unsupported passes.
//!
//! Pods of the API server were validated and defaulted there. Pods of files were not, so defaults are filled in and
//! whatever becomes part of a path is checked here, for both. Never here: anything about the node.

mod container;
mod ephemeral;
mod field;
mod hook;
mod probe;
mod restart;
#[cfg(test)]
mod tests;
mod volume;

use crate::names::{PodName, PodUid};
use crate::pod::{Containers, Deletion, DnsPolicy, Network, Pod, Rejection, Resources, RestartPolicy};
use crate::quantity;
use crate::report::Report;
use crate::support::{self, Remarks, UNSUPPORTED};
use crate::time::before;
use container::OfPod;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use restart::List;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A pod that this node will not run, whatever else happens.
#[derive(Clone, Debug)]
pub struct Refused {
    /// `metadata.uid`; empty if the object has none.
    pub uid: PodUid,
    /// Namespace and name.
    pub name: PodName,
    /// Why.
    pub rejection: Rejection,
    /// The object as the source gave it.
    pub api: Arc<api::Pod>,
}

/// Reads `api` once and for all.
///
/// # Errors
/// The pod asks for something this node does not do, or is malformed.
pub fn parse(api: Arc<api::Pod>) -> Result<Pod, Box<Refused>> {
    match read(&api) {
        Ok(pod) => Ok(pod),
        Err(rejection) => Err(Box::new(Refused { uid: uid(&api), name: name(&api), rejection, api })),
    }
}

fn uid(api: &api::Pod) -> PodUid {
    PodUid::from(api.metadata.uid.clone().unwrap_or_default())
}

fn name(api: &api::Pod) -> PodName {
    PodName {
        namespace: api.metadata.namespace.clone().unwrap_or_default(),
        name: api.metadata.name.clone().unwrap_or_default(),
    }
}

fn read(api: &Arc<api::Pod>) -> Result<Pod, Rejection> {
    let metadata = &api.metadata;
    let (uid, name) = (uid(api), name(api));
    path_part("metadata.uid", uid.as_str())?;
    path_part("metadata.name", &name.name)?;
    path_part("metadata.namespace", &name.namespace)?;
    let spec = api.spec.as_ref().ok_or_else(|| invalid("spec is missing"))?;
    let document = serde_json::to_value(spec).map_err(|error| invalid(format!("spec: {error}")))?;
    let mut remarks = support::examine(&document)?;
    operating_system(spec)?;
    let volumes = volume::volumes(spec.volumes.as_deref().unwrap_or_default())?;
    remarks.ignored.extend(volume::limits_that_do_not_hold(&volumes));
    let host_network = spec.host_network.unwrap_or(false);
    let of_pod = OfPod { host_network, restart_policy: restart_policy(spec)? };
    let read_containers = |list, containers: &[api::Container]| container::containers(containers, list, of_pod);
    let init_containers = read_containers(List::Init, spec.init_containers.as_deref().unwrap_or_default())?;
    let containers = read_containers(List::Main, &spec.containers)?;
    let all = || init_containers.iter().chain(&containers);
    unique("the containers of spec", all().map(|container| container.name.as_str()))?;
    container::mounts_have_volumes(all(), &volumes)?;
    let ephemeral_containers = ephemeral::containers(spec, &volumes, of_pod, &mut remarks);
    Ok(Pod {
        uid,
        name,
        generation: metadata.generation,
        labels: metadata.labels.clone().unwrap_or_default(),
        annotations: metadata.annotations.clone().unwrap_or_default(),
        created_at: metadata.creation_timestamp.as_ref().map(|at| at.0),
        init_containers,
        containers: Containers::new(containers).ok_or_else(|| invalid("spec.containers is empty"))?,
        ephemeral_containers,
        volumes,
        grace: seconds(spec.termination_grace_period_seconds.unwrap_or(30)),
        deletion: deletion(api),
        active_deadline: spec.active_deadline_seconds.map(seconds),
        node_name: spec.node_name.clone(),
        node_selector: spec.node_selector.clone().unwrap_or_default(),
        node_affinity: required_affinity(spec),
        service_account: spec.service_account_name.clone().or_else(|| spec.service_account.clone()),
        image_pull_secrets: spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect(),
        enable_service_links: spec.enable_service_links.unwrap_or(true),
        runtime_class: spec.runtime_class_name.clone().filter(|class| !class.is_empty()),
        readiness_gates: spec.readiness_gates.iter().flatten().map(|gate| gate.condition_type.clone()).collect(),
        overhead: resources(spec.overhead.as_ref(), "spec.overhead")?.0,
        network: network(spec)?,
        warnings: warnings(remarks),
        is_static: false,
        pending_resize: None,
        api: Arc::clone(api),
    })
}

/// A pod that is not what the API allows.
fn invalid(message: impl Into<String>) -> Rejection {
    Rejection { reason: "InvalidPod".into(), message: message.into() }
}

/// A pod that asks for what wasklet does not do.
fn unsupported(message: impl Into<String>) -> Rejection {
    Rejection { reason: UNSUPPORTED.into(), message: message.into() }
}

/// A value of an enumeration that wasklet does not know, or knows and does not do.
fn unsupported_value(place: &str, value: &str, instead: &str) -> Rejection {
    unsupported(format!("{place}: {value} is not supported by wasklet; use {instead}"))
}

fn warnings(remarks: Remarks) -> Vec<Report> {
    let declined = remarks.declined.into_values().map(|rejection| Report::warning(rejection.reason, rejection.message));
    let ignored = remarks.ignored.join(", ");
    let ignored = (!ignored.is_empty()).then(|| {
        let message = format!("These fields have no effect here and are ignored: {ignored}");
        Report::normal("FieldsIgnored", message)
    });
    declined.chain(ignored).collect()
}

fn operating_system(spec: &api::PodSpec) -> Result<(), Rejection> {
    match spec.os.as_ref().map(|os| os.name.as_str()) {
        None | Some("" | "linux") => Ok(()),
        Some(_) => Err(Rejection {
            reason: "PodOSNotSupported".into(),
            message: "Failed to admit pod as the OS field doesn't match node OS".into(),
        }),
    }
}

fn restart_policy(spec: &api::PodSpec) -> Result<RestartPolicy, Rejection> {
    match spec.restart_policy.as_deref() {
        None | Some("") => Ok(RestartPolicy::Always),
        Some(text) => restart::policy(text, "spec.restartPolicy"),
    }
}

/// The API server writes the deadline; the request came a grace period earlier.
fn deletion(api: &api::Pod) -> Option<Deletion> {
    let deadline = api.metadata.deletion_timestamp.as_ref()?.0;
    let grace = Duration::from_secs(api.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0).unsigned_abs());
    Some(Deletion { requested_at: before(deadline, grace), grace })
}

/// Less than nothing counts as one second, as in the API.
fn seconds(count: i64) -> Duration {
    u64::try_from(count).map_or(Duration::from_secs(1), Duration::from_secs)
}

fn required_affinity(spec: &api::PodSpec) -> Option<api::NodeSelector> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity.required_during_scheduling_ignored_during_execution.clone()
}

fn network(spec: &api::PodSpec) -> Result<Network, Rejection> {
    let dns = spec.dns_config.clone().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let aliases: Vec<(String, Vec<String>)> = spec.host_aliases.iter().flatten().map(alias).collect();
    host_names(spec, &aliases)?;
    Ok(Network {
        host_network: spec.host_network.unwrap_or(false),
        hostname: text(&spec.hostname),
        hostname_override: text(&spec.hostname_override),
        subdomain: text(&spec.subdomain),
        hostname_as_fqdn: spec.set_hostname_as_fqdn.unwrap_or(false),
        host_aliases: aliases,
        dns_policy: match spec.dns_policy.as_deref() {
            None | Some("" | "ClusterFirst") => DnsPolicy::ClusterFirst,
            Some("ClusterFirstWithHostNet") => DnsPolicy::ClusterFirstWithHostNet,
            Some("Default") => DnsPolicy::Default,
            Some("None") => DnsPolicy::None,
            Some(other) => {
                let instead = "ClusterFirst, ClusterFirstWithHostNet, Default or None";
                return Err(unsupported_value("spec.dnsPolicy", other, instead));
            }
        },
        nameservers: dns.nameservers.unwrap_or_default(),
        searches: dns.searches.unwrap_or_default(),
        dns_options: dns
            .options
            .into_iter()
            .flatten()
            .map(|option| (option.name.unwrap_or_default(), option.value))
            .collect(),
    })
}

fn alias(api: &api::HostAlias) -> (String, Vec<String>) {
    (api.ip.clone(), api.hostnames.clone().unwrap_or_default())
}

/// What becomes a line of a hosts file must be names and addresses: nothing else may stand in that line, or begin another.
fn host_names(spec: &api::PodSpec, aliases: &[(String, Vec<String>)]) -> Result<(), Rejection> {
    let labels = [("spec.hostname", &spec.hostname), ("spec.subdomain", &spec.subdomain)];
    for (place, label) in labels.into_iter().filter_map(|(place, label)| Some((place, label.as_deref()?))) {
        if !label.is_empty() && !is_dns_label(label) {
            let allowed = "use at most 63 small letters, digits and dashes inside";
            return Err(invalid(format!("{place}: {label:?} is not a DNS label; {allowed}")));
        }
    }
    let given = spec.hostname_override.iter().filter(|name| !name.is_empty());
    let given = given.map(|name| ("spec.hostnameOverride".to_owned(), name));
    let of_aliases = aliases.iter().enumerate().flat_map(|(index, (_, names))| {
        names.iter().map(move |name| (format!("spec.hostAliases[{index}].hostnames"), name))
    });
    for (place, name) in given.chain(of_aliases) {
        if name.len() > 253 || !name.split('.').all(is_dns_label) {
            return Err(invalid(format!("{place}: {name:?} is not a DNS name; use DNS labels with dots between")));
        }
    }
    match aliases.iter().position(|(ip, _)| ip.parse::<IpAddr>().is_err()) {
        Some(index) => Err(invalid(format!("spec.hostAliases[{index}].ip: {:?} is not an address", aliases[index].0))),
        None => Ok(()),
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Amounts of the resources every node has, and of extended ones by their names.
fn resources(
    amounts: Option<&BTreeMap<String, Quantity>>,
    place: &str,
) -> Result<(Resources, BTreeMap<String, u64>), Rejection> {
    let (mut read, mut extended) = (Resources::default(), BTreeMap::new());
    for (name, Quantity(text)) in amounts.into_iter().flatten() {
        let wrong = |error| invalid(format!("{place}[{name}]: {error}"));
        match name.as_str() {
            "cpu" => read.cpu_millis = Some(quantity::millis(text).map_err(wrong)?),
            "memory" => read.memory_bytes = Some(quantity::whole(text).map_err(wrong)?),
            "ephemeral-storage" => read.ephemeral_storage_bytes = Some(quantity::whole(text).map_err(wrong)?),
            name if is_extended_resource(name) => {
                extended.insert(name.to_owned(), quantity::whole(text).map_err(wrong)?);
            }
            _ => {
                let instead = "cpu, memory, ephemeral-storage or an extended resource";
                return Err(unsupported_value(place, name, instead));
            }
        }
    }
    Ok((read, extended))
}

/// Whether a resource is one that a cluster's operators add, such as `example.com/dongle`, and none of Kubernetes' own.
#[must_use]
pub fn is_extended_resource(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Whatever becomes part of a path on the node must be one plain part of it.
fn path_part(place: &str, name: &str) -> Result<(), Rejection> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    match name {
        "" => Err(invalid(format!("{place} is missing"))),
        "." | ".." => Err(invalid(format!("{place}: {name:?} is not a name"))),
        _ if name.len() > 253 || !name.chars().all(plain) => {
            Err(invalid(format!("{place}: {name:?} is not a name; use at most 253 letters, digits, dashes and dots")))
        }
        _ => Ok(()),
    }
}

fn unique<'a>(place: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Rejection> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(invalid(format!("{place}: the name {name:?} is there twice")));
        }
    }
    Ok(())
}
