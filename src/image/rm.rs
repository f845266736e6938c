//! `wasklet image rm`

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use image::StoreError;
use serde::Serialize;

use super::output::{self, OutputArgs};
use super::{FAILED, StoreArgs};
use crate::terminal;

/// Remove images of this machine, with all their names
#[derive(clap::Args)]
#[command(after_help = "\
An image that a container uses stays, with an error: end the pod first.

Examples:
  wasklet image rm ghcr.io/team/app:v1
  wasklet image rm sha256:7c1e0aee7f3d…")]
pub(super) struct RmArgs {
    /// Images by reference, by digest or by ID
    #[arg(required = true, value_name = "REF|ID")]
    images: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Say nothing of what was removed
    #[arg(long, short, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// A removed image, in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    id: String,
    references: Vec<String>,
    size_bytes: u64,
}

pub(super) fn run(args: &RmArgs) -> anyhow::Result<ExitCode> {
    let directory = args.store.directory()?;
    let store = args.store.open_existing()?;
    let mut removed = Vec::new();
    let mut failed = false;
    for name in &args.images {
        // One that cannot be removed does not keep the others.
        match remove(&directory, store.as_ref(), name) {
            Ok(image) => removed.push(image),
            Err(error) => {
                failed = true;
                terminal::say(&format!("wasklet: {error:#}"));
            }
        }
    }
    args.output.write(&removed, |removed| {
        let line = |it: &Removed| {
            let names = if it.references.is_empty() { &it.id } else { &it.references.join(", ") };
            format!("removed {names} ({})\n", output::size(it.size_bytes))
        };
        if args.quiet { String::new() } else { removed.iter().map(line).collect() }
    })?;
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn remove(directory: &Path, store: Option<&image::Store>, name: &str) -> anyhow::Result<Removed> {
    let found = match store {
        Some(store) => store.resolve(name)?.map(|image| (store, image)),
        None => None,
    };
    let Some((store, image)) = found else {
        bail!("{name}: there is no such image on this machine; `wasklet image ls` lists those there are");
    };
    match store.remove(image.id) {
        Err(StoreError::InUse(_)) => {
            bail!("{name}: a container uses this image; end its pod, and remove the image then")
        }
        removed => removed?,
    };
    // What is compiled belongs to the image; that of others is kept.
    if let Err(error) = wasm::discard_code(directory, store) {
        terminal::say(&format!("wasklet: compiled code of {name} is left: {error}"));
    }
    let references = image.references.iter().map(ToString::to_string).collect();
    Ok(Removed { id: image.id.to_string(), references, size_bytes: image.size_bytes })
}
