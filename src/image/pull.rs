//! `wasklet image pull`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use image::{Puller, Reference};

use super::access::AccessArgs;
use super::output::{self, ImageFields, OutputArgs};
use super::progress::Progress;
use super::{StoreArgs, block_on};

/// Pull an image onto this machine, where every node and `wasklet run` with the same directory finds it
#[derive(clap::Args)]
#[command(after_help = "\
A tag is looked up anew each time; what is here already is not fetched again.

Examples:
  wasklet image pull ghcr.io/team/app:v1
  wasklet image pull --insecure-registry registry.local:5000 registry.local:5000/team/app
  printenv TOKEN | wasklet image pull --username me --password-stdin ghcr.io/team/private:v1
  wasklet image pull --image-layout ./layout team/app:v1")]
pub(super) struct PullArgs {
    /// The image
    #[arg(value_name = "REF")]
    image: String,
    #[command(flatten)]
    access: AccessArgs,
    /// An OCI layout, or a tar archive of one or of docker save, to look for the image in before any registry (repeatable)
    #[arg(long, value_name = "PATH", env = "WASKLET_IMAGE_LAYOUT")]
    image_layout: Vec<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Say the image's ID only
    #[arg(long, short, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &PullArgs) -> anyhow::Result<ExitCode> {
    let reference = Reference::parse(&args.image)?;
    let credentials = args.access.credentials(&reference)?;
    let mut options = args.access.puller_options(args.store.open()?, args.image_layout.clone())?;
    let transfers = Arc::new(Progress::new(args.quiet).transfers("pulling", &reference));
    let told = Arc::clone(&transfers);
    options.told = Some(Arc::new(move |progress| told.pulled(progress)));
    let started = Instant::now();
    let image = block_on(async {
        let pulled = Puller::new(options).pull(&reference, credentials).await;
        pulled.map_err(|error| anyhow::anyhow!(error.message()))
    });
    transfers.end();
    let image = image?;
    let took = started.elapsed();
    args.output.write(&ImageFields::from(&image), |_| {
        if args.quiet {
            return format!("{}\n", image.id);
        }
        let name = image.digests.first().unwrap_or(&reference);
        format!("pulled {name} ({}) in {:.1} s\n", output::size(image.size_bytes), took.as_secs_f64())
    })?;
    Ok(ExitCode::SUCCESS)
}
