//! The kubelet's configuration: what the files and flags say, and what it comes to.
//!
//! In come [`KubeletFlags`](crate::flags::KubeletFlags), the files they name, and a few facts of the host. Out goes one
//! [`Config`], complete, typed and checked: the rest of the kubelet reads it and never the files. What is not supported is
//! refused here, by name, before anything starts.

mod duration;
mod fields;
mod load;
mod manifest_url;
mod pulls;
mod resolve;
mod schema;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use decide::image_gc::Policy;
use decide::node::{HardEviction, Reserved};
use k8s_openapi::api::core::v1::Taint;
use serde_json::{Value, json};

use crate::pulls::{ProviderError, PullOptions};

pub use self::{
    duration::{GoDuration, InvalidDuration},
    manifest_url::ManifestUrl,
    resolve::Host,
    schema::{API_VERSION, KIND, KubeletConfiguration},
};

/// Everything the kubelet was told, complete and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name: `--hostname-override`, else the host's name in lower case.
    pub node_name: String,
    /// How to reach the API server; without it the kubelet runs static pods only.
    pub kubeconfig: Option<PathBuf>,
    /// Where pods, volumes and plugins are kept.
    pub root_dir: PathBuf,
    /// Where the serving certificate is kept.
    pub cert_dir: PathBuf,
    /// Where container logs are written, `<namespace>_<pod>_<uid>/<container>/<restart>.log`.
    pub pod_logs_dir: PathBuf,
    /// A static pod file or a directory of them.
    pub static_pod_path: Option<PathBuf>,
    /// Where static pods are asked for over HTTP.
    pub static_pod_url: Option<ManifestUrl>,
    /// How often every pod is looked at again although nothing happened.
    pub sync_frequency: Duration,
    /// How often static pod files are read again.
    pub file_check_frequency: Duration,
    /// Where the runtime is.
    pub runtime: RuntimeEndpoint,
    /// The longest a call of the runtime may take, pulls and streams excepted.
    pub runtime_request_timeout: Duration,
    /// Names and addresses that pods resolve names with.
    pub dns: Dns,
    /// What the node says of itself.
    pub node: NodeOptions,
    /// The kubelet's HTTP API.
    pub server: ServerOptions,
    /// Where the plain `/healthz` listens; `None` where the port is 0.
    pub healthz: Option<SocketAddr>,
    /// The address range of pods where no API server assigns one.
    pub pod_cidr: Option<String>,
    /// How fast events are written.
    pub events: EventRate,
    /// Where images come from besides registries over HTTPS.
    pub images: ImageSources,
    /// When images go that nothing uses.
    pub image_gc: Policy,
    /// How they are pulled.
    pub pulls: PullOptions,
    /// How much is logged, klog's number: 0 is least, 4 is debugging.
    pub verbosity: u32,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What was accepted without effect, one sentence each, for the log.
    pub warnings: Vec<String>,
    configuration: KubeletConfiguration,
    meaningless: BTreeMap<String, Value>,
}

/// Where the runtime is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEndpoint {
    /// In this process.
    Embedded,
    /// Behind a Unix socket.
    Unix(PathBuf),
}

/// Names and addresses that pods resolve names with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The cluster's name servers.
    pub servers: Vec<IpAddr>,
    /// The cluster's domain, empty where there is none.
    pub domain: String,
    /// The host's resolver configuration; `None` where pods get none of it.
    pub resolv_conf: Option<PathBuf>,
}

/// What the node says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeOptions {
    /// Whether the node object is created where it is missing.
    pub register: bool,
    /// The addresses given by hand, at most one per family; where empty they are found out.
    pub addresses: Vec<IpAddr>,
    /// Labels besides the node's own; one of the same name replaces it.
    pub labels: BTreeMap<String, String>,
    /// The taints of a new node; `None` leaves wasklet's own.
    pub taints: Option<Vec<Taint>>,
    /// The cloud's name of the machine.
    pub provider_id: Option<String>,
    /// How many pods fit.
    pub max_pods: u32,
    /// How many images the status names; `None` is all.
    pub max_images: Option<usize>,
    /// How often the status is looked at.
    pub status_update_frequency: Duration,
    /// How often it is sent although nothing changed.
    pub status_report_frequency: Duration,
    /// How long the lease holds; it is renewed four times as often.
    pub lease_duration: Duration,
    /// What is kept from pods.
    pub reserved: Reserved,
    /// What is kept from pods so that the node does not run dry.
    pub hard_eviction: HardEviction,
}

/// The kubelet's HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// Whether there is one at all.
    pub enabled: bool,
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate and key files, where they are not made here.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whose client certificates are believed.
    pub client_ca_file: Option<PathBuf>,
    /// Whether the API server is asked about bearer tokens, and how long its answer holds.
    pub token_webhook: Option<Duration>,
    /// How requests are judged.
    pub authorization: Authorization,
    /// Whether what reaches into pods (logs, exec, …) is served.
    pub debugging_handlers: bool,
}

/// How requests to the kubelet's HTTP API are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Whoever has proved who they are may do everything.
    AlwaysAllow,
    /// The API server is asked.
    Webhook {
        /// How long a yes holds.
        allowed_for: Duration,
        /// How long a no holds.
        denied_for: Duration,
    },
}

/// How fast events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRate {
    /// Events per second on the long run; 0 is without limit.
    pub per_second: u32,
    /// Events at once.
    pub burst: u32,
}

impl EventRate {
    /// No limit.
    pub const UNLIMITED: Self = Self { per_second: 0, burst: 0 };
}

/// Where images come from besides registries over HTTPS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSources {
    /// OCI image layouts and archives, searched in order before any registry.
    pub layouts: Vec<PathBuf>,
    /// Registry hosts (`host` or `host:port`) spoken to over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// A directory of containerd's `hosts.toml` files.
    pub registry_hosts: Option<PathBuf>,
    /// A file that says which images need whose signature.
    pub trust_policy: Option<PathBuf>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// An object per line.
    Json,
}

impl Config {
    /// What `/configz` shows: the configuration with its defaults, under the kubelet's own field names.
    pub fn configz(&self) -> Value {
        let mut fields = serde_json::to_value(&self.configuration).unwrap_or_default();
        if let Some(object) = fields.as_object_mut() {
            object.extend(self.meaningless.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        json!({ "kubeletconfig": fields })
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ConfigError {
    #[error("{}: the configuration cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{}: {name} must be {wanted}, and is {found}", path.display())]
    Version { path: PathBuf, name: &'static str, wanted: &'static str, found: String },
    #[error("{}: {name} is not supported by wasklet yet", origin.display())]
    NotSupported { origin: PathBuf, name: String },
    #[error("{}: {message}", origin.display())]
    Value { origin: PathBuf, message: String },
    #[error("{name} is \"{value}\": {message}")]
    Invalid { name: &'static str, value: String, message: String },
    #[error(transparent)]
    Providers(#[from] ProviderError),
    #[error("{0}")]
    Refused(String),
}
