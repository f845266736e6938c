//! The API objects that pods refer to: ConfigMaps, Secrets, Services, RuntimeClasses, and tokens of ServiceAccounts.
//!
//! Comes in: which pod refers to what. Goes out: the objects as they are now. With an API server each object that some
//! pod refers to is watched by its name (a node may watch no wider); with none, they come from the pod's own manifest.
//! While the API server is away, what was last seen is served. Never here: the content of a Secret or a token in a log.

#[cfg(test)]
pub(crate) mod mock_api;
#[cfg(test)]
mod tests;
mod tokens;
mod watched;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use decide::env::Configs;
use decide::names::PodUid;
use decide::pod::{ConfigKind, Container, EnvValue, FileSource, FileVolume, Pod, VolumeSource};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use thiserror::Error;
use tokio::sync::watch;

use crate::clock::Clock;

use tokens::Tokens;
pub use tokens::{Token, TokenRequest};
use watched::{Shelf, WatchedAll};

/// How long a reader waits for the first answer of the API server.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Why an object could not be had.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// The API server did not say in time whether the object exists.
    #[error("no answer from the API server about {kind} {name} for {} s", FIRST_ANSWER.as_secs())]
    NoAnswer {
        /// Its kind.
        kind: &'static str,
        /// `namespace/name`, or what was listed.
        name: String,
    },
    /// The API server answered with an error, and went on doing so.
    #[error("reading {kind} {name}: {message}")]
    Refused {
        /// Its kind.
        kind: &'static str,
        /// `namespace/name`
        name: String,
        /// What it said.
        message: String,
    },
    /// There is no such RuntimeClass.
    #[error("RuntimeClass {0:?} not found")]
    NoRuntimeClass(String),
    /// The API server refused a token.
    #[error("requesting a token for ServiceAccount {account}")]
    Token {
        /// `namespace/name`
        account: String,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// There is no API server to ask.
    #[error("{what} needs an API server; this pod runs without a cluster")]
    NoCluster {
        /// What was wanted.
        what: String,
    },
}

impl ObjectError {
    /// What went wrong, with its cause, in one line.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Token { source, .. } => format!("{self}: {source}"),
            other => other.to_string(),
        }
    }
}

/// Where objects come from. Clones share everything.
#[derive(Clone)]
pub struct Objects {
    inner: Arc<Inner>,
}

struct Inner {
    backing: Backing,
    changed: watch::Sender<u64>,
    clock: Clock,
}

enum Backing {
    Api(Box<Api>),
    Manifest { config_maps: HashMap<(String, String), Arc<ConfigMap>>, secrets: HashMap<(String, String), Arc<Secret>> },
}

struct Api {
    client: kube::Client,
    config_maps: Mutex<Shelf<ConfigMap>>,
    secrets: Mutex<Shelf<Secret>>,
    services: WatchedAll<Service>,
    /// Watched once a pod names one: most clusters have none.
    runtime_classes: OnceLock<WatchedAll<RuntimeClass>>,
    tokens: Tokens,
}

impl Objects {
    /// Objects of an API server. Begins to watch Services. Must be called inside a Tokio runtime.
    pub fn of_api(client: kube::Client) -> Self {
        Self::of_api_at(client, Clock::System)
    }

    /// The same, with the time of another clock.
    pub fn of_api_at(client: kube::Client, clock: Clock) -> Self {
        let changed = watch::Sender::new(0);
        let api = Api {
            config_maps: Mutex::new(Shelf::default()),
            secrets: Mutex::new(Shelf::default()),
            services: WatchedAll::start(client.clone(), "Services"),
            runtime_classes: OnceLock::new(),
            tokens: Tokens::new(client.clone(), clock),
            client,
        };
        Self { inner: Arc::new(Inner { backing: Backing::Api(Box::new(api)), changed, clock }) }
    }

    /// Objects that stand beside the pods in a manifest, for pods with no cluster.
    pub fn of_manifest(config_maps: Vec<ConfigMap>, secrets: Vec<Secret>) -> Self {
        let config_maps = config_maps.into_iter().map(|map| (key_of(&map.metadata), Arc::new(map))).collect();
        let secrets =
            secrets.into_iter().map(|secret| (key_of(&secret.metadata), Arc::new(with_data(secret)))).collect();
        Self {
            inner: Arc::new(Inner {
                backing: Backing::Manifest { config_maps, secrets },
                changed: watch::Sender::new(0),
                clock: Clock::System,
            }),
        }
    }

    /// The clock that says when a token is due.
    pub(crate) fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// Moves when any watched object changes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Watches what the pod refers to, until it is unregistered. Registering again follows a changed pod.
    pub fn register(&self, pod: &Pod) {
        let Backing::Api(api) = &self.inner.backing else { return };
        let changed = &self.inner.changed;
        let namespace = &pod.name.namespace;
        let (config_maps, secrets) = references(pod);
        lock(&api.config_maps).set(&pod.uid, namespace, config_maps, &api.client, changed);
        lock(&api.secrets).set(&pod.uid, namespace, secrets, &api.client, changed);
    }

    /// The pod is no more: what only it referred to is no longer watched, and its tokens are forgotten.
    pub fn unregister(&self, pod: &PodUid) {
        let Backing::Api(api) = &self.inner.backing else { return };
        lock(&api.config_maps).forget(pod);
        lock(&api.secrets).forget(pod);
        api.tokens.forget(pod);
    }

    /// A ConfigMap, or none if there is none.
    ///
    /// # Errors
    /// The API server does not answer and the object was never seen.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, ObjectError> {
        match &self.inner.backing {
            Backing::Manifest { config_maps, .. } => {
                Ok(config_maps.get(&(namespace.to_owned(), name.to_owned())).cloned())
            }
            Backing::Api(api) => {
                let seen = lock(&api.config_maps).seen(namespace, name);
                watched::read(seen, &api.client, "ConfigMap", namespace, name).await
            }
        }
    }

    /// A Secret, or none if there is none.
    ///
    /// # Errors
    /// The API server does not answer and the object was never seen.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, ObjectError> {
        match &self.inner.backing {
            Backing::Manifest { secrets, .. } => Ok(secrets.get(&(namespace.to_owned(), name.to_owned())).cloned()),
            Backing::Api(api) => {
                let seen = lock(&api.secrets).seen(namespace, name);
                watched::read(seen, &api.client, "Secret", namespace, name).await
            }
        }
    }

    /// Every object named, as far as it exists.
    ///
    /// # Errors
    /// The API server does not answer, and one of them was never seen.
    pub async fn configs(&self, namespace: &str, names: &[(ConfigKind, &str)]) -> Result<Configs, ObjectError> {
        let mut configs = Configs::default();
        for (kind, name) in names {
            match kind {
                ConfigKind::ConfigMap => {
                    let found = self.config_map(namespace, name).await?;
                    configs.config_maps.extend(found.map(|map| ((*name).to_owned(), map)));
                }
                ConfigKind::Secret => {
                    let found = self.secret(namespace, name).await?;
                    configs.secrets.extend(found.map(|secret| ((*name).to_owned(), secret)));
                }
            }
        }
        Ok(configs)
    }

    /// All Services of the cluster, once they have been listed. None with no cluster.
    ///
    /// # Errors
    /// The API server has never answered.
    pub async fn services(&self) -> Result<Vec<Arc<Service>>, ObjectError> {
        match &self.inner.backing {
            Backing::Manifest { .. } => Ok(Vec::new()),
            Backing::Api(api) => api.services.all().await,
        }
    }

    /// The runtime handler that a RuntimeClass stands for. With no cluster there are no classes, and the name is the
    /// handler's own.
    ///
    /// # Errors
    /// There is no such class, or the API server has never answered.
    pub async fn runtime_handler(&self, class: &str) -> Result<String, ObjectError> {
        let Backing::Api(api) = &self.inner.backing else { return Ok(class.to_owned()) };
        let classes = api.runtime_classes.get_or_init(|| WatchedAll::start(api.client.clone(), "RuntimeClasses"));
        let known = classes.all().await?;
        let found = known.iter().find(|known| known.metadata.name.as_deref() == Some(class));
        found.map(|found| found.handler.clone()).ok_or_else(|| ObjectError::NoRuntimeClass(class.to_owned()))
    }

    /// A token of the pod's ServiceAccount, bound to the pod; a fresh one when the last one is due.
    ///
    /// # Errors
    /// The API server refuses or does not answer, and the last token has ended.
    pub async fn token(&self, request: &TokenRequest) -> Result<Token, ObjectError> {
        match &self.inner.backing {
            Backing::Manifest { .. } => {
                let what = format!("a token for ServiceAccount {}/{}", request.namespace, request.service_account);
                Err(ObjectError::NoCluster { what })
            }
            Backing::Api(api) => api.tokens.get(request).await,
        }
    }
}

fn lock<T>(shelf: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> (String, String) {
    let namespace = metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    (namespace, metadata.name.clone().unwrap_or_default())
}

/// The API server folds `stringData` into `data`; a manifest has met no API server.
fn with_data(mut secret: Secret) -> Secret {
    let strings = secret.string_data.take().unwrap_or_default();
    let strings = strings.into_iter().map(|(key, value)| (key, k8s_openapi::ByteString(value.into_bytes())));
    secret.data.get_or_insert_default().extend(strings);
    secret
}

/// What the environment of a container refers to.
pub(crate) fn of_environment(container: &Container) -> impl Iterator<Item = (ConfigKind, &str)> {
    let whole = container.env_from.iter().map(|from| (from.kind, from.name.as_str()));
    let keys = container.env.iter().filter_map(|variable| match &variable.value {
        EnvValue::ConfigMapKey(key) => Some((ConfigKind::ConfigMap, key.name.as_str())),
        EnvValue::SecretKey(key) => Some((ConfigKind::Secret, key.name.as_str())),
        EnvValue::Literal(_) | EnvValue::Field(_) | EnvValue::Resource(_) => None,
    });
    whole.chain(keys)
}

/// What a volume of files refers to.
pub(crate) fn of_files(volume: &FileVolume) -> impl Iterator<Item = (ConfigKind, &str)> {
    volume.sources.iter().filter_map(|source| match source {
        FileSource::Config { kind, name, .. } => Some((*kind, name.as_str())),
        FileSource::DownwardApi(_) | FileSource::ServiceAccountToken { .. } => None,
    })
}

/// Names of the ConfigMaps and of the Secrets that a pod refers to, in its own namespace.
fn references(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let from_env = pod.all_containers().flat_map(of_environment);
    let from_volumes = pod.volumes.iter().filter_map(|volume| match &volume.source {
        VolumeSource::Files(files) => Some(of_files(files)),
        VolumeSource::EmptyDir { .. } | VolumeSource::HostPath { .. } | VolumeSource::Image { .. } => None,
    });
    let pulls = pod.image_pull_secrets.iter().map(|name| (ConfigKind::Secret, name.as_str()));
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for (kind, name) in from_env.chain(from_volumes.flatten()).chain(pulls) {
        match kind {
            ConfigKind::ConfigMap => config_maps.push(name.to_owned()),
            ConfigKind::Secret => secrets.push(name.to_owned()),
        }
    }
    (config_maps, secrets)
}
