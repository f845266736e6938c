//! What answers requests: code comes in, the handler that it exports goes out, and its instances.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::{concurrent, instances};
use crate::code::{Code, Prepared};
use crate::wasi::Host;

/// What answers requests.
#[derive(Clone)]
pub(in crate::guest) enum Handler {
    /// `wasi:http/incoming-handler@0.2`.
    P2(ProxyPre<Host>),
    /// `wasi:http/handler@0.3`.
    P3(ServicePre<Host>),
}

impl Handler {
    /// The handler in this code, if it answers HTTP.
    pub(in crate::guest) fn of(code: &Code) -> Option<Self> {
        match code.prepared() {
            Prepared::HttpP2(proxy) => Some(Self::P2(proxy.clone())),
            Prepared::HttpP3(service) => Some(Self::P3(service.clone())),
            Prepared::CommandP1(_) | Prepared::ReactorP1(_) | Prepared::CommandP2(_) | Prepared::CommandP3(_) => None,
        }
    }
}

/// A handler's instances.
pub(super) enum Instances {
    /// Each answers one request at a time.
    P2(instances::Instances),
    /// Each answers several beside one another.
    P3(Arc<concurrent::Instances>),
}

impl Instances {
    /// Of this handler, each for as many requests as the pod wants, else as suits the kind. Those that nobody is in need
    /// one of `idle_places`.
    pub(super) fn new(handler: Handler, requests_each: Option<NonZeroU32>, idle_places: Arc<Semaphore>) -> Self {
        match handler {
            Handler::P2(proxy) => Self::P2(instances::Instances::new(proxy, requests_each, idle_places)),
            Handler::P3(service) => Self::P3(Arc::new(concurrent::Instances::new(service, requests_each, idle_places))),
        }
    }

    /// Whether an instance may answer more than one request, and so may wait for a next one.
    pub(super) fn are_shared(&self) -> bool {
        match self {
            Self::P2(instances) => instances.are_shared(),
            Self::P3(instances) => instances.are_shared(),
        }
    }

    /// Ends what has waited too long for a next request, for as long as the guest is served.
    pub(super) async fn expire(&self) -> Infallible {
        match self {
            Self::P2(instances) => instances.expire().await,
            Self::P3(instances) => instances.expire().await,
        }
    }

    /// No requests come any more.
    pub(super) fn retire(&self) {
        match self {
            // What waits is dropped with the guest.
            Self::P2(_) => {}
            Self::P3(instances) => instances.retire(),
        }
    }
}
