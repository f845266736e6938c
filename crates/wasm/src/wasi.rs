//! The WASI host: what a guest's surroundings are comes in, the data of one store and the linkers that serve it go
//! out. One store type serves p1 commands, p2 commands and HTTP handlers alike.
//!
//! A guest reaches: the directories mounted for it, its standard streams, clocks, randomness, and the network as
//! [`network::PodNetwork`] draws it. Nothing is inherited from this process.

pub mod network;

mod buckets;
mod config;
mod delegate;
mod keyvalue;
mod lifecycle;
pub(crate) mod lookup;
pub(crate) mod outgoing;
mod sockets_03;
#[cfg(test)]
mod sockets_tests;
mod spin;
mod spin_03;
pub(crate) mod stdio;
mod tcp;
mod tls;
mod udp;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use wasmtime::component::{HasData, Linker as ComponentLinker};
use wasmtime::{Engine, Linker};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::sockets;
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView, WasiSocketsView};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_tls::WasiTlsCtx;

use crate::guest::{Mount, StartError, Termination};
use crate::host_path;
use crate::keyvalue::{Bucket, Memory};
use crate::limits::StoreMemory;
use crate::spin::hosts::AllowedHosts;
use network::{PodNetwork, Protocol, SocketRecord};
use outgoing::Outgoing;
use stdio::{Input, Output};

/// Resources (sockets, streams, requests, pollables) one store may hold; bounds what a guest can make the host keep.
const RESOURCES_PER_STORE: usize = 20_000;

/// What is the same for every store of one guest.
pub(crate) struct Surroundings {
    env: Arc<[(String, String)]>,
    working_dir: Option<String>,
    mounts: Arc<[Mount]>,
    /// The mounts' directories, open.
    files: WasiFilesystemCtx,
    pub(crate) network: Arc<PodNetwork>,
    hostname: Arc<str>,
    pairs: Memory,
    grants: Option<Arc<Grants>>,
}

/// What a component of a Spin application may, of what a guest of its pod might.
pub(crate) struct Grants {
    /// Its configuration, in place of the environment.
    pub(crate) variables: Arc<[(String, String)]>,
    /// The stores it may open, by their labels.
    pub(crate) stores: BTreeMap<String, Bucket>,
    /// Where it may connect to.
    pub(crate) hosts: AllowedHosts,
}

/// What is the same for every guest of a pod.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) network: Arc<PodNetwork>,
    pub(crate) hostname: String,
    pub(crate) pairs: Memory,
}

/// The standard streams of one store.
#[derive(Clone)]
pub(crate) struct Stdio {
    pub(crate) input: Input,
    pub(crate) output: Output,
    pub(crate) error: Output,
}

/// The data of one store.
pub(crate) struct Host {
    wasi: WasiP1Ctx,
    http: WasiHttpCtx,
    tls: WasiTlsCtx,
    outgoing: Outgoing,
    pub(crate) memory: StoreMemory,
    termination: Termination,
    configuration: Arc<[(String, String)]>,
    grants: Option<Arc<Grants>>,
    mounts: Arc<[Mount]>,
    pairs: Memory,
    sockets: HashMap<u32, SocketRecord>,
    network: Arc<PodNetwork>,
    hostname: Arc<str>,
}

impl Surroundings {
    /// With `HOSTNAME` and `PWD` added to the environment where the container does not set them. Opens each mount's
    /// directory, once for all stores.
    pub(crate) fn new(
        mut env: Vec<(String, String)>,
        working_dir: Option<String>,
        mounts: Vec<Mount>,
        pod: Pod,
    ) -> Result<Self, StartError> {
        let Pod { network, hostname, pairs } = pod;
        for (name, value) in [("HOSTNAME", Some(&hostname)), ("PWD", working_dir.as_ref())] {
            if let Some(value) = value
                && !env.iter().any(|(set, _)| set == name)
            {
                env.push((name.to_owned(), value.clone()));
            }
        }
        let (files, grants) = (open(&mounts)?, None);
        let (env, mounts, hostname) = (env.into(), mounts.into(), hostname.into());
        Ok(Self { env, working_dir, mounts, files, network, hostname, pairs, grants })
    }

    /// The same, held to what is granted.
    pub(crate) fn held_to(self, grants: Grants) -> Self {
        Self { grants: Some(Arc::new(grants)), ..self }
    }

    /// The data of a new store, with its arguments, and with how it hears that it is to end.
    pub(crate) fn host(&self, args: &[String], stdio: Stdio, memory: StoreMemory, termination: Termination) -> Host {
        let mut builder = WasiCtx::builder();
        builder.args(args).envs(&self.env).stdin(stdio.input).stdout(stdio.output).stderr(stdio.error);
        if let Some(working_dir) = &self.working_dir {
            builder.initial_cwd(working_dir);
        }
        let (network, grants) = (Arc::clone(&self.network), self.grants.clone());
        // The second line of defence: what reaches the system has been mapped before, and is checked once more.
        builder.allow_tcp(true).allow_udp(true).socket_addr_check(move |address, used| {
            let granted = grants.as_ref().is_none_or(|grants| grants.allows(&network, address, used));
            let allowed = granted && network.allows(address, used);
            Box::pin(std::future::ready(allowed))
        });
        let mut wasi = builder.build_p1();
        let view = wasi.ctx();
        view.table.set_max_capacity(RESOURCES_PER_STORE);
        view.ctx.filesystem().clone_from(&self.files);
        Host {
            wasi,
            http: WasiHttpCtx::new(),
            tls: tls::context(),
            outgoing: Outgoing::new(Arc::clone(&self.network), Arc::clone(&self.hostname), self.grants.clone()),
            memory,
            termination,
            configuration: Arc::clone(self.grants.as_ref().map_or(&self.env, |grants| &grants.variables)),
            grants: self.grants.clone(),
            mounts: Arc::clone(&self.mounts),
            pairs: self.pairs.clone(),
            sockets: HashMap::new(),
            network: Arc::clone(&self.network),
            hostname: Arc::clone(&self.hostname),
        }
    }
}

/// The mounts' directories as Wasmtime holds them.
fn open(mounts: &[Mount]) -> Result<WasiFilesystemCtx, StartError> {
    let mut builder = WasiCtx::builder();
    for mount in mounts {
        let access = if mount.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        let failed = |source| StartError::Mount { guest: mount.guest.clone(), host: mount.host.clone(), source };
        let directory = host_path::find(&mount.host).map_err(failed)?;
        builder.preopened_dir(directory.name(), &mount.guest, access).map_err(|error| {
            failed(error.downcast().unwrap_or_else(|error| std::io::Error::other(format!("{error:#}"))))
        })?;
    }
    Ok(builder.build().filesystem().clone())
}

impl Grants {
    /// Whether a socket may be used so. It goes out only: an application is asked over HTTP, by the node.
    fn allows(&self, network: &PodNetwork, real: SocketAddr, used: SocketAddrUse) -> bool {
        let shown = |protocol| network.shown(protocol, real);
        match used {
            SocketAddrUse::TcpConnect => self.hosts.allows_socket(shown(Protocol::Tcp)),
            SocketAddrUse::UdpSend => self.hosts.allows_socket(shown(Protocol::Udp)),
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => false,
            // Before it connects, each socket is bound to the pod's address.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind | SocketAddrUse::UdpReceive => true,
        }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: self.wasi.ctx().table, ctx: &mut self.http }
    }
}

/// `wasi:sockets` as the pod sees it: Wasmtime's own, with addresses mapped on the way in and out.
pub(crate) struct PodSockets<'a> {
    inner: WasiSocketsCtxView<'a>,
    records: &'a mut HashMap<u32, SocketRecord>,
    network: &'a Arc<PodNetwork>,
    hostname: &'a Arc<str>,
}

impl PodSockets<'_> {
    /// Remembers what the guest bound, once it is.
    fn remember(&mut self, protocol: Protocol, rep: u32, mut guest: SocketAddr, everywhere: bool, real: SocketAddr) {
        if guest.port() == 0 {
            guest.set_port(real.port());
        }
        let record = self.records.entry(rep).or_default();
        record.bound = Some(guest);
        if everywhere {
            record.everywhere = Some(self.network.listen_everywhere(protocol, guest.port(), real));
        }
    }

    /// What the guest is shown for its own end of a socket.
    fn shown_local(&self, protocol: Protocol, rep: u32, real: SocketAddr) -> SocketAddr {
        let record = self.records.get(&rep);
        // A connected socket of TCP has left "every address" for one.
        let has_left = |bound: &SocketAddr| {
            protocol == Protocol::Tcp
                && bound.ip().is_unspecified()
                && record.is_some_and(|record| record.remote.is_some())
        };
        let bound = record.and_then(|record| record.bound).filter(|bound| !has_left(bound));
        bound.unwrap_or_else(|| self.network.shown(protocol, real))
    }

    /// What it is shown for the other end.
    fn shown_remote(&self, protocol: Protocol, rep: u32, real: SocketAddr) -> SocketAddr {
        let remote = self.records.get(&rep).and_then(|record| record.remote);
        remote.unwrap_or_else(|| self.network.shown(protocol, real))
    }
}

struct HasPodSockets;

impl HasData for HasPodSockets {
    type Data<'a> = PodSockets<'a>;
}

impl Host {
    fn pod_sockets(&mut self) -> PodSockets<'_> {
        PodSockets {
            inner: WasiSocketsView::sockets(&mut self.wasi),
            records: &mut self.sockets,
            network: &self.network,
            hostname: &self.hostname,
        }
    }
}

/// The linker of p1 commands.
pub(crate) fn link_modules(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |host: &mut Host| &mut host.wasi)?;
    // Wasmtime's own refuses codes from 126 on; a process may end with any up to 255.
    linker.allow_shadowing(true);
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(I32Exit(code).into())
    })?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// The linker of components: all of WASI 0.2 with the pod's own view of the network, the proposals that
/// have a meaning in a pod, and what `wit/` adds.
pub(crate) fn link_components(engine: &Engine) -> wasmtime::Result<ComponentLinker<Host>> {
    let mut linker = ComponentLinker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    let network = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<Host, HasPodSockets>(&mut linker, &network, Host::pod_sockets)?;
    sockets::tcp::add_to_linker::<Host, HasPodSockets>(&mut linker, Host::pod_sockets)?;
    sockets::udp::add_to_linker::<Host, HasPodSockets>(&mut linker, Host::pod_sockets)?;
    sockets::ip_name_lookup::add_to_linker::<Host, HasPodSockets>(&mut linker, Host::pod_sockets)?;
    linker.allow_shadowing(false);
    config::add_to_linker(&mut linker)?;
    tls::add_to_linker(&mut linker)?;
    keyvalue::add_to_linker(&mut linker)?;
    keyvalue::draft2::add_to_linker(&mut linker)?;
    spin::add_to_linker(&mut linker)?;
    lifecycle::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// The linker of components of WASI 0.3, which also has all of 0.2: one guest uses both.
pub(crate) fn link_concurrent(engine: &Engine) -> wasmtime::Result<ComponentLinker<Host>> {
    let mut linker = link_components(engine)?;
    wasmtime_wasi::p3::cli::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::clocks::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::filesystem::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::random::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    sockets_03::add_to_linker(&mut linker)?;
    tls::add_concurrent_to_linker(&mut linker)?;
    spin_03::add_to_linker(&mut linker)?;
    Ok(linker)
}
