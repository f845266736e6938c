//! How a pod resolves names: `dnsPolicy` and `dnsConfig` over what the cluster and the node offer.
//!
//! Comes in: the pod, the cluster's resolver, the node's resolv.conf. Goes out: CRI's `DNSConfig`, and warnings where
//! something does not fit. Never here: a query.

mod resolv;

use std::net::IpAddr;

use crate::config;
use cri::v1;
use decide::pod::{DnsPolicy, Pod};
use decide::report::Report;

pub use resolv::HostResolv;

/// Name servers that a resolver reads.
const MOST_SERVERS: usize = 3;
/// Search domains that Kubernetes allows.
const MOST_SEARCHES: usize = 32;
/// Their length in all, with a space between each two.
const LONGEST_SEARCHES: usize = 2048;
/// The length of one.
const LONGEST_SEARCH: usize = 253;
/// What pods that use the cluster's resolver begin with.
const CLUSTER_OPTIONS: [&str; 1] = ["ndots:5"];

/// What there is to resolve names with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// The cluster's resolvers (`clusterDNS`); none where there is no cluster.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain (`clusterDomain`), for instance `cluster.local`.
    pub cluster_domain: String,
    /// What the node itself uses.
    pub host: HostResolv,
}

impl DnsSettings {
    /// What the configuration says.
    ///
    /// # Errors
    /// The resolver configuration it names cannot be read.
    pub fn of_config(dns: &config::Dns) -> std::io::Result<Self> {
        let host = dns.resolv_conf.as_deref().map_or_else(|| Ok(HostResolv::default()), HostResolv::read)?;
        Ok(Self { cluster_dns: dns.servers.clone(), cluster_domain: dns.domain.clone(), host })
    }

    /// The node's own resolver and no cluster. A node without an `/etc/resolv.conf` has none.
    #[must_use]
    pub fn of_host() -> Self {
        let host = HostResolv::read(std::path::Path::new(resolv::DEFAULT_PATH)).unwrap_or_else(|error| {
            tracing::debug!("no resolver of the node: {error}");
            HostResolv::default()
        });
        Self { host, ..Self::default() }
    }
}

/// What the pod's sandbox is told, and what there is to say about it.
#[must_use]
pub fn dns_config(pod: &Pod, settings: &DnsSettings) -> (v1::DnsConfig, Vec<Report>) {
    let mut reports = Vec::new();
    let mut config = match source(pod, settings, &mut reports) {
        Source::Nothing => v1::DnsConfig::default(),
        Source::Host => settings.host.clone().into(),
        Source::Cluster => of_cluster(pod, settings),
    };
    let network = &pod.network;
    config.servers = distinct(config.servers.into_iter().chain(network.nameservers.iter().cloned()));
    config.searches = distinct(config.searches.into_iter().chain(network.searches.iter().cloned()));
    merge_options(&mut config.options, &network.dns_options);
    fit(&mut config, &mut reports);
    (config, reports)
}

/// Where a pod's resolver comes from.
enum Source {
    Nothing,
    Host,
    Cluster,
}

fn source(pod: &Pod, settings: &DnsSettings, reports: &mut Vec<Report>) -> Source {
    let policy = match pod.network.dns_policy {
        DnsPolicy::None => return Source::Nothing,
        DnsPolicy::Default => return Source::Host,
        DnsPolicy::ClusterFirst if pod.network.host_network => return Source::Host,
        DnsPolicy::ClusterFirst => "ClusterFirst",
        DnsPolicy::ClusterFirstWithHostNet => "ClusterFirstWithHostNet",
    };
    if !settings.cluster_dns.is_empty() {
        return Source::Cluster;
    }
    let message = format!(
        "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. \
         Falling back to \"Default\" policy.",
        format!("{}_{}({})", pod.name.name, pod.name.namespace, pod.uid)
    );
    reports.push(Report::warning("MissingClusterDNS", message));
    Source::Host
}

fn of_cluster(pod: &Pod, settings: &DnsSettings) -> v1::DnsConfig {
    let domain = settings.cluster_domain.trim_end_matches('.');
    let of_cluster = match domain {
        "" => Vec::new(),
        domain => {
            vec![format!("{}.svc.{domain}", pod.name.namespace), format!("svc.{domain}"), domain.to_owned()]
        }
    };
    v1::DnsConfig {
        servers: settings.cluster_dns.iter().map(IpAddr::to_string).collect(),
        searches: of_cluster.into_iter().chain(settings.host.searches.iter().cloned()).collect(),
        options: CLUSTER_OPTIONS.map(str::to_owned).to_vec(),
    }
}

/// The first of each.
fn distinct(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

/// An option of the pod takes the place of one of the same name.
fn merge_options(options: &mut Vec<String>, of_pod: &[(String, Option<String>)]) {
    for (name, value) in of_pod {
        let written = match value.as_deref() {
            None | Some("") => name.clone(),
            Some(value) => format!("{name}:{value}"),
        };
        let has_name = |option: &&mut String| option.split(':').next() == Some(name);
        match options.iter_mut().find(has_name) {
            Some(option) => *option = written,
            None => options.push(written),
        }
    }
}

/// Leaves out what no resolver would read, aloud.
fn fit(config: &mut v1::DnsConfig, reports: &mut Vec<Report>) {
    if config.servers.len() > MOST_SERVERS {
        config.servers.truncate(MOST_SERVERS);
        let message = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            config.servers.join(" ")
        );
        reports.push(Report::warning("DNSConfigForming", message));
    }
    let asked = config.searches.len();
    config.searches.retain(|domain| domain.trim_end_matches('.').len() <= LONGEST_SEARCH);
    config.searches.truncate(MOST_SEARCHES);
    let mut length = 0;
    config.searches.retain(|domain| {
        length += domain.len() + usize::from(length > 0);
        length <= LONGEST_SEARCHES
    });
    if config.searches.len() < asked {
        let message = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            config.searches.join(" ")
        );
        reports.push(Report::warning("DNSConfigForming", message));
    }
}

#[cfg(test)]
mod tests;
