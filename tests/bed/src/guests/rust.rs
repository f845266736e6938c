//! Guests written in Rust, compiled from this repository.
//!
//! Comes in: a crate's directory. Goes out: a wasm binary. Never here: a member of the workspace; each guest is a
//! crate of its own with its own lock file, so that it can be copied out as an example.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::command::run;
use super::component;
use super::toolchain::{TARGET, Toolchain};

/// What becomes of the core module that the compiler makes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A `wasip1` command, left as it is.
    Command,
    /// A component that exports `wasi:cli/run`.
    Run,
    /// A component that exports what the crate's bindings say.
    Handler,
}

/// Compiles the guest in `source` (cargo finds out whether anything has changed) and gives it its shape.
///
/// # Errors
/// When it does not compile or does not become a component.
pub(super) fn build(toolchain: &Toolchain, source: &Path, target_dir: &Path, shape: Shape) -> Result<Vec<u8>> {
    let name = source.file_name().context("a guest's directory has a name")?.to_string_lossy();
    let name = match shape {
        Shape::Command | Shape::Run => name.into_owned(),
        // A program keeps its name's hyphens, a library's become underscores.
        Shape::Handler => name.replace('-', "_"),
    };
    // Paths of dependencies would otherwise stand in panic messages and give another digest on another machine. The flag
    // is the same for every guest, because they share compiled dependencies.
    let home = env::home_dir().unwrap_or_default();
    let remap = format!("--remap-path-prefix={}=/home", home.display());
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(source)
        .args(["build", "--quiet", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .env("CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS", remap);
    run(&mut cargo, &format!("compile the guest {}", source.display()))?;

    let built = target_dir.join(TARGET).join("release").join(name).with_extension("wasm");
    let core = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    match shape {
        Shape::Command => Ok(core),
        Shape::Run => component::command(&core),
        Shape::Handler => component::reactor(&core),
    }
    .with_context(|| format!("the guest {}", source.display()))
}
