//! An HTTP request that the node makes of a pod: for a probe, or for whoever else acts on an `httpGet`.
//!
//! Comes in: a request in the spec's words, with its addresses and ports found. Goes out: the answer, its body cut off, or
//! why there is none. One connection for each request; redirects are followed as far as they stay at the host. Never here:
//! what an answer means.

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use decide::pod::{HttpGet, NoSuchPort, Port, Scheme};
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, LOCATION, TRAILER, TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::dial::{self, Driver, Leash, Stream, reason, while_driven};
use super::target::request_target;

/// What of a body is read at the most, in bytes (the kubelet's `maxRespBodyLength`).
const LONGEST_BODY: usize = 10 * 1024;
/// What the kubelet writes where no head…
const TOO_LATE: &str = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
/// …or no whole body came in time.
const TOO_LATE_FOR_BODY: &str = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
/// Requests made for one question, redirects included.
const MOST_REQUESTS: usize = 10;

/// A request that can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    scheme: Scheme,
    host: String,
    port: u16,
    /// Path and query.
    target: String,
    http2: bool,
    headers: Vec<(String, String)>,
    user_agent: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status of the last response: a redirect if it leads to another host or to nowhere.
    pub status: StatusCode,
    /// Its body, or the first 10 KiB.
    pub body: Vec<u8>,
}

/// Why there is no answer. Both read like the kubelet's words for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No response came.
    #[error("Get \"{url}\": {why}")]
    NoResponse {
        /// What was asked for last.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// The response began and its body did not come.
    #[error("{0}")]
    Body(String),
}

impl HttpError {
    /// Whether TLS was spoken to who does not speak it.
    pub fn is_plain_http(&self) -> bool {
        matches!(self, HttpError::NoResponse { why, .. } if why == dial::PLAIN_HTTP)
    }

    /// Whether the time was over.
    pub fn is_timeout(&self) -> bool {
        let (HttpError::NoResponse { why, .. } | HttpError::Body(why)) = self;
        [TOO_LATE, TOO_LATE_FOR_BODY].contains(&why.as_str())
    }
}

impl HttpRequest {
    /// The request for an action of a container with these `ports`, in a pod with this address. `purpose` is what the
    /// user agent says after `kube-`.
    ///
    /// # Errors
    /// The container has no port of that name.
    pub fn new(action: &HttpGet, ports: &[Port], pod_ip: Option<IpAddr>, purpose: &str) -> Result<Self, NoSuchPort> {
        let pod_ip = || pod_ip.map(|ip| ip.to_string()).unwrap_or_default();
        Ok(Self {
            scheme: action.scheme,
            host: action.host.clone().unwrap_or_else(pod_ip),
            port: action.port.resolve(ports)?,
            target: request_target(&action.path),
            http2: action.http2,
            headers: action.headers.clone(),
            user_agent: super::user_agent(purpose),
        })
    }

    /// The same request without what the spec gives to say who asks.
    pub fn without_credentials(mut self) -> Self {
        self.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(AUTHORIZATION.as_str()));
        self
    }

    /// The same request by another scheme.
    pub fn with_scheme(self, scheme: Scheme) -> Self {
        Self { scheme, ..self }
    }

    /// `host:port`
    pub fn authority(&self) -> String {
        dial::authority(&self.host, self.port)
    }

    fn url(&self) -> String {
        format!("{}://{}{}", self.scheme.as_str(), self.authority(), self.target)
    }

    fn no_response(&self, why: impl Into<String>) -> HttpError {
        HttpError::NoResponse { url: self.url(), why: why.into() }
    }

    /// The value of the last header of that name. An empty one stands for none.
    fn header(&self, name: &HeaderName) -> Option<&str> {
        let found = self.headers.iter().rfind(|(given, _)| given.eq_ignore_ascii_case(name.as_str()));
        found.map(|(_, value)| value.as_str())
    }

    fn head(&self, http2: bool) -> Result<Request<Empty<Bytes>>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let wrong = || format!("net/http: invalid header field value for {name:?}");
            let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) else {
                return Err(wrong());
            };
            // The length of a request without a body is not for others to say.
            if ![CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER, HOST].contains(&name) {
                headers.append(name, value);
            }
        }
        for (name, default) in [(USER_AGENT, self.user_agent.as_str()), (ACCEPT, "*/*")] {
            match self.header(&name) {
                None => {
                    headers.insert(name, HeaderValue::from_str(default).map_err(|error| error.to_string())?);
                }
                Some("") => {
                    headers.remove(name);
                }
                Some(_) => {}
            }
        }
        let authority = self.authority();
        let host = self.header(&HOST).filter(|host| !host.is_empty()).unwrap_or(&authority);
        let uri = if http2 {
            format!("{}://{host}{}", self.scheme.as_str(), self.target)
        } else {
            headers.insert(HOST, HeaderValue::from_str(host).map_err(|error| error.to_string())?);
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            self.target.clone()
        };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.parse().map_err(|error| format!("{uri:?}: {error}"))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Where a response leads: none if nowhere else.
    fn redirected(&self, response: &Response<Incoming>) -> Result<Option<Self>, HttpError> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let location = response.headers().get(LOCATION).map(|location| String::from_utf8_lossy(location.as_bytes()));
        let Some(location) = location.filter(|location| !location.is_empty()) else {
            return Ok(None);
        };
        let next = self.follow(&location);
        next.map(Some).map_err(|why| self.no_response(format!("failed to parse Location header {location:?}: {why}")))
    }

    /// The request for `location`, as it stands in an answer to this one.
    fn follow(&self, location: &str) -> Result<Self, String> {
        let absolute = match location.split_once("://") {
            Some((scheme, _)) if !scheme.contains(['/', '?', '#']) => Some(location.to_owned()),
            _ if location.starts_with("//") => Some(format!("{}:{location}", self.scheme.as_str())),
            _ => None,
        };
        let Some(absolute) = absolute else {
            let own_path = self.target.split('?').next().unwrap_or("/");
            let directory = own_path.rsplit_once('/').map_or("", |(directory, _)| directory);
            let path = match location.chars().next() {
                Some('/') => location.to_owned(),
                Some('?') => format!("{own_path}{location}"),
                _ => format!("{directory}/{location}"),
            };
            return Ok(Self { target: without_dots(&request_target(&path)), ..self.clone() });
        };
        let end = absolute.find("://").map_or(0, |at| at + 3);
        let end = absolute[end..].find(['/', '?', '#']).map_or(absolute.len(), |at| end + at);
        let uri: Uri = absolute[..end].parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        let scheme = match uri.scheme_str() {
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            other => return Err(format!("unsupported protocol scheme {:?}", other.unwrap_or_default())),
        };
        let default = if scheme == Scheme::Http { 80 } else { 443 };
        // A Host header of the spec's belongs to the place that was asked first.
        let headers = self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(HOST.as_str()));
        Ok(Self {
            scheme,
            host: uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(default),
            target: request_target(&absolute),
            headers: headers.cloned().collect(),
            ..self.clone()
        })
    }
}

/// A target whose path has no `.` and `..` in it any more.
fn without_dots(target: &str) -> String {
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    let mut parts: Vec<&str> = Vec::new();
    let last = path.rsplit('/').next().unwrap_or_default();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let slash = if matches!(last, "." | "..") && !parts.is_empty() { "/" } else { "" };
    format!("/{}{slash}{query}", parts.join("/"))
}

/// Sends `request` and waits for the answer, no longer than `timeout` for all of it.
///
/// # Errors
/// There is no answer.
pub async fn get(request: HttpRequest, timeout: Duration) -> Result<HttpAnswer, HttpError> {
    let deadline = Instant::now() + timeout;
    let first_host = request.host.clone();
    let mut request = request;
    for _ in 0..MOST_REQUESTS {
        let (answer, next) = exchange(&request, &first_host, deadline).await?;
        match next {
            None => return Ok(answer),
            Some(next) => request = next,
        }
    }
    Err(request.no_response(format!("stopped after {MOST_REQUESTS} redirects")))
}

/// One request and its answer. `Some` request: where the answer leads, at the host of the first one.
async fn exchange(
    request: &HttpRequest,
    first_host: &str,
    deadline: Instant,
) -> Result<(HttpAnswer, Option<HttpRequest>), HttpError> {
    let opened = timeout_at(deadline, Connection::open(request)).await;
    let mut connection = opened.map_err(|_| request.no_response(TOO_LATE))?.map_err(|why| request.no_response(why))?;
    let head = request.head(connection.is_http2()).map_err(|why| request.no_response(why))?;
    let answered = timeout_at(deadline, connection.send(head)).await;
    let response = answered.map_err(|_| request.no_response(TOO_LATE))?.map_err(|why| request.no_response(why))?;
    let next = request.redirected(&response)?.filter(|next| next.host == first_host);
    let status = response.status();
    let body = match next {
        Some(_) => Vec::new(),
        None => {
            let read = timeout_at(deadline, connection.drive(beginning(response.into_body()))).await;
            read.map_err(|_| HttpError::Body(TOO_LATE_FOR_BODY.to_owned()))?.map_err(HttpError::Body)?
        }
    };
    Ok((HttpAnswer { status, body }, next))
}

/// The body, as far as it is read.
async fn beginning(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| reason(&error))?;
        if let Some(data) = frame.data_ref() {
            let wanted = data.len().min(LONGEST_BODY - bytes.len());
            bytes.extend_from_slice(&data[..wanted]);
        }
        if bytes.len() == LONGEST_BODY {
            break;
        }
    }
    Ok(bytes)
}

/// A connection and its driver, which runs only while somebody waits for the connection.
enum Connection {
    Http1 { sender: hyper::client::conn::http1::SendRequest<Empty<Bytes>>, driver: Driver },
    Http2 { sender: hyper::client::conn::http2::SendRequest<Empty<Bytes>>, driver: Driver, _leash: Leash },
}

impl Connection {
    async fn open(request: &HttpRequest) -> Result<Self, String> {
        let stream = dial::tcp(&request.host, request.port).await?;
        let stream = match request.scheme {
            Scheme::Http => Stream::Plain(stream),
            Scheme::Https => dial::tls(&request.host, stream).await?,
        };
        if stream.speaks_http2() || (request.http2 && request.scheme == Scheme::Http) {
            let leash = Leash::default();
            let opened = hyper::client::conn::http2::handshake(leash.clone(), TokioIo::new(stream)).await;
            let (sender, connection) = opened.map_err(|error| reason(&error))?;
            return Ok(Self::Http2 { sender, driver: dial::driver(connection), _leash: leash });
        }
        // Some guests compare header names as they are usually written.
        let builder =
            hyper::client::conn::http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream));
        let (sender, connection) = builder.await.map_err(|error| reason(&error))?;
        Ok(Self::Http1 { sender, driver: dial::driver(connection) })
    }

    fn is_http2(&self) -> bool {
        matches!(self, Self::Http2 { .. })
    }

    async fn send(&mut self, head: Request<Empty<Bytes>>) -> Result<Response<Incoming>, String> {
        let (answer, driver) = match self {
            Self::Http1 { sender, driver } => (futures::future::Either::Left(sender.send_request(head)), driver),
            Self::Http2 { sender, driver, .. } => (futures::future::Either::Right(sender.send_request(head)), driver),
        };
        while_driven(driver, answer).await.map_err(|error| reason(&error))
    }

    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        match self {
            Self::Http1 { driver, .. } | Self::Http2 { driver, .. } => while_driven(driver, work).await,
        }
    }
}
