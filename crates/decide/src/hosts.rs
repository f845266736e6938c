//! The names a pod has for itself: its host name, and the `/etc/hosts` that the kubelet makes for its containers.
//!
//! Comes in: the pod, the cluster's domain, the pod's addresses, the node's own hosts file. Goes out: texts, in the
//! kubelet's format to the byte. Never here: a file.

#[cfg(test)]
mod tests;

use crate::pod::{Container, Pod};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

/// Where a container finds its hosts file.
pub const PATH: &str = "/etc/hosts";

/// The longest host name without a domain, in bytes.
const LONGEST_HOSTNAME: usize = 63;
/// The longest node name that Linux has room for, in bytes.
const LONGEST_FQDN: usize = 64;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
const HEADER_ALIASES: &str = "\n# Entries added by HostAliases.\n";
const LOOPBACK: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";

/// Why a pod has no host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// `setHostnameAsFQDN`, and Linux has no room for it.
    #[error(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({LONGEST_FQDN} \
         characters is the max, {} characters requested)",
        fqdn.len()
    )]
    TooLong {
        /// The name.
        fqdn: String,
    },
}

/// What a pod is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNames {
    /// The first part of its name.
    pub hostname: String,
    /// `<subdomain>.<namespace>.svc.<cluster domain>`, for pods with a subdomain.
    pub domain: Option<String>,
}

impl PodNames {
    /// The names of `pod` in a cluster of this domain; empty where there is no cluster.
    #[must_use]
    pub fn of(pod: &Pod, cluster_domain: &str) -> Self {
        let network = &pod.network;
        if let Some(given) = &network.hostname_override {
            return Self { hostname: cut(given), domain: None };
        }
        let hostname = cut(network.hostname.as_ref().unwrap_or(&pod.name.name));
        let cluster_domain = cluster_domain.trim_matches('.');
        let domain = network.subdomain.as_ref().map(|subdomain| {
            let service = format!("{subdomain}.{}.svc", pod.name.namespace);
            if cluster_domain.is_empty() { service } else { format!("{service}.{cluster_domain}") }
        });
        Self { hostname, domain }
    }

    fn fqdn(&self) -> Option<String> {
        self.domain.as_ref().map(|domain| format!("{}.{domain}", self.hostname))
    }
}

/// The host name of the pod's sandbox; none for pods that share the node's.
///
/// # Errors
/// `setHostnameAsFQDN`, and the name is too long for that.
pub fn sandbox_hostname(pod: &Pod, names: &PodNames) -> Result<Option<String>, HostnameError> {
    if pod.network.host_network {
        return Ok(None);
    }
    match names.fqdn().filter(|_| pod.network.hostname_as_fqdn) {
        Some(fqdn) if fqdn.len() > LONGEST_FQDN => Err(HostnameError::TooLong { fqdn }),
        Some(fqdn) => Ok(Some(fqdn)),
        None => Ok(Some(names.hostname.clone())),
    }
}

/// Whether the container is to have the kubelet's hosts file: unless it mounts something there itself.
#[must_use]
pub fn is_wanted(container: &Container) -> bool {
    !container.mounts.iter().any(|mount| Path::new(&mount.path).components().eq(Path::new(PATH).components()))
}

/// The hosts file of a pod on the pod network.
#[must_use]
pub fn file(pod: &Pod, names: &PodNames, pod_ips: &[IpAddr]) -> String {
    let mut text = format!("{HEADER}{LOOPBACK}");
    let hostname = &names.hostname;
    for ip in pod_ips {
        // Writing to a String cannot fail.
        let _ = match names.fqdn() {
            Some(fqdn) => writeln!(text, "{ip}\t{fqdn}\t{hostname}"),
            None => writeln!(text, "{ip}\t{hostname}"),
        };
    }
    text + &aliases(pod)
}

/// The hosts file of a pod with `hostNetwork`: the node's, whatever is in it, and the pod's aliases.
#[must_use]
pub fn host_network_file(pod: &Pod, of_node: &[u8]) -> Vec<u8> {
    [HEADER_HOST_NETWORK.as_bytes(), of_node, aliases(pod).as_bytes()].concat()
}

fn aliases(pod: &Pod) -> String {
    let aliases = &pod.network.host_aliases;
    let lines = aliases.iter().map(|(ip, names)| format!("{ip}\t{}\n", names.join("\t")));
    let header = if aliases.is_empty() { "" } else { HEADER_ALIASES };
    std::iter::once(header.to_owned()).chain(lines).collect()
}

/// Cut to what a host name may be long. It then does not end in what no name ends in.
fn cut(name: &str) -> String {
    if name.len() <= LONGEST_HOSTNAME {
        return name.to_owned();
    }
    name[..name.floor_char_boundary(LONGEST_HOSTNAME)].trim_end_matches(['-', '.']).to_owned()
}
