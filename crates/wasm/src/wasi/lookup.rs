//! Name lookup for guests: a name comes in, addresses go out, for `wasi:sockets/ip-name-lookup` and for outgoing HTTP.
//!
//! `localhost` and the pod's own name are answered here; every other name is asked of the node's resolver
//! (`getaddrinfo`), with a bound on time and on how many a pod asks at once.

use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{Host, HostResolveAddressStream, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketResult, subscribe};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::PodSockets;
use super::network::PodNetwork;

/// How long a guest waits for a name at the longest: the resolver's own two tries of 5 seconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest name DNS can carry.
const NAME_BYTES: usize = 253;

/// The addresses of a name, as a guest of the pod sees them.
///
/// # Errors
/// `InvalidInput` for what is no name, `TimedOut`, or what the resolver says.
pub(crate) async fn resolve(network: &PodNetwork, hostname: &str, name: &str) -> io::Result<Vec<IpAddr>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = literal.parse() {
        return Ok(vec![address]);
    }
    if name.is_empty() || name.len() > NAME_BYTES || name.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let lower = name.to_ascii_lowercase();
    if lower == "localhost" || lower.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
    }
    if lower == hostname.to_ascii_lowercase() && !network.address().is_unspecified() {
        return Ok(vec![network.address()]);
    }
    let asked = name.to_owned();
    let look_up = move || {
        let found = (asked.as_str(), 0).to_socket_addrs()?;
        Ok(found.map(|address| address.ip().to_canonical()).collect())
    };
    let answer = tokio::time::timeout(TIMEOUT, on_thread(network, look_up)).await;
    answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Does blocking work in one of the few places that a pod has for it. The place is taken for as long as the work lasts
/// and not only while the guest waits: a guest that gives up at once and asks again would have all threads there are.
async fn on_thread<T: Send + 'static>(
    network: &PodNetwork,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let place = Arc::clone(&network.lookups).acquire_owned().await.map_err(io::Error::other)?;
    let working = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    working.await.map_err(io::Error::other)?
}

fn error_code(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::InvalidInput => ErrorCode::InvalidArgument,
        io::ErrorKind::TimedOut => ErrorCode::TemporaryResolverFailure,
        _ => ErrorCode::NameUnresolvable,
    }
}

type Found = Result<std::vec::IntoIter<IpAddr>, ErrorCode>;

/// What stands behind a guest's `resolve-address-stream`. Wasmtime's own type of that name cannot be made outside of
/// it, so the guest's handle carries the index of one of these; the handle is only ever given back to this file.
enum Lookup {
    Asked(AbortOnDropJoinHandle<Found>),
    Answered(Found),
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        if let Lookup::Asked(asked) = self {
            *self = Lookup::Answered(asked.await);
        }
    }
}

fn ours(handle: &Resource<ResolveAddressStream>) -> Resource<Lookup> {
    Resource::new_borrow(handle.rep())
}

impl Host for PodSockets<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        // The handle is the guest's leave to use the network; it must be a real one.
        self.inner.table.get(&network)?;
        let (network, hostname) = (Arc::clone(self.network), Arc::clone(self.hostname));
        let asked = spawn(async move {
            let found = resolve(&network, &hostname, &name).await;
            found.map(Vec::into_iter).map_err(|error| error_code(&error))
        });
        let lookup = self.inner.table.push(Lookup::Asked(asked))?;
        Ok(Resource::new_own(lookup.rep()))
    }
}

impl HostResolveAddressStream for PodSockets<'_> {
    fn resolve_next_address(&mut self, this: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        let lookup = self.inner.table.get_mut(&ours(&this))?;
        lookup.ready().now_or_never();
        match lookup {
            Lookup::Asked(_) => Err(ErrorCode::WouldBlock.into()),
            Lookup::Answered(Ok(addresses)) => Ok(addresses.next().map(Into::into)),
            Lookup::Answered(Err(error)) => Err((*error).into()),
        }
    }

    fn subscribe(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.inner.table, ours(&this))
    }

    fn drop(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.inner.table.delete(Resource::<Lookup>::new_own(this.rep()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::network::LOOKUPS;
    use super::*;

    fn pod() -> PodNetwork {
        PodNetwork::own("10.1.0.5".parse().unwrap(), "127.9.0.5".parse().unwrap())
    }

    async fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
        resolve(&pod(), "web-0", name).await
    }

    #[tokio::test]
    async fn a_lookup_nobody_waits_for_keeps_its_place_until_its_thread_is_free() {
        let pod = pod();
        let (go_on, told) = mpsc::channel::<()>();
        let looked_up = on_thread(&pod, move || told.recv().map_err(io::Error::other));
        assert!(looked_up.now_or_never().is_none(), "it is given up before it is answered");
        assert_eq!(pod.lookups.available_permits(), LOOKUPS - 1);
        go_on.send(()).unwrap();
        let all = u32::try_from(LOOKUPS).unwrap();
        let freed = tokio::time::timeout(TIMEOUT, pod.lookups.acquire_many(all)).await;
        assert!(freed.is_ok());
    }

    #[tokio::test]
    async fn the_pods_own_names_are_known_without_asking() {
        let localhost = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        assert_eq!(lookup("localhost").await.unwrap(), localhost);
        assert_eq!(lookup("db.LocalHost.").await.unwrap(), localhost);
        assert_eq!(lookup("web-0").await.unwrap(), vec!["10.1.0.5".parse::<IpAddr>().unwrap()]);
        assert_eq!(lookup("[2001:db8::1]").await.unwrap(), vec!["2001:db8::1".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn what_is_no_name_is_an_invalid_argument() {
        for name in ["", ".", "a b", "a\0b", &"a".repeat(254)] {
            assert_eq!(lookup(name).await.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }
}
