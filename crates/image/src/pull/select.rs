//! A manifest or an index comes in, what kind of image it is or its wasm platform goes out, or the refusal a user reads.
//!
//! Pure: media types and platforms decide here, the binary itself is looked at after the download. The `os` of a
//! platform or a configuration decides nothing, as tools write `wasi`, `wasip1`, `wasip2` and `Wasip1` for the same, and
//! build tools write `linux` for files around a `.wasm`.

use crate::manifest::{DOCKER_CONFIG, Descriptor, Index, LOCKED_APP, Manifest, OCI_CONFIG, OCI_TAR_LAYER, WASM_LAYER};

/// The layer types that hold a bare wasm binary: CNCF's, the older one of Krustlet and wasm-to-oci, and runwasi's.
const WASM_LAYERS: [&str; 3] = [
    WASM_LAYER,
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];
/// The layer types that hold files, as tar archives; how they are compressed, their content says.
const TAR_LAYERS: [&str; 9] = [
    OCI_TAR_LAYER,
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// What kind of image a manifest describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// One layer, which is a wasm binary.
    Wasm(&'a Descriptor),
    /// Layers of files.
    Rootfs,
    /// A Spin application, whose locked form is this blob.
    Spin(&'a Descriptor),
}

/// Why an image that exists cannot run here. The text says what was found, what is supported and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Layers of files beside wasm layers: nothing says what the image is.
    #[error("it has a layer of files ({media_type}) beside wasm layers; {}; {}", supported(), WAY_OUT)]
    Mixed {
        /// The first layer type that is not wasm.
        media_type: String,
    },
    /// Layers of files under a configuration that does not describe them.
    #[error("its configuration of type {media_type} says nothing of a root file system; {}; {}", supported(), WAY_OUT)]
    NoRootfs {
        /// The configuration's type.
        media_type: String,
    },
    /// An index without any entry for wasm.
    #[error("it has no wasm platform, only {}; {}; {}", platforms.join(", "), supported(), WAY_OUT)]
    Platforms {
        /// `os/architecture` of each entry.
        platforms: Vec<String>,
    },
    /// A layer of a type nothing here knows.
    #[error("its layer type {media_type} is not known; {}; {}", supported(), WAY_OUT)]
    LayerType {
        /// The type found.
        media_type: String,
    },
    /// No layer, or several wasm layers.
    #[error("it has {found} wasm layers; {}; compose the components into one and push that", supported())]
    LayerCount {
        /// How many there are.
        found: usize,
    },
    /// The layer's type says wasm, its bytes do not.
    #[error(
        "its layer of type {media_type} is not a WebAssembly binary (it does not begin with \\0asm); push the compiled .wasm file itself"
    )]
    NotWasm {
        /// What the layer claims to be.
        media_type: String,
    },
    /// An image of Docker's first format.
    #[error(
        "its manifest is of Docker schema 1, which registries gave up in 2017; push the image again with a current tool"
    )]
    Schema1,
}

const WAY_OUT: &str = "build it for wasm and push the .wasm as an artifact, for example with `wkg oci push`, or let the pod run on a Linux node (nodeSelector kubernetes.io/os: linux)";

fn supported() -> String {
    let wasm = WASM_LAYERS.join(", ");
    format!("supported are images of one wasm layer ({wasm}), images of files around a .wasm, and Spin applications")
}

/// The entry for wasm, whatever its os; the first where there are several. Where there is but one image, it is taken
/// whatever its platform: a build for no platform in particular names that of the machine it ran on, and what is in it
/// may be wasm, or files that are only mounted.
pub(crate) fn wasm_platform(index: &Index) -> Result<&Descriptor, Refusal> {
    let architecture_is = |entry: &Descriptor, wanted: &str| {
        entry.platform.as_ref().is_some_and(|platform| platform.architecture == wanted)
    };
    if let Some(wasm) = index.manifests.iter().find(|entry| architecture_is(entry, "wasm")) {
        return Ok(wasm);
    }
    // What build tools say about an image stands beside it, as an image of no platform that is known.
    let mut images = index.manifests.iter().filter(|entry| !architecture_is(entry, "unknown"));
    let only = images.next().filter(|_| images.next().is_none());
    only.ok_or_else(|| {
        let mut platforms: Vec<String> = index.manifests.iter().map(platform_name).collect();
        platforms.dedup();
        if platforms.is_empty() {
            platforms.push("an empty list".to_owned());
        }
        Refusal::Platforms { platforms }
    })
}

fn platform_name(entry: &Descriptor) -> String {
    match &entry.platform {
        Some(platform) => match &platform.variant {
            Some(variant) => format!("{}/{}/{variant}", platform.os, platform.architecture),
            None => format!("{}/{}", platform.os, platform.architecture),
        },
        None => format!("an entry without a platform ({})", entry.media_type),
    }
}

/// What kind of image it is. The types of the layers decide, before that of the configuration.
pub(crate) fn kind(manifest: &Manifest) -> Result<Kind<'_>, Refusal> {
    if let Some(locked_app) = manifest.layers.iter().rfind(|layer| layer.media_type == LOCKED_APP) {
        return Ok(Kind::Spin(locked_app));
    }
    // Old Spin releases push the locked application as the configuration.
    if manifest.config.media_type == LOCKED_APP {
        return Ok(Kind::Spin(&manifest.config));
    }
    let is_wasm = |layer: &&Descriptor| WASM_LAYERS.contains(&layer.media_type.as_str());
    let is_tar = |layer: &&Descriptor| TAR_LAYERS.contains(&layer.media_type.as_str());
    if let Some(unknown) = manifest.layers.iter().find(|layer| !is_wasm(layer) && !is_tar(layer)) {
        return Err(Refusal::LayerType { media_type: unknown.media_type.clone() });
    }
    let files = manifest.layers.iter().find(is_tar);
    let wasm: Vec<&Descriptor> = manifest.layers.iter().filter(is_wasm).collect();
    let describes_files = [OCI_CONFIG, DOCKER_CONFIG].contains(&manifest.config.media_type.as_str());
    match (wasm.as_slice(), files) {
        ([layer], None) => Ok(Kind::Wasm(layer)),
        // An image of no layers is one of no files.
        ([], _) if describes_files => Ok(Kind::Rootfs),
        ([], Some(_)) => Err(Refusal::NoRootfs { media_type: manifest.config.media_type.clone() }),
        (layers, None) => Err(Refusal::LayerCount { found: layers.len() }),
        (_, Some(files)) => Err(Refusal::Mixed { media_type: files.media_type.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Platform;

    fn manifest(config: &str, layers: &[&str]) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: None,
            config: Descriptor::of(config, b"{}"),
            layers: layers.iter().map(|media_type| Descriptor::of(media_type, b"")).collect(),
            subject: None,
            annotations: None,
        }
    }

    fn index(platforms: &[(&str, &str)]) -> Index {
        let entry = |(os, architecture): &(&str, &str)| Descriptor {
            platform: Some(Platform { architecture: (*architecture).into(), os: (*os).into(), variant: None }),
            ..Descriptor::of("m", os.as_bytes())
        };
        Index { manifests: platforms.iter().map(entry).collect() }
    }

    #[test]
    fn layers_say_what_an_image_is() {
        for media_type in WASM_LAYERS {
            let manifest = manifest("any/config", &[media_type]);
            assert_eq!(kind(&manifest), Ok(Kind::Wasm(&manifest.layers[0])), "{media_type}");
        }
        for media_type in TAR_LAYERS {
            let manifest = manifest(DOCKER_CONFIG, &[media_type, OCI_TAR_LAYER]);
            assert_eq!(kind(&manifest), Ok(Kind::Rootfs), "{media_type}");
        }
        assert_eq!(kind(&manifest(OCI_CONFIG, &[])), Ok(Kind::Rootfs));
        let spin = manifest(OCI_CONFIG, &[WASM_LAYERS[1], "application/vnd.wasm.content.layer.v1+data", LOCKED_APP]);
        assert_eq!(kind(&spin), Ok(Kind::Spin(&spin.layers[2])));
        let old = manifest(LOCKED_APP, &[WASM_LAYERS[1]]);
        assert_eq!(kind(&old), Ok(Kind::Spin(&old.config)));
    }

    #[test]
    fn refusals_name_the_type_found_and_the_way_out() {
        let check = |manifest: &Manifest, words: &[&str]| {
            let message = kind(manifest).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{word}: {message}");
            }
        };
        let tar = TAR_LAYERS[1];
        check(&manifest("c", &[tar]), &["configuration of type c", WASM_LAYER, "kubernetes.io/os: linux"]);
        check(&manifest(OCI_CONFIG, &[tar, WASM_LAYER]), &[tar, "beside wasm layers"]);
        check(&manifest("c", &[WASM_LAYER, "text/plain"]), &["text/plain is not known", WASM_LAYER]);
        check(&manifest("c", &[]), &["0 wasm layers"]);
        check(&manifest("c", &[WASM_LAYER, WASM_LAYER]), &["2 wasm layers"]);
    }

    #[test]
    fn the_only_image_of_an_index_is_taken_and_its_attestation_is_not() {
        let built = index(&[("linux", "amd64"), ("unknown", "unknown")]);
        assert_eq!(wasm_platform(&built).unwrap().digest, built.manifests[0].digest);
        assert!(wasm_platform(&index(&[("unknown", "unknown")])).is_err());
    }

    #[test]
    fn the_architecture_chooses_the_platform_and_the_os_does_not() {
        for os in ["wasi", "wasip1", "Wasip1", ""] {
            let index = index(&[("linux", "amd64"), (os, "wasm")]);
            assert_eq!(wasm_platform(&index).unwrap().digest, index.manifests[1].digest);
        }
        let linux = index(&[("linux", "amd64"), ("linux", "arm64"), ("wasm", "amd64")]);
        let message = wasm_platform(&linux).unwrap_err().to_string();
        assert!(message.contains("no wasm platform, only linux/amd64, linux/arm64, wasm/amd64;"), "{message}");
        assert!(wasm_platform(&index(&[])).is_err());
    }
}
