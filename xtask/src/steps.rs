//! `cargo xtask test`: everything that has to be green, one step after the other.
//!
//! Comes in: which steps. Goes out: each step's name and time, and the first failure. Never here: two steps at once;
//! on two cores the Go build of the control plane and cargo would only starve one another, and a test that waits for
//! a condition would wait for both.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use testbed::{control_plane, tools};

use crate::{build_guests, say, tidy};

/// One step, in the order they run: what fails fast comes first, what tests need comes before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// rustfmt over the workspace and the guests
    Format,
    /// The house rules
    Tidy,
    /// Build the guests
    Guests,
    /// Build the control plane, once per machine
    ControlPlane,
    /// Build the tools of others that tests speak with, once per machine
    Tools,
    /// clippy over all targets, warnings being errors
    Lints,
    /// cargo test of all crates: unit, property, case folders, integration, cluster
    Tests,
    /// cargo deny, where it is installed
    Deny,
}

/// Runs the steps of `only`, or all of them when it is empty; stops at the first that fails.
///
/// # Errors
/// Names the step that failed.
pub(crate) fn run(only: &[Step]) -> Result<()> {
    let started = Instant::now();
    for &step in Step::value_variants() {
        if only.is_empty() || only.contains(&step) {
            let step_started = Instant::now();
            let name = step.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            say(&format!("== {name}"));
            step.run().with_context(|| format!("the step {name} failed after {:.0?}", step_started.elapsed()))?;
            say(&format!("== {name}: {:.1?}", step_started.elapsed()));
        }
    }
    say(&format!("== all green in {:.0?}", started.elapsed()));
    Ok(())
}

impl Step {
    fn run(self) -> Result<()> {
        match self {
            Self::Format => format(),
            Self::Tidy => tidy::check(),
            Self::Guests => build_guests(),
            Self::ControlPlane => control_plane::binary().map(|path| say(&path.display().to_string())),
            Self::Tools => {
                for path in [tools::oras()?, tools::wkg()?] {
                    say(&path.display().to_string());
                }
                Ok(())
            }
            Self::Lints => cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
            Self::Tests => cargo(&["test", "--workspace", "--locked"]),
            Self::Deny => deny(),
        }
    }
}

fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    for manifest in tidy::tracked_files()?.iter().filter(|path| is_guest_manifest(path)) {
        cargo(&["fmt", "--check", "--manifest-path", manifest])?;
    }
    Ok(())
}

/// Guests are workspaces of their own, so `cargo fmt --all` does not see them.
fn is_guest_manifest(path: &str) -> bool {
    (path.starts_with("examples/") || path.starts_with("tests/guests/")) && path.ends_with("/Cargo.toml")
}

fn deny() -> Result<()> {
    let installed =
        Command::new("cargo-deny").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if installed {
        return cargo(&["deny", "check"]);
    }
    say("cargo-deny is not installed; tidy has held the fences and the licences of deny.toml");
    Ok(())
}

/// Runs cargo in the repository's root, its output going where ours goes.
fn cargo(arguments: &[&str]) -> Result<()> {
    let line = format!("cargo {}", arguments.join(" "));
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .current_dir(repository())
        .status()
        .with_context(|| format!("start {line}"))?;
    ensure!(status.success(), "{line} ended with {status}");
    Ok(())
}

/// The directory of the workspace, which `xtask` stands in.
pub(crate) fn repository() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}
