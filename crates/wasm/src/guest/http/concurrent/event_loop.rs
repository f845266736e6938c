//! The event loop of one instance: requests come in by its ledger, answers go out as soon as they begin.
//!
//! Bodies stream both ways, in the same loop. It goes on until the ledger says that it is over. Never here: what may be
//! given to which instance.

use std::future::poll_fn;
use std::task::Poll;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, header};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};

use super::super::request::Answer;
use super::ledger::Ledger;
use crate::wasi::Host;

/// A request on its way to a guest.
pub(super) struct Ask {
    pub(super) request: Request<Incoming>,
    pub(super) answer: oneshot::Sender<Answer<ErrorCode>>,
}

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

/// Runs one instance from its making to its end; consumes the store, so that all it held is given back by then.
pub(super) async fn serve(
    service: ServicePre<Host>,
    mut store: Store<Host>,
    ledger: &Ledger<Box<Ask>>,
) -> wasmtime::Result<()> {
    let service = service.instantiate_async(&mut store).await?;
    let handle = *service.wasi_http_handler().func_handle().func();
    let run = async |store: &Accessor<Host>| {
        let mut calls = FuturesUnordered::new();
        poll_fn(|context| {
            loop {
                match calls.poll_next_unpin(context) {
                    Poll::Ready(Some(Ok(()))) => {}
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) | Poll::Pending => match ledger.take_up() {
                        Some(ask) => calls.push(call(store, &service, ask)),
                        None => break,
                    },
                }
            }
            let quiet = calls.is_empty() && store.poll_no_interesting_tasks(context).is_ready();
            let ready = store.poll_ready_for_concurrent_call(handle, context).is_ready();
            if ledger.turn(quiet, ready) { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    };
    store.run_concurrent(run).await?
}

/// Answers one request. The guest may go on when this has ended.
async fn call(store: &Accessor<Host>, service: &Service, ask: Box<Ask>) -> wasmtime::Result<()> {
    let Ask { request, answer } = *ask;
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
    Ok(())
}
