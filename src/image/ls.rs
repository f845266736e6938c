//! `wasklet image ls`

use std::process::ExitCode;

use image::Image;

use super::StoreArgs;
use super::output::{self, ImageFields, OutputArgs};

/// Hexadecimal digits of an ID that tell images of one machine apart.
const SHORT_ID: usize = 12;

/// List the images of this machine
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasklet image ls
  wasklet image ls --quiet | xargs wasklet image rm
  wasklet image ls --output json | jq '.[].references'")]
pub(super) struct LsArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Say the images' IDs only
    #[arg(long, short, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &LsArgs) -> anyhow::Result<ExitCode> {
    let mut images = match args.store.open_existing()? {
        Some(store) => store.list()?,
        None => Vec::new(),
    };
    images.sort_by_cached_key(names);
    let fields: Vec<ImageFields> = images.iter().map(ImageFields::from).collect();
    let text = |_: &Vec<ImageFields>| {
        if args.quiet {
            return images.iter().map(|image| format!("{}\n", image.id)).collect();
        }
        let mut rows = vec![["IMAGE", "ID", "SIZE", "PULLED"].map(str::to_owned).to_vec()];
        for image in &images {
            let id = image.id.to_string();
            let id: String = id.trim_start_matches("sha256:").chars().take(SHORT_ID).collect();
            // Other names of the same image stand below, each in a row of its own.
            for (at, name) in names(image).into_iter().enumerate() {
                rows.push(match at {
                    0 => vec![name, id.clone(), output::size(image.size_bytes), output::ago(image.pulled_at)],
                    _ => vec![name, id.clone()],
                });
            }
        }
        output::table(&rows)
    };
    args.output.write(&fields, text)?;
    Ok(ExitCode::SUCCESS)
}

/// Its tags, or its digests where it has none.
fn names(image: &Image) -> Vec<String> {
    let names = if image.references.is_empty() { &image.digests } else { &image.references };
    names.iter().map(ToString::to_string).collect()
}
