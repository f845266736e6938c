//! `cargo xtask`: what is done in this repository that is not `cargo build`.
//!
//! Comes in: a command line. Goes out: guests, a running control plane, a verdict over everything. Never here: the
//! work itself on guests and clusters, which stands in `testbed`.

mod bench;
mod steps;
mod tidy;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use testbed::{control_plane, guests};

use self::steps::Step;

/// The project's own commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    /// Build every guest and pack it as an image in target/guests/oci
    Guests,
    /// A real Kubernetes control plane on this machine
    #[command(subcommand)]
    Cluster(Cluster),
    /// The control plane's kubectl, against the cluster that is up
    Kubectl {
        /// What kubectl itself takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure the whole binary against something else, both sides in one run
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Check the house rules
    Tidy,
    /// Run everything: format, rules, guests, lints and all tests
    Test {
        /// Run this step only; may be given several times
        #[arg(long, value_name = "STEP")]
        only: Vec<Step>,
    },
}

#[derive(Subcommand)]
enum Cluster {
    /// Start one and keep it until Ctrl-C
    Up,
}

fn main() -> Result<ExitCode> {
    match Command::parse() {
        Command::Guests => build_guests()?,
        Command::Cluster(Cluster::Up) => {
            tokio::runtime::Runtime::new().context("start tokio")?.block_on(control_plane::up())?;
        }
        Command::Kubectl { arguments } => {
            let status = control_plane::up_kubectl(arguments)?;
            return Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .map_or(ExitCode::FAILURE, ExitCode::from));
        }
        Command::Bench(bench) => {
            tokio::runtime::Runtime::new().context("start tokio")?.block_on(bench::run(bench))?;
        }
        Command::Tidy => tidy::check()?,
        Command::Test { only } => steps::run(&only)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds all guests and says what there is now.
fn build_guests() -> Result<()> {
    let layout = guests::layout();
    for built in guests::build_all(&layout)? {
        say(&format!("{:>8} bytes  {}@{}", built.bytes, built.reference, built.digest));
    }
    say(&format!("in {}", layout.display()));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a command line tool speaks on standard output")]
fn say(line: &str) {
    println!("{line}");
}
