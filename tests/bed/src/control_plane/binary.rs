//! The multi-call binary of `tests/controlplane`, built once per machine.
//!
//! Comes in: its Go sources in this repository. Goes out: its path in a cache outside the clone, with links named
//! after its components. Never here: a network but Go's own module proxy, a second build of the same sources.

use std::fmt::Write;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::VERSION;
use super::slot::eprint;
use crate::cache;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../controlplane");
const FILES: [&str; 4] = ["go.mod", "go.sum", "leash.go", "main.go"];
const COMPONENTS: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];

/// What `go list -deps . | wc -l` counted; only for the progress lines.
const PACKAGES: usize = 2740;
const PROGRESS_EVERY: Duration = Duration::from_secs(20);

/// The path of the binary, built first where this machine has none of these sources yet: about 8 minutes on two
/// cores. Blocks; another process that builds it is waited for.
///
/// # Errors
/// If Go is missing or the build fails; the error then carries the end of its output.
pub fn binary() -> Result<PathBuf> {
    let cache = cache::dir()?;
    let built = cache.join(format!("control-plane-{}", fingerprint()?));
    let binary = built.join("control-plane");
    if binary.exists() {
        return Ok(binary);
    }
    std::fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let lock_path = cache.join("control-plane.lock");
    let lock = File::create(&lock_path).with_context(|| format!("opening {}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        eprint("another process is building it; waiting");
        lock.lock().with_context(|| format!("locking {}", lock_path.display()))?;
    }
    if !binary.exists() {
        let staged = tempfile::tempdir_in(&cache).context("creating a directory to build in")?;
        build(&staged.path().join("control-plane"))?;
        for component in COMPONENTS {
            std::os::unix::fs::symlink("control-plane", staged.path().join(component))
                .with_context(|| format!("linking {component}"))?;
        }
        let staged = staged.keep();
        std::fs::rename(&staged, &built)
            .with_context(|| format!("moving {} to {}", staged.display(), built.display()))?;
    }
    Ok(binary)
}

/// The path of kubectl, of the control plane's own version, built as [`binary`] says.
///
/// # Errors
/// As [`binary`].
pub fn kubectl() -> Result<PathBuf> {
    Ok(binary()?.with_file_name("kubectl"))
}

fn fingerprint() -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(linker_flags());
    hash.update(std::env::consts::ARCH);
    for file in FILES {
        let path = Path::new(SOURCES).join(file);
        let content = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        hash.update(file);
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    Ok(hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

fn linker_flags() -> String {
    let mut numbers = VERSION.trim_start_matches('v').split('.');
    let major = numbers.next().unwrap_or_default();
    let minor = numbers.next().unwrap_or_default();
    ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
        .map(|package| {
            format!("-X {package}.gitVersion={VERSION} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}")
        })
        .into_iter()
        .fold("-s -w".to_owned(), |flags, more| format!("{flags} {more}"))
}

fn build(to: &Path) -> Result<()> {
    eprint(&format!("building Kubernetes {VERSION}, once on this machine"));
    let started = Instant::now();
    let mut process = Command::new("go")
        .args(["build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags"])
        .arg(linker_flags())
        .arg("-o")
        .arg(to)
        .arg(".")
        .current_dir(SOURCES)
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running `go build`; Go 1.26 or newer is needed to build the control plane for tests")?;
    let mut last_lines = Vec::new();
    if let Some(output) = process.stderr.take() {
        last_lines = follow(BufReader::new(output), started);
    }
    let status = process.wait().context("waiting for `go build`")?;
    if !status.success() {
        bail!("`go build` in {SOURCES} ended with {status}:\n{}", last_lines.join("\n"));
    }
    eprint(&format!("built in {} s", started.elapsed().as_secs()));
    Ok(())
}

/// Says now and then how far the build is, and keeps the last of what is no progress.
fn follow(output: impl BufRead, started: Instant) -> Vec<String> {
    const KEPT_LINES: usize = 30;
    let mut kept: Vec<String> = Vec::new();
    let (mut packages, mut modules, mut said) = (0_usize, 0_usize, Instant::now());
    for line in output.lines().map_while(Result::ok) {
        if line.starts_with("go: downloading ") {
            modules += 1;
        } else if !line.contains(' ') && !line.is_empty() {
            packages += 1;
        } else {
            if kept.len() == KEPT_LINES {
                kept.remove(0);
            }
            kept.push(line);
        }
        if said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            eprint(&format!(
                "{} s: {modules} modules downloaded, {packages} of at most {PACKAGES} packages built",
                started.elapsed().as_secs()
            ));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{SOURCES, VERSION};

    /// The version is linked in by a flag, so nothing else notices when go.mod moves on without it.
    #[test]
    fn go_mod_names_the_version_that_the_binary_claims() {
        let go_mod = std::fs::read_to_string(format!("{SOURCES}/go.mod")).unwrap();
        assert!(go_mod.contains(&format!("k8s.io/kubernetes {VERSION}\n")), "{go_mod}");
        let staging = VERSION.replace("v1.", " v0.");
        for replaced in go_mod.lines().filter(|line| line.contains(" => ")) {
            assert!(replaced.ends_with(&staging), "{replaced}");
        }
    }
}
