//! Probes, and the actions that hooks share with them, out of the API.
//!
//! Defaults are the API server's. What is out of range becomes what the API server would have made of it, or is refused.

use super::{invalid, unsupported_value};
use crate::pod::{HttpGet, Probe, ProbeHandler, ProbeKind, Probes, Rejection, Role, Scheme, TargetPort};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::time::Duration;

/// `periodSeconds` where the spec names none.
const PERIOD: u32 = 10;
/// `failureThreshold` where the spec names none.
const FAILURES: u32 = 3;

/// The probes of a container at `place`.
pub(super) fn probes(api: &api::Container, role: Role, place: &str) -> Result<Probes, Rejection> {
    let read = |kind, api: &Option<api::Probe>, name| match api {
        Some(_) if !matches!(role, Role::Main | Role::Sidecar) => {
            let instead = "take it out, or give the init container restartPolicy: Always";
            Err(invalid(format!("{place}.{name} must not be set for a container that runs to its end; {instead}")))
        }
        Some(api) => probe(kind, api, &format!("{place}.{name}")).map(Some),
        None => Ok(None),
    };
    Ok(Probes {
        startup: read(ProbeKind::Startup, &api.startup_probe, "startupProbe")?,
        liveness: read(ProbeKind::Liveness, &api.liveness_probe, "livenessProbe")?,
        readiness: read(ProbeKind::Readiness, &api.readiness_probe, "readinessProbe")?,
    })
}

fn probe(kind: ProbeKind, api: &api::Probe, place: &str) -> Result<Probe, Rejection> {
    let success_threshold = count(api.success_threshold, 1, place, "successThreshold")?;
    if kind != ProbeKind::Readiness && success_threshold != 1 {
        return Err(invalid(format!("{place}.successThreshold: {success_threshold} must be 1")));
    }
    let grace = match api.termination_grace_period_seconds {
        None => None,
        Some(_) if kind == ProbeKind::Readiness => {
            let field = "terminationGracePeriodSeconds";
            return Err(invalid(format!("{place}.{field} must not be set for a readiness probe; take it out")));
        }
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
            _ => {
                let field = "terminationGracePeriodSeconds";
                return Err(invalid(format!("{place}.{field}: {seconds} must be greater than 0")));
            }
        },
    };
    let seconds = |count: u32| Duration::from_secs(count.into());
    Ok(Probe {
        handler: handler(api, place)?,
        initial_delay: seconds(count(api.initial_delay_seconds, 0, place, "initialDelaySeconds")?),
        timeout: seconds(count(api.timeout_seconds, 1, place, "timeoutSeconds")?),
        period: seconds(count(api.period_seconds, PERIOD, place, "periodSeconds")?),
        success_threshold,
        failure_threshold: count(api.failure_threshold, FAILURES, place, "failureThreshold")?,
        grace,
    })
}

/// A number of the spec; nothing and 0 stand for the default.
fn count(value: Option<i32>, default: u32, place: &str, field: &str) -> Result<u32, Rejection> {
    match value.map(u32::try_from) {
        None | Some(Ok(0)) => Ok(default),
        Some(Ok(value)) => Ok(value),
        Some(Err(_)) => Err(invalid(format!("{place}.{field} must not be negative"))),
    }
}

fn handler(api: &api::Probe, place: &str) -> Result<ProbeHandler, Rejection> {
    match (&api.exec, &api.http_get, &api.tcp_socket, &api.grpc) {
        (Some(exec), None, None, None) => Ok(ProbeHandler::Exec(command(exec, &format!("{place}.exec"))?)),
        (None, Some(http), None, None) => Ok(ProbeHandler::HttpGet(http_get(http, &format!("{place}.httpGet"))?)),
        (None, None, Some(tcp), None) => Ok(ProbeHandler::TcpSocket {
            host: text(tcp.host.as_ref()),
            port: target_port(&tcp.port, &format!("{place}.tcpSocket.port"))?,
        }),
        (None, None, None, Some(grpc)) => {
            let place = format!("{place}.grpc");
            let tls = match grpc.mode.as_deref() {
                None | Some("" | "Plaintext") => false,
                Some("TLS") => true,
                Some(other) => return Err(unsupported_value(&format!("{place}.mode"), other, "Plaintext or TLS")),
            };
            let port = number(grpc.port, &format!("{place}.port"))?;
            Ok(ProbeHandler::Grpc { port, service: grpc.service.clone().unwrap_or_default(), tls })
        }
        _ => Err(invalid(format!("{place} must have exactly one of exec, httpGet, tcpSocket and grpc"))),
    }
}

/// The command of an `exec` action.
pub(super) fn command(api: &api::ExecAction, place: &str) -> Result<Vec<String>, Rejection> {
    match api.command.clone().unwrap_or_default() {
        command if command.is_empty() => Err(invalid(format!("{place}.command is missing"))),
        command => Ok(command),
    }
}

/// An `httpGet` action.
pub(super) fn http_get(api: &api::HTTPGetAction, place: &str) -> Result<HttpGet, Rejection> {
    let scheme = match api.scheme.as_deref() {
        None | Some("" | "HTTP") => Scheme::Http,
        Some("HTTPS") => Scheme::Https,
        Some(other) => return Err(unsupported_value(&format!("{place}.scheme"), other, "HTTP or HTTPS")),
    };
    let http2 = match api.protocol.as_deref() {
        None | Some("" | "HTTP1") => false,
        Some("HTTP2") if scheme == Scheme::Http => true,
        Some("HTTP2") => {
            return Err(invalid(format!(
                "{place}.protocol: HTTP2 is for the scheme HTTP; with HTTPS it is negotiated"
            )));
        }
        Some(other) => return Err(unsupported_value(&format!("{place}.protocol"), other, "HTTP1 or HTTP2")),
    };
    let mut headers = Vec::new();
    for header in api.http_headers.iter().flatten() {
        // RFC 9110's token.
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if header.name.is_empty() || !header.name.chars().all(token) {
            return Err(invalid(format!("{place}.httpHeaders: {:?} is not the name of a header", header.name)));
        }
        headers.push((header.name.clone(), header.value.clone()));
    }
    Ok(HttpGet {
        scheme,
        host: text(api.host.as_ref()),
        port: target_port(&api.port, &format!("{place}.port"))?,
        path: text(api.path.as_ref()).unwrap_or_else(|| "/".to_owned()),
        headers,
        http2,
    })
}

fn text(value: Option<&String>) -> Option<String> {
    value.filter(|text| !text.is_empty()).cloned()
}

fn target_port(port: &IntOrString, place: &str) -> Result<TargetPort, Rejection> {
    match port {
        IntOrString::Int(value) => number(*value, place).map(TargetPort::Number),
        IntOrString::String(name) if name.is_empty() => Err(invalid(format!("{place} is missing"))),
        IntOrString::String(name) => Ok(TargetPort::Name(name.clone())),
    }
}

fn number(value: i32, place: &str) -> Result<u16, Rejection> {
    let port = u16::try_from(value).ok().filter(|port| *port > 0);
    port.ok_or_else(|| invalid(format!("{place}: {value} is not a port")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(kind: &str, probe: &Value) -> Result<Probe, String> {
        let container: api::Container =
            serde_json::from_value(json!({ "name": "c", kind: probe })).map_err(|error| error.to_string())?;
        let probes = probes(&container, Role::Main, "c").map_err(|rejection| rejection.message)?;
        Ok(ProbeKind::ALL.into_iter().find_map(|kind| probes.get(kind)).unwrap().clone())
    }

    #[test]
    fn defaults_are_those_of_the_api_server() {
        let seconds = Duration::from_secs;
        let bare = read("livenessProbe", &json!({ "httpGet": { "port": 80 } })).unwrap();
        assert_eq!((bare.initial_delay, bare.timeout, bare.period), (seconds(0), seconds(1), seconds(10)));
        assert_eq!((bare.success_threshold, bare.failure_threshold, bare.grace), (1, 3, None));
        let http = HttpGet {
            scheme: Scheme::Http,
            host: None,
            port: TargetPort::Number(80),
            path: "/".into(),
            headers: Vec::new(),
            http2: false,
        };
        assert_eq!(bare.handler, ProbeHandler::HttpGet(http));
        let zero = json!({ "tcpSocket": { "port": "web" }, "timeoutSeconds": 0, "periodSeconds": 0,
            "failureThreshold": 0, "successThreshold": 0, "initialDelaySeconds": 0, "terminationGracePeriodSeconds": 7 });
        let zero = read("startupProbe", &zero).unwrap();
        assert_eq!(
            (zero.timeout, zero.period, zero.failure_threshold, zero.grace),
            (seconds(1), seconds(10), 3, Some(seconds(7)))
        );
        let port = TargetPort::Name("web".into());
        assert_eq!(zero.handler, ProbeHandler::TcpSocket { host: None, port });
        let grpc = read("readinessProbe", &json!({ "grpc": { "port": 5000, "mode": "TLS" } })).unwrap();
        assert_eq!(grpc.handler, ProbeHandler::Grpc { port: 5000, service: String::new(), tls: true });
    }

    #[test]
    fn what_is_no_probe_is_refused_by_its_place() {
        let http = |field: &str, value: Value| {
            let mut action = json!({ "port": 80 });
            action[field] = value;
            json!({ "httpGet": action })
        };
        for (kind, probe, words) in [
            ("livenessProbe", json!({}), "c.livenessProbe must have exactly one of exec, httpGet, tcpSocket and grpc"),
            (
                "livenessProbe",
                json!({ "exec": { "command": ["a"] }, "grpc": { "port": 1 } }),
                "must have exactly one of",
            ),
            ("readinessProbe", json!({ "exec": {} }), "c.readinessProbe.exec.command is missing"),
            ("livenessProbe", json!({ "grpc": { "port": 0 } }), "c.livenessProbe.grpc.port: 0 is not a port"),
            ("livenessProbe", json!({ "grpc": { "port": 1, "mode": "mTLS" } }), "use Plaintext or TLS"),
            (
                "livenessProbe",
                json!({ "tcpSocket": { "port": 70000 } }),
                "c.livenessProbe.tcpSocket.port: 70000 is not a port",
            ),
            ("livenessProbe", json!({ "grpc": { "port": 1 }, "successThreshold": 2 }), "successThreshold: 2 must be 1"),
            (
                "startupProbe",
                json!({ "grpc": { "port": 1 }, "periodSeconds": -1 }),
                "c.startupProbe.periodSeconds must not be negative",
            ),
            (
                "readinessProbe",
                json!({ "grpc": { "port": 1 }, "terminationGracePeriodSeconds": 1 }),
                "must not be set for a readiness probe",
            ),
            (
                "livenessProbe",
                json!({ "grpc": { "port": 1 }, "terminationGracePeriodSeconds": 0 }),
                "must be greater than 0",
            ),
            ("livenessProbe", http("scheme", json!("FTP")), "c.livenessProbe.httpGet.scheme: FTP"),
            ("livenessProbe", http("protocol", json!("HTTP3")), "use HTTP1 or HTTP2"),
            (
                "livenessProbe",
                http("httpHeaders", json!([{ "name": "a b", "value": "" }])),
                "\"a b\" is not the name of a header",
            ),
        ] {
            let refused = read(kind, &probe).unwrap_err();
            assert!(refused.contains(words), "{words:?} is not in {refused:?}");
        }
    }

    #[test]
    fn only_what_lives_as_long_as_the_pod_is_probed() {
        let probe = json!({ "tcpSocket": { "port": 1 } });
        let container: api::Container = serde_json::from_value(json!({ "name": "c", "livenessProbe": probe })).unwrap();
        assert!(probes(&container, Role::Sidecar, "c").is_ok());
        let refused = probes(&container, Role::Init, "c").unwrap_err();
        assert!(refused.message.starts_with("c.livenessProbe must not be set for a container that runs to its end"));
    }

    #[test]
    fn ports_of_a_name_are_the_containers() {
        let port = crate::pod::Port {
            name: Some("web".into()),
            container_port: 8080,
            protocol: crate::pod::Protocol::Tcp,
            host_port: None,
            host_ip: None,
        };
        assert_eq!(TargetPort::Name("web".into()).resolve(std::slice::from_ref(&port)), Ok(8080));
        assert_eq!(TargetPort::Number(1).resolve(&[]), Ok(1));
        let missing = TargetPort::Name("admin".into()).resolve(&[port]).unwrap_err();
        assert_eq!(missing.to_string(), "port \"admin\" not found");
    }
}
