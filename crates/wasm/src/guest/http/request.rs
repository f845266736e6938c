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
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::super::{Exit, Stdin};
use super::instances::{self, Instance};
use super::{Instances, Shared, Turn, failed, nameless, plain};
use crate::limits::{Metered, PollCount, yield_at_ticks};
use crate::wasi::stdio::{Input, Output, Pieces};
use crate::wasi::{Host, Stdio};

/// The guest's answer to one request: a response, or the error it chose.
pub(super) type Answer<E> = Result<Response<HyperOutgoingBody>, E>;

/// What was asked, for a line on standard error.
#[derive(Clone)]
pub(super) struct Asked {
    method: Method,
    uri: Uri,
}

impl Asked {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone() }
    }
}

/// What one request to a handler of 0.2 holds while it runs.
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
        match &self.instances {
            Instances::P2(instances) => self.run_alone(instances, request, turn).await,
            Instances::P3(instances) => self.run_beside_others(instances, request, turn).await,
        }
    }

    /// Answers a request in an instance that has no other at the time.
    async fn run_alone(
        self: &Arc<Self>,
        instances: &instances::Instances,
        request: Request<Incoming>,
        turn: Turn,
    ) -> Response<HyperOutgoingBody> {
        let proxy = instances.proxy().clone();
        let mut instance = instances.waiting().unwrap_or_else(|| Instance::new(self.store(proxy.engine())));
        let running = Running {
            asked: Asked::of(&request),
            turn,
            stdio: instance.stdio.clone(),
            polls: instance.polls.clone(),
            used: instance.is_used(),
        };
        let (answer, answered) = oneshot::channel();
        let mut http = instance.store.data_mut().http();
        let Ok(incoming) = http.new_incoming_request(Scheme::Http, request) else { return nameless() };
        let Ok(outparam) = http.new_response_outparam(answer) else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be run\n");
        };
        let handle = async move { instance.handle(&proxy, incoming, outparam).await };
        self.respond(handle, running, answered).await
    }

    /// Runs a request until its answer begins, and has the rest run by itself.
    async fn respond<E: Debug>(
        self: &Arc<Self>,
        handle: impl Future<Output = wasmtime::Result<Instance>> + Send + 'static,
        running: Running,
        answered: oneshot::Receiver<Answer<E>>,
    ) -> Response<HyperOutgoingBody> {
        let (shared, polls) = (Arc::clone(self), running.polls.clone());
        let work = async move {
            let ended = AssertUnwindSafe(handle).catch_unwind().await;
            let Running { asked, turn: _until_the_end, stdio, used, .. } = running;
            let share_no_more = || used && shared.alone().is_some_and(instances::Instances::share_no_more);
            let (status, instance) = shared.judge(ended, &[asked], &stdio, share_no_more).await;
            if let (Some(instances), Some(instance)) = (shared.alone(), instance) {
                instances.give_back(instance);
            }
            status
        };
        let mut work = Metered::new(Arc::clone(&self.metering), polls, work);
        match begun(&mut work, answered).await {
            Began::Answered(answer, ended) => {
                if !ended {
                    self.go_on(work);
                }
                answer.unwrap_or_else(|error| failed(&error))
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

    /// A store for an instance, with its streams and what counts its polls.
    pub(super) fn store(&self, engine: &Engine) -> (Store<Host>, Stdio, PollCount) {
        let stdio = Stdio {
            input: Input::new(Stdin::Empty, self.tty),
            output: Output::new(self.stdout.clone(), self.tty, Pieces::Lines),
            error: Output::new(self.stderr.clone(), self.tty, Pieces::Lines),
        };
        let (memory, termination) = (self.metering.store_memory(), self.termination.clone());
        let host = self.surroundings.host(&self.args, stdio.clone(), memory, termination);
        let mut store = Store::new(engine, host);
        store.limiter(|host| &mut host.memory);
        let polls = PollCount::default();
        yield_at_ticks(&mut store, &polls);
        (store, stdio, polls)
    }

    fn alone(&self) -> Option<&instances::Instances> {
        match &self.instances {
            Instances::P2(instances) => Some(instances),
            Instances::P3(_) => None,
        }
    }

    /// What the end of an instance, or of a request to it, means for the guest. The status is for clients that have no answer
    /// yet; what has not failed comes back. One that trapped may have to be the last that answered several.
    pub(super) async fn judge<T>(
        &self,
        ended: Result<wasmtime::Result<T>, Box<dyn Any + Send>>,
        asked: &[Asked],
        stdio: &Stdio,
        share_no_more: impl FnOnce() -> bool,
    ) -> (StatusCode, Option<T>) {
        let mut status = StatusCode::INTERNAL_SERVER_ERROR;
        let (exit, whole) = match ended {
            Ok(Ok(whole)) => (Exit::Code(0), Some(whole)),
            // The others are not to end with this one, as they would if the whole container were out of memory.
            Ok(Err(error)) if is_crowded(&error) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                (Exit::Trap { message: format!("{error:#}") }, None)
            }
            Ok(Err(error)) => (Exit::from_error(&error), None),
            Err(panic) => (Exit::from_panic(panic.as_ref()), None),
        };
        if let Some(complaint) = exit.complaint() {
            stdio.error.write_line(&format!("{}: {complaint}", named(asked))).await;
        }
        if matches!(exit, Exit::Trap { .. }) && share_no_more() {
            let line =
                "an instance failed that had answered before; from now on each request has an instance of its own";
            stdio.error.write_line(line).await;
        }
        stdio.output.finish().await;
        stdio.error.finish().await;
        // One instance that alone outgrows the container's limit, or a bug of ours: the container ends, as on Linux.
        if matches!(exit, Exit::OutOfMemory | Exit::HostPanic { .. }) {
            self.fatal.send_replace(Some(exit));
        }
        (status, whole)
    }
}

/// The requests that ended together, by method and path.
fn named(asked: &[Asked]) -> String {
    let names: Vec<_> = asked.iter().map(|asked| format!("{} {}", asked.method, asked.uri.path())).collect();
    if names.is_empty() { "after its answer".to_owned() } else { names.join(", ") }
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
