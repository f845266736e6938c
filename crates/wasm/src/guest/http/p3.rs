//! One request to a handler of WASI 0.3: a request comes in, the guest's answer goes out as soon as it begins.
//!
//! Bodies stream both ways, in the event loop of the instance's store. That runs until the guest's last task has ended,
//! which may be long after the answer. Never here: which instance, and what it may use.

use std::future::poll_fn;

use futures::FutureExt;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, header};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;

use super::request::Answer;
use crate::wasi::Host;

/// The request with the whole of its target, as WASI hands it over; none if it names no host.
pub(super) fn addressed(request: Request<Incoming>) -> Option<Request<Incoming>> {
    let (mut head, body) = request.into_parts();
    let named = head.headers.get(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut target = head.uri.into_parts();
    target.scheme = Some(Scheme::HTTP);
    target.authority = target.authority.or(named);
    target.path_and_query = target.path_and_query.or(Some(PathAndQuery::from_static("/")));
    head.uri = Uri::from_parts(target).ok()?;
    Some(Request::from_parts(head, body))
}

/// Answers one request in a new instance.
pub(super) async fn handle(
    service: ServicePre<Host>,
    mut store: Store<Host>,
    request: Request<Incoming>,
    answer: oneshot::Sender<Answer<ErrorCode>>,
) -> wasmtime::Result<()> {
    let service = service.instantiate_async(&mut store).await?;
    let run = async |store: &Accessor<Host>| {
        let (request, sent) = store.with(|mut store| {
            let (request, sent) = p3::Request::from_http(store.get().http().hooks, request);
            (request, sent.boxed())
        });
        let answered = match service.handle(store, request).await? {
            Ok(response) => Ok(store.with(|store| response.into_http(store, sent))?),
            Err(error) => Err(error),
        };
        // A client that has left is seen by the guest as a closed stream.
        let _ = answer.send(answered);
        poll_fn(|context| store.poll_no_interesting_tasks(context)).await;
        Ok(())
    };
    store.run_concurrent(run).await?
}
