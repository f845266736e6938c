//! The requests to a Spin application: a request and its client's address come in, the answer of the component that has its
//! route goes out.
//!
//! The component is told of the route by headers of Spin's own, which no client can set. Never here: how a component runs.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::{Handler, Shared, plain};
use crate::spin::route::{Match, Router, WELL_KNOWN, split};
use crate::spin::{Answer, Fixed};
use crate::wasi::Surroundings;

const FULL_URL: HeaderName = HeaderName::from_static("spin-full-url");
const PATH_INFO: HeaderName = HeaderName::from_static("spin-path-info");
const MATCHED_ROUTE: HeaderName = HeaderName::from_static("spin-matched-route");
const COMPONENT_ROUTE: HeaderName = HeaderName::from_static("spin-component-route");
const RAW_COMPONENT_ROUTE: HeaderName = HeaderName::from_static("spin-raw-component-route");
const BASE_PATH: HeaderName = HeaderName::from_static("spin-base-path");
const CLIENT_ADDR: HeaderName = HeaderName::from_static("spin-client-addr");
/// Before the name of a segment of the route.
const PATH_MATCH: &str = "spin-path-match-";

/// A Spin application's routes, and its components but the first.
pub(in crate::guest) struct Routed {
    pub(in crate::guest) router: Router,
    pub(in crate::guest) answers: Vec<Answer>,
    pub(in crate::guest) about: Bytes,
    pub(in crate::guest) others: Vec<(String, Handler, Arc<Surroundings>)>,
}

/// An application that answers.
pub(super) struct Site {
    pub(super) router: Router,
    pub(super) answers: Vec<Answer>,
    /// What it tells of itself, in JSON.
    pub(super) about: Bytes,
    pub(super) parts: Vec<Arc<Shared>>,
}

impl Site {
    pub(super) async fn answer(&self, request: Request<Incoming>, from: SocketAddr) -> Response<HyperOutgoingBody> {
        let path = request.uri().path().to_owned();
        match path.strip_prefix(WELL_KNOWN) {
            Some("health") => return plain(StatusCode::OK, "OK"),
            Some("info") => return self.information(),
            Some(_) => return nothing_there(),
            None => {}
        }
        let segments = split(&path);
        let Some(found) = self.router.find(&segments, path.len() > 1 && path.ends_with('/')) else {
            return nothing_there();
        };
        match self.answers.get(found.route.trigger) {
            Some(Answer::Static(fixed)) => response(fixed),
            Some(Answer::Part(number)) => match self.parts.get(*number) {
                Some(part) => Arc::clone(part).answer(told(request, &found, from)).await,
                None => nothing_there(),
            },
            None => nothing_there(),
        }
    }

    fn information(&self) -> Response<HyperOutgoingBody> {
        let headers = [(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let headers = HeaderMap::from_iter(headers);
        response(&Fixed { status: StatusCode::OK, headers, body: self.about.clone() })
    }
}

fn nothing_there() -> Response<HyperOutgoingBody> {
    plain(StatusCode::NOT_FOUND, "no route of the application has this path\n")
}

fn response(fixed: &Fixed) -> Response<HyperOutgoingBody> {
    let mut response = Response::new(Full::new(fixed.body.clone()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = fixed.status;
    *response.headers_mut() = fixed.headers.clone();
    response
}

/// The request with what Spin tells a component of its route.
fn told(mut request: Request<Incoming>, found: &Match<'_>, from: SocketAddr) -> Request<Incoming> {
    let of_client: Vec<_> =
        request.headers().keys().filter(|name| name.as_str().starts_with(PATH_MATCH)).cloned().collect();
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let full_url = format!("http://{host}{path}");
    let headers = request.headers_mut();
    for name in of_client {
        headers.remove(name);
    }
    let route = found.route;
    let fixed = [
        (FULL_URL, full_url.as_str()),
        (PATH_INFO, found.rest.as_str()),
        (MATCHED_ROUTE, route.based()),
        (COMPONENT_ROUTE, route.raw_prefix()),
        (RAW_COMPONENT_ROUTE, route.raw()),
        (BASE_PATH, "/"),
        (CLIENT_ADDR, &from.to_string()),
    ];
    let named = found.named.iter().filter_map(|(name, value)| {
        let name = format!("{PATH_MATCH}{}", name.to_ascii_lowercase()).parse::<HeaderName>().ok()?;
        Some((name, *value))
    });
    for (name, value) in fixed.into_iter().chain(named) {
        // What came by the same name says nothing, also where ours cannot be a header.
        match HeaderValue::from_str(value) {
            Ok(value) => drop(headers.insert(name, value)),
            Err(_) => drop(headers.remove(name)),
        }
    }
    request
}
