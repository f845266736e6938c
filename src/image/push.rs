//! `wasklet image push`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use image::pack::{self, Annotations, Artifact};
use image::{Credentials, Push, Reference, Registries};
use serde::Serialize;

use super::access::AccessArgs;
use super::block_on;
use super::build::Pair;
use super::output::{self, OutputArgs};
use super::progress::Progress;

/// Push a .wasm file to a registry as an image
///
/// The image is a CNCF wasm OCI artifact (application/vnd.wasm.config.v0+json): one layer, the file itself, and a
/// configuration that names the component's imports and exports. Equal files give an equal digest.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasklet image push app.wasm ghcr.io/team/app:v1
  wasklet image push app.wasm localhost:5000/app --annotation org.opencontainers.image.version=1.2.3
  printenv TOKEN | wasklet image push --username me --password-stdin app.wasm ghcr.io/team/app:v1")]
pub(super) struct PushArgs {
    /// A core module or a component
    #[arg(value_name = "FILE.wasm")]
    wasm: PathBuf,
    /// Where to
    #[arg(value_name = "REF")]
    image: String,
    /// An annotation of the image's manifest, besides what the file's custom sections say (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<Pair>,
    #[command(flatten)]
    access: AccessArgs,
    /// Say the image's digest only
    #[arg(long, short, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// A pushed image, in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pushed {
    reference: String,
    digest: String,
    size_bytes: u64,
}

pub(super) fn run(args: &PushArgs) -> anyhow::Result<ExitCode> {
    let reference = Reference::parse(&args.image)?;
    let artifact = artifact(&args.wasm, &args.annotation)?;
    let credentials = args.access.credentials(&reference)?;
    let started = Instant::now();
    let progress = Progress::new(args.quiet);
    push(&args.access.registries(), &reference, credentials.as_ref(), &artifact, progress)?;
    let took = started.elapsed();
    let pushed = Pushed {
        reference: reference.to_string(),
        digest: artifact.digest().to_string(),
        size_bytes: artifact.size_bytes(),
    };
    args.output.write(&pushed, |pushed| {
        if args.quiet {
            return format!("{}\n", pushed.digest);
        }
        let name = reference.at(artifact.digest());
        format!("pushed {name} ({}) in {:.1} s\n", output::size(pushed.size_bytes), took.as_secs_f64())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Pushes an artifact, telling of each blob.
pub(super) fn push(
    registries: &Registries,
    reference: &Reference,
    credentials: Option<&Credentials>,
    artifact: &Artifact,
    progress: Progress,
) -> anyhow::Result<()> {
    let transfers = progress.transfers("pushing", reference);
    let push = Push::from(artifact);
    let pushed =
        block_on(async { Ok(registries.push(reference, credentials, &push, &|told| transfers.pushed(told)).await?) });
    transfers.end();
    pushed.map(drop)
}

fn artifact(path: &Path, annotations: &[Pair]) -> anyhow::Result<Artifact> {
    let wasm = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let inspection = image::inspect::inspect(&wasm).with_context(|| path.display().to_string())?;
    let title = path.file_name().unwrap_or_default().to_string_lossy();
    let mut said = Annotations::of(&inspection, &title);
    said.manifest.extend(Pair::map(annotations));
    pack::annotated_artifact(&wasm, &said).with_context(|| format!("packing {}", path.display()))
}
