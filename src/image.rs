//! `wasklet image`: images of this machine and of registries.
//!
//! Comes in: a command line. Goes out: lines for a person, or JSON whose fields docs/images.md lists, on standard output;
//! progress and complaints on standard error. Never here: how an image is packed, fetched or kept, which `image` knows.

mod access;
mod application;
mod build;
mod inspect;
mod ls;
mod output;
mod progress;
mod pull;
mod push;
mod rm;
mod signatures;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use image::Store;

use crate::assemble::{self, StopSignals};
use crate::terminal::{self, LogFormat};

/// What a command that failed ends with; 2 is clap's, for a command line that is wrong.
const FAILED: u8 = 1;

#[derive(clap::Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    command: Command,
    /// Say what is done: -v the steps, -vv the decisions
    #[arg(short, global = true, action = clap::ArgAction::Count)]
    v: u8,
}

#[derive(Subcommand)]
enum Command {
    Push(push::PushArgs),
    Pull(pull::PullArgs),
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
    Inspect(inspect::InspectArgs),
    Build(Box<build::BuildArgs>),
}

/// Where the images of this machine are.
#[derive(clap::Args, Clone)]
struct StoreArgs {
    /// Where the images are: the --root-dir of `wasklet kubelet`, the --state-dir of `wasklet run` and `wasklet runtime`
    #[arg(
        long,
        visible_alias = "state-dir",
        value_name = "DIR",
        help = "Where the images are: the --root-dir of `wasklet kubelet`, the --state-dir of `wasklet run` and \
                `wasklet runtime` [default: /var/lib/wasklet for root, else wasklet in the user's state directory]"
    )]
    root_dir: Option<PathBuf>,
}

impl StoreArgs {
    fn directory(&self) -> anyhow::Result<PathBuf> {
        self.root_dir.clone().map_or_else(assemble::state_dir, Ok)
    }

    /// The store, made where there is none yet.
    fn open(&self) -> anyhow::Result<Store> {
        let directory = assemble::image_store(&self.directory()?);
        Store::open(&directory).with_context(|| format!("opening the images in {}", directory.display()))
    }

    /// The store, if there is one: to look at images makes no directory.
    fn open_existing(&self) -> anyhow::Result<Option<Store>> {
        if assemble::image_store(&self.directory()?).exists() { self.open().map(Some) } else { Ok(None) }
    }
}

pub(crate) fn run(args: ImageArgs) -> ExitCode {
    let done = || -> anyhow::Result<ExitCode> {
        let level = match args.v {
            0 => "warn",
            1 => "info",
            _ => "debug,hyper=info,h2=info,tower=info",
        };
        terminal::start_log(level, LogFormat::Text)?;
        match args.command {
            Command::Push(args) => push::run(&args),
            Command::Pull(args) => pull::run(&args),
            Command::Ls(args) => ls::run(&args),
            Command::Rm(args) => rm::run(&args),
            Command::Inspect(args) => inspect::run(&args),
            Command::Build(args) => build::run(&args),
        }
    };
    done().unwrap_or_else(|error| {
        terminal::say(&format!("wasklet: {error:#}"));
        ExitCode::from(FAILED)
    })
}

/// Runs one command's asynchronous part to its end, or until Ctrl-C.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let tokio = assemble::tokio_runtime()?;
    let done = tokio.block_on(async {
        let mut stop = StopSignals::listen()?;
        tokio::select! {
            done = work => done,
            () = stop.next() => Err(anyhow::anyhow!("interrupted; what was complete is kept")),
        }
    });
    // Nothing that still runs in the background may hold us up.
    tokio.shutdown_background();
    done
}
