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
const ORAS: GoTool =
    GoTool { name: "oras", module: "oras.land/oras", package: "oras.land/oras/cmd/oras", version: "v1.3.6" };
/// The version of `kwok` that figures are given for.
const KWOK: GoTool =
    GoTool { name: "kwok", module: "sigs.k8s.io/kwok", package: "sigs.k8s.io/kwok/cmd/kwok", version: "v0.8.0" };

/// The version of `wkg` that the tests are written for.
const WKG: CargoTool = CargoTool { name: "wkg", package: "wkg", version: "0.16.1" };
/// The version of Wasmtime that this project is built on.
const WASMTIME: CargoTool = CargoTool { name: "wasmtime", package: "wasmtime-cli", version: "48.0.8" };

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
    ORAS.installed()
}

/// The same for `kwok`, a simulator of nodes that runs nothing: what a node agent's speed is measured against.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn kwok() -> Result<PathBuf> {
    KWOK.installed()
}

/// What `kwok` does to nodes and pods in its fast setting: the files that come with its module.
///
/// # Errors
/// When Go is missing or the module cannot be fetched.
pub fn kwok_stages() -> Result<Vec<PathBuf>> {
    let stages = KWOK.module()?.join("kustomize/stage");
    let mut files = Vec::new();
    for of in ["node/fast", "node/heartbeat-with-lease", "pod/fast"] {
        let directory = stages.join(of);
        let entries = std::fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
        let is_stage = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "yaml") && !path.ends_with("kustomization.yaml")
        };
        files.extend(paths.into_iter().filter(is_stage));
    }
    Ok(files)
}

/// The path of `wkg`, the same way: cargo builds it, in five to ten minutes of two cores.
///
/// # Errors
/// When the build fails.
pub fn wkg() -> Result<PathBuf> {
    // It is run a few times, so it need not be fast.
    WKG.installed(&[("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")])
}

/// The path of `wasmtime`, the same way and as it is shipped: what our HTTP is measured against.
///
/// # Errors
/// When the build fails.
pub fn wasmtime() -> Result<PathBuf> {
    WASMTIME.installed(&[])
}

/// A program that Go builds from its module, by version.
struct GoTool {
    name: &'static str,
    module: &'static str,
    package: &'static str,
    version: &'static str,
}

/// A `program` in this machine's cache, built first where there is none yet.
fn installed(name: &str, program: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache::dir()?;
    let dir = cache.join(name);
    let binary = dir.join(program);
    std::fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let _lock = cache::lock(name)?;
    if !binary.exists() {
        let staged = tempfile::tempdir_in(&cache).context("creating a directory to build in")?;
        build(staged.path())?;
        ensure!(staged.path().join(program).is_file(), "the build of {name} left no {program}");
        std::fs::rename(staged.keep(), &dir).with_context(|| format!("moving {name} to {}", dir.display()))?;
    }
    Ok(binary)
}

/// A program that cargo builds from its package, by version.
struct CargoTool {
    name: &'static str,
    package: &'static str,
    version: &'static str,
}

impl CargoTool {
    fn installed(&self, profile: &[(&str, &str)]) -> Result<PathBuf> {
        let Self { name, package, version } = self;
        installed(&format!("{package}-{version}"), &format!("bin/{name}"), |into| {
            let target = tempfile::tempdir_in(into).context("creating a directory to build in")?;
            let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args(["install", package, "--version", version, "--locked", "--root"])
                .arg(into)
                .arg("--target-dir")
                .arg(target.path())
                .envs(profile.iter().copied())
                .stdin(Stdio::null())
                .output()
                .with_context(|| format!("running `cargo install {package}`"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("`cargo install {package}` ended with {}:\n{said}", output.status);
            }
            Ok(())
        })
    }
}

impl GoTool {
    fn installed(&self) -> Result<PathBuf> {
        installed(&format!("{}-{}", self.name, self.version), self.name, |into| self.build(into))
    }

    /// Where Go keeps the sources of the module, fetched first where it has none.
    fn module(&self) -> Result<PathBuf> {
        let name = format!("{}@{}", self.module, self.version);
        let mut command = Command::new("go");
        command.args(["mod", "download", "-json", &name]).env("GOTOOLCHAIN", "local").current_dir(env::temp_dir());
        let output = command.stdin(Stdio::null()).output().context("running `go mod download`")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "`go mod download {name}` ended with {}: {said}", output.status);
        let told: serde_json::Value = serde_json::from_str(&said).context("reading what `go mod download` says")?;
        told["Dir"].as_str().map(PathBuf::from).with_context(|| format!("Go does not say where it keeps {name}"))
    }

    fn build(&self, into: &Path) -> Result<()> {
        let name = self.name;
        let output = Command::new("go")
            .args(["install", &format!("{}@{}", self.package, self.version)])
            .env("GOBIN", into)
            .env("GOFLAGS", "-trimpath")
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running `go install`; Go builds {name}"))?;
        if !output.status.success() {
            bail!("`go install` of {name} ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
