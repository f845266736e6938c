//! The instances of a handler of WASI 0.2: a component comes in, an instance for each request goes out.
//!
//! An instance answers one request, so that nothing of one client can be seen by another. Where the pod asks for more
//! ([`crate::container`] reads its annotation), an instance that has answered waits here for the next request. What a
//! guest keeps in its memory is then shared by clients, and a guest whose instance fails at a later request is no
//! longer given any to share.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wasmtime::Store;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use crate::limits::PollCount;
use crate::wasi::{Host, Stdio};

/// How long an instance waits for a next request. Until then it holds its memory, within the container's limit.
pub(super) const IDLE: Duration = Duration::from_secs(10);

/// The instances of one guest.
pub(super) struct Instances {
    proxy: ProxyPre<Host>,
    requests_each: AtomicU32,
    idle: Mutex<VecDeque<Idle>>,
    /// Told when one begins to wait.
    waits: Notify,
    /// Over all guests of the process: those that may wait.
    places: Arc<Semaphore>,
}

struct Idle {
    instance: Instance,
    since: Instant,
    _place: OwnedSemaphorePermit,
}

/// One instance and its store.
pub(super) struct Instance {
    pub(super) store: Store<Host>,
    /// What is called again. Absent until the first request, which pays for its making.
    proxy: Option<Proxy>,
    pub(super) stdio: Stdio,
    pub(super) polls: PollCount,
    answered: u32,
}

impl Instances {
    pub(super) fn new(proxy: ProxyPre<Host>, requests_each: Option<NonZeroU32>, places: Arc<Semaphore>) -> Self {
        let requests_each = AtomicU32::new(requests_each.map_or(1, NonZeroU32::get));
        Self { proxy, requests_each, idle: Mutex::default(), waits: Notify::new(), places }
    }

    pub(super) fn proxy(&self) -> &ProxyPre<Host> {
        &self.proxy
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an instance may answer more than one request.
    pub(super) fn are_shared(&self) -> bool {
        self.requests_each.load(Ordering::Relaxed) > 1
    }

    /// One that waits, the last that came first: the others are left to expire.
    pub(super) fn waiting(&self) -> Option<Instance> {
        self.are_shared().then(|| self.idle().pop_back()).flatten().map(|idle| idle.instance)
    }

    /// Takes an instance back that has answered; it is dropped where it may not wait.
    pub(super) fn give_back(&self, instance: Instance) {
        if instance.answered >= self.requests_each.load(Ordering::Relaxed) {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        self.idle().push_back(Idle { instance, since: Instant::now(), _place: place });
        self.waits.notify_one();
    }

    /// An instance failed that had answered before. Its guest may not be made for that: from now on each request has its
    /// own. Says whether that is new.
    pub(super) fn share_no_more(&self) -> bool {
        let were_shared = self.requests_each.swap(1, Ordering::Relaxed) > 1;
        self.idle().clear();
        were_shared
    }

    /// Drops what has waited too long, for as long as the guest is served.
    pub(super) async fn expire(&self) -> Infallible {
        loop {
            let oldest = self.idle().front().map(|idle| idle.since);
            match oldest {
                None => self.waits.notified().await,
                Some(since) => {
                    tokio::time::sleep_until(since + IDLE).await;
                    self.idle().retain(|idle| idle.since.elapsed() < IDLE);
                }
            }
        }
    }
}

impl Instance {
    pub(super) fn new((store, stdio, polls): (Store<Host>, Stdio, PollCount)) -> Self {
        Self { store, proxy: None, stdio, polls, answered: 0 }
    }

    /// Answers one request.
    pub(super) async fn handle(
        mut self,
        proxy: &ProxyPre<Host>,
        request: Resource<HostIncomingRequest>,
        answer: Resource<HostResponseOutparam>,
    ) -> wasmtime::Result<Self> {
        let proxy = match &mut self.proxy {
            Some(proxy) => proxy,
            absent => absent.insert(proxy.instantiate_async(&mut self.store).await?),
        };
        proxy.wasi_http_incoming_handler().call_handle(&mut self.store, request, answer).await?;
        self.answered = self.answered.saturating_add(1);
        Ok(self)
    }

    /// Whether it has answered a request before.
    pub(super) fn is_used(&self) -> bool {
        self.answered > 0
    }
}
