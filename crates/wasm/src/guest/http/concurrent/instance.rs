//! One instance of a handler of WASI 0.3: requests come in, up to 16 at a time, and it is run until each has its answer.
//!
//! Whoever brings a request runs the instance there and then, so that no other thread has to be woken for what is answered
//! at once. What goes on after that is run by a task of the instance's own, for which its [`Bell`] rings. Limits of time
//! are held out here: within, nothing moves while the guest computes or blocks.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::{Mutex, OwnedSemaphorePermit, SetOnce};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::super::request::Asked;
use super::super::{Shared, Turn};
use super::Instances;
use super::bell::Bell;
use super::event_loop::{self, Ask};
use super::ledger::Ledger;
use crate::limits::{Metered, PollCount};

/// How often an instance is polled in one go, as long as its guest wakes itself meanwhile.
const ROUNDS: usize = 4;
/// After this long its thread goes on to others first.
const LONG_ROUND: Duration = Duration::from_millis(1);

/// One instance.
pub(super) struct Instance {
    pub(super) ledger: Arc<Ledger<Box<Ask>>>,
    polls: PollCount,
    bell: Arc<Bell>,
    waker: Waker,
    driven: Mutex<Driven>,
    /// What clients without an answer get, once the instance is no more.
    over: SetOnce<StatusCode>,
}

/// What one at a time may run.
struct Driven {
    /// None once it has ended.
    run: Option<BoxFuture<'static, StatusCode>>,
    /// Whether a task of its own sees to it.
    has_task: bool,
    /// Whether it stands among those that take requests.
    is_listed: bool,
}

/// A client in an instance, until it has its whole answer or has left.
pub(super) struct Client {
    instance: Arc<Instance>,
    instances: Arc<Instances>,
    number: u32,
    has_answer: bool,
    _turn: Turn,
}

impl Instance {
    /// A new one. Its making is paid for by its first request.
    pub(super) fn new(shared: &Arc<Shared>, instances: &Arc<Instances>, place: OwnedSemaphorePermit) -> Arc<Self> {
        let service = instances.service.clone();
        let (store, stdio, polls) = shared.store(service.engine());
        let ledger = Arc::new(Ledger::new(instances.requests_each()));
        let bell = Arc::new(Bell::default());
        let run = {
            let (shared, instances, ledger) = (Arc::clone(shared), Arc::clone(instances), Arc::clone(&ledger));
            async move {
                let _place = place;
                let ended = AssertUnwindSafe(event_loop::serve(service, store, &ledger)).catch_unwind().await;
                let (asked, given) = ledger.asked();
                let share_no_more = || given > 1 && instances.share_no_more();
                shared.judge(ended, &asked, &stdio, share_no_more).await.0
            }
        };
        let run = in_rounds(run, Arc::clone(&ledger), Arc::clone(&bell));
        let run = Metered::new(Arc::clone(&shared.metering), polls.clone(), run).boxed();
        let driven = Driven { run: Some(run), has_task: false, is_listed: false };
        let waker = Waker::from(Arc::clone(&bell));
        Arc::new(Self { ledger, polls, bell, waker, driven: Mutex::new(driven), over: SetOnce::new() })
    }

    /// Gives it a request, and runs it until it waits for something. The request comes back if somebody else runs the
    /// instance, or if its event loop does not come round. One that is `new`, or has to wait for its turn on the CPU, takes it
    /// up in its own time.
    pub(super) fn enter(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        instances: &Arc<Instances>,
        ask: Box<Ask>,
        asked: &Asked,
        new: bool,
    ) -> Result<u32, Box<Ask>> {
        let Ok(mut driven) = self.driven.try_lock() else {
            // It stays on the list, behind the others.
            instances.put_back(Arc::clone(self));
            return Err(ask);
        };
        driven.is_listed = false;
        if driven.run.is_none() {
            return Err(ask);
        }
        let number = self.ledger.give(ask, asked)?;
        let before = self.polls.get();
        self.run(&mut driven);
        let waits_for_cpu = self.polls.get() == before;
        let back = if new || waits_for_cpu { None } else { self.ledger.take_back(number) };
        self.settle(&mut driven, shared, instances);
        back.map_or(Ok(number), Err)
    }

    /// Runs it until it waits.
    fn run(&self, driven: &mut Driven) {
        let Some(run) = &mut driven.run else { return };
        self.bell.attend();
        let polled = run.as_mut().poll(&mut Context::from_waker(&self.waker));
        self.bell.leave();
        if let Poll::Ready(status) = polled {
            driven.run = None;
            self.ended(status);
        }
    }

    fn ended(&self, status: StatusCode) {
        // It ends once: by itself, or with its task.
        let _ = self.over.set(status);
        // So that its task ends too.
        self.bell.ring();
    }

    /// Sees to it that somebody runs it from now on, and that it is given more if it can take more.
    fn settle(self: &Arc<Self>, driven: &mut Driven, shared: &Arc<Shared>, instances: &Arc<Instances>) {
        if driven.run.is_none() {
            return;
        }
        if !driven.has_task {
            driven.has_task = true;
            shared.tracker.spawn(Arc::clone(self).drive(Arc::clone(shared), Arc::clone(instances)));
        }
        if driven.is_listed || !self.ledger.has_room() {
            return;
        }
        if instances.are_shared() {
            driven.is_listed = true;
            instances.list(Arc::clone(self));
        } else {
            // They have ceased to be since it was made.
            self.close();
        }
    }

    /// The instance's own task: runs it whenever its bell rings, until it is over, given up, or the guest ends.
    async fn drive(self: Arc<Self>, shared: Arc<Shared>, instances: Arc<Instances>) {
        let mut retired = false;
        loop {
            let given_up_at = self.ledger.given_up_at();
            let given_up = async {
                match given_up_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shared.abort.cancelled() => break,
                () = instances.retired.cancelled(), if !retired => {
                    retired = true;
                    self.ledger.close();
                }
                () = self.bell.rung() => {}
                () = given_up => {}
            }
            if self.ledger.is_given_up(tokio::time::Instant::now()) {
                break;
            }
            let mut driven = self.driven.lock().await;
            self.run(&mut driven);
            if driven.run.is_none() {
                return;
            }
            self.settle(&mut driven, &shared, &instances);
        }
        self.driven.lock().await.run = None;
        self.ended(StatusCode::INTERNAL_SERVER_ERROR);
    }

    /// It takes nothing more, and ends when what it has begun has.
    pub(super) fn close(&self) {
        self.ledger.close();
        self.bell.ring();
    }
}

impl Client {
    pub(super) fn new(instance: Arc<Instance>, instances: Arc<Instances>, number: u32, turn: Turn) -> Self {
        Self { instance, instances, number, has_answer: false, _turn: turn }
    }

    /// The instance ended without an answer to this client; with this status.
    pub(super) async fn ended(mut self) -> StatusCode {
        self.has_answer = true;
        *self.instance.over.wait().await
    }

    /// Its answer has begun, and is whole with its body.
    pub(super) fn attends(mut self, body: HyperOutgoingBody) -> HyperOutgoingBody {
        self.has_answer = true;
        Attended { body, _client: self }.boxed_unsync()
    }

    /// There is no more to its answer.
    pub(super) fn has_answer(mut self) {
        self.has_answer = true;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let place = || Arc::clone(&self.instances.idle_places).try_acquire_owned().ok();
        if self.instance.ledger.leave(self.number, self.has_answer, tokio::time::Instant::now(), place) {
            self.instance.bell.ring();
        }
    }
}

/// A body whose client is in the instance until it has been sent.
struct Attended {
    body: HyperOutgoingBody,
    _client: Client,
}

impl Body for Attended {
    type Data = Bytes;
    type Error = <HyperOutgoingBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Polls on while the bell rings meanwhile, and once more after a request was taken up, to see whether that waits; not
/// after a guest has computed for long.
async fn in_rounds<T>(run: impl Future<Output = T>, ledger: Arc<Ledger<Box<Ask>>>, bell: Arc<Bell>) -> T {
    let mut run = pin!(run);
    poll_fn(|context| {
        let began = Instant::now();
        for round in 1..=ROUNDS {
            ledger.runs();
            if let Poll::Ready(ended) = run.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            let goes_on = round < ROUNDS && began.elapsed() < LONG_ROUND && (bell.has_rung() | ledger.is_unsettled());
            if !goes_on {
                break;
            }
        }
        Poll::Pending
    })
    .await
}
