//! Which Rust compiles the guests.
//!
//! Comes in: the machine (its Rust, its Debian release, the cache directory). Goes out: a [`Toolchain`] whose cargo
//! builds for `wasm32-wasip1`. Never here: an installation on the system, or a download where the target is
//! installed already.
//!
//! `rustup target add wasm32-wasip1` is the ordinary way, and what it installed is always used. Machines without
//! rustup's server get the same from Debian packages, unpacked into a cache outside the clone, in one of two ways:
//!
//! * **own**: the compiler and std's sources from the suites this machine already trusts; std is compiled once
//!   (90 s, 450 MB).
//! * **suite**: a newer Debian suite's compiler together with its finished std (40 s, 800 MB).
//!
//! Both were tried here and both work. `own` comes first although it is slower: it asks for nothing but the
//! suites that are configured, while `suite` reaches for one that changes under us every day and has to carry that
//! suite's C library along. `suite` is tried when `own` fails, for example on a release without `rust-web-src`.

mod debian;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{command::run, say};
use crate::cache;

/// The compilation target of every guest; components are made from its core modules.
pub const TARGET: &str = "wasm32-wasip1";

/// Part of the cache key: raise it when the recipe in `debian.rs` changes what it makes.
const RECIPE: u32 = 1;

/// A Rust that compiles for [`TARGET`].
#[derive(Debug)]
pub struct Toolchain {
    /// The directory of a toolchain made from packages; `None` when the installed Rust has the target.
    unpacked: Option<PathBuf>,
}

impl Toolchain {
    /// Finds the installed target or one made before, and makes one otherwise.
    ///
    /// # Errors
    /// When the machine has no target and is no Debian, or when both ways of making one failed; the message then
    /// says what to install by hand.
    pub fn find() -> Result<Self> {
        if target_is_installed()? {
            return Ok(Self { unpacked: None });
        }
        let Some(release) = debian::release() else {
            bail!("the guests need std for {TARGET}: run `rustup target add {TARGET}`");
        };
        let cache = cache::dir()?;
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;

        // One process makes the toolchain, the others wait for it here; the lock goes with the file handle.
        let lock_path = cache.join("guest-rust.lock");
        let lock = File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("lock {}", lock_path.display()))?;

        let mut failures = Vec::new();
        for origin in [debian::Origin::Own, debian::Origin::Suite] {
            let dir = cache.join(format!("guest-rust-{origin}-debian{release}-{}-r{RECIPE}", env::consts::ARCH));
            if dir.join("bin/rustc").exists() {
                return Ok(Self { unpacked: Some(dir) });
            }
            say(&format!("guests: no {TARGET} here, making one from Debian packages ({origin})"));
            match make(origin, &cache, &dir) {
                Ok(()) => return Ok(Self { unpacked: Some(dir) }),
                Err(error) => {
                    say(&format!("guests: {origin} failed: {error:#}"));
                    failures.push(format!("{origin}: {error:#}"));
                }
            }
        }
        bail!(
            "no Rust for {TARGET} could be made from Debian packages; `rustup target add {TARGET}` gives one too\n{}",
            failures.join("\n")
        )
    }

    /// One line that says where the compiler comes from.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.unpacked {
            None => format!("the installed Rust with {TARGET}"),
            Some(dir) => format!("Debian's Rust in {}", dir.display()),
        }
    }

    /// A cargo that compiles for [`TARGET`] with this toolchain, free of the flags of the build we stand in.
    #[must_use]
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        for variable in
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
        {
            cargo.env_remove(variable);
        }
        if let Some(dir) = &self.unpacked {
            cargo.env("RUSTC", dir.join("bin/rustc")).env(debian::LINKER_VARIABLE, dir.join("bin/rust-lld"));
        }
        cargo
    }
}

/// Makes a toolchain in a directory of its own and gives it its name only when it is whole.
fn make(origin: debian::Origin, cache: &Path, dir: &Path) -> Result<()> {
    let work = tempfile::Builder::new()
        .prefix("guest-rust-making-")
        .tempdir_in(cache)
        .with_context(|| format!("create a working directory in {}", cache.display()))?;
    debian::make(origin, work.path(), dir)?;
    fs::rename(work.path(), dir).with_context(|| format!("rename the finished toolchain to {}", dir.display()))?;
    Ok(())
}

/// Whether the Rust that cargo would use has std for [`TARGET`].
fn target_is_installed() -> Result<bool> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = run(Command::new(rustc).args(["--print", "sysroot"]), "ask rustc for its sysroot")?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib");
    let Ok(entries) = fs::read_dir(&libraries) else {
        return Ok(false);
    };
    Ok(entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
}
