//! `grpc`: what a server says of its health, by `grpc.health.v1`.

use std::time::Duration;

use bytes::Bytes;
use decide::event::ProbeResult;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tonic::Code;
use tonic::body::Body;

use self::v1::health_check_response::ServingStatus;
use self::v1::health_client::HealthClient;
use super::dial::{self, Driver, Leash, Stream, reason, while_driven};

/// The protocol's messages and its client.
mod v1 {
    #![expect(unreachable_pub, reason = "generated code does not know where it stands")]
    tonic::include_proto!("grpc.health.v1");
}

/// Where and what to ask.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) service: &'a str,
    pub(super) tls: bool,
}

/// Asks, and waits no longer than `limit` for the answer.
pub(super) async fn probe(question: Question<'_>, limit: Duration) -> ProbeResult {
    let deadline = Instant::now() + limit;
    let address = dial::authority(question.host, question.port);
    // Dropped last, with whatever the connection left to run.
    let leash = Leash::default();
    let (sender, mut driver) = match timeout_at(deadline, connect(&question, &leash)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(why)) => {
            return ProbeResult::Failure(format!("error: failed to connect service at {address:?}: {why}"));
        }
        Err(_) => {
            let why = "context deadline exceeded";
            let limit = go_seconds(limit);
            return ProbeResult::Failure(format!(
                "timeout: failed to connect service {address:?} within {limit}: {why}"
            ));
        }
    };
    let request = v1::HealthCheckRequest { service: question.service.to_owned() };
    let origin =
        Uri::builder().scheme(if question.tls { "https" } else { "http" }).authority(address).path_and_query("/");
    let origin = match origin.build() {
        Ok(origin) => origin,
        Err(error) => return ProbeResult::Failure(format!("error: health rpc probe failed: {error}")),
    };
    let service = tower::service_fn(move |request| send(sender.clone(), request));
    let mut client = HealthClient::with_origin(service, origin);
    match timeout_at(deadline, while_driven(&mut driver, client.check(request))).await {
        Err(_) => ProbeResult::Failure(format!("timeout: health rpc did not complete within {}", go_seconds(limit))),
        Ok(Ok(answer)) => judge(answer.get_ref()),
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            let message = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)";
            ProbeResult::Failure(format!("{message}: {}", status.message()))
        }
        Ok(Err(status)) => {
            let (code, message) = (status.code(), status.message());
            let error = format!("rpc error: code = {code:?} desc = {message}");
            ProbeResult::Failure(format!("error: health rpc probe failed: {error}"))
        }
    }
}

fn judge(answer: &v1::HealthCheckResponse) -> ProbeResult {
    match answer.status() {
        ServingStatus::Serving => ProbeResult::Success,
        _ => {
            let name = ServingStatus::try_from(answer.status).map_or("UNKNOWN", |status| status.as_str_name());
            ProbeResult::Failure(format!("service unhealthy (responded with {name:?})"))
        }
    }
}

async fn connect(question: &Question<'_>, leash: &Leash) -> Result<(SendRequest<Body>, Driver), String> {
    let stream = dial::tcp(question.host, question.port).await?;
    let stream = if question.tls { dial::tls(question.host, stream).await? } else { Stream::Plain(stream) };
    let opened = http2::handshake(leash.clone(), TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(|error| reason(&error))?;
    Ok((sender, dial::driver(connection)))
}

async fn send(mut sender: SendRequest<Body>, mut request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
    if let Ok(agent) = HeaderValue::from_maybe_shared(Bytes::from(super::user_agent("probe"))) {
        request.headers_mut().insert(USER_AGENT, agent);
    }
    sender.send_request(request).await
}

/// Whole seconds as the kubelet's messages write them.
fn go_seconds(limit: Duration) -> String {
    let (minutes, seconds) = (limit.as_secs() / 60, limit.as_secs() % 60);
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}
