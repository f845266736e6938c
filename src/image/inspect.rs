//! `wasklet image inspect`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use image::inspect::{Format, Inspection, Interface, Kind, Reach};
use image::{Content, Description, Digest, Image, ImageConfig, ProgramError, Puller, Reference, Store};
use serde::Serialize;

use super::access::AccessArgs;
use super::application::ApplicationFields;
use super::output::{self, ImageFields, OutputArgs};
use super::signatures::SignatureFields;
use super::{StoreArgs, block_on};

/// Say what an image or a .wasm file is, and what it may reach
///
/// A file is told from an image by being there. What a guest may reach follows from what it imports, as it has no other
/// way out; what it is really given, its pod decides. Of an image of this machine the signatures are those that its trust
/// policy found to be right; with --remote all that it has are listed, and judged by --image-trust-policy.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasklet image inspect app.wasm
  wasklet image inspect ghcr.io/team/app:v1
  wasklet image inspect --remote --image-trust-policy trust.yaml ghcr.io/team/app:v1
  wasklet image inspect --output json app.wasm | jq '.wasm.reach[].what'")]
pub(super) struct InspectArgs {
    /// A .wasm file, or an image of this machine by reference, digest or ID
    #[arg(value_name = "REF|ID|FILE.wasm")]
    target: String,
    /// Look at the image in its registry, or in an --image-layout, without pulling it: its manifest and its signatures
    #[arg(long)]
    remote: bool,
    #[command(flatten)]
    access: AccessArgs,
    /// An OCI layout, or a tar archive of one or of docker save, to look for the image in before its registry (repeatable)
    #[arg(long, value_name = "PATH", requires = "remote")]
    image_layout: Vec<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is known, in JSON. A file has only the last part.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Inspected {
    /// Of an image that was only looked at, what its reference stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(flatten)]
    image: Option<ImageFields>,
    #[serde(flatten)]
    manifest: Option<Description>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<ConfigFields>,
    /// Of an image of this machine, those that were verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    signatures: Option<Vec<SignatureFields>>,
    /// Whether they are all that the image has.
    #[serde(skip)]
    all_signatures: bool,
    /// Of an image of files, what its own command runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    wasm: Option<WasmFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<ApplicationFields>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFields {
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: Option<String>,
    user: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WasmFields {
    digest: Digest,
    size_bytes: u64,
    #[serde(flatten)]
    inspection: Inspection,
}

pub(super) fn run(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let path = Path::new(&args.target);
    let inspected = if args.remote {
        remote(args)?
    } else if path.is_file() {
        Inspected { wasm: Some(wasm(path)?), ..Inspected::default() }
    } else {
        let store = args.store.open_existing()?;
        let found = match &store {
            Some(store) => store.resolve(&args.target)?.map(|image| (store, image)),
            None => None,
        };
        let Some((store, image)) = found else {
            let target = &args.target;
            bail!(
                "{target}: neither a file nor an image of this machine; `wasklet image ls` lists those there are, \
                 `wasklet image pull {target}` gets it from its registry"
            );
        };
        of_image(store, &image)?
    };
    args.output.write(&inspected, text)?;
    Ok(ExitCode::SUCCESS)
}

fn of_image(store: &image::Store, image: &Image) -> anyhow::Result<Inspected> {
    let ImageConfig { entrypoint, cmd, env, working_dir, user, .. } = image.config.clone();
    Ok(Inspected {
        image: Some(ImageFields::from(image)),
        manifest: image::describe(store, image),
        config: Some(ConfigFields { entrypoint, cmd, env, working_dir, user }),
        signatures: Some(image.verified.iter().map(SignatureFields::from).collect()),
        wasm: program(image)?.as_deref().map(wasm).transpose()?,
        application: match &image.content {
            Content::Spin(spin) => Some(ApplicationFields::of(spin)?),
            Content::Wasm(_) | Content::Rootfs(_) => None,
        },
        ..Inspected::default()
    })
}

/// An image where a pull would get it, of which nothing is kept here.
fn remote(args: &InspectArgs) -> anyhow::Result<Inspected> {
    let reference = Reference::parse(&args.target)?;
    let credentials = args.access.credentials(&reference)?;
    let place = tempfile::tempdir().context("making a directory for the manifest")?;
    let store = Store::open(place.path()).context("opening a directory for the manifest")?;
    let options = args.access.puller_options(store, args.image_layout.clone())?;
    let looked = block_on(async {
        let looked = Puller::new(options).look(&reference, credentials.as_ref()).await;
        looked.map_err(|error| anyhow::anyhow!(error.message()))
    })?;
    Ok(Inspected {
        reference: Some(reference.at(looked.target).to_string()),
        manifest: Some(looked.manifest),
        signatures: Some(looked.signatures.into_iter().map(SignatureFields::from).collect()),
        all_signatures: true,
        ..Inspected::default()
    })
}

/// The wasm file that an image runs by itself; a Spin application has none, and nor may an image that is only mounted.
fn program(image: &Image) -> anyhow::Result<Option<PathBuf>> {
    match &image.content {
        Content::Wasm(wasm) => Ok(Some(wasm.path.clone())),
        Content::Spin(_) => Ok(None),
        Content::Rootfs(rootfs) => {
            let ImageConfig { entrypoint, cmd, env, working_dir, .. } = &image.config;
            let args = [entrypoint.as_slice(), cmd.as_slice()].concat();
            let path = env.iter().find_map(|entry| entry.strip_prefix("PATH="));
            match rootfs.program(&args, path, working_dir.as_deref()) {
                Ok(program) => Ok(Some(program.wasm.path)),
                Err(ProgramError::Read { .. }) => bail!("{}: its files cannot be read", image.id),
                Err(_) => Ok(None),
            }
        }
    }
}

pub(super) fn wasm(path: &Path) -> anyhow::Result<WasmFields> {
    let step = || path.display().to_string();
    let content = std::fs::read(path).with_context(step)?;
    let inspection = image::inspect::inspect(&content).with_context(step)?;
    Ok(WasmFields { digest: Digest::of(&content), size_bytes: content.len() as u64, inspection })
}

fn text(inspected: &Inspected) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    if let Some(reference) = &inspected.reference {
        row("Image", reference.clone());
    }
    if let Some(image) = &inspected.image {
        image.rows(&mut row);
    }
    if let Some(signatures) = &inspected.signatures {
        let none = if inspected.all_signatures { "none" } else { "not verified; --remote lists those there are" };
        match signatures.is_empty() {
            true => row("Signatures", none.to_owned()),
            false => list("Signatures", signatures.iter().map(SignatureFields::text), &mut row),
        }
    }
    if let Some(manifest) = &inspected.manifest {
        manifest_rows(manifest, &mut row);
    }
    if let Some(config) = &inspected.config {
        config.rows(&mut row);
    }
    match (&inspected.wasm, &inspected.application) {
        (Some(wasm), _) => wasm.rows(&mut row),
        (None, Some(application)) => application.rows(&mut row),
        (None, None) if inspected.all_signatures => {}
        (None, None) => row("Wasm", "none that it runs by itself".to_owned()),
    }
    output::table(&rows)
}

impl WasmFields {
    pub(super) fn rows(&self, row: &mut impl FnMut(&str, String)) {
        let Self { digest, size_bytes, inspection } = self;
        row("Wasm", format!("{digest}, {}", output::size(*size_bytes)));
        row("Kind", kind(inspection));
        if let Some(world) = &inspection.world {
            row("World", world.clone());
        }
        list("Exports", inspection.exports.iter().map(interface), row);
        list("Imports", inspection.imports.iter().map(interface), row);
        list("May reach", reach(inspection).into_iter(), row);
        list("Says", inspection.about.iter().map(|(name, text)| format!("{name}: {text}")), row);
    }
}

/// The name beside the first of them, nothing beside the others.
pub(super) fn list(name: &str, texts: impl Iterator<Item = String>, row: &mut impl FnMut(&str, String)) {
    for (at, text) in texts.enumerate() {
        row(if at == 0 { name } else { "" }, text);
    }
}

impl ConfigFields {
    fn rows(&self, row: &mut impl FnMut(&str, String)) {
        let words = |words: &[String]| words.join(" ");
        for (name, value) in [
            ("Entrypoint", words(&self.entrypoint)),
            ("Cmd", words(&self.cmd)),
            ("WorkingDir", self.working_dir.clone().unwrap_or_default()),
            ("User", self.user.clone().unwrap_or_default()),
        ] {
            if !value.is_empty() {
                row(name, value);
            }
        }
        list("Env", self.env.iter().cloned(), row);
    }
}

fn manifest_rows(manifest: &Description, row: &mut impl FnMut(&str, String)) {
    row("Manifest", manifest.manifest.to_string());
    let layer = |layer: &image::Layer| {
        let title = layer.annotations.get("org.opencontainers.image.title");
        let title = title.map(|title| format!(", {title}")).unwrap_or_default();
        format!("{}, {}, {}{title}", layer.digest, output::size(layer.size_bytes), layer.media_type)
    };
    list("Layers", manifest.layers.iter().map(layer), row);
    list("Annotations", manifest.annotations.iter().map(|(key, value)| format!("{key}={value}")), row);
}

fn kind(inspection: &Inspection) -> String {
    let what = match (inspection.kind, inspection.format) {
        (Kind::Command, _) => "command: it runs and ends",
        (Kind::Http, _) => "HTTP handler: the node listens, it answers",
        (Kind::Reactor, _) => "reactor: a module to be called, with no entry point of its own",
        (Kind::Wit, _) => "WIT package: definitions of interfaces, nothing to run",
        (Kind::Library, Format::Module) => "module without an entry point: it cannot be run by itself",
        (Kind::Library, Format::Component) => "component without an entry point: it cannot be run by itself",
    };
    let format = match inspection.format {
        Format::Module => "core module",
        Format::Component => "component",
    };
    match inspection.wasi {
        Some(wasi) => format!("{what} (WASI {}, {format})", wasi.number()),
        None => format!("{what} ({format})"),
    }
}

fn interface(interface: &Interface) -> String {
    match interface.functions.as_deref() {
        None | Some([]) => interface.name.clone(),
        Some(functions) => format!("{} ({})", interface.name, functions.join(", ")),
    }
}

/// What it may reach, and in one line all that it cannot.
fn reach(inspection: &Inspection) -> Vec<String> {
    let access = inspection.reach.iter().map(|it| format!("{}: {}", it.what.name(), it.how.join(", ")));
    let mut lines: Vec<String> = access.collect();
    let reached = |what: &Reach| inspection.reach.iter().any(|it| it.what == *what);
    let others = Reach::ALL.iter().filter(|what| **what != Reach::Other && !reached(what));
    let others: Vec<&str> = others.map(|what| what.name()).collect();
    if !others.is_empty() {
        lines.push(format!("nothing else: no {}", others.join(", ")));
    }
    lines
}
