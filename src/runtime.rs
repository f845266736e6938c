//! `wasklet runtime`: the runtime half alone, on a Unix socket.
//!
//! A kubelet in another process dials it (`--container-runtime-endpoint`), so that an upgrade of the kubelet leaves the
//! pods running, and the process with the node's credentials is not the one that runs guests.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::assemble::{self, RuntimePlace, StopSignals};
use crate::registries::RegistryArgs;
use crate::terminal::{self, LogFormat};

/// What guests get to end by themselves when the runtime does.
const STOP_GRACE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct RuntimeArgs {
    /// The socket to serve CRI v1 on
    #[arg(long, value_name = "PATH", default_value = "/run/wasklet/runtime.sock")]
    listen: PathBuf,
    /// Where records, images and compiled code are kept
    #[arg(
        long,
        value_name = "DIR",
        help = "Where records, images and compiled code are kept \
        [default: /var/lib/wasklet for root, else wasklet in the user's state directory]"
    )]
    state_dir: Option<PathBuf>,
    /// An OCI layout, or a tar archive of one or of docker save, to look for images in before any registry (repeatable)
    #[arg(long, value_name = "PATH", env = "WASKLET_IMAGE_LAYOUT")]
    image_layout: Vec<PathBuf>,
    #[command(flatten)]
    registries: RegistryArgs,
    /// The node's own address: that of pods on the host's network, and of all pods where no route can be added
    #[arg(long, value_name = "IP")]
    node_ip: Option<IpAddr>,
}

pub(crate) fn run(args: RuntimeArgs) -> anyhow::Result<ExitCode> {
    terminal::start_log("info", LogFormat::Text)?;
    assemble::tokio_runtime()?.block_on(async {
        let state = args.state_dir.map_or_else(assemble::state_dir, Ok)?;
        let place = RuntimePlace {
            state_dir: state.clone(),
            shared_dir: state,
            layouts: args.image_layout,
            registries: args.registries,
            node_address: args.node_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            pod_addresses: wasm::PodAddressMode::Auto,
        };
        wasm::raise_walls();
        let runtime = assemble::open_runtime(place).await?;
        tracing::info!(socket = %args.listen.display(), "serving CRI");
        let mut stop = StopSignals::listen()?;
        let served = cri::serve_unix(&args.listen, runtime.routes(), async move { stop.next().await }).await;
        // Guests end with us; how they ended is recorded, and the podCIDR's route goes.
        runtime.shutdown(STOP_GRACE).await;
        served.with_context(|| format!("serving CRI on {}", args.listen.display()))?;
        Ok(ExitCode::SUCCESS)
    })
}
