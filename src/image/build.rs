//! `wasklet image build`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use image::pack::{self, Annotations, Artifact, Files, Rootfs};
use image::{Puller, PullerOptions, Reference};
use serde::Serialize;

use super::access::AccessArgs;
use super::output::{self, OutputArgs};
use super::progress::Progress;
use super::{StoreArgs, block_on, push};

/// Build an ordinary OCI image around a .wasm file, with files beside it
///
/// The image has one layer, the .wasm file as its entrypoint, and the platform wasi/wasm. Files are owned by root and have
/// no times: equal files give an equal digest. A .wasm file that needs no files of its own is better pushed as it is, by
/// `wasklet image push`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasklet image build app.wasm team/app:v1 --add ./site:/srv/site
  wasklet image build app.wasm team/app:v1 --env LOG=info --workdir /srv -- --port 8080
  wasklet image build app.wasm ghcr.io/team/app:v1 --add ./site:/srv/site --push
  wasklet image build app.wasm team/app:v1 --add ./site:/srv/site --archive app.tar
  skopeo copy oci-archive:app.tar docker://registry.example/team/app:v1")]
pub(super) struct BuildArgs {
    /// The entrypoint
    #[arg(value_name = "FILE.wasm")]
    wasm: PathBuf,
    /// The image's name
    #[arg(value_name = "REF")]
    image: String,
    /// A file, or a directory with all that is in it, at an absolute path of the image (repeatable)
    #[arg(long, value_name = "HOST:PATH")]
    add: Vec<Added>,
    /// Where the .wasm file is in the image [default: / and its own name]
    #[arg(long, value_name = "PATH")]
    at: Option<String>,
    /// An environment variable of the image (repeatable)
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<Pair>,
    /// The directory the guest starts in
    #[arg(long, value_name = "PATH")]
    workdir: Option<String>,
    /// The user the guest is started for
    #[arg(long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// A label of the image's configuration (repeatable)
    #[arg(long, short, value_name = "NAME=VALUE")]
    label: Vec<Pair>,
    /// An annotation of the image's manifest (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<Pair>,
    /// Write the image into this OCI layout directory, and not onto this machine
    #[arg(long, value_name = "DIR")]
    layout: Option<PathBuf>,
    /// Write the image into this file, a tarball of an OCI layout, and not onto this machine
    #[arg(long, value_name = "FILE.tar")]
    archive: Option<PathBuf>,
    /// Push the image to its registry, and do not keep it on this machine
    #[arg(long)]
    push: bool,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Say the image's digest only
    #[arg(long, short, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// Arguments of the image, which a pod's `args` replace
    #[arg(last = true, value_name = "ARGS")]
    cmd: Vec<String>,
}

/// `--add HOST:PATH`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Added {
    host: PathBuf,
    path: String,
}

impl std::str::FromStr for Added {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (host, path) = text.rsplit_once(':').context("write HOST:PATH, for example ./site:/srv/site")?;
        ensure!(!host.is_empty(), "the file before the colon is missing");
        ensure!(path.starts_with('/'), "{path:?} must be absolute in the image, for example /{path}");
        Ok(Self { host: PathBuf::from(host), path: path.to_owned() })
    }
}

/// `NAME=VALUE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) value: String,
}

impl std::str::FromStr for Pair {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) = text.split_once('=').context("write NAME=VALUE")?;
        ensure!(!name.is_empty(), "the name before = is missing");
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

impl Pair {
    pub(super) fn map(pairs: &[Self]) -> BTreeMap<String, String> {
        pairs.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect()
    }
}

/// A built image, in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Built {
    reference: String,
    digest: String,
    size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    layout: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<PathBuf>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pushed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

pub(super) fn run(args: &BuildArgs) -> anyhow::Result<ExitCode> {
    let reference = Reference::parse(&args.image)?;
    let annotations = Annotations { title: None, manifest: Pair::map(&args.annotation) };
    let artifact = pack::image(&rootfs(args)?, &annotations).with_context(|| format!("building {reference}"))?;
    let mut built = Built {
        reference: reference.to_string(),
        digest: artifact.digest().to_string(),
        size_bytes: artifact.size_bytes(),
        layout: args.layout.clone(),
        archive: args.archive.clone(),
        pushed: args.push,
        id: None,
    };
    if let Some(layout) = &args.layout {
        std::fs::create_dir_all(layout).with_context(|| format!("making {}", layout.display()))?;
        pack::add_to_layout(layout, &reference, &artifact)?;
    }
    if let Some(archive) = &args.archive {
        pack::write_archive(archive, &reference, &artifact)?;
    }
    if args.push {
        let credentials = args.access.credentials(&reference)?;
        let progress = Progress::new(args.quiet);
        push::push(&args.access.registries(), &reference, credentials.as_ref(), &artifact, progress)?;
    }
    if args.layout.is_none() && args.archive.is_none() && !args.push {
        built.id = Some(keep(args, &reference, &artifact)?);
    }
    args.output.write(&built, |built| {
        if args.quiet {
            return format!("{}\n", built.digest);
        }
        let places = [&built.layout, &built.archive].into_iter().flatten().map(|place| place.display().to_string());
        let mut places: Vec<String> = places.collect();
        if built.pushed {
            places.push(format!("registry {}", reference.registry()));
        }
        let place = if places.is_empty() { "this machine's images".to_owned() } else { places.join(" and ") };
        format!("built {}@{} ({}) into {place}\n", built.reference, built.digest, output::size(built.size_bytes))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn rootfs(args: &BuildArgs) -> anyhow::Result<Rootfs> {
    let name = args.wasm.file_name().and_then(|name| name.to_str());
    let name =
        name.with_context(|| format!("{} has no name that an image could have; give --at", args.wasm.display()))?;
    let at = args.at.clone().unwrap_or_else(|| format!("/{name}"));
    let wasm = std::fs::read(&args.wasm).with_context(|| format!("reading {}", args.wasm.display()))?;
    image::inspect::inspect(&wasm).with_context(|| args.wasm.display().to_string())?;
    let mut files = Files::default();
    files.add_file(&args.wasm, &at, wasm)?;
    for added in &args.add {
        files.add(&added.host, &added.path).with_context(|| format!("adding {}", added.host.display()))?;
    }
    Ok(Rootfs {
        files,
        entrypoint: vec![at],
        cmd: args.cmd.clone(),
        env: args.env.iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect(),
        working_dir: args.workdir.clone(),
        user: args.user.clone(),
        labels: Pair::map(&args.label),
    })
}

/// Puts the image into the store, by the way that any image comes: out of a layout.
fn keep(args: &BuildArgs, reference: &Reference, artifact: &Artifact) -> anyhow::Result<String> {
    let store = args.store.open()?;
    let layout = layout_beside(store.root())?;
    pack::add_to_layout(layout.path(), reference, artifact)?;
    let options = PullerOptions { layouts: vec![layout.path().to_owned()], ..PullerOptions::new(store) };
    let image = block_on(async {
        let pulled = Puller::new(options).pull(reference, None).await;
        pulled.map_err(|error| anyhow::anyhow!(error.message()))
    })?;
    Ok(image.id.to_string())
}

/// A directory that goes with its value, on a disk that has room for the image.
fn layout_beside(store: &Path) -> anyhow::Result<tempfile::TempDir> {
    let directory = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(store);
    directory.with_context(|| format!("making a directory in {}", store.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_words_are_refused_with_the_way_out() {
        let check = |text: &str, words: &str| {
            let error = format!("{:#}", text.parse::<Added>().unwrap_err());
            assert!(error.contains(words), "{error}");
        };
        check("./site", "HOST:PATH");
        check(":/srv", "is missing");
        check("./site:srv", "/srv");
        assert!("=x".parse::<Pair>().is_err());
        assert_eq!("a:b:/c".parse::<Added>().unwrap(), Added { host: "a:b".into(), path: "/c".into() });
    }
}
