//! A Spin application as it is run here: its locked form, an environment and a runtime configuration come in, a [`Plan`] with
//! every value filled in goes out, or what keeps it from being run.
//!
//! Pure. Never here: code, files, sockets and requests.

pub mod hosts;
pub mod route;
pub mod runtime_config;
pub mod variables;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use image::Digest;
use image::spin::{Answers, Application, Component, File, SpinError, StaticResponse};

use hosts::{AllowedHosts, HostsError};
use route::{RouteError, Router};
use runtime_config::{RuntimeConfig, RuntimeConfigError};
use variables::{Values, VariableError};

/// Where an application is served that is told nothing else by its ports: what Spin's containerd shim reads too.
const LISTEN: &str = "SPIN_HTTP_LISTEN_ADDR";
/// Which of its components are run.
const RETAIN: &str = "SPIN_COMPONENTS_TO_RETAIN";
/// A bound that Spin keeps for each instance, and a container has for all of them.
const INSTANCE_MEMORY: &str = "SPIN_MAX_INSTANCE_MEMORY";
/// The store that every application has.
const DEFAULT_STORE: &str = "default";

/// Why an application is not run.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Its locked form.
    #[error(transparent)]
    Application(#[from] SpinError),
    /// A value.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// A route.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Where a component may connect to.
    #[error("component {component}: {source}")]
    Hosts {
        /// The component.
        component: String,
        /// The entry.
        source: HostsError,
    },
    /// A store that nobody has configured.
    #[error(
        "component {component} opens the key-value store {label:?}, which is not configured; add [key_value_store.{label}] to {}",
        runtime_config::PATH
    )]
    Store {
        /// The component.
        component: String,
        /// The store.
        label: String,
    },
    /// The runtime configuration.
    #[error(transparent)]
    RuntimeConfig(#[from] RuntimeConfigError),
    /// Where it is to be served.
    #[error("{LISTEN} is {value:?}; it must be 0.0.0.0 and a port, as the pod has one address")]
    Listen {
        /// What was set.
        value: String,
    },
    /// A bound for one instance.
    #[error("{INSTANCE_MEMORY} is not supported; set resources.limits.memory, which holds for the container")]
    InstanceMemory,
    /// A component that is not there is to be run.
    #[error("{RETAIN} names the component {0:?}, which the application does not have")]
    Retained(String),
    /// An answer that HTTP does not have.
    #[error("trigger {id}: its static_response is no HTTP response: {problem}")]
    Static {
        /// The trigger.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// What it is made of is not all there.
    #[error(
        "component {component}: {what} ({digest}) is not among the image's layers; files in archives (SPIN_OCI_ARCHIVE_LAYERS) are not supported"
    )]
    NoBlob {
        /// The component.
        component: String,
        /// Its wasm, or a file.
        what: String,
        /// The digest.
        digest: Digest,
    },
    /// A store whose volume is not there.
    #[error("component {component}: the key-value store {label:?} is kept at {path}, where no volume is mounted")]
    NoVolume {
        /// The component.
        component: String,
        /// The store.
        label: String,
        /// The path in the container.
        path: String,
    },
    /// Nothing of it can be asked.
    #[error("the application has no component that a route leads to")]
    NoRoute,
}

/// An application with every value filled in.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    /// The port that it is told to be served on.
    pub(crate) port: Option<u16>,
    pub(crate) router: Router,
    /// What answers, by the number that the router gives.
    pub(crate) answers: Vec<Answer>,
    /// The components that answer anything.
    pub(crate) parts: Vec<Part>,
}

/// What answers the requests of a route.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The component of this number.
    Part(usize),
    /// Always the same.
    Static(Fixed),
}

/// An answer that is always the same.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// One component.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) id: String,
    pub(crate) wasm: Digest,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) files: Vec<File>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) stores: BTreeMap<String, Store>,
    pub(crate) hosts: AllowedHosts,
}

/// Where the pairs of a key-value store are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Store {
    /// With those of the pod.
    Pod,
    /// In memory, the application's own.
    Own,
    /// In the volume that is mounted here.
    Volume(String),
}

impl Plan {
    /// Makes the plan. The environment is the container's, which components do not see.
    pub(crate) fn new(
        locked_app: &[u8],
        environment: &[(String, String)],
        runtime_config: Option<&str>,
    ) -> Result<Self, PlanError> {
        let app = Application::read(locked_app)?;
        let set =
            |name: &str| environment.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        if set(INSTANCE_MEMORY).is_some() {
            return Err(PlanError::InstanceMemory);
        }
        let config = runtime_config.map(RuntimeConfig::read).transpose()?.unwrap_or_default();
        let values = Values::of(&app.variables, environment)?;
        let retained = set(RETAIN).map(|list| retained(&app, list)).transpose()?;

        let (mut answers, mut routes, mut wanted) = (Vec::new(), Vec::new(), Vec::<&str>::new());
        for trigger in &app.triggers {
            // A private route is for other components of the application alone, which it cannot ask for here.
            let Some(route) = &trigger.route else { continue };
            let answer = match &trigger.answers {
                Answers::Static(response) => Answer::Static(fixed(&trigger.id, response)?),
                Answers::Component(id) => {
                    if retained.as_ref().is_some_and(|retained| !retained.contains(id.as_str())) {
                        continue;
                    }
                    Answer::Part(wanted.iter().position(|known| known == id).unwrap_or_else(|| {
                        wanted.push(id);
                        wanted.len() - 1
                    }))
                }
            };
            routes.push((answers.len(), route.as_str()));
            answers.push(answer);
        }
        if wanted.is_empty() {
            return Err(PlanError::NoRoute);
        }
        let router = Router::new(&app.base, routes.into_iter())?;
        let components = wanted.iter().filter_map(|id| app.components.iter().find(|component| component.id == *id));
        let parts = components.map(|component| part(component, &values, &config)).collect::<Result<_, _>>()?;
        let port = set(LISTEN).map(port).transpose()?;
        Ok(Self { name: app.name.clone(), version: app.version.clone(), port, router, answers, parts })
    }
}

fn retained<'a>(app: &Application, list: &'a str) -> Result<BTreeSet<&'a str>, PlanError> {
    let ids = list.split(',').map(str::trim).filter(|id| !id.is_empty());
    let known = |id: &'a str| match app.components.iter().any(|component| component.id == id) {
        true => Ok(id),
        false => Err(PlanError::Retained(id.to_owned())),
    };
    ids.map(known).collect()
}

fn fixed(id: &str, response: &StaticResponse) -> Result<Fixed, PlanError> {
    let wrong = |problem: String| PlanError::Static { id: id.to_owned(), problem };
    let status = StatusCode::from_u16(response.status_code).map_err(|error| wrong(error.to_string()))?;
    let headers: HashMap<_, _> = response.headers.clone().into_iter().collect();
    let headers = HeaderMap::try_from(&headers).map_err(|error: http::Error| wrong(error.to_string()))?;
    Ok(Fixed { status, headers, body: Bytes::copy_from_slice(response.body.as_bytes()) })
}

fn port(value: &str) -> Result<u16, PlanError> {
    let address: Option<SocketAddr> = value.parse().ok();
    let everywhere = address.filter(|address| address.ip().is_unspecified() && address.port() != 0);
    everywhere.map(|address| address.port()).ok_or_else(|| PlanError::Listen { value: value.to_owned() })
}

fn part(component: &Component, values: &Values, config: &RuntimeConfig) -> Result<Part, PlanError> {
    let Component { id, wasm, env, files, config: templates, allowed_outbound_hosts, key_value_stores } = component;
    let variable = |(name, template): (&String, &String)| {
        Ok((name.clone(), values.fill(&format!("variable {name:?} of component {id}"), template)?))
    };
    let entry = |template: &String| values.fill(&format!("allowed_outbound_hosts of component {id}"), template);
    let entries = allowed_outbound_hosts.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let hosts = AllowedHosts::read(entries.iter().map(String::as_str))
        .map_err(|source| PlanError::Hosts { component: id.clone(), source })?;
    let store = |label: &String| {
        let store = match config.stores.get(label) {
            Some(Some(volume)) => Store::Volume(volume.clone()),
            Some(None) if label != DEFAULT_STORE => Store::Own,
            _ if label == DEFAULT_STORE => Store::Pod,
            _ => return Err(PlanError::Store { component: id.clone(), label: label.clone() }),
        };
        Ok((label.clone(), store))
    };
    Ok(Part {
        id: id.clone(),
        wasm: *wasm,
        env: env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        files: files.clone(),
        variables: templates.iter().map(variable).collect::<Result<_, VariableError>>()?,
        stores: key_value_stores.iter().map(store).collect::<Result<_, _>>()?,
        hosts,
    })
}

#[cfg(test)]
#[path = "spin/tests.rs"]
mod tests;
