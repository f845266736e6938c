//! An image's configuration blob comes in, its identity and what it says about running go out.
//!
//! Pure. Only configurations of known types are read; those of others are opaque, as their registries treat them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;
use crate::manifest::{DOCKER_CONFIG, Descriptor, OCI_CONFIG, WASM_CONFIG};
use crate::store::{ImageConfig, ImageId};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    config: Option<Execution>,
    rootfs: Option<RootFs>,
    layer_digests: Option<Vec<String>>,
    os: Option<String>,
    architecture: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

/// What a configuration says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Configured {
    /// How to run the image.
    pub(crate) config: ImageConfig,
    /// The digests of its layers: of the blobs in a wasm artifact, of the tar streams in an ordinary image.
    layers: Vec<String>,
    digest: Digest,
}

impl Configured {
    /// The ID of an image of one wasm layer under the manifest.
    ///
    /// It is the configuration's digest where the configuration names the wasm layer. One that does not (an older type's
    /// `{}`, say) may stand in many manifests, and the ID of one image must never be that of another.
    pub(crate) fn id_with_wasm(&self, wasm: Digest, manifest: Digest) -> ImageId {
        ImageId(if self.layers == [wasm.to_string()] { self.digest } else { manifest })
    }

    /// The digests that the layers of an ordinary image have as tar streams, and the image's ID; `None` if they are not
    /// as many as the layers, or are not digests.
    pub(crate) fn diff_ids(&self, layers: usize) -> Option<(Vec<Digest>, ImageId)> {
        let diff_ids: Vec<Digest> = self.layers.iter().map(|id| id.parse().ok()).collect::<Option<_>>()?;
        (diff_ids.len() == layers).then_some((diff_ids, ImageId(self.digest)))
    }
}

/// Reads a configuration.
pub(crate) fn read(descriptor: &Descriptor, content: &[u8]) -> Result<Configured, serde_json::Error> {
    let known = [WASM_CONFIG, OCI_CONFIG, DOCKER_CONFIG].contains(&descriptor.media_type.as_str());
    let file: ConfigFile = if known { serde_json::from_slice(content)? } else { ConfigFile::default() };
    let layers = file.layer_digests.or(file.rootfs.and_then(|rootfs| rootfs.diff_ids)).unwrap_or_default();
    let execution = file.config.unwrap_or_default();
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let config = ImageConfig {
        entrypoint: execution.entrypoint.unwrap_or_default(),
        cmd: execution.cmd.unwrap_or_default(),
        env: execution.env.unwrap_or_default(),
        working_dir: given(execution.working_dir),
        user: given(execution.user),
        labels: execution.labels.unwrap_or_default(),
        exposed_ports: execution.exposed_ports.unwrap_or_default().into_keys().collect(),
        stop_signal: given(execution.stop_signal),
        os: given(file.os),
        architecture: given(file.architecture),
    };
    Ok(Configured { config, layers, digest: descriptor.digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &[u8] = b"manifest";
    const WASM: &[u8] = b"wasm";

    fn read_as(media_type: &str, content: &str) -> Result<Configured, serde_json::Error> {
        read(&Descriptor::of(media_type, content.as_bytes()), content.as_bytes())
    }

    #[test]
    fn the_configuration_is_the_identity_only_if_it_names_the_layer() {
        let (wasm, manifest) = (Digest::of(WASM), Digest::of(MANIFEST));
        for content in [
            format!(r#"{{"os":"wasip1","layerDigests":["{wasm}"]}}"#),
            format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{wasm}"]}}}}"#),
        ] {
            let id = read_as(WASM_CONFIG, &content).unwrap().id_with_wasm(wasm, manifest);
            assert_eq!(id, ImageId(Digest::of(content.as_bytes())), "{content}");
        }
        let other = Digest::of(b"other");
        for content in [
            "{}".to_owned(),
            format!(r#"{{"layerDigests":["{other}"]}}"#),
            format!(r#"{{"layerDigests":["{wasm}","{other}"]}}"#),
        ] {
            let id = read_as(WASM_CONFIG, &content).unwrap().id_with_wasm(wasm, manifest);
            assert_eq!(id, ImageId(manifest), "{content}");
        }
    }

    #[test]
    fn the_layers_of_files_are_those_of_the_manifest() {
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let content = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{one}","{other}"]}}}}"#);
        let read = read_as(OCI_CONFIG, &content).unwrap();
        assert_eq!(read.diff_ids(2), Some((vec![one, other], ImageId(Digest::of(content.as_bytes())))));
        assert_eq!(read.diff_ids(1), None);
        assert_eq!(read_as(OCI_CONFIG, r#"{"rootfs":{"diff_ids":["md5:0"]}}"#).unwrap().diff_ids(1), None);
        assert!(read_as(OCI_CONFIG, "{}").unwrap().diff_ids(0).is_some());
    }

    #[test]
    fn an_image_configuration_says_how_to_run() {
        let content = r#"{"config":{"Entrypoint":["/app.wasm"],"Cmd":null,"Env":["A=b"],"WorkingDir":"/","User":"",
            "ExposedPorts":{"80/tcp":{}},"Labels":{"a":"b"},"StopSignal":"SIGINT"},"history":[1],"os":"wasi"}"#;
        let expected = ImageConfig {
            entrypoint: vec!["/app.wasm".into()],
            env: vec!["A=b".into()],
            working_dir: Some("/".into()),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            exposed_ports: vec!["80/tcp".into()],
            stop_signal: Some("SIGINT".into()),
            os: Some("wasi".into()),
            ..ImageConfig::default()
        };
        assert_eq!(read_as(OCI_CONFIG, content).unwrap().config, expected);
    }

    #[test]
    fn unknown_configurations_are_opaque_and_known_ones_must_be_json() {
        let read = read_as("application/vnd.wasm.config.v1+json", "not json").unwrap();
        assert_eq!(read.config, ImageConfig::default());
        assert!(read_as(WASM_CONFIG, "not json").is_err());
    }
}
