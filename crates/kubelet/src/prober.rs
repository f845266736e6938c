//! Probes, carried out: one question to one container, and what it told.
//!
//! Comes in: a pod, a container, the kind of probe. Goes out: a [`ProbeResult`], in no more than the probe's timeout for
//! each try. Never here: when to ask, and what follows from an answer.

mod dial;
mod exec;
mod grpc;
pub mod http;
mod target;
mod tcp;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use cri::Client;
use decide::event::ProbeResult;
use decide::names::ContainerId;
use decide::pod::{Container, Pod, Probe, ProbeHandler, ProbeKind};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::node::KUBELET_VERSION;

/// How often a probe is tried that does not work (the kubelet's `maxProbeRetries`). One that tells something is not.
const TRIES: u32 = 3;

/// Who asks.
pub struct Prober {
    runtime: Client,
    metrics: Arc<Metrics>,
}

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The pod…
    pub pod: &'a Pod,
    /// …its first address…
    pub pod_ip: Option<IpAddr>,
    /// …the container…
    pub container: &'a Container,
    /// …and which of its instances.
    pub id: &'a ContainerId,
}

impl Prober {
    /// A prober that runs commands over `runtime` and counts in `metrics`.
    pub fn new(runtime: Client, metrics: Arc<Metrics>) -> Self {
        Self { runtime, metrics }
    }

    /// Asks once; again, if the probe did not work.
    pub async fn probe(&self, asked: Asked<'_>, kind: ProbeKind) -> ProbeResult {
        let Some(probe) = asked.container.probes.get(kind) else {
            let message = format!("missing probe handler for {}", asked.container.name);
            return ProbeResult::Errored { state: "unknown", message };
        };
        let began = Instant::now();
        let mut result = self.probe_once(asked, probe).await;
        for _ in 1..TRIES {
            if !matches!(result, ProbeResult::Errored { .. }) {
                break;
            }
            result = self.probe_once(asked, probe).await;
        }
        self.metrics.probed(asked.pod, &asked.container.name, kind, &result, began.elapsed());
        result
    }

    async fn probe_once(&self, asked: Asked<'_>, probe: &Probe) -> ProbeResult {
        let Asked { pod_ip, container, .. } = asked;
        let pod_ip_text = || pod_ip.map(|ip| ip.to_string()).unwrap_or_default();
        match &probe.handler {
            ProbeHandler::Exec(command) => {
                exec::probe(&self.runtime, container, asked.id, command, probe.timeout).await
            }
            ProbeHandler::HttpGet(action) => match http::HttpRequest::new(action, &container.ports, pod_ip, "probe") {
                Ok(request) => judge(http::get(request, probe.timeout).await),
                Err(error) => errored(error.to_string()),
            },
            ProbeHandler::TcpSocket { host, port } => match port.resolve(&container.ports) {
                Ok(port) => tcp::probe(&host.clone().unwrap_or_else(pod_ip_text), port, probe.timeout).await,
                Err(error) => errored(error.to_string()),
            },
            ProbeHandler::Grpc { port, service, tls } => {
                let question = grpc::Question { host: &pod_ip_text(), port: *port, service, tls: *tls };
                grpc::probe(question, probe.timeout).await
            }
        }
    }
}

/// What the kubelet calls itself towards pods: `kube-probe/1.37`.
fn user_agent(purpose: &str) -> String {
    let version = KUBELET_VERSION.trim_start_matches('v');
    let minor = version.match_indices('.').nth(1).map_or(version, |(at, _)| &version[..at]);
    format!("kube-{purpose}/{minor}")
}

fn errored(message: String) -> ProbeResult {
    ProbeResult::Errored { state: "unknown", message }
}

/// What an HTTP answer says of the container. A body is told of only where redirects end, as the kubelet does: it may hold
/// anything.
fn judge(answer: Result<http::HttpAnswer, http::HttpError>) -> ProbeResult {
    match answer {
        Ok(answer) => match answer.status.as_u16() {
            200..300 => ProbeResult::Success,
            300..400 => {
                let body = String::from_utf8_lossy(&answer.body);
                ProbeResult::Warning(format!("Probe terminated redirects, Response body: {body}"))
            }
            status => ProbeResult::Failure(format!("HTTP probe failed with statuscode: {status}")),
        },
        Err(error @ http::HttpError::NoResponse { .. }) => ProbeResult::Failure(error.to_string()),
        Err(error @ http::HttpError::Body(_)) => ProbeResult::Errored { state: "failure", message: error.to_string() },
    }
}
