//! Which registry credentials fit an image: Docker configurations and an image's name come in, the logins to try go
//! out, best first.
//!
//! Places, globs and order are the kubelet's: entries that fit are tried in falling order of their place's text, so that
//! a longer path comes before a shorter one. Nothing here prints a secret, and nothing here knows where a configuration
//! was read.

mod place;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use crate::pulled::SecretProof;
pub use place::{InvalidPlace, Place};

/// What Docker calls the registry of images that name none, in configurations.
const DOCKER_LEGACY: &str = "index.docker.io";
const DOCKER: &str = "docker.io";
/// What Docker asks helpers about for it.
const DOCKER_SERVER: &str = "https://index.docker.io/v1/";

/// One login. Its `Debug` form says only who, never what proves it.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Login {
    /// The user's name.
    pub username: String,
    /// The password or access token.
    pub password: String,
    /// A refresh token for the registry's token service.
    pub identity_token: String,
    /// A token for the registry itself.
    pub registry_token: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

/// Where a login comes from: a Secret proves that one pod may have an image, what the node has serves all its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The node: a file, or a credential provider.
    Node,
    /// A Secret of the pod's namespace.
    Secret(SecretProof),
}

/// A login that fits an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitting {
    /// The registry or the part of one it is for, as its configuration has it.
    pub place: String,
    /// The login.
    pub login: Login,
    /// Where it comes from.
    pub source: Source,
}

/// Why a Docker configuration cannot be read. The text says nothing of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON it should be.
    #[error("it is no Docker configuration in JSON")]
    Json,
    /// An `auth` that is not base64 of `user:password`.
    #[error("an auth in it is not base64 of user:password")]
    Auth,
}

/// The logins of one Docker configuration, by place.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    logins: BTreeMap<String, Login>,
    /// The programs that keep the logins of these registries (`credHelpers`).
    helpers: BTreeMap<String, String>,
    /// The program that keeps those of all others (`credsStore`).
    store: Option<String>,
}

/// A program that keeps logins, Docker's `docker-credential-NAME`, and what it is to be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// Its name.
    pub name: String,
    /// The registry, as Docker calls it.
    pub server: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: Option<BTreeMap<String, Entry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

impl DockerConfig {
    /// Reads `config.json` or a Secret of type `kubernetes.io/dockerconfigjson`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let file: File = serde_json::from_slice(json).map_err(|_| ConfigError::Json)?;
        Ok(Self {
            logins: logins(file.auths.unwrap_or_default())?,
            helpers: file.cred_helpers.unwrap_or_default(),
            store: file.creds_store.filter(|store| !store.is_empty()),
        })
    }

    /// Reads the older `.dockercfg` or a Secret of type `kubernetes.io/dockercfg`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse_legacy(json: &[u8]) -> Result<Self, ConfigError> {
        let entries = serde_json::from_slice(json).map_err(|_| ConfigError::Json)?;
        Ok(Self { logins: logins(entries)?, ..Self::default() })
    }

    /// Out of places and logins.
    pub fn of(logins: impl IntoIterator<Item = (String, Login)>) -> Self {
        Self { logins: logins.into_iter().collect(), ..Self::default() }
    }

    /// The program that keeps the login for an image's registry: its own, else that of all. One without a name leaves the
    /// login to the file.
    pub fn helper(&self, image: &str) -> Option<Helper> {
        let name = repository_of(image);
        let registry = name.split('/').next().unwrap_or_default();
        let server = if registry == DOCKER { DOCKER_SERVER } else { registry };
        let is_own = |place: &&String| {
            Place::parse(place)
                .is_ok_and(|own| own.text() == registry || registry == DOCKER && own.text() == DOCKER_LEGACY)
        };
        let own = self.helpers.keys().find(is_own).and_then(|place| self.helpers.get(place));
        let name = own.or(self.store.as_ref()).filter(|name| !name.is_empty())?;
        Some(Helper { name: name.clone(), server: server.to_owned() })
    }

    /// The same with a login for the registry of an image, in place of what the file has for the whole of it.
    #[must_use]
    pub fn with_login(mut self, image: &str, login: Login) -> Self {
        let name = repository_of(image);
        let registry = name.split('/').next().unwrap_or_default().to_owned();
        self.logins.retain(|place, _| Place::parse(place).is_ok_and(|place| place.text() != registry));
        self.logins.insert(registry, login);
        self
    }
}

fn logins(entries: BTreeMap<String, Entry>) -> Result<BTreeMap<String, Login>, ConfigError> {
    let login = |(place, entry): (String, Entry)| {
        let auth = entry.auth.filter(|auth| !auth.trim().is_empty());
        let (username, password) = match auth {
            Some(auth) => decode(&auth)?,
            None => (entry.username.unwrap_or_default(), entry.password.unwrap_or_default()),
        };
        let identity_token = entry.identitytoken.unwrap_or_default();
        let registry_token = entry.registrytoken.unwrap_or_default();
        Ok((place, Login { username, password, identity_token, registry_token }))
    };
    entries.into_iter().map(login).collect()
}

fn decode(auth: &str) -> Result<(String, String), ConfigError> {
    let auth = auth.trim();
    let decoded = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).map_err(|_| ConfigError::Auth)?;
    let decoded = String::from_utf8(decoded).map_err(|_| ConfigError::Auth)?;
    // Docker pads some values with zero bytes.
    let (username, password) = decoded.trim_end_matches('\0').split_once(':').ok_or(ConfigError::Auth)?;
    Ok((username.to_owned(), password.to_owned()))
}

/// All logins that may be tried for the images of one pod.
#[derive(Clone, Default)]
pub struct Keyring {
    entries: Vec<(Place, Fitting)>,
}

impl Keyring {
    /// Adds the logins of a configuration behind those that are there. Entries without a login, and those whose place
    /// is none, are left out.
    pub fn add(&mut self, config: DockerConfig, source: &Source) {
        for (place, login) in config.logins {
            if login == Login::default() {
                continue;
            }
            if let Ok(parsed) = Place::parse(&place) {
                self.entries.push((parsed, Fitting { place, login, source: source.clone() }));
            }
        }
    }

    /// The logins to try for an image, best first and each once; none means that nobody is to be named.
    pub fn fitting(&self, image: &str) -> Vec<Fitting> {
        let name = repository_of(image);
        let mut found: Vec<&(Place, Fitting)> = self.entries.iter().filter(|(place, _)| place.holds(&name)).collect();
        if found.is_empty() && name.starts_with("docker.io/") {
            let legacy = |place: &Place| place.text() == DOCKER_LEGACY;
            found = self.entries.iter().filter(|(place, _)| legacy(place)).collect();
        }
        // Stable: of one place, what was added first comes first.
        found.sort_by(|(a, _), (b, _)| b.text().cmp(a.text()));
        let mut fitting: Vec<Fitting> = Vec::new();
        for (_, one) in found {
            if !fitting.iter().any(|other| other.login == one.login && other.source == one.source) {
                fitting.push(one.clone());
            }
        }
        fitting
    }
}

/// `registry/repository` of an image as a pod names it, without tag and digest.
#[must_use]
pub fn repository_of(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let first = name.split('/').next().unwrap_or_default();
    let has_registry = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let (registry, path) = match (has_registry, name.split_once('/')) {
        (true, Some((DOCKER_LEGACY, path))) => (DOCKER, path),
        (true, Some((registry, path))) => (registry, path),
        _ => (DOCKER, name),
    };
    match registry == DOCKER && !path.contains('/') {
        true => format!("{DOCKER}/library/{path}"),
        false => format!("{registry}/{path}"),
    }
}

#[cfg(test)]
mod tests;
