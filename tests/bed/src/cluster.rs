//! A cluster as a test speaks of it: its administrator's client, kubectl, namespaces of the test's own.
//!
//! Comes in: a control plane of ours, or the kubeconfig of any other cluster. Goes out: verbs that wait for what
//! they promise, and errors that show the state of what was waited for. Never here: fixed sleeps, or anything of
//! wasklet's.

mod kubectl;
mod namespace;
mod node_access;
mod waiting;

use std::ffi::OsStr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{Api, Client};
use tempfile::TempDir;
use tokio::sync::OnceCell;

pub use self::kubectl::{Kubectl, Output};
pub use self::namespace::Namespace;
pub use self::waiting::{PATIENCE, await_object, has_condition};

use crate::control_plane::{self, ControlPlane, Options};

/// One control plane serves all tests of a process that do not stop it.
static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();

/// A cluster and its administrator's means to use it. Made anew by every test: its client belongs to the test's
/// own runtime.
pub struct Cluster {
    client: Client,
    kubectl: Kubectl,
    kubeconfig: PathBuf,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Shared(&'static ControlPlane),
    Own(Box<ControlPlane>),
    /// Somebody else's; the directory is for credentials that the cluster issued to us.
    Existing(TempDir),
}

impl Cluster {
    /// The cluster that tests run against: the one named in `WASKLET_TEST_KUBECONFIG`, else a control plane that
    /// all tests of this process share.
    ///
    /// # Errors
    /// If the control plane does not start or the kubeconfig cannot be read.
    pub async fn for_tests() -> Result<Cluster> {
        match control_plane::existing() {
            Some(kubeconfig) => Cluster::connect(&kubeconfig).await,
            None => {
                let shared = SHARED.get_or_try_init(|| ControlPlane::start(Options::default())).await?;
                Cluster::new(shared.kubeconfig(), Origin::Shared(shared)).await
            }
        }
    }

    /// A cluster of this test alone, which may stop its parts. Never an existing one.
    ///
    /// # Errors
    /// If the control plane does not start.
    pub async fn alone(options: Options) -> Result<Cluster> {
        let own = Box::new(ControlPlane::start(options).await?);
        let kubeconfig = own.kubeconfig().to_path_buf();
        Cluster::new(&kubeconfig, Origin::Own(own)).await
    }

    /// The cluster of this kubeconfig, whoever runs it. Its user must be an administrator.
    ///
    /// # Errors
    /// If the kubeconfig cannot be read.
    pub async fn connect(kubeconfig: &Path) -> Result<Cluster> {
        let dir = tempfile::tempdir().context("creating a directory for credentials")?;
        Cluster::new(kubeconfig, Origin::Existing(dir)).await
    }

    async fn new(kubeconfig: &Path, origin: Origin) -> Result<Cluster> {
        let config = control_plane::client_config(kubeconfig).await?;
        let client = Client::try_from(config).context("making a client")?;
        let dir = match &origin {
            Origin::Shared(ours) => ours.dir(),
            Origin::Own(ours) => ours.dir(),
            Origin::Existing(dir) => dir.path(),
        };
        let program = tokio::task::spawn_blocking(control_plane::kubectl).await.context("building kubectl")??;
        let kubectl = Kubectl::new(program, kubeconfig, &dir.join("kubectl-cache"));
        Ok(Cluster { client, kubectl, kubeconfig: kubeconfig.to_path_buf(), origin })
    }

    /// The administrator's client, of the runtime that this value was made on.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The control plane, where it is ours: only then can its parts be stopped.
    pub fn control_plane(&self) -> Option<&ControlPlane> {
        match &self.origin {
            Origin::Shared(ours) => Some(ours),
            Origin::Own(ours) => Some(ours),
            Origin::Existing(_) => None,
        }
    }

    /// A kubeconfig for the node of this name, with a node's rights only: from our own authority, or from an
    /// existing cluster by a certificate signing request.
    ///
    /// # Errors
    /// If the cluster issues no certificate in time.
    pub async fn node_kubeconfig(&self, name: &str) -> Result<PathBuf> {
        match &self.origin {
            Origin::Shared(ours) => ours.node_kubeconfig(name),
            Origin::Own(ours) => ours.node_kubeconfig(name),
            Origin::Existing(dir) => node_access::request(&self.client, &self.kubeconfig, dir.path(), name).await,
        }
    }

    /// The authority whose certificates a kubelet of this cluster accepts (its `clientCAFile`).
    ///
    /// # Errors
    /// If an existing cluster does not publish it.
    pub async fn client_ca(&self) -> Result<PathBuf> {
        let Origin::Existing(dir) = &self.origin else {
            return self.control_plane().map(|ours| ours.client_ca().to_path_buf()).context("no control plane");
        };
        let name = "extension-apiserver-authentication";
        let published = Api::<ConfigMap>::namespaced(self.client(), "kube-system")
            .get(name)
            .await
            .with_context(|| format!("getting configmap kube-system/{name}"))?;
        let pem = published
            .data
            .and_then(|mut data| data.remove("client-ca-file"))
            .with_context(|| format!("configmap kube-system/{name} names no client-ca-file"))?;
        let path = dir.path().join("client-ca.crt");
        tokio::fs::write(&path, pem).await.with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Runs kubectl with these arguments, as the administrator.
    ///
    /// # Errors
    /// If it does not end in time. An exit code other than 0 is no error here.
    pub async fn kubectl(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Output> {
        self.kubectl.run(arguments, "").await
    }

    /// Waits until the node is there and the condition holds, and returns it.
    ///
    /// # Errors
    /// If that does not come true in [`PATIENCE`]; the error shows the node and its events.
    pub async fn await_node(&self, name: &str, holds: impl Fn(&Node) -> bool) -> Result<Node> {
        let nodes: Api<Node> = Api::all(self.client());
        let found = await_object(&nodes, &self.kubectl, name, PATIENCE, |node| node.is_some_and(&holds)).await?;
        found.with_context(|| format!("node {name} is gone"))
    }

    /// Runs the test in a namespace of its own, which is deleted however the test ends.
    ///
    /// # Errors
    /// The test's own error, or that its pods did not go away.
    pub async fn with_namespace<T>(&self, test: impl AsyncFnOnce(&Namespace) -> Result<T>) -> Result<T> {
        let namespace = Namespace::create(&self.client, &self.kubectl).await?;
        let outcome = AssertUnwindSafe(test(&namespace)).catch_unwind().await;
        let deleted = namespace.delete(matches!(outcome, Ok(Ok(_)))).await;
        match outcome {
            Ok(Ok(value)) => deleted.map(|()| value),
            // What went wrong in the test matters more than what went wrong after it.
            Ok(Err(error)) => Err(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
