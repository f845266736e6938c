//! Who was given which image, on disk: the kubelet's `image_manager` directory.
//!
//! ```text
//! <root>/image_manager/pulling/sha256-<of the image's name>   a pull that was begun
//! <root>/image_manager/pulled/sha256-<of the image's id>      with what an image was pulled
//! ```
//! Files of mode 0600 in directories of mode 0700, written aside and renamed. They hold hashes of logins, never logins.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use decide::keyring::Login;
use decide::pulled::{API_VERSION, History, PulledRecord, SecretProof};
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};

/// The records of this node.
pub struct Records {
    root: PathBuf,
    /// Pulls under way, by the image's name. Also makes sure that files change one at a time.
    under_way: Mutex<HashMap<String, usize>>,
}

impl Records {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, under_way: Mutex::default() }
    }

    /// What is known of an image that is here.
    pub async fn history(self: &Arc<Self>, image: &str, image_ref: &str) -> History {
        let (image, image_ref) = (image.to_owned(), image_ref.to_owned());
        let history = self.on_disk(move |records| {
            let under_way = records.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = under_way.contains_key(&image) || records.pulling(&image).exists();
            Ok(match (records.record(&image_ref)?, begun) {
                (Some(record), _) => History::Pulled(record),
                (None, true) => History::Begun,
                (None, false) => History::Preloaded,
            })
        });
        history.await.unwrap_or_else(|error| {
            tracing::warn!("records of image pulls cannot be read: {error}");
            History::Unreadable
        })
    }

    /// A pull begins: from now on the image counts as pulled here, however it ends.
    ///
    /// # Errors
    /// It cannot be written down; then nothing should be pulled.
    pub async fn begin(self: &Arc<Self>, image: &str) -> io::Result<()> {
        let image = image.to_owned();
        self.on_disk(move |records| {
            let mut under_way = records.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let intent = json!({ "kind": "ImagePullIntent", "apiVersion": API_VERSION, "image": image });
            write(&records.pulling(&image), intent.to_string().as_bytes())?;
            *under_way.entry(image).or_default() += 1;
            Ok(())
        })
        .await
    }

    /// A pull has failed.
    pub async fn failed(self: &Arc<Self>, image: &str) {
        let image = image.to_owned();
        let ended = self.on_disk(move |records| records.end(&image));
        if let Err(error) = ended.await {
            tracing::warn!("the record of a pull cannot be removed: {error}");
        }
    }

    /// A pull has brought the image `image_ref`, with this proof or with none.
    pub async fn pulled(self: &Arc<Self>, image: &str, image_ref: &str, proof: Option<SecretProof>, now: Timestamp) {
        if self.granted(image, image_ref, proof, now).await {
            self.failed(image).await;
        }
    }

    /// From now on the image may be had with this proof; whether that could be written down.
    pub async fn granted(
        self: &Arc<Self>,
        image: &str,
        image_ref: &str,
        proof: Option<SecretProof>,
        now: Timestamp,
    ) -> bool {
        let (image, image_ref) = (image.to_owned(), image_ref.to_owned());
        let written = self.on_disk(move |records| {
            let _turn = records.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            // One that cannot be read is made anew: it then says less than before, never more.
            let known = records.record(&image_ref).ok().flatten();
            let is_new = known.is_none();
            let mut record = known.unwrap_or_else(|| PulledRecord::new(&image_ref, now));
            if record.add(&image, proof.as_ref(), now) || is_new {
                write(&records.pulled_file(&image_ref), &serde_json::to_vec(&record)?)?;
            }
            Ok(())
        });
        match written.await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("the record of a pull cannot be written: {error}");
                false
            }
        }
    }

    /// Forgets images that were not on the node at a time, unless something was written of them since.
    pub async fn keep_only(self: &Arc<Self>, images: BTreeSet<String>, at: Timestamp) {
        let kept: BTreeSet<PathBuf> = images.iter().map(|image_ref| self.pulled_file(image_ref)).collect();
        let swept = self.on_disk(move |records| {
            let _turn = records.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let entries = match fs::read_dir(records.root.join("pulled")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                if kept.contains(&path) {
                    continue;
                }
                let record: Result<PulledRecord, _> = serde_json::from_slice(&fs::read(&path)?);
                // What cannot be read serves nobody.
                if record.is_ok_and(|record| record.last_updated_time >= at) {
                    continue;
                }
                fs::remove_file(path)?;
            }
            Ok(())
        });
        if let Err(error) = swept.await {
            tracing::warn!("old records of image pulls cannot be removed: {error}");
        }
    }

    fn end(&self, image: &str) -> io::Result<()> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(image).filter(|count| **count > 1) {
            *count -= 1;
            return Ok(());
        }
        under_way.remove(image);
        match fs::remove_file(self.pulling(image)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn record(&self, image_ref: &str) -> io::Result<Option<PulledRecord>> {
        match fs::read(self.pulled_file(image_ref)) {
            Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn pulling(&self, image: &str) -> PathBuf {
        self.root.join("pulling").join(hashed_name(image))
    }

    fn pulled_file(&self, image_ref: &str) -> PathBuf {
        self.root.join("pulled").join(hashed_name(image_ref))
    }

    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let records = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&records)).await.map_err(io::Error::other)?
    }
}

/// What proves that a Secret holds this login.
#[must_use]
pub fn hash_of(login: &Login) -> String {
    let mut hasher = Sha256::new();
    for part in [&login.username, &login.password, &login.identity_token, &login.registry_token] {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hex(hasher)
}

fn hashed_name(name: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    format!("sha256-{}", hex(hasher))
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a whole file, or none.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("no directory"))?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let aside = path.with_extension("tmp");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const IMAGE: &str = "r.example/app:v1";

    fn proof() -> SecretProof {
        let login = Login { username: "alice".into(), password: "s3cret".into(), ..Login::default() };
        SecretProof { name: "pull".into(), credential_hash: hash_of(&login), ..SecretProof::default() }
    }

    #[tokio::test]
    async fn a_pull_is_remembered_from_its_begin_on() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("image_manager");
        let records = Arc::new(Records::new(root.clone()));
        assert!(matches!(records.history(IMAGE, "id").await, History::Preloaded));
        records.begin(IMAGE).await.unwrap();
        // As after kill -9.
        let again = Arc::new(Records::new(root.clone()));
        assert!(matches!(again.history(IMAGE, "id").await, History::Begun));
        records.pulled(IMAGE, "id", Some(proof()), Timestamp::UNIX_EPOCH).await;
        let History::Pulled(record) = again.history(IMAGE, "id").await else { panic!() };
        assert_eq!(record.credential_mapping["r.example/app"].kubernetes_secrets, [proof()]);
        assert_eq!(fs::read_dir(root.join("pulling")).unwrap().count(), 0);
        let files = fs::read_dir(root.join("pulled")).unwrap().map(|entry| entry.unwrap().path());
        for file in files {
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(!fs::read_to_string(&file).unwrap().contains("s3cret"));
        }
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        let (other, later) =
            (BTreeSet::from(["other".to_owned()]), Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1));
        again.keep_only(other.clone(), Timestamp::UNIX_EPOCH).await;
        assert!(matches!(records.history(IMAGE, "id").await, History::Pulled(_)), "written since");
        again.keep_only(other, later).await;
        assert!(matches!(records.history(IMAGE, "id").await, History::Preloaded));
    }

    #[tokio::test]
    async fn of_two_pulls_of_one_image_the_last_ends_the_intent() {
        let folder = tempfile::tempdir().unwrap();
        let records = Arc::new(Records::new(folder.path().to_owned()));
        records.begin(IMAGE).await.unwrap();
        records.begin(IMAGE).await.unwrap();
        records.failed(IMAGE).await;
        assert!(matches!(records.history(IMAGE, "id").await, History::Begun));
        records.failed(IMAGE).await;
        assert!(matches!(records.history(IMAGE, "id").await, History::Preloaded));
    }

    #[tokio::test]
    async fn a_damaged_record_grants_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let records = Arc::new(Records::new(folder.path().to_owned()));
        records.pulled(IMAGE, "id", None, Timestamp::UNIX_EPOCH).await;
        fs::write(records.pulled_file("id"), "{").unwrap();
        assert!(matches!(records.history(IMAGE, "id").await, History::Unreadable));
        records.pulled(IMAGE, "id", Some(proof()), Timestamp::UNIX_EPOCH).await;
        assert!(matches!(records.history(IMAGE, "id").await, History::Pulled(_)));
    }

    #[test]
    fn logins_that_differ_have_other_hashes() {
        let login = |username: &str, password: &str| Login {
            username: username.into(),
            password: password.into(),
            ..Login::default()
        };
        assert_ne!(hash_of(&login("ab", "c")), hash_of(&login("a", "bc")));
    }
}
