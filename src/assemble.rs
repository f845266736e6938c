//! Where concrete parts are put together: the runtime half, the pipe to it, and what both commands need.
//!
//! Comes in: options. Goes out: parts at work. The only place that knows both halves.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::registries::RegistryArgs;

/// Where the runtime half lives and gets its images.
pub(crate) struct RuntimePlace {
    /// Records of sandboxes and containers; one runtime at a time.
    pub(crate) state_dir: PathBuf,
    /// Images and compiled code; shared by any number of runtimes.
    pub(crate) shared_dir: PathBuf,
    pub(crate) layouts: Vec<PathBuf>,
    pub(crate) registries: RegistryArgs,
    pub(crate) node_address: IpAddr,
    pub(crate) pod_addresses: wasm::PodAddressMode,
}

/// Tokio for the kubelet half; guests have threads of their own.
pub(crate) fn tokio_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the async runtime")
}

/// Opens the runtime half in this process.
pub(crate) async fn open_runtime(place: RuntimePlace) -> anyhow::Result<Arc<wasm::Runtime>> {
    let state = place.state_dir.display().to_string();
    let options = wasm::RuntimeOptions {
        state_dir: place.state_dir,
        // Whatever file this process was started from, even if another stands in its place by now.
        compiler: wasm::CompilerProgram { program: "/proc/self/exe".into(), args: vec!["compile-worker".into()] },
        shared_dir: place.shared_dir,
        image_layouts: place.layouts,
        plain_http_hosts: place.registries.insecure_registry,
        registry_hosts: place.registries.registry_hosts_dir,
        trust_policy: place.registries.image_trust_policy,
        node_address: place.node_address,
        pod_address_mode: place.pod_addresses,
        guest_threads: None,
    };
    wasm::Runtime::open(options).await.with_context(|| format!("opening the runtime in {state}"))
}

/// Where state is kept unless flags say otherwise.
///
/// # Errors
/// Neither the home nor the state directory of the user is known. A shared place such as `/tmp` is no substitute: others
/// could have put something there first.
pub(crate) fn state_dir() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/wasklet"));
    }
    let variable =
        |name: &str| std::env::var_os(name).filter(|value| Path::new(value).is_absolute()).map(PathBuf::from);
    let user = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    let user = user.context("neither XDG_STATE_HOME nor HOME says where to keep state; give --state-dir")?;
    Ok(user.join("wasklet"))
}

/// Where a directory of state has its images, as the runtime half lays it out.
pub(crate) fn image_store(state: &Path) -> PathBuf {
    state.join("images")
}

/// SIGTERM and Ctrl-C, as they come. One of these listens for as long as it lives: who asks anew for each signal misses
/// what comes in between.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(crate) fn listen() -> anyhow::Result<StopSignals> {
        let listen = |kind| signal(kind).context("listening for SIGTERM and Ctrl-C");
        Ok(StopSignals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Ends at the next of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
