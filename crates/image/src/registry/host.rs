//! One host of one session: requests come in; they go out with what the host wants to know of us, and its answers,
//! judged, come back.
//!
//! Redirects are followed here: credentials and configured headers go to the host itself and nowhere else.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::Limits;
use super::ask::{Ask, Place};
use super::challenge::Challenge;
use super::endpoint::Endpoint;
use super::failure::{Failure, codes, judge};
use super::{Access, RegistryError, token};
use crate::credentials::Credentials;
use crate::reference::Reference;

/// As many as browsers and Docker follow.
const REDIRECTS_MAX: usize = 10;
/// Bytes of an error's body that are looked at.
const ERROR_BYTES_MAX: u64 = 64 * 1024;

/// A host, for one session.
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    client: Client,
    repository: String,
    credentials: Option<Credentials>,
    access: Access,
    limits: Limits,
    /// What the host was last content with.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Host {
    pub(crate) fn new(
        endpoint: Endpoint,
        client: Client,
        image: &Reference,
        (credentials, access): (Option<Credentials>, Access),
        limits: Limits,
    ) -> Self {
        let repository = image.repository().to_owned();
        Self { endpoint, client, repository, credentials, access, limits, authorization: Mutex::default() }
    }

    /// Sends a request, once more with a token where the host wants one, and gives its answer if it is a success.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Response, Failure> {
        let first = self.follow(ask).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return self.judged(first).await;
        }
        let Some(mut challenge) = Challenge::of(first.headers()) else {
            return self.judged(first).await;
        };
        drop(first);
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        if let (Challenge::Bearer { scope, .. }, Access::Push) = (&mut challenge, self.access) {
            // A token for the first, reading request would not do for the next.
            *scope = None;
        }
        let scope = format!("repository:{}:{actions}", self.repository);
        let plain = self.endpoint.base.starts_with("http:");
        let obtained = token::authorization(&self.client, &challenge, self.credentials.as_ref(), &scope, plain).await?;
        if obtained.is_none() {
            return Err(Failure::Lasting(RegistryError::Denied { with_credentials: self.credentials.is_some() }));
        }
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = obtained;
        let second = self.follow(ask).await?;
        self.judged(second).await
    }

    async fn judged(&self, answer: Response) -> Result<Response, Failure> {
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(answer_failure(answer, self.credentials.is_some()).await),
        }
    }

    /// Sends a request and follows where it leads.
    async fn follow(&self, ask: &Ask) -> Result<Response, Failure> {
        let begin = self.url(ask)?;
        let mut url = begin.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.once(ask, &url, url.origin() == begin.origin()).await?;
            let leads_on = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !leads_on || !matches!(ask.method, Method::GET | Method::HEAD) {
                return Ok(answer);
            }
            url = self.location(&answer, &url)?;
        }
        Err(Failure::unavailable("it redirects in a circle"))
    }

    async fn once(&self, ask: &Ask, url: &Url, is_home: bool) -> Result<Response, Failure> {
        let mut request = ask
            .request(&self.client, url.clone())
            .await
            .map_err(|error| Failure::unavailable(format!("cannot read what is to be sent: {error}")))?;
        if is_home {
            request = request.headers(self.endpoint.headers.clone());
            let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(known) = known {
                request = request.header(AUTHORIZATION, known);
            }
        }
        // Until the head of the answer. An upload takes as long as its content does, which its caller bounds.
        let sent = request.send();
        let sent = match ask.content {
            Some(_) => sent.await,
            None => match tokio::time::timeout(self.limits.stall_timeout, sent).await {
                Ok(sent) => sent,
                Err(_) => return Err(Failure::passing("it did not answer in time")),
            },
        };
        sent.map_err(|error| Failure::of_request(&error))
    }

    fn url(&self, ask: &Ask) -> Result<Url, Failure> {
        let path = match &ask.place {
            Place::Url(url) => return Ok(url.clone()),
            Place::Path(path) => path,
        };
        let mut url = Url::parse(&format!("{}/{}/{path}", self.endpoint.base, self.repository))
            .map_err(|_| Failure::unavailable("its address is not usable"))?;
        if let Some(registry) = &self.endpoint.stands_for {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }

    /// Where an answer leads; never from HTTPS to plain HTTP.
    pub(crate) fn location(&self, answer: &Response, from: &Url) -> Result<Url, Failure> {
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| from.join(location).ok());
        let next = next.ok_or_else(|| Failure::unavailable("it leads on without saying where to"))?;
        match (from.scheme(), next.scheme()) {
            (_, "https") | ("http", "http") => Ok(next),
            _ => Err(Failure::unavailable("it leads on to an address that is not https")),
        }
    }
}

/// Reads and judges an answer that is no success.
pub(crate) async fn answer_failure(answer: Response, with_credentials: bool) -> Failure {
    let (status, after) = (answer.status(), retry_after(answer.headers()));
    // An error whose body cannot be read is still that error.
    let body = read_bounded(answer, ERROR_BYTES_MAX).await.unwrap_or_default();
    judge(status, &codes(&body), after, with_credentials)
}

/// Reads a whole body, as long as it has no more bytes than `limit_bytes`.
pub(crate) async fn read_bounded(answer: Response, limit_bytes: u64) -> Result<Vec<u8>, Failure> {
    let too_large = |size_bytes| Err(Failure::Lasting(RegistryError::TooLarge { size_bytes, limit_bytes }));
    if let Some(size_bytes) = answer.content_length().filter(|size| *size > limit_bytes) {
        return too_large(size_bytes);
    }
    let mut body = Vec::new();
    let mut chunks = answer.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk.map_err(|error| Failure::of_request(&error))?);
        if body.len() as u64 > limit_bytes {
            return too_large(body.len() as u64);
        }
    }
    Ok(body)
}

/// Only the form in seconds; a date is rare, and clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
