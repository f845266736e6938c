//! The kubelet's command line, under the kubelet's own flag names.
//!
//! In come flags as clap reads them, out go [`KubeletFlags`]; those that stand for a field of the configuration file are
//! turned into that field by [`KubeletFlags::as_configuration`], so that there is one place where values are checked.
//! Nothing is read or opened here.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{ArgAction, Args};
use k8s_openapi::api::core::v1::Taint;

use crate::config::{ConfigError, GoDuration, KubeletConfiguration};

mod labels;

const CLUSTER: &str = "Cluster";
const NODE: &str = "Node";
const PODS: &str = "Pods";
const STATE: &str = "State and images";
const SERVER: &str = "HTTP API";

/// Flags of `wasklet kubelet`. Those that are also in the configuration file win over it.
#[derive(Debug, Clone, Default, Args)]
pub struct KubeletFlags {
    /// How to reach the API server; without it only the static pods of --pod-manifest-path and --manifest-url run
    #[arg(long, value_name = "FILE", help_heading = CLUSTER)]
    pub kubeconfig: Option<PathBuf>,
    /// Not supported yet, and refused unless the file of --kubeconfig exists
    #[arg(long, value_name = "FILE", help_heading = CLUSTER)]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// A KubeletConfiguration file (kubelet.config.k8s.io/v1beta1, YAML or JSON); flags win over it
    #[arg(long, value_name = "FILE", help_heading = CLUSTER)]
    pub config: Option<PathBuf>,
    /// A directory of *.conf files laid over --config in lexical order
    #[arg(long, value_name = "DIR", help_heading = CLUSTER)]
    pub config_dir: Option<PathBuf>,

    /// The node's name [default: the host's name in lower case]
    #[arg(long, value_name = "NAME", help_heading = NODE)]
    pub hostname_override: Option<String>,
    /// The node's address, or two of different families [default: the address of the default route]
    #[arg(long, value_name = "IP[,IP]", value_delimiter = ',', help_heading = NODE)]
    pub node_ip: Vec<String>,
    /// Labels of the node, besides its own
    #[arg(long, value_name = "KEY=VALUE,…", value_delimiter = ',', help_heading = NODE)]
    pub node_labels: Vec<String>,
    /// Taints of a newly registered node, instead of kubernetes.io/arch=wasm32-wasi:NoSchedule; "" is none
    #[arg(long, value_name = "KEY=VALUE:EFFECT,…", help_heading = NODE)]
    pub register_with_taints: Option<String>,
    /// Whether to create the Node object [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = NODE)]
    pub register_node: Option<bool>,
    /// The cloud's name of this machine
    #[arg(long, value_name = "ID", help_heading = NODE)]
    pub provider_id: Option<String>,
    /// How often the node's status is looked at [default: 10s]
    #[arg(long, value_name = "DURATION", help_heading = NODE)]
    pub node_status_update_frequency: Option<GoDuration>,
    /// How many pods fit on the node [default: 110]
    #[arg(long, value_name = "COUNT", help_heading = NODE)]
    pub max_pods: Option<u32>,

    /// A file of static pods, or a directory of such files: pods of this node alone, which the API server shows as mirrors
    #[arg(long, value_name = "PATH", help_heading = PODS)]
    pub pod_manifest_path: Option<String>,
    /// Where a Pod or PodList is asked for that runs as static pods: http://… or https://…
    #[arg(long, value_name = "URL", help_heading = PODS)]
    pub manifest_url: Option<String>,
    /// Headers to send to --manifest-url; may be repeated, and so may a name
    #[arg(long, value_name = "NAME:VALUE,…", value_delimiter = ',', action = ArgAction::Append, help_heading = PODS)]
    pub manifest_url_header: Vec<String>,
    /// How often --manifest-url is asked [default: 20s]
    #[arg(long, value_name = "DURATION", help_heading = PODS)]
    pub http_check_frequency: Option<GoDuration>,
    /// How often every pod is looked at although nothing happened [default: 1m]
    #[arg(long, value_name = "DURATION", help_heading = PODS)]
    pub sync_frequency: Option<GoDuration>,
    /// How often static pod files are read again [default: 20s]
    #[arg(long, value_name = "DURATION", help_heading = PODS)]
    pub file_check_frequency: Option<GoDuration>,
    /// The cluster's name servers, for pods whose dnsPolicy is ClusterFirst
    #[arg(long, value_name = "IP,…", value_delimiter = ',', help_heading = PODS)]
    pub cluster_dns: Vec<String>,
    /// The cluster's domain, searched by pods
    #[arg(long, value_name = "DOMAIN", help_heading = PODS)]
    pub cluster_domain: Option<String>,
    /// The host's resolver configuration; "" is none [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE", help_heading = PODS)]
    pub resolv_conf: Option<String>,
    /// The pods' address range where no API server assigns one; without either, all pods share the node's address
    #[arg(long, value_name = "CIDR", help_heading = PODS)]
    pub pod_cidr: Option<String>,
    /// A CRI runtime's socket, unix:///path [default: the runtime in this process]
    #[arg(long, value_name = "ENDPOINT", help_heading = PODS)]
    pub container_runtime_endpoint: Option<String>,
    /// The longest a call of the runtime may take [default: 2m]
    #[arg(long, value_name = "DURATION", help_heading = PODS)]
    pub runtime_request_timeout: Option<GoDuration>,
    /// Accepted for the kubelet's sake and without effect: a wasm pod needs no infra container
    #[arg(long, value_name = "IMAGE", help_heading = PODS)]
    pub pod_infra_container_image: Option<String>,

    /// Where pods and volumes are kept [default: /var/lib/wasklet for root, else $XDG_STATE_HOME/wasklet or ~/.local/state/wasklet]
    #[arg(long, value_name = "DIR", help_heading = STATE)]
    pub root_dir: Option<PathBuf>,
    /// Where the serving certificate is kept [default: pki in --root-dir]
    #[arg(long, value_name = "DIR", help_heading = STATE)]
    pub cert_dir: Option<PathBuf>,
    /// Where images are looked for before any registry: an OCI image layout, or a tar archive of one or of docker save; may be repeated
    #[arg(long, value_name = "PATH", env = "WASKLET_IMAGE_LAYOUT", value_delimiter = ':', action = ArgAction::Append, help_heading = STATE)]
    pub image_layout: Vec<PathBuf>,
    /// A registry host spoken to over plain HTTP; may be repeated
    #[arg(long, value_name = "HOST[:PORT]", action = ArgAction::Append, help_heading = STATE)]
    pub insecure_registry: Vec<String>,
    /// How full the disk gets, in percent, before unused images are removed; 100 is never [default: 85]
    #[arg(long, value_name = "PERCENT", help_heading = STATE)]
    pub image_gc_high_threshold: Option<i32>,
    /// How full the disk is left then, in percent [default: 80]
    #[arg(long, value_name = "PERCENT", help_heading = STATE)]
    pub image_gc_low_threshold: Option<i32>,
    /// How long an image stays at least after it came [default: 2m]
    #[arg(long, value_name = "DURATION", help_heading = STATE)]
    pub minimum_image_ttl_duration: Option<GoDuration>,
    /// A directory of containerd's hosts.toml files: mirrors, certificate authorities, client certificates
    #[arg(long, value_name = "DIR", help_heading = STATE)]
    pub registry_hosts_dir: Option<PathBuf>,
    /// Which images need whose signature: keys or identities by image pattern (see docs/registries.md)
    #[arg(long, value_name = "FILE", help_heading = STATE)]
    pub image_trust_policy: Option<PathBuf>,
    /// Which plugins know logins for which images: a CredentialProviderConfig, or a directory of them
    #[arg(long, value_name = "FILE", help_heading = STATE)]
    pub image_credential_provider_config: Option<PathBuf>,
    /// Where those plugins are
    #[arg(long, value_name = "DIR", help_heading = STATE)]
    pub image_credential_provider_bin_dir: Option<PathBuf>,

    /// Whether to serve the HTTP API at all [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = SERVER)]
    pub enable_server: Option<bool>,
    /// Where the HTTP API listens [default: 0.0.0.0]
    #[arg(long, value_name = "IP", help_heading = SERVER)]
    pub address: Option<String>,
    /// The HTTP API's port [default: 10250]
    #[arg(long, value_name = "PORT", help_heading = SERVER)]
    pub port: Option<u16>,
    /// The port of the plain /healthz, 0 for none [default: 10248]
    #[arg(long, value_name = "PORT", help_heading = SERVER)]
    pub healthz_port: Option<u16>,
    /// Where the plain /healthz listens [default: 127.0.0.1]
    #[arg(long, value_name = "IP", help_heading = SERVER)]
    pub healthz_bind_address: Option<String>,
    /// Must be 0: there is no port without authentication
    #[arg(long, value_name = "PORT", help_heading = SERVER)]
    pub read_only_port: Option<u16>,
    /// Whose client certificates are believed
    #[arg(long, value_name = "FILE", help_heading = SERVER)]
    pub client_ca_file: Option<String>,
    /// The serving certificate [default: a self-signed one in --cert-dir]
    #[arg(long, value_name = "FILE", help_heading = SERVER)]
    pub tls_cert_file: Option<String>,
    /// The serving certificate's key
    #[arg(long, value_name = "FILE", help_heading = SERVER)]
    pub tls_private_key_file: Option<String>,
    /// Webhook (the API server is asked) or AlwaysAllow (whoever is authenticated may) [default: Webhook]
    #[arg(long, value_name = "MODE", help_heading = SERVER)]
    pub authorization_mode: Option<String>,
    /// Whether the API server is asked about bearer tokens [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = SERVER)]
    pub authentication_token_webhook: Option<bool>,
    /// Must be false: nobody is served without credentials
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = SERVER)]
    pub anonymous_auth: Option<bool>,

    /// Pulls per second that registries are asked for at most, 0 for no limit [default: 5]
    #[arg(long, value_name = "COUNT", help_heading = STATE)]
    pub registry_qps: Option<u32>,
    /// Pulls at once that registries are asked for at most [default: 10]
    #[arg(long, value_name = "COUNT", help_heading = STATE)]
    pub registry_burst: Option<u32>,
    /// Whether images are pulled one after the other [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = STATE)]
    pub serialize_image_pulls: Option<bool>,

    /// How much is logged: 0 is least, 4 is debugging [default: 0]
    #[arg(long = "v", short = 'v', value_name = "LEVEL")]
    pub v: Option<u32>,
    /// Feature gates; wasklet has none to switch, and refuses one it does not know
    #[arg(long, value_name = "GATE=BOOL,…", value_delimiter = ',')]
    pub feature_gates: Vec<String>,
}

impl KubeletFlags {
    /// The fields of the configuration file that the flags set.
    ///
    /// # Errors
    /// A flag that is refused, or whose value cannot be read.
    pub(crate) fn as_configuration(&self) -> Result<KubeletConfiguration, ConfigError> {
        let mut set = KubeletConfiguration {
            enable_server: self.enable_server,
            static_pod_path: self.pod_manifest_path.clone(),
            static_pod_url: self.manifest_url.clone(),
            static_pod_url_header: self.manifest_headers()?,
            http_check_frequency: self.http_check_frequency,
            sync_frequency: self.sync_frequency,
            file_check_frequency: self.file_check_frequency,
            address: self.address.clone(),
            port: self.port,
            read_only_port: self.read_only_port,
            tls_cert_file: self.tls_cert_file.clone(),
            tls_private_key_file: self.tls_private_key_file.clone(),
            healthz_port: self.healthz_port,
            registry_pull_qps: self.registry_qps,
            registry_burst: self.registry_burst,
            serialize_image_pulls: self.serialize_image_pulls,
            healthz_bind_address: self.healthz_bind_address.clone(),
            cluster_domain: self.cluster_domain.clone(),
            cluster_dns: (!self.cluster_dns.is_empty()).then(|| self.cluster_dns.clone()),
            image_gc_high_threshold_percent: self.image_gc_high_threshold,
            image_gc_low_threshold_percent: self.image_gc_low_threshold,
            image_minimum_gc_age: self.minimum_image_ttl_duration,
            node_status_update_frequency: self.node_status_update_frequency,
            runtime_request_timeout: self.runtime_request_timeout,
            max_pods: self.max_pods,
            pod_cidr: self.pod_cidr.clone(),
            resolv_conf: self.resolv_conf.clone(),
            feature_gates: self.gates()?,
            provider_id: self.provider_id.clone(),
            register_with_taints: self.register_with_taints.as_deref().map(taints).transpose()?,
            register_node: self.register_node,
            container_runtime_endpoint: self.container_runtime_endpoint.clone(),
            ..KubeletConfiguration::default()
        };
        let (ca, webhook) = (&self.client_ca_file, self.authentication_token_webhook);
        if ca.is_some() || webhook.is_some() || self.anonymous_auth.is_some() {
            let authentication = set.authentication.get_or_insert_default();
            authentication.x509.client_ca_file.clone_from(ca);
            authentication.webhook.enabled = webhook;
            authentication.anonymous.enabled = self.anonymous_auth;
        }
        if self.authorization_mode.is_some() {
            set.authorization.get_or_insert_default().mode.clone_from(&self.authorization_mode);
        }
        if self.v.is_some() {
            set.logging.get_or_insert_default().verbosity = self.v;
        }
        Ok(set)
    }

    /// One sentence for each flag that was accepted without effect.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let image = self.pod_infra_container_image.iter();
        image
            .map(|image| {
                format!("--pod-infra-container-image={image} has no effect: a wasm pod needs no infra container")
            })
            .collect()
    }

    /// `--node-labels` as a map, held against the names a kubelet may set.
    pub(crate) fn labels(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut found = BTreeMap::new();
        for text in self.node_labels.iter().filter(|text| !text.is_empty()) {
            let invalid =
                |message: String| ConfigError::Invalid { name: "--node-labels", value: text.clone(), message };
            let (key, value) = text.split_once('=').ok_or_else(|| invalid("a label is KEY=VALUE".to_owned()))?;
            labels::check(key.trim(), value.trim()).map_err(invalid)?;
            found.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        Ok(found)
    }

    /// `--manifest-url-header` by name. What is wrong with one is told without its value.
    fn manifest_headers(&self) -> Result<Option<BTreeMap<String, Vec<String>>>, ConfigError> {
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in self.manifest_url_header.iter().filter(|text| !text.is_empty()) {
            let (name, value) = text.split_once(':').ok_or_else(|| ConfigError::Invalid {
                name: "--manifest-url-header",
                value: "…".to_owned(),
                message: "a header is NAME:VALUE".to_owned(),
            })?;
            headers.entry(name.trim().to_owned()).or_default().push(value.trim().to_owned());
        }
        Ok((!headers.is_empty()).then_some(headers))
    }

    fn gates(&self) -> Result<Option<BTreeMap<String, bool>>, ConfigError> {
        let mut gates = BTreeMap::new();
        for text in self.feature_gates.iter().filter(|text| !text.is_empty()) {
            let gate = text.split_once('=').and_then(|(name, on)| Some((name.to_owned(), on.parse().ok()?)));
            let (name, on) = gate.ok_or_else(|| ConfigError::Invalid {
                name: "--feature-gates",
                value: text.clone(),
                message: "a gate is NAME=true or NAME=false".to_owned(),
            })?;
            gates.insert(name, on);
        }
        Ok((!gates.is_empty()).then_some(gates))
    }
}

/// Taints in the kubelet's notation, `key=value:Effect` or `key:Effect`, with commas between them.
fn taints(text: &str) -> Result<Vec<Taint>, ConfigError> {
    let texts = text.split(',').filter(|text| !text.is_empty());
    texts
        .map(|text| {
            let (key, effect) = text.rsplit_once(':').ok_or_else(|| ConfigError::Invalid {
                name: "--register-with-taints",
                value: text.to_owned(),
                message: "a taint is KEY=VALUE:EFFECT or KEY:EFFECT".to_owned(),
            })?;
            let (key, value) = key.split_once('=').map_or((key, None), |(key, value)| (key, Some(value)));
            Ok(Taint {
                key: key.to_owned(),
                value: value.map(str::to_owned),
                effect: effect.to_owned(),
                time_added: None,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
