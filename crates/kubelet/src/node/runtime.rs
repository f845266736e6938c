//! The runtime as the node reports it.
//!
//! In come CRI's Version, Status and ListImages, out goes [`decide::node::Runtime`]. The pods' address range is handed to
//! the runtime here, again after each loss of it, for a runtime that started anew has forgotten it.

use decide::node::{Image, Runtime, RuntimeAnswer, RuntimeCondition};
use tracing::{info, warn};

/// The runtime, and what it was told.
pub(super) struct RuntimeView {
    client: cri::Client,
    told_cidr: Option<String>,
}

impl RuntimeView {
    pub(super) fn new(client: cri::Client) -> Self {
        Self { client, told_cidr: None }
    }

    /// Asks the runtime how it is, having told it the pods' address range.
    pub(super) async fn look(&mut self, pod_cidr: Option<&str>) -> Runtime {
        if let Some(cidr) = pod_cidr
            && self.told_cidr.as_deref() != Some(cidr)
        {
            match self.client.update_runtime_config(cidr).await {
                Ok(()) => {
                    info!(pod_cidr = cidr, "the runtime has the pods' address range");
                    self.told_cidr = Some(cidr.to_owned());
                }
                Err(error) => warn!(pod_cidr = cidr, "{error}: {}; trying again", error.message()),
            }
        }
        match self.ask().await {
            Ok(answer) => Runtime::Answered(answer),
            Err(error) => {
                self.told_cidr = None;
                Runtime::Unreachable { message: format!("{error}: {}", error.message()) }
            }
        }
    }

    async fn ask(&self) -> Result<RuntimeAnswer, cri::CallError> {
        let (version, status, images) =
            tokio::try_join!(self.client.version(), self.client.status(true), self.client.list_images(None))?;
        let conditions = status.status.map(|status| status.conditions).unwrap_or_default();
        let conditions = conditions.into_iter().map(|condition| RuntimeCondition {
            kind: condition.r#type,
            holds: condition.status,
            reason: condition.reason,
            message: condition.message,
        });
        let images = images.into_iter().map(|image| Image {
            names: image.repo_digests.into_iter().chain(image.repo_tags).collect(),
            size_bytes: image.size,
        });
        // A runtime of another kind says nothing of it.
        let pods_at_most = status.info.get(cri::names::PODS_AT_MOST).and_then(|pods| pods.parse().ok());
        Ok(RuntimeAnswer {
            pods_at_most,
            name: version.runtime_name,
            version: version.runtime_version,
            conditions: conditions.collect(),
            handlers: status.runtime_handlers.into_iter().map(|handler| handler.name).collect(),
            images: images.collect(),
        })
    }
}
