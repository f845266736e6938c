//! Probes: how a container is asked whether it has started, lives and is ready.

use super::container::Port;
use std::time::Duration;

/// What a container is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// `startupProbe`: whether it has started. Until it has, nothing else is asked.
    Startup,
    /// `livenessProbe`: whether it should go on.
    Liveness,
    /// `readinessProbe`: whether it can serve.
    Readiness,
}

impl ProbeKind {
    /// Every kind.
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

    /// As Events and metrics write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }
}

/// The probes of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probes {
    /// `startupProbe`.
    pub startup: Option<Probe>,
    /// `livenessProbe`.
    pub liveness: Option<Probe>,
    /// `readinessProbe`.
    pub readiness: Option<Probe>,
}

impl Probes {
    /// The probe of that kind, if there is one.
    #[must_use]
    pub fn get(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
        }
    }
}

/// One probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is done.
    pub handler: ProbeHandler,
    /// `initialDelaySeconds`, counted from the start of the container.
    pub initial_delay: Duration,
    /// `timeoutSeconds`, at least one.
    pub timeout: Duration,
    /// `periodSeconds`, at least one.
    pub period: Duration,
    /// `successThreshold`, at least one: so many successes in a row make one that counts.
    pub success_threshold: u32,
    /// `failureThreshold`, at least one: so many failures in a row make one that counts.
    pub failure_threshold: u32,
    /// `terminationGracePeriodSeconds`: how long a container that failed the probe may take to end; absent: the pod's.
    pub grace: Option<Duration>,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeHandler {
    /// `exec`: `command`, not yet expanded. It succeeds with exit code 0.
    Exec(Vec<String>),
    /// `httpGet`. It succeeds with a status from 200 to 399.
    HttpGet(HttpGet),
    /// `tcpSocket`. It succeeds when a connection can be opened.
    TcpSocket {
        /// `host`; absent: the pod's address.
        host: Option<String>,
        /// `port`.
        port: TargetPort,
    },
    /// `grpc`: `grpc.health.v1`, asked at the pod's address. It succeeds with `SERVING`.
    Grpc {
        /// `port`.
        port: u16,
        /// `service`; empty: the server as a whole.
        service: String,
        /// `mode: TLS`; the certificate is not verified.
        tls: bool,
    },
}

/// An HTTP request that the node makes on behalf of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// `scheme`.
    pub scheme: Scheme,
    /// `host`; absent: the pod's address.
    pub host: Option<String>,
    /// `port`.
    pub port: TargetPort,
    /// `path`, as written: perhaps with a query.
    pub path: String,
    /// `httpHeaders`: name and value, in order, names perhaps more than once.
    pub headers: Vec<(String, String)>,
    /// `protocol: HTTP2`: HTTP/2 without TLS, from the first byte.
    pub http2: bool,
}

/// `scheme` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS; the certificate is not verified.
    Https,
}

impl Scheme {
    /// As a URL begins.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// A port by its number, or by its name among the container's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// Any port.
    Number(u16),
    /// The container's port of that name.
    Name(String),
}

/// No port of the container has the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {0:?} not found")]
pub struct NoSuchPort(pub String);

impl TargetPort {
    /// The number, among the `ports` of the container.
    ///
    /// # Errors
    /// None of them has the name.
    pub fn resolve(&self, ports: &[Port]) -> Result<u16, NoSuchPort> {
        match self {
            TargetPort::Number(number) => Ok(*number),
            TargetPort::Name(name) => {
                let named = ports.iter().find(|port| port.name.as_ref() == Some(name));
                named.map(|port| port.container_port).ok_or_else(|| NoSuchPort(name.clone()))
            }
        }
    }
}
