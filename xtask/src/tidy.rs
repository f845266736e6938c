//! The house rules (docs/style.md) that neither rustfmt nor clippy knows.
//!
//! Comes in: the files git knows, and cargo's picture of the dependencies. Goes out: every breach at once, each with
//! its place. Never here: a change of a file.

mod dependencies;
mod licence;
mod sources;

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::say;
use crate::steps::repository;

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    /// The file, relative to the repository's root.
    path: String,
    /// Counted from 1; 0 stands for the file as a whole.
    line: usize,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// Checks all rules.
///
/// # Errors
/// When any is broken; each breach has been printed by then.
pub(crate) fn check() -> Result<()> {
    let mut faults = Vec::new();
    let files = tracked_files()?;
    for path in files.iter().filter(|path| sources::is_read(path)) {
        // A file may be deleted and still stand in git's index.
        if let Ok(text) = fs::read_to_string(repository().join(path)) {
            faults.extend(sources::faults(path, &text));
        }
    }
    faults.extend(dependencies::faults()?);
    for fault in &faults {
        say(&fault.to_string());
    }
    if !faults.is_empty() {
        bail!("{} house rules broken, see above", faults.len());
    }
    say(&format!("{} files and all dependencies keep the house rules", files.len()));
    Ok(())
}

/// The files of the repository, new ones included and ignored ones not, relative to its root.
///
/// # Errors
/// When this is no git work tree.
pub(crate) fn tracked_files() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .context("start git ls-files")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let listing = String::from_utf8(output.stdout).context("read git ls-files")?;
    Ok(listing.split_terminator('\0').map(str::to_owned).collect())
}
