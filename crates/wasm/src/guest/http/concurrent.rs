//! The instances of a handler of WASI 0.3: requests come in, each goes to an instance that answers it beside others.
//!
//! Such handlers are written for calls that wait beside one another, so an instance has up to 16 requests at a time, and
//! 128 in its life, unless the pod says otherwise: an idle one is taken first, then one all of whose requests wait, then a
//! new one. Its guest runs on one thread at a time, so one that computes keeps its other requests waiting, and one that
//! traps ends them all. A guest whose instance failed after an earlier request is not trusted with that any more: from then
//! on each request has its own.

mod bell;
mod event_loop;
mod instance;
mod ledger;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::instances::IDLE;
use super::request::Asked;
use super::{Shared, Turn, failed, nameless, plain};
use crate::wasi::Host;
use event_loop::{Ask, addressed};
use instance::{Client, Instance};

/// Requests that one instance answers, as `wasmtime serve` has it.
const REQUESTS_EACH: u32 = 128;
/// Instances of one guest at a time. More than clients can be in: some go on after their last answer.
const INSTANCES: usize = 256;
/// Instances that are tried for one request; they are taken away or put off by others at that moment.
const TRIES: usize = 4;

/// The instances of one guest.
pub(super) struct Instances {
    service: ServicePre<Host>,
    requests_each: AtomicU32,
    /// Those that take requests, the one that was used last at the end.
    listed: Mutex<VecDeque<Arc<Instance>>>,
    /// Told when one is listed.
    came: Notify,
    /// Over all guests of the process: those that nobody is in.
    idle_places: Arc<Semaphore>,
    places: Arc<Semaphore>,
    retired: CancellationToken,
}

impl Instances {
    pub(super) fn new(
        service: ServicePre<Host>,
        requests_each: Option<NonZeroU32>,
        idle_places: Arc<Semaphore>,
    ) -> Self {
        Self {
            service,
            requests_each: AtomicU32::new(requests_each.map_or(REQUESTS_EACH, NonZeroU32::get)),
            listed: Mutex::default(),
            came: Notify::new(),
            idle_places,
            places: Arc::new(Semaphore::new(INSTANCES)),
            retired: CancellationToken::new(),
        }
    }

    fn listed(&self) -> MutexGuard<'_, VecDeque<Arc<Instance>>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests_each(&self) -> u32 {
        self.requests_each.load(Ordering::Relaxed)
    }

    pub(super) fn are_shared(&self) -> bool {
        self.requests_each() > 1
    }

    fn list(&self, instance: Arc<Instance>) {
        self.listed().push_back(instance);
        self.came.notify_one();
    }

    /// Lists one that somebody runs, behind all others.
    fn put_back(&self, instance: Arc<Instance>) {
        self.listed().push_front(instance);
    }

    /// One that nobody is in, the last that came first, so that the others are left to expire; else any.
    fn take(&self) -> Option<Arc<Instance>> {
        let mut listed = self.listed();
        let idle = listed.iter().rposition(|instance| instance.ledger.idle_since().is_some());
        match idle {
            Some(idle) => listed.remove(idle),
            None => listed.pop_back(),
        }
    }

    /// An instance failed that had been given several requests. Says whether it is new that none is from now on.
    fn share_no_more(&self) -> bool {
        let were_shared = self.requests_each.swap(1, Ordering::Relaxed) > 1;
        let listed = std::mem::take(&mut *self.listed());
        listed.iter().for_each(|instance| instance.close());
        were_shared
    }

    /// Ends what has waited too long, for as long as the guest is served.
    pub(super) async fn expire(&self) -> Infallible {
        loop {
            let (any, oldest) = {
                let listed = self.listed();
                (!listed.is_empty(), listed.iter().filter_map(|instance| instance.ledger.idle_since()).min())
            };
            if !any {
                self.came.notified().await;
                continue;
            }
            tokio::time::sleep_until(oldest.unwrap_or_else(Instant::now) + IDLE).await;
            self.listed().retain(|instance| {
                if instance.ledger.idle_since().is_some_and(|since| since.elapsed() >= IDLE) {
                    instance.close();
                }
                !instance.ledger.is_closed()
            });
        }
    }

    /// No requests come any more: each instance ends when what it has begun has.
    pub(super) fn retire(&self) {
        self.retired.cancel();
    }
}

impl Shared {
    /// Answers a request in an instance that may have others.
    pub(super) async fn run_beside_others(
        self: &Arc<Self>,
        instances: &Arc<Instances>,
        request: Request<Incoming>,
        turn: Turn,
    ) -> Response<HyperOutgoingBody> {
        let asked = Asked::of(&request);
        let Some(request) = addressed(request) else { return nameless() };
        // One that may not run now would seem to be busy, and a new one may not run either.
        self.metering.may_run().await;
        let (answer, answered) = oneshot::channel();
        let Some((instance, number)) = self.admitted(instances, Box::new(Ask { request, answer }), &asked) else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many instances are at work\n");
        };
        let client = Client::new(instance, Arc::clone(instances), number, turn);
        match answered.await {
            Ok(Ok(response)) => response.map(|body| client.attends(body)),
            Ok(Err(error)) => {
                client.has_answer();
                failed(&error)
            }
            Err(_) => plain(client.ended().await, "the guest ended without an answer\n"),
        }
    }

    /// The instance that has taken the request, and the client's number in it; none if there are too many.
    fn admitted(
        self: &Arc<Self>,
        instances: &Arc<Instances>,
        mut ask: Box<Ask>,
        asked: &Asked,
    ) -> Option<(Arc<Instance>, u32)> {
        for _ in 0..TRIES {
            let Some(instance) = instances.take() else { break };
            match instance.enter(self, instances, ask, asked, false) {
                Ok(number) => return Some((instance, number)),
                Err(back) => ask = back,
            }
        }
        let place = Arc::clone(&instances.places).try_acquire_owned().ok()?;
        let instance = Instance::new(self, instances, place);
        let number = instance.enter(self, instances, ask, asked, true).ok()?;
        Some((instance, number))
    }
}
