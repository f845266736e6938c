//! A Spin application's locked form comes in; its routes, components, variables and files go out, or what of it cannot run.
//!
//! Pure. What is not understood is refused by its name: an application that says it needs something must not run without.
//! Never here: what a variable's value is, and whether a blob is here.

mod locked;

use std::collections::BTreeMap;
use std::path::{Component as Part, Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::digest::Digest;

/// The versions of the locked form there are.
const LOCK_VERSIONS: [u64; 2] = [0, 1];
/// What an application may say has to be understood, and is.
const UNDERSTOOD: [&str; 2] = ["host_requirements", "component_host_requirements"];
/// A requirement that says this of itself is none.
const OPTIONAL: &str = "optional";
/// The only kind of trigger that is served.
const HTTP: &str = "http";
/// The executors that mean a component's own handler.
const OWN_HANDLER: [&str; 3] = ["http", "spin", "wasi"];
/// As Spin writes them, without padding, and as others may.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A Spin application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Its name, empty if it has none.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// The path that all routes begin with.
    pub base: String,
    /// What can be set from outside.
    pub variables: BTreeMap<String, Variable>,
    /// What answers which requests.
    pub triggers: Vec<Trigger>,
    /// Its parts.
    pub components: Vec<Component>,
}

/// A value that can be set from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// What it is if nobody sets it; without one, somebody must.
    pub default: Option<String>,
}

/// What answers the requests of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// The trigger's id.
    pub id: String,
    /// The route as it was written; a private one has none.
    pub route: Option<String>,
    /// Who answers.
    pub answers: Answers,
}

/// Who answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answers {
    /// The component of this id.
    Component(String),
    /// Always the same.
    Static(StaticResponse),
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticResponse {
    /// The HTTP status.
    pub status_code: u16,
    /// The headers.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// A part of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The component's id.
    pub id: String,
    /// The digest of its wasm.
    pub wasm: Digest,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its files.
    pub files: Vec<File>,
    /// Its variables, as templates over those of the application.
    pub config: BTreeMap<String, String>,
    /// Where it may connect to, as templates.
    pub allowed_outbound_hosts: Vec<String>,
    /// The key-value stores it may open.
    pub key_value_stores: Vec<String>,
}

/// A file of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Relative, without `.` and `..`.
    pub path: PathBuf,
    /// What is in it.
    pub content: FileContent,
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// The blob of this digest.
    Blob(Digest),
    /// These bytes.
    Inline(Vec<u8>),
}

/// What of a locked application is not understood or cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SpinError {
    /// It is not JSON of that form.
    #[error("it is no locked Spin application")]
    Json(#[from] serde_json::Error),
    /// A later form.
    #[error("it is a locked Spin application of the unknown version {0}")]
    Version(u64),
    /// It asks for what is not there.
    #[error("the Spin application needs {0}, which is not supported")]
    Needs(String),
    /// It is started by something else than HTTP.
    #[error("trigger {id} is of type {kind:?}; only \"http\" is served")]
    TriggerType {
        /// The trigger.
        id: String,
        /// Its type.
        kind: String,
    },
    /// Its executor is none of a component's own handler.
    #[error("trigger {id} wants the executor {executor:?}, which is not supported: export wasi:http/incoming-handler")]
    Executor {
        /// The trigger.
        id: String,
        /// The executor's type.
        executor: String,
    },
    /// A trigger that answers with nothing, or with two things.
    #[error("trigger {id} must have either a component or a static_response")]
    Answers {
        /// The trigger.
        id: String,
    },
    /// A route that is no route.
    #[error("trigger {id}: {problem}")]
    Route {
        /// The trigger.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// There is no component of that id.
    #[error("trigger {id} names the component {component:?}, which is not there")]
    NoComponent {
        /// The trigger.
        id: String,
        /// What it names.
        component: String,
    },
    /// It is made of several that were not put together.
    #[error(
        "component {component} has dependencies that were not composed into it; push it with a spin that does, as it does by itself"
    )]
    Dependencies {
        /// The component.
        component: String,
    },
    /// Its content is not in the image.
    #[error("component {component}: {what} has no digest")]
    NoDigest {
        /// The component.
        component: String,
        /// Its wasm, or a file.
        what: String,
    },
    /// A path that leads elsewhere.
    #[error("component {component}: the file {path:?} is no plain relative path")]
    Path {
        /// The component.
        component: String,
        /// The path.
        path: PathBuf,
    },
    /// Bytes that are none.
    #[error("component {component}: the content of {path:?} is not base64")]
    Inline {
        /// The component.
        component: String,
        /// The file.
        path: PathBuf,
    },
}

/// The application's name, empty if it has none: all that has to be known to keep it.
///
/// # Errors
/// [`SpinError::Json`] and [`SpinError::Version`].
pub fn name(locked_app: &[u8]) -> Result<String, SpinError> {
    let head: locked::Head = serde_json::from_slice(locked_app)?;
    known_version(head.spin_lock_version)?;
    Ok(head.metadata.name)
}

impl Application {
    /// Reads a locked application.
    ///
    /// # Errors
    /// See [`SpinError`].
    pub fn read(locked_app: &[u8]) -> Result<Self, SpinError> {
        let app: locked::App = serde_json::from_slice(locked_app)?;
        known_version(app.spin_lock_version)?;
        if let Some(unknown) = app.must_understand.iter().find(|it| !UNDERSTOOD.contains(&it.as_str())) {
            return Err(SpinError::Needs(unknown.clone()));
        }
        nothing_needed(&app.host_requirements)?;
        let components = app.components.into_iter().map(component).collect::<Result<Vec<_>, _>>()?;
        let triggers = app.triggers.into_iter().map(trigger).collect::<Result<Vec<_>, _>>()?;
        for trigger in &triggers {
            if let Answers::Component(id) = &trigger.answers
                && !components.iter().any(|component| component.id == *id)
            {
                return Err(SpinError::NoComponent { id: trigger.id.clone(), component: id.clone() });
            }
        }
        let base = app.metadata.triggers.http.base.or(app.metadata.trigger.base);
        Ok(Self {
            name: app.metadata.name,
            version: app.metadata.version,
            base: base.unwrap_or_else(|| "/".to_owned()),
            variables: app.variables.into_iter().map(|(name, it)| (name, Variable { default: it.default })).collect(),
            triggers,
            components,
        })
    }
}

fn known_version(version: u64) -> Result<(), SpinError> {
    if LOCK_VERSIONS.contains(&version) { Ok(()) } else { Err(SpinError::Version(version)) }
}

fn nothing_needed(requirements: &BTreeMap<String, serde_json::Value>) -> Result<(), SpinError> {
    match requirements.iter().find(|(_, value)| value.as_str() != Some(OPTIONAL)) {
        Some((name, _)) => Err(SpinError::Needs(name.clone())),
        None => Ok(()),
    }
}

fn trigger(trigger: locked::Trigger) -> Result<Trigger, SpinError> {
    let locked::Trigger { id, trigger_type, trigger_config, trigger_dependencies } = trigger;
    if trigger_type != HTTP {
        return Err(SpinError::TriggerType { id, kind: trigger_type });
    }
    if !trigger_dependencies.is_empty() {
        return Err(SpinError::Needs(format!("middleware (trigger {id})")));
    }
    let config: locked::HttpTrigger = serde_json::from_value(trigger_config)?;
    if let Some(executor) = config.executor.filter(|executor| !OWN_HANDLER.contains(&executor.kind.as_str())) {
        return Err(SpinError::Executor { id, executor: executor.kind });
    }
    let answers = match (config.component, config.static_response) {
        (Some(component), None) => Answers::Component(component),
        (None, Some(response)) => Answers::Static(StaticResponse {
            status_code: response.status_code,
            headers: response.headers,
            body: response.body,
        }),
        _ => return Err(SpinError::Answers { id }),
    };
    let route = match config.route {
        locked::Route::Path(path) => Some(path),
        locked::Route::Private { private: true } => None,
        locked::Route::Private { private: false } => {
            let problem = "a route is a path or says that it is private".to_owned();
            return Err(SpinError::Route { id, problem });
        }
    };
    Ok(Trigger { id, route, answers })
}

fn component(component: locked::Component) -> Result<Component, SpinError> {
    let locked::Component { id, metadata, source, env, files, config, .. } = component;
    nothing_needed(&component.host_requirements)?;
    if !component.dependencies.is_empty() || !component.trigger_dependencies.is_empty() {
        return Err(SpinError::Dependencies { component: id });
    }
    let Some(wasm) = source.digest else {
        return Err(SpinError::NoDigest { component: id, what: "its wasm".to_owned() });
    };
    let files = files.into_iter().map(|it| file(&id, it)).collect::<Result<_, _>>()?;
    let locked::ComponentMetadata { allowed_outbound_hosts, key_value_stores } = metadata;
    Ok(Component { id, wasm, env, files, config, allowed_outbound_hosts, key_value_stores })
}

fn file(component: &str, file: locked::File) -> Result<File, SpinError> {
    let locked::File { path, content } = file;
    let component = component.to_owned();
    let is_plain = |path: &Path| {
        path.components().all(|part| matches!(part, Part::Normal(_))) && path.components().next().is_some()
    };
    if !is_plain(&path) {
        return Err(SpinError::Path { component, path });
    }
    let content = match (content.inline, content.digest) {
        (Some(inline), _) => match BASE64.decode(inline) {
            Ok(bytes) => FileContent::Inline(bytes),
            Err(_) => return Err(SpinError::Inline { component, path }),
        },
        (None, Some(digest)) => FileContent::Blob(digest),
        (None, None) => {
            return Err(SpinError::NoDigest { component, what: format!("the file {}", path.display()) });
        }
    };
    Ok(File { path, content })
}

#[cfg(test)]
#[path = "spin_tests.rs"]
mod tests;
