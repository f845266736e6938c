//! A Spin application as `spin registry push` makes it: a locked form with its components and files as layers.
//!
//! Comes in: the directory of an OCI layout. Goes out: an image there. Never here: spin itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use image::{Digest, Reference};
use serde_json::{Value, json};

use super::wat;

const LOCKED_APP: &str = "application/vnd.fermyon.spin.application.v1+config";
const COMPONENT: &str = "application/vnd.wasm.content.layer.v1+wasm";
const DATA: &str = "application/vnd.wasm.content.layer.v1+data";
/// The file that is a layer of its own; a smaller one stands in the locked form.
const LOGO: &str = "static/logo.svg";
/// What is in it.
pub const LOGO_TEXT: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n";

/// An application and what its layers hold.
#[derive(Debug, Clone)]
pub struct Application {
    /// The locked form.
    pub locked: Value,
    /// The contents of the layers, by their media types.
    pub layers: Vec<(&'static str, Vec<u8>)>,
}

/// A shop: `/api/...` is answered with the variable `greeting` (`hello`, unless it is set), `/...` with files, `/old` always
/// with 410. The key-value store `default` is the api's.
#[must_use]
pub fn shop() -> Application {
    let (api, files) = (wat::spin_api(), wat::spin_files());
    let component = |wasm: &[u8]| json!({ "content_type": "application/wasm", "digest": digest(wasm) });
    let trigger = |id: &str, config: Value| json!({ "id": id, "trigger_type": "http", "trigger_config": config });
    let locked = json!({
        "spin_lock_version": 1,
        "must_understand": ["host_requirements"],
        "metadata": {
            "name": "shop", "version": "1.0.0", "origin": "file:///shop/spin.toml",
            "triggers": { "http": { "base": "/" } }
        },
        "host_requirements": { "local_service_chaining": "optional" },
        "variables": { "greeting": { "default": "hello" } },
        "triggers": [
            trigger("trigger--api", json!({ "component": "api", "route": "/api/...", "executor": { "type": "http" } })),
            trigger("trigger--files", json!({ "component": "files", "route": "/..." })),
            trigger("trigger--old", json!({ "route": "/old", "static_response": { "status_code": 410, "body": "gone\n" } })),
        ],
        "components": [
            {
                "id": "api", "source": component(&api),
                "metadata": { "key_value_stores": ["default"], "allowed_outbound_hosts": [] },
                "config": { "greeting": "{{ greeting }}" }
            },
            {
                "id": "files", "source": component(&files),
                "files": [
                    { "path": LOGO, "digest": digest(LOGO_TEXT.as_bytes()) },
                    { "path": "small.txt", "inline": "c21hbGwK", "digest": digest(b"small\n") }
                ]
            }
        ]
    });
    let layers = vec![(COMPONENT, api), (COMPONENT, files), (DATA, LOGO_TEXT.as_bytes().to_vec())];
    Application { locked, layers }
}

/// Writes the application into the OCI layout directory `out`, which has other images already, under a reference.
///
/// # Errors
/// When the layout cannot be written.
pub fn add_to_layout(out: &Path, reference: &str, application: &Application) -> Result<Digest> {
    let name = Reference::parse(reference).with_context(|| format!("read the reference {reference}"))?;
    let locked = application.locked.to_string().into_bytes();
    let config = json!({
        "architecture": "wasm", "os": "Wasip1", "rootfs": { "type": "layers", "diff_ids": [] },
        "config": { "Labels": { "com.fermyon.spin.lockedAppDigest": digest(&locked) } }
    });
    let config = ("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
    let mut layers = application.layers.clone();
    layers.push((LOCKED_APP, locked));
    let described = |(media_type, content): &(&str, Vec<u8>)| json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(&config), "layers": layers.iter().map(described).collect::<Vec<_>>()
    });
    let manifest = manifest.to_string().into_bytes();

    let blobs = out.join("blobs/sha256");
    for content in layers.iter().chain([&config]).map(|(_, content)| content).chain([&manifest]) {
        let path = blobs.join(Digest::of(content).hex());
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
    }
    add_to_index(out, &name.to_string(), &manifest)?;
    Ok(Digest::of(&manifest))
}

/// Under the lock that every writer of the layout takes.
fn add_to_index(out: &Path, name: &str, manifest: &[u8]) -> Result<()> {
    let lock = File::open(out)?;
    lock.lock()?;
    let path = out.join("index.json");
    let mut index: BTreeMap<String, Value> = serde_json::from_slice(&fs::read(&path)?)?;
    let manifests =
        index.get_mut("manifests").and_then(Value::as_array_mut).context("the layout's index has a list")?;
    let key = "org.opencontainers.image.ref.name";
    manifests.retain(|entry| entry["annotations"][key] != name);
    manifests.push(json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest),
        "size": manifest.len(), "annotations": { key: name }
    }));
    let written = path.with_extension("json.new");
    fs::write(&written, serde_json::to_vec(&index)?)?;
    fs::rename(&written, &path)?;
    Ok(())
}

fn digest(content: &[u8]) -> String {
    Digest::of(content).to_string()
}
