//! The node's lease: the sign of life that costs the API server least.
//!
//! In comes the Node object, which owns the lease, out go renewals, four in the time one holds. A renewal that fails is
//! tried again sooner, with jitter. Never here: the node's status.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::{self, LeaseSpec},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{Api, api::PostParams};
use tokio::{sync::watch, time};
use tracing::{debug, warn};

use crate::{
    api::{CallError, within},
    clock::Clock,
};

const NAMESPACE: &str = "kube-node-lease";
const RETRY: Duration = Duration::from_secs(2);

/// What the lease is made of.
pub(super) struct Lease {
    pub(super) client: kube::Client,
    pub(super) node_name: String,
    /// How long one renewal holds.
    pub(super) duration: Duration,
    pub(super) object: watch::Receiver<Option<Arc<Node>>>,
    pub(super) clock: Clock,
}

impl Lease {
    /// Renews the lease from the moment the node is registered.
    pub(super) async fn keep(mut self) {
        let leases: Api<v1::Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let interval = (self.duration / 4).max(Duration::from_millis(100));
        let mut known = None;
        loop {
            let node = match self.object.wait_for(Option::is_some).await {
                Ok(node) => node.clone(),
                Err(_) => return,
            };
            let renewed = self.renew(&leases, known.take(), node.as_deref(), interval).await;
            let pause = match renewed {
                Ok(lease) => {
                    known = Some(lease);
                    interval
                }
                Err(error) => {
                    if error.is_conflict() {
                        debug!("the node's lease was changed meanwhile; reading it again");
                    } else {
                        let error = &error as &dyn std::error::Error;
                        warn!(error, "renewing the node's lease; trying again");
                    }
                    RETRY.min(interval)
                }
            };
            time::sleep(pause.mul_f64(0.96 + rand::random::<f64>() * 0.08)).await;
        }
    }

    /// One renewal, of the lease as it was last seen.
    async fn renew(
        &self,
        leases: &Api<v1::Lease>,
        known: Option<v1::Lease>,
        node: Option<&Node>,
        limit: Duration,
    ) -> Result<v1::Lease, CallError> {
        let known = match known {
            Some(known) => Some(known),
            None => within(limit, leases.get_opt(&self.node_name)).await?,
        };
        let is_new = known.is_none();
        let next = self.next(known, node);
        let parameters = PostParams::default();
        if is_new {
            within(limit, leases.create(&parameters, &next)).await
        } else {
            within(limit, leases.replace(&self.node_name, &parameters, &next)).await
        }
    }

    fn next(&self, known: Option<v1::Lease>, node: Option<&Node>) -> v1::Lease {
        let mut lease = known.unwrap_or_else(|| v1::Lease {
            metadata: ObjectMeta {
                name: Some(self.node_name.clone()),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        if let Some(uid) = node.and_then(|node| node.metadata.uid.clone()) {
            lease.metadata.owner_references = Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: self.node_name.clone(),
                uid,
                ..OwnerReference::default()
            }]);
        }
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.node_name.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            renew_time: Some(MicroTime(self.clock.now())),
            ..lease.spec.unwrap_or_default()
        });
        lease
    }
}
