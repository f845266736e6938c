//! Images that are written byte by byte, as other tools write them: configurations and layers come in, entries of an OCI
//! image layout go out.

use std::path::Path;

use image::Digest;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer of files, and of links where the content is `-> TARGET`.
pub(crate) fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        match content.strip_prefix(b"-> ") {
            Some(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, path, std::str::from_utf8(target).unwrap()).unwrap();
            }
            None => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, *content).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// Adds an ordinary image, whose configuration says to run it as `run` has it.
pub(crate) fn add_ordinary(layout: &Path, name: &str, run: &Value, layers: &[Vec<u8>]) {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    // As a build for no platform in particular says it.
    let config = json!({"architecture": "amd64", "os": "linux", "config": run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let layers: Vec<_> = layers.iter().map(|layer| (TAR, layer.as_slice())).collect();
    add(layout, name, (OCI_CONFIG, config.to_string().as_bytes()), &layers);
}

/// Adds an image of any kind.
pub(crate) fn add(layout: &Path, name: &str, config: (&str, &[u8]), layers: &[(&str, &[u8])]) {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let blob = |media_type: &str, content: &[u8]| {
        let digest = Digest::of(content);
        std::fs::write(blobs.join(digest.hex()), content).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    };
    let layers: Vec<Value> = layers.iter().map(|(media_type, content)| blob(media_type, content)).collect();
    publish(layout, name, &json!({"schemaVersion": 2, "config": blob(config.0, config.1), "layers": layers}));
}

/// Adds an image by its manifest, whatever stands in that.
pub(crate) fn publish(layout: &Path, name: &str, manifest: &Value) {
    let manifest = manifest.to_string();
    let digest = Digest::of(manifest.as_bytes());
    std::fs::write(layout.join("blobs/sha256").join(digest.hex()), &manifest).unwrap();
    let mut entry =
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len()});
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let path = layout.join("index.json");
    let index = std::fs::read(&path).unwrap_or_else(|_| br#"{"schemaVersion":2,"manifests":[]}"#.to_vec());
    let mut index: Value = serde_json::from_slice(&index).unwrap();
    index["manifests"].as_array_mut().unwrap().push(entry);
    std::fs::write(path, index.to_string()).unwrap();
}
