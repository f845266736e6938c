//! A manifest or an index comes in, its wasm layer or its wasm platform goes out, or the refusal a user reads.
//!
//! Pure: media types and platforms decide here, the binary itself is looked at after the download. The `os` of a
//! platform or a configuration decides nothing, as tools write `wasi`, `wasip1`, `wasip2` and `Wasip1` for the same.

use crate::manifest::{Descriptor, Index, Manifest, WASM_LAYER};

/// The layer types that hold a bare wasm binary: CNCF's, and the older ones of Krustlet and runwasi.
const WASM_LAYERS: [&str; 3] = [
    WASM_LAYER,
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];
const SPIN_APPLICATION: &str = "application/vnd.fermyon.spin.application.v1+config";

/// Why an image that exists cannot run here. The text says what was found, what is supported and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Layers are tar archives: an image for Linux or Windows.
    #[error("its layer type {media_type} is that of an ordinary container image; {}; {}", supported(), WAY_OUT)]
    ContainerImage {
        /// The first layer type that is not wasm.
        media_type: String,
    },
    /// An index without any entry for wasm.
    #[error("it has no wasm platform, only {}; {}; {}", platforms.join(", "), supported(), WAY_OUT)]
    Platforms {
        /// `os/architecture` of each entry.
        platforms: Vec<String>,
    },
    /// A Spin application with its manifest of components.
    #[error(
        "it is a Spin application ({SPIN_APPLICATION}); {}; push its component alone as a wasm artifact, for example with `wkg oci push`",
        supported()
    )]
    SpinApplication,
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
    format!("supported are images of one wasm layer ({})", WASM_LAYERS.join(", "))
}

/// The entry for wasm, whatever its os; the first where there are several.
pub(crate) fn wasm_platform(index: &Index) -> Result<&Descriptor, Refusal> {
    let is_wasm = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|it| it.architecture == "wasm");
    index.manifests.iter().find(is_wasm).ok_or_else(|| {
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

/// The only layer of a wasm image.
pub(crate) fn wasm_layer(manifest: &Manifest) -> Result<&Descriptor, Refusal> {
    let mut types = manifest.layers.iter().map(|layer| &layer.media_type);
    // Old Spin releases push the application's manifest as the configuration.
    if manifest.config.media_type == SPIN_APPLICATION || types.any(|it| it == SPIN_APPLICATION) {
        return Err(Refusal::SpinApplication);
    }
    if let Some(other) = manifest.layers.iter().find(|layer| !WASM_LAYERS.contains(&layer.media_type.as_str())) {
        let media_type = other.media_type.clone();
        return Err(if media_type.contains(".tar") {
            Refusal::ContainerImage { media_type }
        } else {
            Refusal::LayerType { media_type }
        });
    }
    match manifest.layers.as_slice() {
        [layer] => Ok(layer),
        layers => Err(Refusal::LayerCount { found: layers.len() }),
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
    fn one_layer_of_any_wasm_type_is_taken() {
        for media_type in WASM_LAYERS {
            let manifest = manifest("any/config", &[media_type]);
            assert_eq!(wasm_layer(&manifest).unwrap().media_type, media_type);
        }
    }

    #[test]
    fn refusals_name_the_type_found_and_the_way_out() {
        let check = |manifest: &Manifest, words: &[&str]| {
            let message = wasm_layer(manifest).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{word}: {message}");
            }
        };
        let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
        check(&manifest("c", &[tar]), &[tar, "ordinary container image", WASM_LAYER, "kubernetes.io/os: linux"]);
        let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        check(&manifest("c", &[docker, docker]), &[docker, "ordinary container image"]);
        check(&manifest("c", &[WASM_LAYER, "text/plain"]), &["text/plain is not known", WASM_LAYER]);
        check(&manifest("c", &[WASM_LAYER, SPIN_APPLICATION]), &["Spin application", "wkg oci push"]);
        check(&manifest(SPIN_APPLICATION, &[WASM_LAYERS[1]]), &["Spin application"]);
        check(&manifest("c", &[]), &["0 wasm layers"]);
        check(&manifest("c", &[WASM_LAYER, WASM_LAYER]), &["2 wasm layers"]);
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
