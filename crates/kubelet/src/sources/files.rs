//! Manifest files as a source: one file, or every manifest of a directory.
//!
//! Comes in: YAML or JSON documents. Goes out: [`Change`]s with pods that have an [identity](super::identity). A file that cannot be read as a pod is named in the log and changes nothing of
//! what the other files say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;

use super::identity::{Naming, identify};
use super::{Change, FirstSeen};
use crate::clock::Clock;
use crate::tables::Origin;

/// A manifest above this size is refused; the API server's own limit for an object is 1.5 MiB.
const MAX_MANIFEST_BYTES: u64 = 3 << 20;

/// Why a manifest is not a pod.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The file or directory could not be read.
    #[error("reading manifest {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any object may be.
    #[error("manifest {path} has {bytes} bytes, more than {MAX_MANIFEST_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Not YAML, or not the object it says it is.
    #[error("manifest {path}, document {document}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        document: usize,
        /// What is wrong and where.
        message: String,
    },
}

/// What one file holds.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// Its pods, with UIDs.
    pub pods: Vec<Pod>,
    /// ConfigMaps beside the pods, for pods that run with no cluster.
    pub config_maps: Vec<ConfigMap>,
    /// Secrets beside the pods.
    pub secrets: Vec<Secret>,
}

/// Where manifest files are.
#[derive(Clone, Debug)]
pub struct FileSource {
    /// A manifest, or a directory of them.
    pub path: PathBuf,
    /// How their pods are named.
    pub naming: Naming,
    /// How often the files are read again.
    pub period: Duration,
}

/// Reads the files now and each period, until the receiver is gone.
pub async fn watch_files(source: FileSource, clock: Clock, changes: mpsc::Sender<Change>) {
    let mut first_seen = FirstSeen::default();
    let mut last_good: BTreeMap<PathBuf, Vec<Pod>> = BTreeMap::new();
    let mut ticks = tokio::time::interval(source.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match read_all(&source) {
            Ok(files) => last_good = keep_last_good(files, last_good),
            Err(error) => {
                tracing::warn!("{error}: {}; the pods of this source stay as they are", source_text(&error));
                continue;
            }
        }
        let wanted = first_seen.noted(last_good.values().flatten(), clock.now());
        if changes.send(Change::All(Origin::File, wanted)).await.is_err() {
            return;
        }
    }
}

/// A file that became unreadable keeps its pods: a half-written manifest must not stop what runs.
fn keep_last_good(
    files: Vec<(PathBuf, Result<Manifest, ManifestError>)>,
    mut previous: BTreeMap<PathBuf, Vec<Pod>>,
) -> BTreeMap<PathBuf, Vec<Pod>> {
    let mut current = BTreeMap::new();
    for (path, result) in files {
        match result {
            Ok(manifest) => {
                current.insert(path, manifest.pods);
            }
            Err(error) => {
                tracing::warn!("{error}: {}", source_text(&error));
                if let Some(pods) = previous.remove(&path) {
                    current.insert(path, pods);
                }
            }
        }
    }
    current
}

fn source_text(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| "nothing else of it is used".to_owned(), ToString::to_string)
}

type ReadFiles = Vec<(PathBuf, Result<Manifest, ManifestError>)>;

fn read_all(source: &FileSource) -> Result<ReadFiles, ManifestError> {
    let read = |path: &Path, error| ManifestError::Read { path: path.to_owned(), source: error };
    let metadata = match std::fs::metadata(&source.path) {
        Ok(metadata) => metadata,
        // What is not there holds no pods. Only so is everything said that this source has to say.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read(&source.path, error)),
    };
    if !metadata.is_dir() {
        return Ok(vec![(source.path.clone(), read_manifest(&source.path, &source.naming))]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&source.path).map_err(|error| read(&source.path, error))? {
        let entry = entry.map_err(|error| read(&source.path, error))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Directories are no manifests, as on a stock node; links to files are.
        if !hidden && entry.path().is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths.into_iter().map(|path| (path.clone(), read_manifest(&path, &source.naming))).collect())
}

/// Reads one manifest: any number of YAML documents, Pods among them, and with them the ConfigMaps and Secrets they use.
pub fn read_manifest(path: &Path, naming: &Naming) -> Result<Manifest, ManifestError> {
    let read = |error| ManifestError::Read { path: path.to_owned(), source: error };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLarge { path: path.to_owned(), bytes });
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    parse_manifest(path, &text, naming)
}

fn parse_manifest(path: &Path, text: &str, naming: &Naming) -> Result<Manifest, ManifestError> {
    let parse = |document: usize, message: String| ManifestError::Parse { path: path.to_owned(), document, message };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| parse(1, error.to_string().trim_end().to_owned()))?;
    let mut manifest = Manifest::default();
    for (index, document) in documents.into_iter().enumerate() {
        if document.is_null() {
            continue;
        }
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        let wrong = |error: serde_json::Error| parse(index + 1, format!("{kind}: {error}"));
        match kind.as_str() {
            "Pod" => {
                let pod = serde_json::from_value(document).map_err(wrong)?;
                let place = path.as_os_str().as_encoded_bytes();
                let pod = identify(pod, Origin::File, place, naming).map_err(|message| parse(index + 1, message))?;
                manifest.pods.push(pod);
            }
            "ConfigMap" => manifest.config_maps.push(serde_json::from_value(document).map_err(wrong)?),
            "Secret" => manifest.secrets.push(serde_json::from_value(document).map_err(wrong)?),
            "" => return Err(parse(index + 1, "it has no kind; write kind: Pod".to_owned())),
            other => {
                let message =
                    format!("kind {other} cannot run from a file; only Pod, ConfigMap and Secret are read here");
                return Err(parse(index + 1, message));
            }
        }
    }
    if manifest.pods.is_empty() {
        return Err(parse(1, "it holds no Pod".to_owned()));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming() -> Naming {
        Naming { node_name: "Edge-1".into(), suffix: true }
    }

    fn check(text: &str) -> Result<Manifest, String> {
        parse_manifest(Path::new("pod.yaml"), text, &naming()).map_err(|error| error.to_string())
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n";

    #[test]
    fn a_pod_gets_its_identity_from_its_content() {
        let first = check(POD).unwrap().pods.remove(0);
        assert_eq!(first.metadata.name.as_deref(), Some("a-edge-1"));
        assert_eq!(first.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(first.metadata.uid, check(POD).unwrap().pods[0].metadata.uid);
        let changed = check(&POD.replace("image: i", "image: j")).unwrap();
        assert_ne!(first.metadata.uid, changed.pods[0].metadata.uid);
    }

    #[test]
    fn objects_beside_the_pod_are_read_with_it() {
        let text = format!("{POD}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{k: v}}\n---\n");
        assert_eq!(check(&text).unwrap().config_maps.len(), 1);
    }

    #[test]
    fn a_wrong_document_is_named() {
        for (text, words) in [
            ("kind: Deployment\n", "document 1: kind Deployment cannot run from a file"),
            ("a: 1\n", "it has no kind"),
            ("kind: Pod\nspec: {containers: []}\n", "metadata.name is missing"),
            ("kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: 3}]}\n", "Pod: "),
            ("kind: ConfigMap\n", "it holds no Pod"),
            (&POD.replace("{containers", "{serviceAccountName: s, containers"), "may not reference serviceaccounts"),
            ("kind: [\n", "document 1"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(words), "{text:?} gave {error:?}, wanted {words:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn files_come_change_and_go_and_a_broken_one_keeps_its_pods() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        put("a.yaml", POD);
        put(".hidden", "kind: Nonsense");
        let (sender, mut changes) = mpsc::channel(1);
        let (path, period) = (folder.path().to_owned(), Duration::from_secs(20));
        let files = FileSource { path, naming: naming(), period };
        let task = tokio::spawn(watch_files(files, Clock::tokio(), sender));
        let mut names = async || match changes.recv().await.unwrap() {
            Change::All(Origin::File, pods) => {
                let mut names: Vec<_> = pods.values().filter_map(|pod| pod.metadata.name.clone()).collect();
                names.sort();
                names
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(names().await, ["a-edge-1"]);
        // The next reading may already wait in the queue, so changes show at the latest in the one after it.
        put("b.yaml", &POD.replace("name: a", "name: b"));
        names().await;
        assert_eq!(names().await, ["a-edge-1", "b-edge-1"]);
        put("a.yaml", "kind: [");
        names().await;
        assert_eq!(names().await, ["a-edge-1", "b-edge-1"]);
        std::fs::remove_file(folder.path().join("a.yaml")).unwrap();
        names().await;
        assert_eq!(names().await, ["b-edge-1"]);
        task.abort();
    }
}
