//! What is to be run: a manifest as it is, or a pod made around a file or an image.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use image::{Reference, pack};
use kubelet::sources::files::{self, Manifest};
use kubelet::sources::identity::{Naming, identify};
use kubelet::tables::Origin;
use sha2::{Digest, Sha256};

use super::adhoc::Adhoc;
use super::{NODE_NAME, RunArgs};

/// What a wasm binary begins with.
const WASM_MAGIC: [u8; 4] = *b"\0asm";

/// The pods to run, and where the image of an ad-hoc one lies.
pub(super) struct Target {
    pub(super) manifest: Manifest,
    /// A layout with the file on the command line as an image.
    pub(super) layout: Option<PathBuf>,
    /// One container that runs once: what keeps it from starting ends us.
    pub(super) one_shot: bool,
}

impl Target {
    pub(super) fn read(args: &RunArgs, place: &Path) -> anyhow::Result<Self> {
        let path = Path::new(&args.target);
        let naming = Naming { node_name: NODE_NAME.to_owned(), suffix: false };
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if matches!(extension, "yaml" | "yml" | "json") {
            let adhoc =
                !args.env.is_empty() || !args.volume.is_empty() || !args.publish.is_empty() || !args.args.is_empty();
            ensure!(
                !adhoc,
                "--env, --volume, --publish and arguments are for a .wasm file or an image; a manifest says these itself"
            );
            let manifest = files::read_manifest(path, &naming)?;
            return Ok(Self { manifest, layout: None, one_shot: false });
        }
        let (image, layout) = if path.exists() {
            let layout = place.join("oci");
            (pack_file(path, &layout)?, Some(layout))
        } else if extension == "wasm" || args.target.starts_with(['.', '/']) {
            bail!("{}: there is no such file", args.target);
        } else {
            (args.target.clone(), None)
        };
        let adhoc = Adhoc {
            file: path,
            image: &image,
            args: &args.args,
            env: &args.env,
            volumes: &args.volume,
            publish: &args.publish,
            annotations: &args.annotation,
        };
        let pod = serde_json::from_value(adhoc.pod()).context("making a pod of the command line")?;
        let pod = identify(pod, Origin::File, path.as_os_str().as_encoded_bytes(), &naming);
        let pod = pod.map_err(anyhow::Error::msg)?;
        let manifest = Manifest { pods: vec![pod], ..Manifest::default() };
        Ok(Self { manifest, layout, one_shot: true })
    }
}

/// Puts the file into a layout, under a name that follows its content, and gives the name.
fn pack_file(path: &Path, layout: &Path) -> anyhow::Result<String> {
    let step = || format!("reading {}", path.display());
    let wasm = std::fs::read(path).with_context(step)?;
    ensure!(
        wasm.starts_with(&WASM_MAGIC),
        "{}: neither a manifest (.yaml, .json) nor WebAssembly (a binary that begins with \\0asm)",
        path.display()
    );
    let artifact = pack::artifact(&wasm).with_context(step)?;
    let digest: String = Sha256::digest(&wasm).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("localhost/run/{}:{digest}", super::adhoc::pod_name(path));
    let reference = Reference::parse(&name).with_context(step)?;
    pack::add_to_layout(layout, &reference, &artifact).with_context(|| format!("packing {}", path.display()))?;
    Ok(name)
}
