//! The policy file: YAML comes in, checked entries go out.
//!
//! ```yaml
//! default: accept            # or reject: what no entry is for
//! images:
//! - pattern: registry.example/team/*
//!   keys: [team.pub]         # PEM, relative to this file
//! - pattern: ghcr.io/org/**
//!   identities:
//!   - issuer: https://token.actions.githubusercontent.com
//!     subject: https://github.com/org/*
//!     trustRoot: trusted_root.json
//! - pattern: registry.example/public/*
//!   accept: true
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::key::Key;
use super::keyless::Identity;
use super::root::TrustRoot;
use super::{Entry, NamedKey, Rule, TrustPolicy};

/// Why a policy cannot be kept to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrustError {
    /// A file that cannot be read.
    #[error("trust policy: cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A file that is not what it should be.
    #[error("trust policy: {}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    default: Default,
    #[serde(default)]
    images: Vec<Images>,
}

#[derive(Deserialize, std::default::Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum Default {
    #[default]
    Accept,
    Reject,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Images {
    pattern: String,
    #[serde(default)]
    keys: Vec<PathBuf>,
    #[serde(default)]
    identities: Vec<IdentityEntry>,
    accept: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IdentityEntry {
    issuer: String,
    subject: String,
    trust_root: PathBuf,
}

/// `registry/repository` with `*` for any run of characters within a component, `**` for any run at all.
#[derive(Debug, Clone)]
pub(super) struct Pattern(String);

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let registry = text.split('/').next().unwrap_or_default();
        let is_all = text == "**";
        if !is_all && (!text.contains('/') || registry.is_empty()) || text.contains(['@', ' ']) {
            return Err(format!("pattern {text:?} is not REGISTRY/REPOSITORY with * and **, without tag or digest"));
        }
        Ok(Self(text.to_owned()))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    pub(super) fn fits(&self, name: &str) -> bool {
        fits(self.0.as_bytes(), name.as_bytes(), b'/')
    }
}

/// Whether `text` is `glob`, where `*` stands for any run without `boundary`, and `**` for any run.
pub(super) fn fits(glob: &[u8], text: &[u8], boundary: u8) -> bool {
    // possible[t]: the glob read so far fits the first t bytes. The work is the product of the lengths.
    let mut possible = vec![false; text.len() + 1];
    possible[0] = true;
    let mut at = 0;
    while at < glob.len() {
        let star = glob[at] == b'*';
        let any = star && glob.get(at + 1) == Some(&b'*');
        let mut next = vec![false; text.len() + 1];
        for t in 0..=text.len() {
            next[t] = if star {
                possible[t] || (t > 0 && next[t - 1] && (any || text[t - 1] != boundary))
            } else {
                t > 0 && possible[t - 1] && text[t - 1] == glob[at]
            };
        }
        possible = next;
        at += if any { 2 } else { 1 };
    }
    possible[text.len()]
}

impl TrustPolicy {
    /// Reads a policy and every file it names.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed: a policy is kept to as a whole, or not at all.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let malformed = |message: String| TrustError::Malformed { path: path.to_owned(), message };
        let file: File = serde_saphyr::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut entries = Vec::new();
        for images in file.images {
            let pattern = Pattern::parse(&images.pattern).map_err(malformed)?;
            let within = |what: &str| malformed(format!("images {:?}: {what}", images.pattern));
            let signed = !images.keys.is_empty() || !images.identities.is_empty();
            let rule = match (images.accept, signed) {
                (Some(true), false) => Rule::Accept,
                (Some(false), false) => Rule::Reject,
                (Some(_), true) => return Err(within("either accept, or keys and identities")),
                (None, false) => return Err(within("it names neither keys nor identities nor accept")),
                (None, true) => {
                    let keys = images.keys.iter().map(|key| key_of(directory, key));
                    let identities = images.identities.into_iter().map(|entry| identity(entry, directory, &within));
                    Rule::Signed {
                        keys: keys.collect::<Result<_, _>>()?,
                        identities: identities.collect::<Result<_, _>>()?,
                    }
                }
            };
            entries.push(Entry { pattern, rule });
        }
        Ok(Self { path: path.to_owned(), accepts_others: file.default == Default::Accept, entries })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    fs::read(path).map_err(|source| TrustError::Read { path: path.to_owned(), source: Arc::new(source) })
}

fn key_of(directory: &Path, file: &Path) -> Result<NamedKey, TrustError> {
    let path = directory.join(file);
    let key = Key::from_pem(&read(&path)?).map_err(|message| TrustError::Malformed { path, message })?;
    Ok(NamedKey { file: file.display().to_string(), key })
}

fn identity(
    entry: IdentityEntry,
    directory: &Path,
    within: &dyn Fn(&str) -> TrustError,
) -> Result<Identity, TrustError> {
    // A wildcard for everything would trust whoever has an account with the issuer.
    if entry.issuer.is_empty() || entry.subject.trim_matches('*').is_empty() {
        return Err(within("an identity has an issuer and a subject that is not all wildcards"));
    }
    let path = directory.join(entry.trust_root);
    let root = TrustRoot::parse(&read(&path)?);
    let root = root.map_err(|message| TrustError::Malformed { path: path.clone(), message })?;
    Ok(Identity { issuer: entry.issuer, subject: entry.subject, root: Arc::new(root) })
}
