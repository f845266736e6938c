//! From what was written to what it means: every value checked, every default set, every path absolute.
//!
//! In come flags, files and facts of the host, out goes a [`Config`]. Reads the configuration files and nothing else.

use std::{
    collections::BTreeMap,
    env,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use decide::image_gc::Policy;
use decide::node::{HardEviction, Reserved, Threshold};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Taint;
use serde_json::Value;

use super::{
    Authorization, Config, ConfigError, Dns, EventRate, GoDuration, ImageSources, KubeletConfiguration, LogFormat,
    NodeOptions, RuntimeEndpoint, ServerOptions, fields::FEATURE_GATES, load, manifest_url, schema,
};
use crate::flags::KubeletFlags;

/// What the configuration takes from the machine and its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The kernel's name of the machine.
    pub hostname: String,
    /// Whether we are root: then state lives in the system's directories.
    pub is_root: bool,
    /// Where this user keeps the state of programs, `$XDG_STATE_HOME` or `~/.local/state`; `None` where neither is known.
    pub user_state: Option<PathBuf>,
    /// This user's home directory, where one is known.
    pub home: Option<PathBuf>,
}

impl Host {
    /// The facts of this machine and user.
    pub fn detect() -> Self {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            is_root: rustix::process::geteuid().is_root(),
            home: absolute("HOME"),
            user_state: absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state"))),
        }
    }
}

impl Config {
    /// Reads the files the flags name and works out the whole configuration.
    ///
    /// # Errors
    /// A file that cannot be read or understood, a field or value that is unknown or not supported yet; the message names
    /// the file and the field.
    pub fn resolve(flags: &KubeletFlags, host: &Host) -> Result<Self, ConfigError> {
        let loaded = load::load(flags.config.as_deref(), flags.config_dir.as_deref(), &flags.as_configuration()?)?;
        let mut warnings = loaded.warnings;
        warnings.extend(flags.warnings());
        if loaded.configuration.eviction_hard.is_some() {
            let warning = "evictionHard lowers what the node has to give; pods are not evicted yet";
            warnings.push(warning.to_owned());
        }
        let mut configuration = loaded.configuration;
        if flags.node_status_update_frequency.is_some() && configuration.node_status_report_frequency.is_none() {
            // Only a file's nodeStatusUpdateFrequency is also the pace of reports; the flag is not.
            configuration.node_status_report_frequency = Some(GoDuration::seconds(300));
        }
        let mut configuration = configuration.with_defaults();
        let static_pod_url = manifest_url::take(&mut configuration)?;
        refuse(flags, &configuration)?;
        check_gates(configuration.feature_gates.as_ref())?;
        check_logging(configuration.logging.as_ref())?;

        let root_dir = match &flags.root_dir {
            Some(given) => absolute(given)?,
            None => default_root(host)?,
        };
        let pod_logs_dir = match configuration.pod_logs_dir.as_deref().filter(|given| !given.is_empty()) {
            Some(given) => absolute(Path::new(given))?,
            None if host.is_root => PathBuf::from("/var/log/pods"),
            None => root_dir.join("logs"),
        };
        configuration.pod_logs_dir = Some(pod_logs_dir.display().to_string());
        let cert_dir = match &flags.cert_dir {
            Some(given) => absolute(given)?,
            None => root_dir.join("pki"),
        };
        check_restart_period(&configuration)?;
        Ok(Self {
            node_name: node_name(flags.hostname_override.as_deref().unwrap_or(&host.hostname))?,
            kubeconfig: flags.kubeconfig.clone(),
            cert_dir,
            pod_logs_dir,
            static_pod_path: configuration.static_pod_path.as_deref().and_then(some_path),
            static_pod_url,
            sync_frequency: length(configuration.sync_frequency),
            file_check_frequency: length(configuration.file_check_frequency),
            runtime: runtime_endpoint(configuration.container_runtime_endpoint.as_deref().unwrap_or_default())?,
            runtime_request_timeout: length(configuration.runtime_request_timeout),
            dns: dns(&configuration)?,
            node: node(flags, &configuration)?,
            server: server(&configuration)?,
            healthz: healthz(&configuration)?,
            pod_cidr: configuration.pod_cidr.clone().filter(|range| !range.is_empty()),
            events: EventRate {
                per_second: configuration.event_record_qps.unwrap_or_default(),
                burst: configuration.event_burst.unwrap_or_default(),
            },
            images: ImageSources {
                layouts: flags.image_layout.clone(),
                insecure_registries: flags.insecure_registry.clone(),
                registry_hosts: flags.registry_hosts_dir.clone(),
                trust_policy: flags.image_trust_policy.clone(),
            },
            image_gc: image_gc(&configuration)?,
            pulls: super::pulls::options(flags, &configuration, &root_dir, host.home.clone())?,
            verbosity: configuration.logging.as_ref().and_then(|logging| logging.verbosity).unwrap_or_default(),
            log_format: match configuration.logging.as_ref().and_then(|logging| logging.format.as_deref()) {
                Some("json") => LogFormat::Json,
                _ => LogFormat::Text,
            },
            warnings,
            root_dir,
            configuration,
            meaningless: loaded.meaningless,
        })
    }
}

pub(super) fn invalid(name: &'static str, value: impl Display, message: impl Display) -> ConfigError {
    ConfigError::Invalid { name, value: format!("{value}"), message: format!("{message}") }
}

/// What would make the node unsafe, or is not there yet, whatever said it.
fn refuse(flags: &KubeletFlags, configuration: &KubeletConfiguration) -> Result<(), ConfigError> {
    let authentication = configuration.authentication.as_ref();
    if authentication.is_some_and(|authentication| authentication.anonymous.enabled == Some(true)) {
        return Err(ConfigError::Refused(
            "authentication.anonymous.enabled is true (--anonymous-auth): wasklet serves nobody who has not proved who \
             they are; give clients a certificate or a token"
                .to_owned(),
        ));
    }
    if configuration.read_only_port.is_some_and(|port| port != 0) {
        return Err(ConfigError::Refused(
            "readOnlyPort (--read-only-port) must be 0: wasklet has no port without authentication".to_owned(),
        ));
    }
    if flags.bootstrap_kubeconfig.is_some() && !flags.kubeconfig.as_deref().is_some_and(Path::exists) {
        return Err(ConfigError::Refused(
            "--bootstrap-kubeconfig: requesting a client certificate is not supported by wasklet yet; make a certificate \
             for user system:node:NAME in group system:nodes and name its kubeconfig by --kubeconfig"
                .to_owned(),
        ));
    }
    Ok(())
}

fn check_gates(gates: Option<&BTreeMap<String, bool>>) -> Result<(), ConfigError> {
    for (name, wanted) in gates.into_iter().flatten() {
        match FEATURE_GATES.iter().find(|(known, _)| known == name) {
            None => return Err(ConfigError::Refused(format!("featureGates: {name} is not a feature gate of wasklet"))),
            Some((_, fixed)) if fixed != wanted => {
                return Err(ConfigError::Refused(format!("featureGates: {name} is always {fixed} in wasklet")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_logging(logging: Option<&schema::Logging>) -> Result<(), ConfigError> {
    let Some(logging) = logging else { return Ok(()) };
    if let Some(format) = logging.format.as_deref().filter(|format| !["text", "json"].contains(format)) {
        return Err(invalid("logging.format", format, "text and json are the formats"));
    }
    if logging.vmodule.as_ref().is_some_and(|modules| !modules.is_empty()) {
        return Err(ConfigError::Refused("logging.vmodule is not supported by wasklet yet".to_owned()));
    }
    if logging.options.as_ref().is_some_and(asks_for_something) {
        return Err(ConfigError::Refused("logging.options is not supported by wasklet yet".to_owned()));
    }
    Ok(())
}

/// Whether any leaf holds more than Go's "no value"; kubeadm writes such empty structures out.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty() && text != "0",
        Value::Array(items) => items.iter().any(asks_for_something),
        Value::Object(fields) => fields.values().any(asks_for_something),
    }
}

fn default_root(host: &Host) -> Result<PathBuf, ConfigError> {
    match &host.user_state {
        _ if host.is_root => Ok(PathBuf::from("/var/lib/wasklet")),
        Some(state) => Ok(state.join("wasklet")),
        None => Err(ConfigError::Refused(
            "there is no directory for state: neither XDG_STATE_HOME nor HOME is set; name one by --root-dir"
                .to_owned(),
        )),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn some_path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn length(duration: Option<GoDuration>) -> std::time::Duration {
    duration.unwrap_or_default().0
}

/// A node's name is a DNS subdomain, which is how the API server takes it.
fn node_name(text: &str) -> Result<String, ConfigError> {
    let name = text.trim().to_lowercase();
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        let message =
            "a node's name is made of lower case letters, digits, '-' and '.'; set one by --hostname-override";
        return Err(invalid("the node's name", text, message));
    }
    Ok(name)
}

/// The back-off of crashing containers is the kubelet's default and cannot be set yet.
fn check_restart_period(configuration: &KubeletConfiguration) -> Result<(), ConfigError> {
    let back_off = configuration.crash_loop_back_off.as_ref();
    match back_off.and_then(|back_off| back_off.max_container_restart_period) {
        Some(period) if period != GoDuration::seconds(300) => {
            let message = "wasklet supports no other value than 5m yet; leave it out";
            Err(invalid("crashLoopBackOff.maxContainerRestartPeriod", period, message))
        }
        _ => Ok(()),
    }
}

fn runtime_endpoint(text: &str) -> Result<RuntimeEndpoint, ConfigError> {
    let path = match text.split_once("://") {
        None if text.is_empty() => return Ok(RuntimeEndpoint::Embedded),
        None => text,
        Some(("unix", path)) => path,
        Some(_) => return Err(invalid("containerRuntimeEndpoint", text, "only unix:///path/to/socket is supported")),
    };
    if !path.starts_with('/') {
        return Err(invalid("containerRuntimeEndpoint", text, "the socket's path must be absolute"));
    }
    Ok(RuntimeEndpoint::Unix(PathBuf::from(path)))
}

fn address(name: &'static str, text: &str) -> Result<IpAddr, ConfigError> {
    text.trim().parse().map_err(|_| invalid(name, text, "this is not an IP address"))
}

fn dns(configuration: &KubeletConfiguration) -> Result<Dns, ConfigError> {
    let servers = configuration.cluster_dns.iter().flatten();
    Ok(Dns {
        servers: servers.map(|server| address("clusterDNS", server)).collect::<Result<_, _>>()?,
        domain: configuration.cluster_domain.clone().unwrap_or_default().trim_matches('.').to_owned(),
        resolv_conf: configuration.resolv_conf.as_deref().and_then(some_path),
    })
}

fn healthz(configuration: &KubeletConfiguration) -> Result<Option<SocketAddr>, ConfigError> {
    let port = configuration.healthz_port.unwrap_or_default();
    let ip = address("healthzBindAddress", configuration.healthz_bind_address.as_deref().unwrap_or_default())?;
    Ok((port != 0).then(|| SocketAddr::new(ip, port)))
}

fn server(configuration: &KubeletConfiguration) -> Result<ServerOptions, ConfigError> {
    let path = |field: &Option<String>| field.as_deref().and_then(some_path);
    let tls = match (path(&configuration.tls_cert_file), path(&configuration.tls_private_key_file)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(ConfigError::Refused("tlsCertFile and tlsPrivateKeyFile must be given together".to_owned())),
    };
    let authentication = configuration.authentication.clone().unwrap_or_default();
    let webhook = &authentication.webhook;
    let authorization = configuration.authorization.clone().unwrap_or_default();
    Ok(ServerOptions {
        enabled: configuration.enable_server.unwrap_or_default(),
        address: SocketAddr::new(
            address("address", configuration.address.as_deref().unwrap_or_default())?,
            configuration.port.unwrap_or_default(),
        ),
        tls,
        client_ca_file: path(&authentication.x509.client_ca_file),
        token_webhook: (webhook.enabled == Some(true)).then(|| length(webhook.cache_ttl)),
        authorization: match authorization.mode.as_deref().unwrap_or_default() {
            "AlwaysAllow" => Authorization::AlwaysAllow,
            "Webhook" => Authorization::Webhook {
                allowed_for: length(authorization.webhook.cache_authorized_ttl),
                denied_for: length(authorization.webhook.cache_unauthorized_ttl),
            },
            mode => return Err(invalid("authorization.mode", mode, "Webhook and AlwaysAllow are the modes")),
        },
        debugging_handlers: configuration.enable_debugging_handlers.unwrap_or_default(),
    })
}

fn node(flags: &KubeletFlags, configuration: &KubeletConfiguration) -> Result<NodeOptions, ConfigError> {
    let addresses: Vec<IpAddr> =
        flags.node_ip.iter().map(|text| address("--node-ip", text)).collect::<Result<_, _>>()?;
    if addresses.len() > 2 || addresses.len() == 2 && addresses[0].is_ipv4() == addresses[1].is_ipv4() {
        return Err(invalid("--node-ip", flags.node_ip.join(","), "at most one address of each family"));
    }
    if let Some(unusable) = addresses.iter().find(|ip| ip.is_unspecified() || ip.is_multicast() || ip.is_loopback()) {
        return Err(invalid("--node-ip", unusable, "others must be able to reach the node there"));
    }
    let taints = configuration.register_with_taints.clone();
    for taint in taints.iter().flatten() {
        if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str()) {
            let message = "NoSchedule, PreferNoSchedule and NoExecute are the effects";
            return Err(invalid("registerWithTaints", format!("{}:{}", taint.key, taint.effect), message));
        }
    }
    Ok(NodeOptions {
        register: configuration.register_node.unwrap_or_default(),
        addresses,
        labels: flags.labels()?,
        taints: taints.map(|taints| taints.into_iter().map(|taint| Taint { time_added: None, ..taint }).collect()),
        provider_id: configuration.provider_id.clone().filter(|id| !id.is_empty()),
        max_pods: configuration.max_pods.unwrap_or_default(),
        max_images: configuration.node_status_max_images.and_then(|count| usize::try_from(count).ok()),
        status_update_frequency: length(configuration.node_status_update_frequency),
        status_report_frequency: length(configuration.node_status_report_frequency),
        lease_duration: std::time::Duration::from_secs(
            configuration.node_lease_duration_seconds.unwrap_or_default().into(),
        ),
        reserved: reserved(configuration)?,
        hard_eviction: hard_eviction(configuration)?,
    })
}

fn image_gc(configuration: &KubeletConfiguration) -> Result<Policy, ConfigError> {
    let percent = |name, percent: Option<i32>| {
        let percent = percent.unwrap_or_default();
        let known = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
        known.ok_or_else(|| invalid(name, percent, "a percentage is between 0 and 100"))
    };
    let high = percent("imageGCHighThresholdPercent", configuration.image_gc_high_threshold_percent)?;
    let low = percent("imageGCLowThresholdPercent", configuration.image_gc_low_threshold_percent)?;
    if low >= high {
        return Err(invalid("imageGCLowThresholdPercent", low, format!("it must be less than the high one, {high}")));
    }
    let age = |age| SignedDuration::try_from(length(age)).unwrap_or(SignedDuration::MAX);
    let min_age = age(configuration.image_minimum_gc_age);
    let max_age = Some(age(configuration.image_maximum_gc_age)).filter(|age| !age.is_zero());
    if let Some(max_age) = max_age.filter(|max_age| *max_age <= min_age) {
        let message = format!("it must be more than imageMinimumGCAge, {min_age:#}");
        return Err(invalid("imageMaximumGCAge", format!("{max_age:#}"), message));
    }
    Ok(Policy { high_threshold_percent: high, low_threshold_percent: low, min_age, max_age })
}

fn reserved(configuration: &KubeletConfiguration) -> Result<Reserved, ConfigError> {
    let mut sum = Reserved::default();
    for (name, map) in
        [("systemReserved", &configuration.system_reserved), ("kubeReserved", &configuration.kube_reserved)]
    {
        for (resource, text) in map.iter().flatten() {
            let amount = decide::quantity::Amount::parse(text)
                .map_err(|error| invalid(name, format!("{resource}={text}"), error))?;
            match resource.as_str() {
                "cpu" => sum.cpu = sum.cpu + amount,
                "memory" => sum.memory = sum.memory + amount,
                "ephemeral-storage" => sum.ephemeral_storage = sum.ephemeral_storage + amount,
                // Guests have no processes to reserve ids for.
                "pid" => {}
                _ => return Err(invalid(name, resource, "cpu, memory, ephemeral-storage and pid can be reserved")),
            }
        }
    }
    Ok(sum)
}

fn hard_eviction(configuration: &KubeletConfiguration) -> Result<HardEviction, ConfigError> {
    let mut eviction = HardEviction::default();
    for (signal, text) in configuration.eviction_hard.iter().flatten() {
        let threshold =
            Threshold::parse(text).map_err(|error| invalid("evictionHard", format!("{signal}<{text}"), error))?;
        match signal.as_str() {
            "memory.available" => eviction.memory_available = threshold,
            "nodefs.available" => eviction.nodefs_available = threshold,
            "nodefs.inodesFree"
            | "imagefs.available"
            | "imagefs.inodesFree"
            | "containerfs.available"
            | "containerfs.inodesFree"
            | "pid.available" => {}
            _ => return Err(invalid("evictionHard", signal, "there is no such eviction signal")),
        }
    }
    Ok(eviction)
}
