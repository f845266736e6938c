//! Credential provider plugins: their configuration file comes in, what they say of an image goes out, kept as long as
//! they say.
//!
//! Names, defaults and checks are the kubelet's (`CredentialProviderConfig`, KEP-2133). Tokens of ServiceAccounts for
//! plugins are not supported, and a configuration that asks for them is refused.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use decide::keyring::{DockerConfig, Login, Place, Source, repository_of};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Logins;
use super::exec::{self, CacheKey};
use crate::config::GoDuration;

/// The versions that plugins may speak; they differ in name alone.
const VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];
/// Answers that are kept of one plugin.
const CACHED_MAX: usize = 1000;

/// Why the plugins cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ProviderError {
    #[error("credential providers: cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("credential providers: {}: {message}", path.display())]
    Config { path: PathBuf, message: String },
}

/// The plugins, in the order of their names. None by default.
#[derive(Clone, Default)]
pub struct Providers(Vec<Arc<Provider>>);

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|provider| &provider.name)).finish()
    }
}

pub(super) struct Provider {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) api_version: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    places: Vec<Place>,
    cache_duration: Duration,
    /// Also makes sure that it is run once at a time.
    cache: Mutex<HashMap<CacheKey, (DockerConfig, Instant)>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigFile {
    kind: String,
    api_version: String,
    providers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: Option<GoDuration>,
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    token_attributes: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    value: String,
}

impl Providers {
    /// Reads the configuration: a file, or a directory of `*.json`, `*.yaml` and `*.yml` files.
    ///
    /// # Errors
    /// A file that cannot be read, is no `CredentialProviderConfig`, or names what is not there or not supported.
    pub fn read(config: &Path, programs: &Path) -> Result<Self, ProviderError> {
        let mut providers: Vec<Arc<Provider>> = Vec::new();
        for path in files(config)? {
            let text =
                fs::read_to_string(&path).map_err(|source| ProviderError::Read { path: path.clone(), source })?;
            let wrong = |message: String| ProviderError::Config { path: path.clone(), message };
            // The error of the parser would quote the file, which may hold secrets for plugins.
            let file: ConfigFile = serde_saphyr::from_str(&text)
                .map_err(|_| wrong("it is no CredentialProviderConfig, or has fields that are not known".to_owned()))?;
            let versions = ["v1", "v1beta1", "v1alpha1"].map(|version| format!("kubelet.config.k8s.io/{version}"));
            if file.kind != "CredentialProviderConfig" || !versions.contains(&file.api_version) {
                return Err(wrong("it must be a CredentialProviderConfig of kubelet.config.k8s.io/v1".to_owned()));
            }
            if file.providers.is_empty() {
                return Err(wrong("it names no providers".to_owned()));
            }
            for entry in file.providers {
                let provider = provider(entry, programs).map_err(wrong)?;
                if providers.iter().any(|other| other.name == provider.name) {
                    return Err(wrong(format!("provider {:?} is named twice", provider.name)));
                }
                providers.push(Arc::new(provider));
            }
        }
        Ok(Self(providers))
    }

    pub(super) async fn add(&self, image: &str, logins: &mut Logins) {
        let repository = repository_of(image);
        for provider in self.0.iter().filter(|one| one.places.iter().any(|place| place.holds(&repository))) {
            match provider.logins(&repository).await {
                Ok(config) => logins.keyring.add(config, &Source::Node),
                Err(error) => {
                    tracing::warn!(provider = provider.name, image, "no logins from a credential provider: {error}");
                    logins.hints.push(format!("credential provider {}: {error}", provider.name));
                }
            }
        }
    }
}

fn files(config: &Path) -> Result<Vec<PathBuf>, ProviderError> {
    if !config.is_dir() {
        return Ok(vec![config.to_owned()]);
    }
    let unreadable = |source| ProviderError::Read { path: config.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(config).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("json" | "yaml" | "yml")) && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        let message = "there is no *.json, *.yaml or *.yml file in it".to_owned();
        return Err(ProviderError::Config { path: config.to_owned(), message });
    }
    files.sort();
    Ok(files)
}

fn provider(entry: Entry, programs: &Path) -> Result<Provider, String> {
    let name = entry.name;
    let within = |what: String| format!("provider {name:?}: {what}");
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', ' ']) {
        return Err(within("a name is that of a file, with no spaces".to_owned()));
    }
    if entry.token_attributes.is_some() {
        return Err(within("tokenAttributes: tokens of ServiceAccounts for plugins are not supported".to_owned()));
    }
    if !VERSIONS.contains(&entry.api_version.as_str()) {
        return Err(within(format!("apiVersion must be {}, and is {:?}", VERSIONS[0], entry.api_version)));
    }
    if entry.match_images.is_empty() {
        return Err(within("matchImages names no images".to_owned()));
    }
    let places = entry.match_images.iter().map(|text| Place::parse(text).map_err(|error| within(error.to_string())));
    let places = places.collect::<Result<_, _>>()?;
    let cache_duration =
        entry.default_cache_duration.ok_or_else(|| within("defaultCacheDuration is missing".into()))?;
    let GoDuration(cache_duration) = cache_duration;
    let program = programs.join(&name);
    if !program.is_file() {
        return Err(within(format!("there is no program {}", program.display())));
    }
    Ok(Provider {
        program,
        api_version: entry.api_version,
        args: entry.args,
        env: entry.env.into_iter().map(|variable| (variable.name, variable.value)).collect(),
        places,
        cache_duration,
        cache: Mutex::default(),
        name,
    })
}

impl Provider {
    async fn logins(&self, repository: &str) -> Result<DockerConfig, exec::ExecError> {
        let mut cache = self.cache.lock().await;
        let registry = repository.split('/').next().unwrap_or_default().to_owned();
        let keys = [CacheKey::Image(repository.to_owned()), CacheKey::Registry(registry.clone()), CacheKey::Global];
        let now = Instant::now();
        cache.retain(|_, (_, until)| *until > now);
        if let Some((config, _)) = keys.iter().find_map(|key| cache.get(key)) {
            return Ok(config.clone());
        }
        let answer = exec::ask(self, repository).await?;
        let key = match answer.cache_key_type {
            exec::CacheKeyType::Image => CacheKey::Image(repository.to_owned()),
            exec::CacheKeyType::Registry => CacheKey::Registry(registry),
            exec::CacheKeyType::Global => CacheKey::Global,
        };
        let logins = answer.auth.unwrap_or_default().into_iter().map(|(place, login)| {
            (place, Login { username: login.username, password: login.password, ..Login::default() })
        });
        let config = DockerConfig::of(logins.collect::<BTreeMap<_, _>>());
        let duration = answer.cache_duration.map_or(self.cache_duration, |GoDuration(given)| given);
        // One that ends past all time is as good as one that does not.
        if let Some(until) = now.checked_add(duration).filter(|until| *until > now) {
            if cache.len() >= CACHED_MAX {
                cache.clear();
            }
            cache.insert(key, (config.clone(), until));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
