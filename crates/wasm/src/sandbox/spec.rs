//! What a sandbox is, once CRI's message for it has been understood.
//!
//! In comes a `PodSandboxConfig`, out goes a [`SandboxSpec`] that nothing later has to doubt, or the field that asks for
//! what a guest cannot have.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use cri::v1;
use serde::{Deserialize, Serialize};

use crate::host_port::HostPort;
use crate::service::error::ServiceError;
use crate::wasi::network::Protocol;

/// The runtime handlers that a RuntimeClass may name; none is the default. `spin` is what SpinKube's class names: what a
/// guest is, its image says.
pub(crate) const HANDLERS: [&str; 3] = ["", "wasklet", "spin"];

/// A sandbox as it was asked for. It outlives the process in the sandbox's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxSpec {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) attempt: u32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) runtime_handler: String,
    /// What the guests are told; the node's own if none was given.
    pub(crate) hostname: String,
    /// Where the containers' logs are; without one there are none.
    pub(crate) log_directory: Option<PathBuf>,
    pub(crate) dns: Dns,
    /// Not recorded: after a restart nothing listens at them any more.
    #[serde(skip)]
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) namespaces: Namespaces,
}

/// What the guests' `/etc/resolv.conf` says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Dns {
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// The namespaces that were asked for, as CRI numbers them. Guests share nothing but the network.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    pub(crate) network: i32,
    pub(crate) pid: i32,
    pub(crate) ipc: i32,
}

impl SandboxSpec {
    /// Understands CRI's message.
    pub(crate) fn parse(config: v1::PodSandboxConfig, runtime_handler: String) -> Result<Self, ServiceError> {
        let metadata = config.metadata.ok_or_else(|| ServiceError::invalid("metadata", "missing"))?;
        if metadata.name.is_empty() || metadata.namespace.is_empty() || metadata.uid.is_empty() {
            return Err(ServiceError::invalid("metadata", "name, namespace and uid must be given"));
        }
        if !HANDLERS.contains(&runtime_handler.as_str()) {
            let known = HANDLERS.map(|handler| format!("{handler:?}"))[1..].join(" and ");
            let problem = format!("{runtime_handler:?} is not a handler of this runtime, which has {known}");
            return Err(ServiceError::unsupported("runtime_handler", problem));
        }
        let linux = config.linux.unwrap_or_default();
        if let Some(sysctl) = linux.sysctls.keys().next() {
            let problem = format!("{sysctl}: a guest has no kernel to set sysctls in");
            return Err(ServiceError::unsupported("linux.sysctls", problem));
        }
        let security = linux.security_context.unwrap_or_default();
        if security.privileged {
            return Err(privileged("linux.security_context.privileged"));
        }
        let namespaces = security.namespace_options.unwrap_or_default();
        let log_directory = PathBuf::from(config.log_directory);
        if log_directory.is_relative() && !log_directory.as_os_str().is_empty() {
            return Err(ServiceError::invalid("log_directory", "must be an absolute path"));
        }
        let dns = config.dns_config.unwrap_or_default();
        Ok(Self {
            name: metadata.name,
            uid: metadata.uid,
            namespace: metadata.namespace,
            attempt: metadata.attempt,
            labels: config.labels,
            annotations: config.annotations,
            runtime_handler,
            hostname: if config.hostname.is_empty() { node_hostname() } else { config.hostname },
            log_directory: (!log_directory.as_os_str().is_empty()).then_some(log_directory),
            dns: Dns { servers: dns.servers, searches: dns.searches, options: dns.options },
            host_ports: host_ports(&config.port_mappings)?,
            namespaces: Namespaces { network: namespaces.network, pid: namespaces.pid, ipc: namespaces.ipc },
        })
    }

    /// Whether the pod uses the node's own addresses and ports.
    pub(crate) fn host_network(&self) -> bool {
        self.namespaces.network == v1::NamespaceMode::Node as i32
    }

    /// CRI's own name of the sandbox, which no other may have.
    pub(crate) fn unique_name(&self) -> String {
        format!("{}_{}_{}_{}", self.name, self.namespace, self.uid, self.attempt)
    }

    pub(crate) fn metadata(&self) -> v1::PodSandboxMetadata {
        v1::PodSandboxMetadata {
            name: self.name.clone(),
            uid: self.uid.clone(),
            namespace: self.namespace.clone(),
            attempt: self.attempt,
        }
    }
}

pub(crate) fn privileged(field: &'static str) -> ServiceError {
    ServiceError::unsupported(field, "privileged containers are not supported: a guest has no privileges to be given")
}

fn node_hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The mappings that publish a port; the others only say which ports the containers declare.
fn host_ports(mappings: &[v1::PortMapping]) -> Result<Vec<HostPort>, ServiceError> {
    let field = "port_mappings";
    let port = |number: i32| {
        u16::try_from(number)
            .ok()
            .filter(|&port| port != 0)
            .ok_or_else(|| ServiceError::invalid(field, format!("{number} is not a port")))
    };
    let published = mappings.iter().filter(|mapping| mapping.host_port != 0);
    published
        .map(|mapping| {
            let protocol = match mapping.protocol() {
                v1::Protocol::Tcp => Protocol::Tcp,
                v1::Protocol::Udp => Protocol::Udp,
                v1::Protocol::Sctp => {
                    return Err(ServiceError::unsupported(field, "SCTP: a guest has no sockets of that kind"));
                }
            };
            let host_ip: Option<IpAddr> = match mapping.host_ip.as_str() {
                "" => None,
                text => Some(
                    text.parse()
                        .map_err(|_| ServiceError::invalid(field, format!("host_ip {text:?} is not an IP address")))?,
                ),
            };
            Ok(HostPort {
                protocol,
                host_ip,
                host_port: port(mapping.host_port)?,
                container_port: port(mapping.container_port)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> v1::PodSandboxConfig {
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "web".into(),
                uid: "u".into(),
                namespace: "default".into(),
                attempt: 0,
            }),
            ..Default::default()
        }
    }

    fn refusal(config: v1::PodSandboxConfig, handler: &str) -> String {
        SandboxSpec::parse(config, handler.into()).unwrap_err().to_string()
    }

    #[test]
    fn what_a_guest_cannot_have_is_refused_by_name() {
        let mut sysctl = config();
        let linux = v1::LinuxPodSandboxConfig {
            sysctls: [("net.core.somaxconn".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        sysctl.linux = Some(linux);
        assert!(refusal(sysctl, "").contains("net.core.somaxconn"));

        let mut privileged = config();
        let security = v1::LinuxSandboxSecurityContext { privileged: true, ..Default::default() };
        privileged.linux = Some(v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() });
        assert!(refusal(privileged, "").contains("privileged"));

        assert!(refusal(config(), "runc").contains("runc"));
        assert!(refusal(v1::PodSandboxConfig::default(), "").contains("metadata"));
        let relative = v1::PodSandboxConfig { log_directory: "logs".into(), ..config() };
        assert!(refusal(relative, "").contains("log_directory"));
    }

    #[test]
    fn only_ports_with_a_host_port_are_published() {
        let mapping = |protocol, container_port, host_port, host_ip: &str| v1::PortMapping {
            protocol,
            container_port,
            host_port,
            host_ip: host_ip.into(),
        };
        let ports = host_ports(&[mapping(0, 80, 0, ""), mapping(1, 53, 5353, "192.0.2.1")]).unwrap();
        let expected = HostPort {
            protocol: Protocol::Udp,
            host_ip: Some("192.0.2.1".parse().unwrap()),
            host_port: 5353,
            container_port: 53,
        };
        assert_eq!(ports, [expected]);
        for bad in [mapping(2, 80, 80, ""), mapping(0, 80, 70_000, ""), mapping(0, 0, 80, ""), mapping(0, 1, 1, "x")] {
            assert!(host_ports(&[bad]).is_err());
        }
    }
}
