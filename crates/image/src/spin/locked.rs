//! The JSON of a locked application, as Spin writes it. Values only; what they mean is decided above.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;

/// All that is read of an application that is only kept.
#[derive(Deserialize)]
pub(super) struct Head {
    pub(super) spin_lock_version: u64,
    #[serde(default)]
    pub(super) metadata: Metadata,
}

#[derive(Deserialize)]
pub(super) struct App {
    pub(super) spin_lock_version: u64,
    #[serde(default)]
    pub(super) must_understand: Vec<String>,
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) host_requirements: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) variables: BTreeMap<String, Variable>,
    pub(super) triggers: Vec<Trigger>,
    pub(super) components: Vec<Component>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) triggers: Triggers,
    /// The older place of the same.
    pub(super) trigger: HttpMetadata,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Triggers {
    pub(super) http: HttpMetadata,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct HttpMetadata {
    pub(super) base: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Variable {
    pub(super) default: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Trigger {
    pub(super) id: String,
    pub(super) trigger_type: String,
    pub(super) trigger_config: Value,
    #[serde(default)]
    pub(super) trigger_dependencies: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
pub(super) struct HttpTrigger {
    pub(super) component: Option<String>,
    pub(super) static_response: Option<StaticResponse>,
    pub(super) route: Route,
    pub(super) executor: Option<Executor>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Route {
    Path(String),
    Private { private: bool },
}

#[derive(Deserialize)]
pub(super) struct Executor {
    #[serde(rename = "type")]
    pub(super) kind: String,
}

#[derive(Deserialize)]
pub(super) struct StaticResponse {
    #[serde(default = "ok")]
    pub(super) status_code: u16,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) body: String,
}

fn ok() -> u16 {
    200
}

#[derive(Deserialize)]
pub(super) struct Component {
    pub(super) id: String,
    #[serde(default)]
    pub(super) metadata: ComponentMetadata,
    pub(super) source: Content,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) files: Vec<File>,
    #[serde(default)]
    pub(super) config: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) trigger_dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) host_requirements: BTreeMap<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct ComponentMetadata {
    pub(super) allowed_outbound_hosts: Vec<String>,
    pub(super) key_value_stores: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct File {
    pub(super) path: PathBuf,
    #[serde(flatten)]
    pub(super) content: Content,
}

#[derive(Deserialize)]
pub(super) struct Content {
    /// In base64.
    pub(super) inline: Option<String>,
    pub(super) digest: Option<Digest>,
}
