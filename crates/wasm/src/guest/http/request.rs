//! One request: what a client asks comes in, what the guest answers goes out.
//!
//! The guest runs within its connection's task until its answer begins: no other thread has to be woken for a request
//! that is answered at once, and a client that leaves takes its instance along. What the guest does from then on (most
//! have done it all: the body of a small answer waits beside its head) is a task of its own.

use std::any::Any;
use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::super::{Exit, Stdin};
use super::instances::Instance;
use super::{Handler, Shared, Turn, nameless, p3, plain};
use crate::limits::{Metered, PollCount};
use crate::wasi::Stdio;
use crate::wasi::stdio::{Input, Output, Pieces};

/// The guest's answer to one request: a response, or the error it chose.
pub(super) type Answer<E> = Result<Response<HyperOutgoingBody>, E>;

/// What was asked, for a line on standard error.
struct Asked {
    method: Method,
    uri: Uri,
}

/// What one request holds while it runs.
struct Running {
    asked: Asked,
    turn: Turn,
    stdio: Stdio,
    polls: PollCount,
    /// Whether its instance has answered another request before.
    used: bool,
}

/// What came of a guest while a client waited for it.
enum Began<E> {
    /// Its answer; and whether it has ended too.
    Answered(Answer<E>, bool),
    /// It ended without one; with this status.
    Ended(StatusCode),
}

impl Shared {
    pub(super) async fn run(self: Arc<Self>, request: Request<Incoming>, turn: Turn) -> Response<HyperOutgoingBody> {
        let asked = Asked { method: request.method().clone(), uri: request.uri().clone() };
        let mut instance = self.instances.waiting().unwrap_or_else(|| self.fresh());
        let running = Running {
            asked,
            turn,
            stdio: instance.stdio.clone(),
            polls: instance.polls.clone(),
            used: instance.is_used(),
        };
        match self.instances.handler().clone() {
            Handler::P2(proxy) => {
                let (answer, answered) = oneshot::channel();
                let mut http = instance.store.data_mut().http();
                let Ok(incoming) = http.new_incoming_request(Scheme::Http, request) else { return nameless() };
                let Ok(outparam) = http.new_response_outparam(answer) else {
                    return plain(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be run\n");
                };
                let handle = async move { instance.handle(&proxy, incoming, outparam).await.map(Some) };
                self.respond(handle, running, answered).await
            }
            Handler::P3(service) => {
                let Some(request) = p3::addressed(request) else { return nameless() };
                let (answer, answered) = oneshot::channel();
                let handle = async move { p3::handle(service, instance.store, request, answer).await.map(|()| None) };
                self.respond(handle, running, answered).await
            }
        }
    }

    /// Runs a request until its answer begins, and has the rest run by itself.
    async fn respond<E: Debug>(
        self: &Arc<Self>,
        handle: impl Future<Output = wasmtime::Result<Option<Instance>>> + Send + 'static,
        running: Running,
        answered: oneshot::Receiver<Answer<E>>,
    ) -> Response<HyperOutgoingBody> {
        let (shared, polls) = (Arc::clone(self), running.polls.clone());
        let work = async move {
            let ended = AssertUnwindSafe(handle).catch_unwind().await;
            shared.judge(ended, running).await
        };
        let mut work = Metered::new(Arc::clone(&self.metering), polls, work);
        match begun(&mut work, answered).await {
            Began::Answered(answer, ended) => {
                if !ended {
                    self.go_on(work);
                }
                answer.unwrap_or_else(|error| {
                    tracing::debug!("HTTP guest: answered with an error: {error:?}");
                    plain(StatusCode::INTERNAL_SERVER_ERROR, "the guest answered with an error\n")
                })
            }
            Began::Ended(status) => plain(status, "the guest ended without an answer\n"),
        }
    }

    /// Runs what is left of a request once its answer has begun.
    fn go_on(&self, work: impl Future<Output = StatusCode> + Send + 'static) {
        let abort = self.abort.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = abort.cancelled() => {}
                _ = work => {}
            }
        });
    }

    fn fresh(&self) -> Instance {
        let stdio = Stdio {
            input: Input::new(Stdin::Empty, self.tty),
            output: Output::new(self.stdout.clone(), self.tty, Pieces::Lines),
            error: Output::new(self.stderr.clone(), self.tty, Pieces::Lines),
        };
        let (memory, termination) = (self.metering.store_memory(), self.termination.clone());
        let host = self.surroundings.host(&self.args, stdio.clone(), memory, termination);
        self.instances.fresh(host, stdio)
    }

    /// What the end of a request means for its instance and for the guest; the status is for a client that has no answer
    /// yet.
    async fn judge(
        &self,
        ended: Result<wasmtime::Result<Option<Instance>>, Box<dyn Any + Send>>,
        running: Running,
    ) -> StatusCode {
        let Running { asked, turn: _until_the_end, stdio, used, .. } = running;
        let mut status = StatusCode::INTERNAL_SERVER_ERROR;
        let (exit, instance) = match ended {
            Ok(Ok(instance)) => (Exit::Code(0), instance),
            // The others are not to end with this one, as they would if the whole container were out of memory.
            Ok(Err(error)) if is_crowded(&error) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                (Exit::Trap { message: format!("{error:#}") }, None)
            }
            Ok(Err(error)) => (Exit::from_error(&error), None),
            Err(panic) => (Exit::from_panic(panic.as_ref()), None),
        };
        if let Some(complaint) = exit.complaint() {
            stdio.error.write_line(&format!("{} {}: {complaint}", asked.method, asked.uri.path())).await;
        }
        if used && matches!(exit, Exit::Trap { .. }) && self.instances.share_no_more() {
            let line =
                "an instance failed that had answered before; from now on each request has an instance of its own";
            stdio.error.write_line(line).await;
        }
        stdio.output.finish().await;
        stdio.error.finish().await;
        if let Some(instance) = instance {
            self.instances.give_back(instance);
        }
        // One instance that alone outgrows the container's limit, or a bug of ours: the container ends, as on Linux.
        if matches!(exit, Exit::OutOfMemory | Exit::HostPanic { .. }) {
            self.fatal.send_replace(Some(exit));
        }
        status
    }
}

/// Runs the guest until its answer begins or it ends.
async fn begun<E>(
    work: &mut (impl Future<Output = StatusCode> + Unpin),
    answered: oneshot::Receiver<Answer<E>>,
) -> Began<E> {
    let mut answered = Some(answered);
    poll_fn(|context| {
        // The guest first: what it answers is seen at once.
        let ended = work.poll_unpin(context);
        if let Poll::Ready(answer) = poll_answer(&mut answered, context) {
            return Poll::Ready(Began::Answered(answer, ended.is_ready()));
        }
        ended.map(Began::Ended)
    })
    .await
}

/// Ready with an answer, and never again; a guest that will give none is waited for to end.
fn poll_answer<E>(answered: &mut Option<oneshot::Receiver<Answer<E>>>, context: &mut Context<'_>) -> Poll<Answer<E>> {
    let Some(receiver) = answered else { return Poll::Pending };
    match Pin::new(receiver).poll(context) {
        Poll::Ready(Ok(answer)) => Poll::Ready(answer),
        Poll::Ready(Err(_)) => {
            *answered = None;
            Poll::Pending
        }
        Poll::Pending => Poll::Pending,
    }
}

/// Whether a request failed only because others ran at the same time.
fn is_crowded(error: &wasmtime::Error) -> bool {
    error.is::<wasmtime::PoolConcurrencyLimitError>()
        || error.chain().any(<dyn std::error::Error>::is::<crate::limits::MemoryShared>)
}
