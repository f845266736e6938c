//! `KubeletConfiguration` of `kubelet.config.k8s.io/v1beta1`: the fields wasklet acts on, under their own names.
//!
//! In comes the merged content of the configuration files and flags, out goes the same structure with its defaults, which
//! is also what `/configz` shows. What the values mean is for [`super::resolve`]; the other fields are in [`super::fields`].

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::GoDuration;

/// The `apiVersion` of every configuration file.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// The `kind` of every configuration file.
pub const KIND: &str = "KubeletConfiguration";

/// The honoured fields; one that is absent is `None`. Meaning, units and defaults are those of the kubelet's own type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are the Kubernetes type's and described there")]
pub struct KubeletConfiguration {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_server: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_pod_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_logs_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_frequency: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_check_frequency: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_check_frequency: Option<GoDuration>,
    #[serde(rename = "staticPodURL", skip_serializing_if = "Option::is_none")]
    pub static_pod_url: Option<String>,
    #[serde(rename = "staticPodURLHeader", skip_serializing_if = "Option::is_none")]
    pub static_pod_url_header: Option<BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_private_key_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    #[serde(rename = "registryPullQPS", skip_serializing_if = "Option::is_none")]
    pub registry_pull_qps: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_burst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_credentials_verification_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preloaded_images_verification_allowlist: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serialize_image_pulls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_image_pulls: Option<u32>,
    #[serde(rename = "eventRecordQPS", skip_serializing_if = "Option::is_none")]
    pub event_record_qps: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_burst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_debugging_handlers: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthz_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthz_bind_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_domain: Option<String>,
    #[serde(rename = "clusterDNS", skip_serializing_if = "Option::is_none")]
    pub cluster_dns: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_status_update_frequency: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_status_report_frequency: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_lease_duration_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_request_timeout: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pods: Option<u32>,
    #[serde(rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolv_conf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_status_max_images: Option<i32>,
    #[serde(rename = "imageMinimumGCAge", skip_serializing_if = "Option::is_none")]
    pub image_minimum_gc_age: Option<GoDuration>,
    #[serde(rename = "imageMaximumGCAge", skip_serializing_if = "Option::is_none")]
    pub image_maximum_gc_age: Option<GoDuration>,
    #[serde(rename = "imageGCHighThresholdPercent", skip_serializing_if = "Option::is_none")]
    pub image_gc_high_threshold_percent: Option<i32>,
    #[serde(rename = "imageGCLowThresholdPercent", skip_serializing_if = "Option::is_none")]
    pub image_gc_low_threshold_percent: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_hard: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_default_eviction_settings: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_gates: Option<BTreeMap<String, bool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_reserved: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_reserved: Option<BTreeMap<String, String>>,
    #[serde(rename = "providerID", skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash_loop_back_off: Option<CrashLoopBackOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub register_with_taints: Option<Vec<Taint>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub register_node: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_runtime_endpoint: Option<String>,
}

/// Who may speak to the server, by their credentials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authentication {
    pub x509: X509Authentication,
    pub webhook: WebhookAuthentication,
    pub anonymous: AnonymousAuthentication,
}

/// Client certificates.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct X509Authentication {
    #[serde(rename = "clientCAFile", skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<String>,
}

/// Bearer tokens, reviewed by the API server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebhookAuthentication {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(rename = "cacheTTL", skip_serializing_if = "Option::is_none")]
    pub cache_ttl: Option<GoDuration>,
}

/// Requests without credentials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AnonymousAuthentication {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// What they may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authorization {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    pub webhook: WebhookAuthorization,
}

/// How long the API server's answers hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebhookAuthorization {
    #[serde(rename = "cacheAuthorizedTTL", skip_serializing_if = "Option::is_none")]
    pub cache_authorized_ttl: Option<GoDuration>,
    #[serde(rename = "cacheUnauthorizedTTL", skip_serializing_if = "Option::is_none")]
    pub cache_unauthorized_ttl: Option<GoDuration>,
}

/// How the log is written. `flushFrequency` says nothing to a log without a buffer; `options` and `vmodule` are refused
/// where they ask for something.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Logging {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_frequency: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbosity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmodule: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Value>,
}

/// How long a crashing container waits at most.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CrashLoopBackOff {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_container_restart_period: Option<GoDuration>,
}

/// The hard eviction thresholds of a node that names none.
const EVICTION_HARD: [(&str, &str); 5] = [
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
];

impl KubeletConfiguration {
    /// Fills in every default that does not depend on the machine. Go's "no value" (0, an empty text, no time) counts as
    /// absent where the Kubernetes type cannot tell the two apart.
    pub(super) fn with_defaults(mut self) -> Self {
        self.kind = Some(KIND.to_owned());
        self.api_version = Some(API_VERSION.to_owned());
        self.enable_server.get_or_insert(true);
        time(&mut self.sync_frequency, 60);
        time(&mut self.file_check_frequency, 20);
        time(&mut self.http_check_frequency, 20);
        text(&mut self.address, "0.0.0.0");
        number(&mut self.port, 10250);
        self.read_only_port.get_or_insert(0);
        let authentication = self.authentication.get_or_insert_default();
        authentication.anonymous.enabled.get_or_insert(false);
        authentication.webhook.enabled.get_or_insert(true);
        time(&mut authentication.webhook.cache_ttl, 120);
        let authorization = self.authorization.get_or_insert_default();
        text(&mut authorization.mode, "Webhook");
        time(&mut authorization.webhook.cache_authorized_ttl, 300);
        time(&mut authorization.webhook.cache_unauthorized_ttl, 30);
        self.registry_pull_qps.get_or_insert(5);
        number(&mut self.registry_burst, 10);
        text(&mut self.image_pull_credentials_verification_policy, "NeverVerifyPreloadedImages");
        self.serialize_image_pulls.get_or_insert(self.max_parallel_image_pulls.is_none_or(|most| most < 2));
        self.event_record_qps.get_or_insert(50);
        number(&mut self.event_burst, 100);
        self.enable_debugging_handlers.get_or_insert(true);
        self.healthz_port.get_or_insert(10248);
        text(&mut self.healthz_bind_address, "127.0.0.1");
        if self.node_status_report_frequency.is_none_or(GoDuration::is_zero) {
            // A node that reports at a pace of its own choosing reports each time; the kubelet keeps this from the days
            // when the two were one setting.
            let chosen = self.node_status_update_frequency.filter(|chosen| !chosen.is_zero());
            self.node_status_report_frequency = Some(chosen.unwrap_or(GoDuration::seconds(300)));
        }
        time(&mut self.node_status_update_frequency, 10);
        number(&mut self.node_lease_duration_seconds, 40);
        time(&mut self.runtime_request_timeout, 120);
        number(&mut self.max_pods, 110);
        self.resolv_conf.get_or_insert_with(|| "/etc/resolv.conf".to_owned());
        self.node_status_max_images.get_or_insert(50);
        time(&mut self.image_minimum_gc_age, 120);
        self.image_maximum_gc_age.get_or_insert(GoDuration::seconds(0));
        // 0 is a threshold like any other: only one that is absent has a default.
        self.image_gc_high_threshold_percent.get_or_insert(85);
        self.image_gc_low_threshold_percent.get_or_insert(80);
        self.merge_default_eviction_settings.get_or_insert(false);
        let defaults = EVICTION_HARD.map(|(signal, threshold)| (signal.to_owned(), threshold.to_owned()));
        self.eviction_hard = Some(match (self.eviction_hard.take(), self.merge_default_eviction_settings) {
            (None, _) => defaults.into(),
            (Some(chosen), Some(true)) => defaults.into_iter().chain(chosen).collect(),
            (Some(chosen), _) => chosen,
        });
        let logging = self.logging.get_or_insert_default();
        text(&mut logging.format, "text");
        logging.verbosity.get_or_insert(0);
        time(&mut self.crash_loop_back_off.get_or_insert_default().max_container_restart_period, 300);
        self.register_node.get_or_insert(true);
        self.container_runtime_endpoint.get_or_insert_default();
        self
    }
}

fn time(field: &mut Option<GoDuration>, seconds: u64) {
    if field.is_none_or(GoDuration::is_zero) {
        *field = Some(GoDuration::seconds(seconds));
    }
}

fn text(field: &mut Option<String>, default: &str) {
    if field.as_ref().is_none_or(String::is_empty) {
        *field = Some(default.to_owned());
    }
}

fn number<N: Copy + Default + PartialEq>(field: &mut Option<N>, default: N) {
    if field.is_none_or(|value| value == N::default()) {
        *field = Some(default);
    }
}
