//! The wasklet under measurement: built for release, run as a node of a control plane.
//!
//! Comes in: the control plane and a node's name. Goes out: a process that is a node, and ends with its handle. Never
//! here: what is measured.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use testbed::control_plane::ControlPlane;

use crate::steps::repository;

/// Builds the binary as it is shipped, and says where it is.
pub(super) fn release_binary() -> Result<PathBuf> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--locked", "--bin", "wasklet"])
        .current_dir(repository())
        .status()
        .context("start cargo build --release")?;
    ensure!(status.success(), "cargo build --release ended with {status}");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    Ok(target.join("release/wasklet"))
}

/// A child that does not outlive its handle.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `wasklet kubelet` as the node `name`, its state and log in `dir`, room for `max_pods` pods.
pub(super) fn start(
    binary: &Path,
    control_plane: &ControlPlane,
    name: &str,
    dir: &Path,
    guests: &Path,
    max_pods: usize,
) -> Result<Running> {
    let config = dir.join("config.yaml");
    let configuration = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: {max_pods}\n\
         podLogsDir: {}\n",
        dir.join("logs").display()
    );
    std::fs::write(&config, configuration).with_context(|| format!("writing {}", config.display()))?;
    let log_path = dir.join("wasklet.log");
    let log = File::create(&log_path).with_context(|| format!("creating {}", log_path.display()))?;
    let port = free_address()?.port();
    let mut command = Command::new(binary);
    command
        .arg("kubelet")
        .arg(format!("--config={}", config.display()))
        .arg(format!("--kubeconfig={}", control_plane.node_kubeconfig(name)?.display()))
        .arg(format!("--client-ca-file={}", control_plane.client_ca().display()))
        .arg(format!("--hostname-override={name}"))
        .arg(format!("--root-dir={}", dir.join("root").display()))
        .arg(format!("--cert-dir={}", dir.join("pki").display()))
        .arg(format!("--image-layout={}", guests.display()))
        .arg(format!("--port={port}"))
        .arg("--healthz-port=0")
        .env_remove("WASKLET_IMAGE_LAYOUT")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing the log")?)
        .stderr(log);
    if let Some(address) = own_address() {
        command.arg(format!("--node-ip={address}"));
    }
    Ok(Running(command.spawn().with_context(|| format!("starting {}", binary.display()))?))
}

/// An address of this machine's loopback where nobody listens.
pub(super) fn free_address() -> Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).context("finding a port")
}

/// This machine's address on the way to anywhere else; no packet is sent.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The CPU time, in seconds, that a process has used so far, and the largest resident set it had, in bytes.
pub(super) fn usage(process: &Child) -> Result<(f64, u64)> {
    // After the name, which may hold anything, in its parentheses: fields 3 and on. 14 and 15 are ticks, 100 a second.
    let stat = read(process, "stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u32>().ok());
    let cpu = ticks(14).zip(ticks(15)).context("/proc has another form")?;
    Ok((f64::from(cpu.0 + cpu.1) / 100.0, kib(process, "status", "VmHWM:")? * 1024))
}

/// What a file of a process in /proc gives in KiB, by its label there.
pub(super) fn kib(process: &Child, file: &str, label: &str) -> Result<u64> {
    let text = read(process, file)?;
    let amount = text.lines().find_map(|line| line.strip_prefix(label));
    let amount = amount.with_context(|| format!("/proc's {file} tells no {label}"))?;
    amount.trim().trim_end_matches(" kB").parse().with_context(|| format!("{amount:?} is no size"))
}

fn read(process: &Child, file: &str) -> Result<String> {
    let path = format!("/proc/{}/{file}", process.id());
    std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}
