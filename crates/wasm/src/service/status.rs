//! What the runtime is, whether it is ready, and the one thing of it that can be changed: the podCIDR.

use std::collections::BTreeMap;

use cri::names::PODS_AT_MOST;
use cri::v1;

use crate::runtime::Core;
use crate::sandbox::spec::HANDLERS;
use crate::service::error::ServiceError;
use crate::walls::Walls;

/// Of the kubelet's side of CRI, which has been this since the beginning.
const KUBELET_API_VERSION: &str = "0.1.0";
const NAME: &str = "wasklet";
/// What the kubelet shows for a node whose network is not set up.
const NETWORK_NOT_READY: &str = "NetworkPluginNotReady";

pub(super) fn version() -> v1::VersionResponse {
    v1::VersionResponse {
        version: KUBELET_API_VERSION.to_owned(),
        runtime_name: NAME.to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

impl Core {
    pub(super) fn status(&self, verbose: bool) -> v1::StatusResponse {
        let condition = |name: &str, readiness: Result<(), String>, reason: &str| v1::RuntimeCondition {
            r#type: name.to_owned(),
            status: readiness.is_ok(),
            reason: if readiness.is_ok() { String::new() } else { reason.to_owned() },
            message: readiness.err().unwrap_or_default(),
        };
        let running = if self.closing.is_cancelled() { Err("shutting down".to_owned()) } else { Ok(()) };
        let conditions = vec![
            condition("RuntimeReady", running, "ShuttingDown"),
            condition("NetworkReady", self.network.readiness(), NETWORK_NOT_READY),
        ];
        let handler = |name: &str| v1::RuntimeHandler {
            name: name.to_owned(),
            // What is mounted read-only is so all the way down: the guest has no other way in.
            features: Some(v1::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false }),
        };
        let mut info = BTreeMap::new();
        if verbose {
            info.insert("compilations".to_owned(), self.engines.compilations().to_string());
            info.insert("pooledHttp".to_owned(), self.engines.is_pooled().to_string());
            info.insert(PODS_AT_MOST.to_owned(), Walls::now().pods(self.engines.is_pooled()).to_string());
            info.insert("nodeAddress".to_owned(), self.network.node().to_string());
        }
        v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions }),
            info,
            runtime_handlers: HANDLERS.map(handler).into(),
            features: None,
        }
    }

    pub(super) async fn update_runtime_config(
        &self,
        request: v1::UpdateRuntimeConfigRequest,
    ) -> Result<(), ServiceError> {
        let network = request.runtime_config.and_then(|config| config.network_config).unwrap_or_default();
        Ok(self.network.set_pod_cidr(&network.pod_cidr).await?)
    }
}
