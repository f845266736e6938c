//! A namespace of one test: what it applies there, what it waits for there.
//!
//! Comes in: manifests, kubectl arguments, conditions. Goes out: objects as they became. Never here: anything
//! outside the namespace.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::kubectl::{Kubectl, Output};
use super::waiting::{PATIENCE, await_object, has_condition};

/// A pod's usual grace is 30 s.
const PODS_END_WITHIN: Duration = Duration::from_secs(60);

/// A namespace that exists while the test runs.
pub struct Namespace {
    name: String,
    client: Client,
    kubectl: Kubectl,
}

impl Namespace {
    pub(super) async fn create(client: &Client, kubectl: &Kubectl) -> Result<Namespace> {
        let wanted = NamespaceObject {
            metadata: ObjectMeta { generate_name: Some("wasklet-test-".into()), ..ObjectMeta::default() },
            ..NamespaceObject::default()
        };
        let created = Api::<NamespaceObject>::all(client.clone())
            .create(&PostParams::default(), &wanted)
            .await
            .context("creating a namespace")?;
        let name = created.name_any();
        let namespace = Namespace { kubectl: kubectl.in_namespace(&name), name, client: client.clone() };
        // Without it the API server refuses every pod.
        namespace.await_object::<ServiceAccount>("default", PATIENCE, |account| account.is_some()).await?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Objects of this type in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// `kubectl apply` of these manifests, one or several documents.
    ///
    /// # Errors
    /// If kubectl refuses them; the error shows what it said.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl.run(&["apply", "--filename=-"], manifests).await?.succeeded().map(drop)
    }

    /// Runs kubectl in this namespace, as the administrator.
    ///
    /// # Errors
    /// If it does not end in time. An exit code other than 0 is no error here: see [`Output::succeeded`].
    pub async fn kubectl(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Output> {
        self.kubectl.run(arguments, "").await
    }

    /// kubectl of this namespace, for a standard input or a run that the test talks to.
    pub fn kubectl_itself(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Waits until the pod is there and the condition holds, and returns it.
    ///
    /// # Errors
    /// If that does not come true in time; the error shows the pod and its events.
    pub async fn await_pod(&self, name: &str, within: Duration, holds: impl Fn(&Pod) -> bool) -> Result<Pod> {
        self.await_object::<Pod>(name, within, |pod| pod.is_some_and(&holds))
            .await?
            .with_context(|| format!("pod {name} is gone"))
    }

    /// Waits until the pod's condition of this type (`Ready`, `PodScheduled`, …) is true.
    ///
    /// # Errors
    /// If that does not come true in [`PATIENCE`]; the error shows the pod and its events.
    pub async fn await_condition(&self, pod: &str, condition: &str) -> Result<Pod> {
        let outcome = self.await_pod(pod, PATIENCE, |pod| has_condition(pod, condition)).await;
        outcome.with_context(|| format!("waiting for pod {pod} to be {condition}"))
    }

    /// Waits until the pod is in this phase.
    ///
    /// # Errors
    /// If that does not come true in [`PATIENCE`]; the error shows the pod and its events.
    pub async fn await_phase(&self, pod: &str, phase: &str) -> Result<Pod> {
        let in_phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase);
        let outcome = self.await_pod(pod, PATIENCE, in_phase).await;
        outcome.with_context(|| format!("waiting for pod {pod} to be {phase}"))
    }

    /// Waits until there is no pod of this name.
    ///
    /// # Errors
    /// If it is still there after [`PATIENCE`]; the error shows the pod and its events.
    pub async fn await_gone(&self, pod: &str) -> Result<()> {
        let outcome = self.await_object::<Pod>(pod, PATIENCE, |pod| pod.is_none()).await;
        outcome.with_context(|| format!("waiting for pod {pod} to be gone")).map(drop)
    }

    /// Waits until the condition holds of an object of any type, `None` while there is none.
    ///
    /// # Errors
    /// If that does not come true in time; the error shows the object and its events.
    pub async fn await_object<K>(
        &self,
        name: &str,
        within: Duration,
        holds: impl Fn(Option<&K>) -> bool,
    ) -> Result<Option<K>>
    where
        K: Clone + Debug + DeserializeOwned + Send + 'static,
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        await_object(&self.api::<K>(), &self.kubectl, name, within, holds).await
    }

    /// Deletes the namespace, and waits until its pods are gone: a node that finishes no deletion fails the test.
    /// After a test that failed anyway, pods are not waited for but forced out.
    pub(super) async fn delete(self, test_passed: bool) -> Result<()> {
        Api::<NamespaceObject>::all(self.client.clone())
            .delete(&self.name, &DeleteParams::default())
            .await
            .with_context(|| format!("deleting namespace {}", self.name))?;
        // The namespace controller would delete the pods too, but waits 5 s first.
        let pods: Api<Pod> = self.api();
        let grace = if test_passed { DeleteParams::default() } else { DeleteParams::default().grace_period(0) };
        pods.delete_collection(&grace, &ListParams::default())
            .await
            .with_context(|| format!("deleting the pods of namespace {}", self.name))?;
        if tokio::time::timeout(PODS_END_WITHIN, no_pods(&pods)).await.is_ok() {
            return Ok(());
        }
        let left = self.kubectl(&["get", "pods", "--output=wide"]).await?.stdout;
        pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default())
            .await
            .with_context(|| format!("deleting the pods of namespace {} by force", self.name))?;
        bail!("{PODS_END_WITHIN:?} after their deletion, pods of namespace {} were still there:\n{left}", self.name)
    }
}

/// Ends once a watch has seen the last pod go.
async fn no_pods(pods: &Api<Pod>) {
    let mut present = BTreeSet::new();
    let mut listed = false;
    let mut events = pin!(watcher(pods.clone(), watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                present.clear();
                listed = false;
            }
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
                present.insert(pod.name_any());
            }
            Ok(Event::InitDone) => listed = true,
            Ok(Event::Delete(pod)) => {
                present.remove(&pod.name_any());
            }
            // The watcher lists again by itself.
            Err(_) => {}
        }
        if listed && present.is_empty() {
            return;
        }
    }
}
