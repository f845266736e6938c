//! A container's environment and command line, from its spec and what it refers to.
//!
//! Comes in: a container, [`Configs`], Services and [`field::Facts`]. Goes out: variables sorted by name, and `command` and
//! `args` with `$(VAR)` expanded. Errors carry the words the kubelet uses; each means `CreateContainerConfigError`. Never
//! here: a fetch, or a value in a message.

mod expand;
pub mod field;
pub mod service;
mod sub_path;
#[cfg(test)]
mod tests;

pub use expand::expand;
pub use sub_path::{SubPathError, sub_path};

use crate::event::Failure;
use crate::pod::{ConfigKind, Container, EnvFrom, EnvValue, KeyRef, Pod};
use field::{Facts, FieldError};
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The ConfigMaps and Secrets that a pod refers to, by name, as far as they are there.
#[derive(Clone, Debug, Default)]
pub struct Configs {
    /// ConfigMaps of the pod's namespace.
    pub config_maps: BTreeMap<String, Arc<api::ConfigMap>>,
    /// Secrets of the pod's namespace.
    pub secrets: BTreeMap<String, Arc<api::Secret>>,
}

impl Configs {
    /// What an object holds as text or as bytes that should be text; none if there is no such object. The binary keys of
    /// a ConfigMap are for files only.
    fn texts(&self, kind: ConfigKind, name: &str) -> Option<BTreeMap<&str, &[u8]>> {
        match kind {
            ConfigKind::ConfigMap => {
                let data = self.config_maps.get(name)?.data.iter().flatten();
                Some(data.map(|(key, value)| (key.as_str(), value.as_bytes())).collect())
            }
            ConfigKind::Secret => {
                let data = self.secrets.get(name)?.data.iter().flatten();
                Some(data.map(|(key, value)| (key.as_str(), value.0.as_slice())).collect())
            }
        }
    }
}

/// What a container is started with.
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerEnvironment {
    /// Names and values, sorted by name.
    pub env: Vec<(String, String)>,
    /// `command`, expanded.
    pub command: Vec<String>,
    /// `args`, expanded.
    pub args: Vec<String>,
}

/// Names only: values may be secret.
impl std::fmt::Debug for ContainerEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ContainerEnvironment").field("env", &names).finish_non_exhaustive()
    }
}

/// Why a container's environment cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// An object is not there.
    #[error("{} {name:?} not found", lower_kind(*kind))]
    NotFound {
        /// ConfigMap or Secret.
        kind: ConfigKind,
        /// The object.
        name: String,
    },
    /// An object lacks a key.
    #[error("couldn't find key {key} in {} {namespace}/{name}", upper_kind(*kind))]
    NoKey {
        /// ConfigMap or Secret.
        kind: ConfigKind,
        /// The pod's namespace.
        namespace: String,
        /// The object.
        name: String,
        /// The key.
        key: String,
    },
    /// The value of a key is not text. Only a Secret can hold such.
    #[error("key {key} in Secret {namespace}/{name} is not UTF-8 text, which a variable must be")]
    NotText {
        /// The pod's namespace.
        namespace: String,
        /// The object.
        name: String,
        /// The key.
        key: String,
    },
    /// A prefix and a key do not make the name of a variable, or a value cannot be one's.
    #[error("key {key} in {} {namespace}/{name} cannot be the environment variable {variable:?}", upper_kind(*kind))]
    Name {
        /// ConfigMap or Secret.
        kind: ConfigKind,
        /// The pod's namespace.
        namespace: String,
        /// The object.
        name: String,
        /// The key.
        key: String,
        /// Prefix and key.
        variable: String,
    },
    /// A field of the pod cannot be shown.
    #[error("environment variable {variable}: {error}")]
    Field {
        /// The variable.
        variable: String,
        /// Why. Part of the message, since the whole of it is what users see.
        error: FieldError,
    },
}

impl From<EnvError> for Failure {
    fn from(error: EnvError) -> Self {
        Failure::new("CreateContainerConfigError", error.to_string())
    }
}

fn lower_kind(kind: ConfigKind) -> &'static str {
    match kind {
        ConfigKind::ConfigMap => "configmap",
        ConfigKind::Secret => "secret",
    }
}

fn upper_kind(kind: ConfigKind) -> &'static str {
    match kind {
        ConfigKind::ConfigMap => "ConfigMap",
        ConfigKind::Secret => "Secret",
    }
}

/// The environment and command line of `container`.
///
/// # Errors
/// Something that it needs is not there, or is no text.
pub fn environment(
    pod: &Pod,
    container: &Container,
    facts: &Facts<'_>,
    configs: &Configs,
    services: &[Arc<api::Service>],
) -> Result<ContainerEnvironment, EnvError> {
    let services = service::variables(services, &pod.name.namespace, pod.enable_service_links);
    let mut own = BTreeMap::new();
    for source in &container.env_from {
        own.extend(all_of(pod, source, configs)?);
    }
    for variable in &container.env {
        let value = match &variable.value {
            EnvValue::Literal(text) => Some(expand(text, |name| own.get(name).or_else(|| services.get(name)))),
            EnvValue::Field(path) => Some(field::field(path, pod, facts)),
            EnvValue::Resource(wanted) => {
                let amount = field::resource(wanted, pod, Some(&container.name), facts.allocatable);
                Some(amount.map_err(|error| EnvError::Field { variable: variable.name.clone(), error })?)
            }
            EnvValue::ConfigMapKey(wanted) => of_key(pod, ConfigKind::ConfigMap, wanted, configs)?,
            EnvValue::SecretKey(wanted) => of_key(pod, ConfigKind::Secret, wanted, configs)?,
        };
        if let Some(value) = value {
            own.insert(variable.name.clone(), value);
        }
    }
    let mut env = services;
    env.extend(own);
    let expanded = |texts: &[String]| texts.iter().map(|text| expand(text, |name| env.get(name))).collect();
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    Ok(ContainerEnvironment { env: env.into_iter().collect(), command, args })
}

/// `command`, to be run in a container that is there, with `$(VAR)` expanded by what its spec writes out. What a variable is
/// given from elsewhere is not known then: it stands for nothing, as for the kubelet.
#[must_use]
pub fn static_command(command: &[String], container: &Container) -> Vec<String> {
    let written = container.env.iter().map(|variable| match &variable.value {
        EnvValue::Literal(text) => (variable.name.as_str(), text.clone()),
        _ => (variable.name.as_str(), String::new()),
    });
    let written: BTreeMap<&str, String> = written.collect();
    command.iter().map(|word| expand(word, |name| written.get(name))).collect()
}

/// Every key of an object as a variable.
fn all_of(pod: &Pod, source: &EnvFrom, configs: &Configs) -> Result<BTreeMap<String, String>, EnvError> {
    let EnvFrom { prefix, kind, name, optional } = source;
    let Some(texts) = configs.texts(*kind, name) else {
        let missing = EnvError::NotFound { kind: *kind, name: name.clone() };
        return if *optional { Ok(BTreeMap::new()) } else { Err(missing) };
    };
    let mut variables = BTreeMap::new();
    for (key, value) in texts {
        let variable = format!("{prefix}{key}");
        if variable.is_empty() || variable.contains(['=', '\0']) {
            let (namespace, name, key) = (pod.name.namespace.clone(), name.clone(), key.to_owned());
            return Err(EnvError::Name { kind: *kind, namespace, name, key, variable });
        }
        variables.insert(variable, text(pod, name, key, value)?);
    }
    Ok(variables)
}

/// One key's value; none if it is optional and not there.
fn of_key(pod: &Pod, kind: ConfigKind, wanted: &KeyRef, configs: &Configs) -> Result<Option<String>, EnvError> {
    let KeyRef { name, key, optional } = wanted;
    match configs.texts(kind, name).map(|texts| texts.get(key.as_str()).copied()) {
        Some(Some(value)) => text(pod, name, key, value).map(Some),
        _ if *optional => Ok(None),
        None => Err(EnvError::NotFound { kind, name: name.clone() }),
        Some(None) => {
            let namespace = pod.name.namespace.clone();
            Err(EnvError::NoKey { kind, namespace, name: name.clone(), key: key.clone() })
        }
    }
}

/// A value as text. A NUL cannot be in a variable either.
fn text(pod: &Pod, name: &str, key: &str, value: &[u8]) -> Result<String, EnvError> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| EnvError::NotText {
        namespace: pod.name.namespace.clone(),
        name: name.to_owned(),
        key: key.to_owned(),
    })
}
