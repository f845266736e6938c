//! The examples, as the README runs them, by root and by others.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::bed::place::Place;
use crate::bed::process::{self, Process, WASKLET};
use crate::bed::{guests, http, ports};

/// Who is nobody on Debian and its like.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn the_hello_example_prints_its_line_and_succeeds() -> Result<()> {
    let place = Place::with_all_guests().await?;
    let ended = place.run(&["examples/hello/pod.yaml"]).await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.text(), "Hello from pod hello: a WebAssembly program on a Kubernetes node.\n", "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn the_hello_http_example_answers_until_ctrl_c() -> Result<()> {
    let place = Place::with_all_guests().await?;
    let port = ports::free()?;
    // The example's own port, but for tests that run at the same time.
    let manifest = std::fs::read_to_string("examples/hello-http/pod.yaml")?;
    let manifest = manifest.replace("containerPort: 8080", &format!("containerPort: {port}"));
    let mut wasklet = place.start(&[place.put("pod.yaml", manifest)?]).await?;

    let address = format!("127.0.0.1:{port}");
    wasklet.await_stderr("the address", |said| said.contains(&address)).await?;
    let body = http::await_answer(([127, 0, 0, 1], port), "/some/path").await?;
    assert!(body.starts_with("Hello from pod hello-http!\nYou asked for /some/path"), "{body}");

    wasklet.signal(Signal::INT);
    let asked = Instant::now();
    let ended = wasklet.ended().await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(asked.elapsed() < Duration::from_secs(30), "longer than the grace period");
    http::await_silence(([127, 0, 0, 1], port)).await
}

#[tokio::test]
async fn nobody_in_particular_can_run_a_pod() -> Result<()> {
    let layout = guests::all().await?;
    let home = tempfile::tempdir()?;
    let mut command = process::command("setpriv");
    if rustix::process::geteuid().is_root() {
        // Where cargo builds, others may not look.
        let binary = readable_copy(home.path())?;
        let images = home.path().join("oci");
        copy_tree(&layout, &images)?;
        std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY))?;
        command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"]).arg(binary);
        command.env("WASKLET_IMAGE_LAYOUT", images);
    } else {
        command.arg(WASKLET).env("WASKLET_IMAGE_LAYOUT", &layout);
    }
    let manifest = home.path().join("pod.yaml");
    std::fs::copy("examples/hello/pod.yaml", &manifest)?;
    command.arg("run").arg(&manifest).env("HOME", home.path()).env_remove("XDG_STATE_HOME").current_dir("/");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());

    let ended = Process::start(command).await?.ended().await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.text().starts_with("Hello from pod hello:"), "{ended:?}");
    assert!(home.path().join(".local/state/wasklet").is_dir(), "the state is not under the home directory");
    Ok(())
}

/// The binary in a directory that everybody may read.
fn readable_copy(directory: &Path) -> Result<std::path::PathBuf> {
    let copy = directory.join("wasklet");
    if std::fs::hard_link(WASKLET, &copy).is_err() {
        std::fs::copy(WASKLET, &copy).context("copying the binary")?;
    }
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).with_context(|| format!("copying {}", entry.path().display()))?;
        }
    }
    Ok(())
}
