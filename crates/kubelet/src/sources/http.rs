//! A URL as a source: a Pod or a PodList, in JSON or YAML, asked for again and again.
//!
//! Comes in: what the server answers. Goes out: [`Change`]s with pods that have an [identity](super::identity). An answer
//! that is no list of pods is told in the log, and the pods stay as they are; only an empty one says that there are none.
//! The values of the headers that are sent are shown to nobody.

use std::fmt;
use std::time::Duration;

use http::header::{HeaderMap, LOCATION};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::identity::{Naming, identify};
use super::{Change, FirstSeen};
use crate::clock::Clock;
use crate::tables::Origin;

/// How long one answer may take, the kubelet's number.
const ANSWER: Duration = Duration::from_secs(10);
/// An answer above this size is refused; the API server takes 1.5 MiB for each of its objects.
const MOST_BYTES: usize = 10 << 20;
/// Redirects that are followed, as Go's client does.
const MOST_REDIRECTS: usize = 10;
/// Failures in a row that are told aloud, the kubelet's number.
const TOLD: u32 = 3;

/// A URL that cannot be asked.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum UrlError {
    #[error("it is not of the form http://host[:port]/path or https://…")]
    Form,
    #[error("it holds a user or a password; send credentials in a header (staticPodURLHeader)")]
    Credentials,
    #[error("the trusted certificates cannot be read")]
    Client(#[source] Box<kube::Error>),
}

/// Why an answer brought no pods.
#[derive(Debug, Error)]
enum AnswerError {
    #[error("no answer for {ANSWER:?}")]
    Timeout,
    #[error("{0}")]
    Request(#[from] Box<kube::Error>),
    #[error("the server said {0}")]
    Status(StatusCode),
    #[error("the server sends elsewhere, to another host: name that one")]
    Elsewhere,
    #[error("it was sent on more than {MOST_REDIRECTS} times")]
    Redirects,
    #[error("reading the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is empty")]
    Empty,
    #[error("the answer is neither a Pod nor a PodList: {0}")]
    Parse(String),
}

/// Where manifests are asked for.
#[derive(Clone)]
pub struct HttpSource {
    /// The way to the server.
    pub client: kube::Client,
    /// What is asked for there. The whole of it becomes part of the pods' UIDs.
    pub url: Uri,
    /// What is sent with it.
    pub headers: HeaderMap,
    /// How the pods are named.
    pub naming: Naming,
    /// How often it is asked for.
    pub period: Duration,
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        formatter.debug_struct("HttpSource").field("host", &self.url.host()).field("headers", &names).finish()
    }
}

/// What can be asked for.
///
/// # Errors
/// It is no URL of HTTP, or holds credentials, which would be seen wherever it is.
pub fn check_url(text: &str) -> Result<Uri, UrlError> {
    let url: Uri = text.parse().map_err(|_| UrlError::Form)?;
    let authority = url.authority().ok_or(UrlError::Form)?;
    match url.scheme_str() {
        Some("http" | "https") if authority.as_str().contains('@') => Err(UrlError::Credentials),
        Some("http" | "https") => Ok(url),
        _ => Err(UrlError::Form),
    }
}

/// A client of the URL's server, which is trusted as the system trusts it.
///
/// # Errors
/// The system's certificates are not to be had.
pub fn client(url: &Uri) -> Result<kube::Client, UrlError> {
    // The first to ask decides for the process; whoever was before chose one that will do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    let server = Uri::from_parts(parts).map_err(|_| UrlError::Form)?;
    let mut config = kube::Config::new(server);
    config.connect_timeout = Some(ANSWER);
    config.default_retry = false;
    kube::Client::try_from(config).map_err(|error| UrlError::Client(Box::new(error)))
}

/// Asks now and each period, until the receiver is gone.
pub async fn watch_url(source: HttpSource, clock: Clock, changes: mpsc::Sender<Change>) {
    let mut first_seen = FirstSeen::default();
    let mut failures = 0_u32;
    let mut ticks = interval(source.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = timeout(ANSWER, ask(&source)).await.unwrap_or(Err(AnswerError::Timeout));
        let pods = match answer.and_then(|body| pods(&body, &source)) {
            Ok(pods) => {
                if failures > 0 {
                    tracing::info!("pods are read from the URL again");
                }
                failures = 0;
                Some(pods)
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                tell(&error, failures);
                // Somebody has emptied the page; whatever else went wrong, nobody said that there are no pods.
                matches!(error, AnswerError::Empty).then(Vec::new)
            }
        };
        let Some(pods) = pods else { continue };
        let wanted = first_seen.noted(&pods, clock.now());
        if changes.send(Change::All(Origin::Http, wanted)).await.is_err() {
            return;
        }
    }
}

/// What does not get better is not told for ever.
fn tell(error: &AnswerError, failures: u32) {
    let pods = if matches!(error, AnswerError::Empty) { "there are none" } else { "they stay as they are" };
    match failures {
        0..=TOLD => tracing::warn!("reading pods from the URL: {error}; {pods}"),
        _ => tracing::debug!(failures, "reading pods from the URL: {error}; {pods}"),
    }
}

/// The body of the answer, after redirects within the same server.
async fn ask(source: &HttpSource) -> Result<Vec<u8>, AnswerError> {
    let mut target = source.url.clone();
    for _ in 0..=MOST_REDIRECTS {
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path).body(Body::empty()).map_err(|error| AnswerError::Body(error.into()))?;
        request.headers_mut().extend(source.headers.clone());
        let response = source.client.send(request).await.map_err(Box::new)?;
        if let Some(location) = response.headers().get(LOCATION).filter(|_| response.status().is_redirection()) {
            let location = location.to_str().unwrap_or_default();
            target = within(&target, location).ok_or(AnswerError::Elsewhere)?;
            continue;
        }
        if response.status() != StatusCode::OK {
            return Err(AnswerError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(AnswerError::Body)?;
        return Ok(body.to_bytes().to_vec());
    }
    Err(AnswerError::Redirects)
}

/// Where `location` leads from `here`, if that is the same server: nobody else is to see what is sent.
fn within(here: &Uri, location: &str) -> Option<Uri> {
    let there: Uri = location.parse().ok()?;
    let same = there.authority().is_none() && location.starts_with('/') && !location.starts_with("//")
        || there.authority() == here.authority() && there.scheme() == here.scheme();
    let mut parts = here.clone().into_parts();
    parts.path_and_query = there.path_and_query().cloned();
    same.then(|| Uri::from_parts(parts).ok()).flatten()
}

/// The pods of an answer.
fn pods(body: &[u8], source: &HttpSource) -> Result<Vec<Pod>, AnswerError> {
    let wrong = |message: String| AnswerError::Parse(message);
    if body.is_empty() {
        return Err(AnswerError::Empty);
    }
    let text = std::str::from_utf8(body).map_err(|error| wrong(error.to_string()))?;
    let mut document: Value =
        serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
    let items = match document.get("kind").and_then(Value::as_str) {
        Some("Pod") => vec![document],
        Some("PodList") => match document["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        },
        Some(kind) => return Err(wrong(format!("its kind is {kind}"))),
        None => return Err(wrong("it has no kind".to_owned())),
    };
    let place = source.url.to_string();
    let each = items.into_iter().map(|item| {
        let pod: Pod = serde_json::from_value(item).map_err(|error| error.to_string())?;
        identify(pod, Origin::Http, place.as_bytes(), &source.naming)
    });
    each.collect::<Result<_, String>>().map_err(wrong)
}

#[cfg(test)]
mod tests;
