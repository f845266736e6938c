//! What answers requests: code comes in, the handler that it exports goes out.

use wasmtime::Engine;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

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

    pub(super) fn engine(&self) -> &Engine {
        match self {
            Self::P2(proxy) => proxy.engine(),
            Self::P3(service) => service.engine(),
        }
    }
}
