//! An image's configuration blob comes in, its identity and what it says about running go out.
//!
//! Pure. Only configurations of known types are read; those of others are opaque, as their registries treat them.

use serde::Deserialize;

use crate::digest::Digest;
use crate::manifest::{Descriptor, WASM_CONFIG};
use crate::store::{ImageConfig, ImageId};

const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    config: Option<Execution>,
    rootfs: Option<RootFs>,
    layer_digests: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

/// Reads a configuration for the image with this manifest and wasm layer.
///
/// The image's ID is the configuration's digest where the configuration names the wasm layer. One that does not (an
/// older type's `{}`, say) may stand in many manifests, and the ID of one image must never be that of another.
pub(crate) fn read(
    descriptor: &Descriptor,
    content: &[u8],
    manifest: Digest,
    wasm: Digest,
) -> Result<(ImageId, ImageConfig), serde_json::Error> {
    let known = descriptor.media_type == WASM_CONFIG || IMAGE_CONFIGS.contains(&descriptor.media_type.as_str());
    let file: ConfigFile = if known { serde_json::from_slice(content)? } else { ConfigFile::default() };
    let layers = file.layer_digests.or(file.rootfs.and_then(|rootfs| rootfs.diff_ids)).unwrap_or_default();
    let id = if layers == [wasm.to_string()] { descriptor.digest } else { manifest };
    let execution = file.config.unwrap_or_default();
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let config = ImageConfig {
        entrypoint: execution.entrypoint.unwrap_or_default(),
        cmd: execution.cmd.unwrap_or_default(),
        env: execution.env.unwrap_or_default(),
        working_dir: given(execution.working_dir),
        user: given(execution.user),
    };
    Ok((ImageId(id), config))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &[u8] = b"manifest";
    const WASM: &[u8] = b"wasm";

    fn read_as(media_type: &str, content: &str) -> Result<(ImageId, ImageConfig), serde_json::Error> {
        let descriptor = Descriptor::of(media_type, content.as_bytes());
        read(&descriptor, content.as_bytes(), Digest::of(MANIFEST), Digest::of(WASM))
    }

    #[test]
    fn the_configuration_is_the_identity_only_if_it_names_the_layer() {
        let wasm = Digest::of(WASM);
        for content in [
            format!(r#"{{"os":"wasip1","layerDigests":["{wasm}"]}}"#),
            format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{wasm}"]}}}}"#),
        ] {
            let (id, _) = read_as(WASM_CONFIG, &content).unwrap();
            assert_eq!(id, ImageId(Digest::of(content.as_bytes())), "{content}");
        }
        let other = Digest::of(b"other");
        for content in [
            "{}".to_owned(),
            format!(r#"{{"layerDigests":["{other}"]}}"#),
            format!(r#"{{"layerDigests":["{wasm}","{other}"]}}"#),
        ] {
            assert_eq!(read_as(WASM_CONFIG, &content).unwrap().0, ImageId(Digest::of(MANIFEST)), "{content}");
        }
    }

    #[test]
    fn an_image_configuration_says_how_to_run() {
        let (_, config) = read_as(
            IMAGE_CONFIGS[0],
            r#"{"config":{"Entrypoint":["/app.wasm"],"Cmd":null,"Env":["A=b"],"WorkingDir":"/","User":""},"history":[1]}"#,
        )
        .unwrap();
        let expected = ImageConfig {
            entrypoint: vec!["/app.wasm".into()],
            env: vec!["A=b".into()],
            working_dir: Some("/".into()),
            ..ImageConfig::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn unknown_configurations_are_opaque_and_known_ones_must_be_json() {
        let (id, config) = read_as("application/vnd.wasm.config.v1+json", "not json").unwrap();
        assert_eq!((id, config), (ImageId(Digest::of(MANIFEST)), ImageConfig::default()));
        assert!(read_as(WASM_CONFIG, "not json").is_err());
    }
}
