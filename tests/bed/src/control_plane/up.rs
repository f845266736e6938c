//! A control plane for a person, not a test: `cargo xtask cluster up` and `cargo xtask kubectl`.
//!
//! Comes in: Ctrl-C. Goes out: a page that says how to join a node to it. Never here: wasklet itself, which the
//! person starts.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::binary::kubectl;
use super::slot::eprint;
use super::{ControlPlane, Options};
use crate::cache;

const NODE: &str = "wasklet";

/// Starts a control plane, says how to use it, and stops it at Ctrl-C or SIGTERM.
///
/// # Errors
/// As [`ControlPlane::start`].
pub async fn up() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let control_plane = ControlPlane::start(Options::default()).await?;
    let node_kubeconfig = control_plane.node_kubeconfig(NODE)?;
    let link = current_kubeconfig()?;
    // The link of one that was killed points nowhere; of two that run, the younger one is the current one.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(control_plane.kubeconfig(), &link)
        .with_context(|| format!("linking {}", link.display()))?;

    say(&format!(
        "\
Kubernetes {version} is up; Ctrl-C stops it and forgets everything.

kubectl:          cargo xtask kubectl -- get nodes
or:               {kubectl} --kubeconfig {admin}
node kubeconfig:  {node}
client CA:        {ca}
logs:             {logs}

Join a node to it from another terminal:

  cargo run -- kubelet --hostname-override {NODE} \\
    --kubeconfig {node} \\
    --client-ca-file {ca}
",
        version = super::VERSION,
        kubectl = kubectl()?.display(),
        admin = control_plane.kubeconfig().display(),
        node = node_kubeconfig.display(),
        ca = control_plane.client_ca().display(),
        logs = control_plane.dir().join("logs").display(),
    ));

    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped.context("waiting for Ctrl-C")?,
        _ = terminated.recv() => {}
    }
    eprint("stopping");
    if std::fs::read_link(&link).is_ok_and(|current| current == control_plane.kubeconfig()) {
        let _ = std::fs::remove_file(&link);
    }
    Ok(())
}

/// Runs kubectl with these arguments, against `$KUBECONFIG` where it is set, else against the control plane that
/// [`up`] started last. Blocks until it ends.
///
/// # Errors
/// If kubectl cannot be built or started.
pub fn up_kubectl(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<ExitStatus> {
    let mut command = Command::new(kubectl()?);
    if std::env::var_os("KUBECONFIG").is_none() {
        let link = current_kubeconfig()?;
        let kubeconfig =
            std::fs::canonicalize(&link).context("no control plane is up; `cargo xtask cluster up` starts one")?;
        // Its own discovery cache: the next control plane has the same address and perhaps other resources.
        command.env("KUBECACHEDIR", kubeconfig.with_file_name("kubectl-cache"));
        command.env("KUBECONFIG", kubeconfig);
    }
    command.args(arguments).status().context("running kubectl")
}

fn current_kubeconfig() -> Result<PathBuf> {
    Ok(cache::dir()?.join("up.kubeconfig"))
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn say(text: &str) {
    println!("{text}");
}
