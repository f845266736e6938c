//! The kubelet's own HTTPS API, asked directly.
//!
//! Comes in: who asks, and a path. Goes out: status and body. Never here: trust in its certificate, which it signs itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use testbed::cluster::Cluster;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The cluster's administrator, by a client certificate.
    Administrator,
    /// Somebody with this bearer token.
    Bearer(String),
    /// Nobody.
    Anonymous,
}

/// A way to one node's API.
pub(crate) struct KubeletApi {
    client: Client,
}

/// What it said.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The status code.
    pub(crate) status: u16,
    /// The body, as text.
    pub(crate) body: String,
}

impl Reply {
    /// The body where the status is 200.
    pub(crate) fn succeeded(self) -> Result<String> {
        if self.status == 200 { Ok(self.body) } else { bail!("status {}: {}", self.status, self.body) }
    }
}

impl KubeletApi {
    pub(super) async fn of(cluster: &Cluster, address: IpAddr, port: u16, caller: Caller) -> Result<Self> {
        let kubeconfig =
            Kubeconfig::read_from(cluster.kubeconfig()).context("reading the administrator's kubeconfig")?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.cluster_url = format!("https://{}", SocketAddr::new(address, port)).parse()?;
        config.accept_invalid_certs = true;
        config.default_retry = false;
        match caller {
            Caller::Administrator => {}
            Caller::Bearer(token) => {
                config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
            }
            Caller::Anonymous => config.auth_info = AuthInfo::default(),
        }
        let client = Client::try_from(config).context("making a client of the kubelet's API")?;
        Ok(Self { client })
    }

    /// `GET path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Reply> {
        let request = hyper::Request::get(path).body(Body::empty())?;
        let exchange = async {
            let response = self.client.send(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, kube::Error>(Reply { status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        let reply = tokio::time::timeout(ANSWER_WITHIN, exchange).await;
        reply.with_context(|| format!("{path}: no answer in {ANSWER_WITHIN:?}"))?.with_context(|| path.to_owned())
    }
}
