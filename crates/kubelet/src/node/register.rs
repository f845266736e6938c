//! The node's first appearance.
//!
//! In comes what the node is, out goes the object the API server has for it: a new one, or the old one with its own labels
//! brought up to date. Taints of an old node are left alone, for a kubelet may not change them.

use std::time::Duration;

use decide::node::Input;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use tracing::{info, warn};

use super::CALL_TIMEOUT;
use crate::{
    api::{CallError, within},
    clock::Clock,
};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(7);

/// A node to be registered.
pub(super) struct Registration<'a> {
    pub(super) nodes: &'a Api<Node>,
    pub(super) input: &'a Input,
    pub(super) clock: Clock,
}

impl Registration<'_> {
    /// Tries until it works, with a growing, jittered pause.
    pub(super) async fn until_done(&self) -> Node {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.once().await {
                Ok(node) => return node,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(node = self.input.name, error, "registering the node; trying again in {pause:?}");
                }
            }
            tokio::time::sleep(pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn once(&self) -> Result<Node, CallError> {
        let node = decide::node::desired_node(self.input, self.clock.now());
        match within(CALL_TIMEOUT, self.nodes.create(&PostParams::default(), &node)).await {
            Ok(created) => {
                info!(node = self.input.name, "the node is registered");
                return Ok(created);
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        let existing = within(CALL_TIMEOUT, self.nodes.get(&self.input.name)).await?;
        info!(node = self.input.name, "the node was registered before");
        match decide::node::metadata_patch(self.input, &existing) {
            None => Ok(existing),
            Some(patch) => {
                let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
                within(CALL_TIMEOUT, self.nodes.patch(&self.input.name, &parameters, &patch)).await
            }
        }
    }
}
