//! Where things are kept that outlast a clone: the guests' compiler, the control plane's binary.
//!
//! Comes in: the environment. Goes out: a path, which may not exist yet. Never here: what is kept there.

use std::env;
use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// `$WASKLET_CACHE`, else `wasklet` under the user's cache directory.
pub(crate) fn dir() -> Result<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("WASKLET_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("wasklet")))
        .or_else(|| variable("HOME").map(|dir| dir.join(".cache/wasklet")))
        .context("none of WASKLET_CACHE, XDG_CACHE_HOME and HOME says where to keep what outlasts a clone")
}

/// Holds what `name` stands for, for as long as the value lives; another process that holds it is waited for.
pub(crate) fn lock(name: &str) -> Result<File> {
    let path = dir()?.join(format!("{name}.lock"));
    let lock = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    lock.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(lock)
}
