//! Programs of others that tests speak with.
//!
//! Comes in: a program's name. Goes out: its path, or an error that says how to get it; a test that needs one fails
//! without it. Never here: a program of ours.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cache;

/// The version of `oras` that the tests are written for.
const ORAS: &str = "v1.3.6";

/// The path of a program that a Debian package of the same name brings.
///
/// # Errors
/// When it is not installed.
pub fn find(name: &str) -> Result<PathBuf> {
    let places = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&places).map(|place| place.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not installed: apt-get install --no-install-recommends {name}"))
}

/// The path of `oras`, built first where this machine has none yet: about a minute. Blocks; another process that builds
/// it is waited for.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn oras() -> Result<PathBuf> {
    let cache = cache::dir()?;
    let binary = cache.join(format!("oras-{ORAS}/oras"));
    std::fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let _lock = cache::lock("oras")?;
    if !binary.exists() {
        let staged = tempfile::tempdir_in(&cache).context("creating a directory to build in")?;
        build(staged.path())?;
        let built = binary.with_file_name("");
        std::fs::rename(staged.keep(), &built).with_context(|| format!("moving oras to {}", built.display()))?;
    }
    Ok(binary)
}

fn build(into: &Path) -> Result<()> {
    let output = Command::new("go")
        .args(["install", &format!("oras.land/oras/cmd/oras@{ORAS}")])
        .env("GOBIN", into)
        .env("GOFLAGS", "-trimpath")
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::null())
        .output()
        .context("running `go install`; Go builds oras for tests")?;
    if !output.status.success() {
        bail!("`go install` of oras ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    ensure!(into.join("oras").is_file(), "`go install` of oras left no program");
    Ok(())
}
