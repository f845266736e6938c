//! The kubelet's HTTP API, on port 10250 over TLS, and the plain `/healthz` on 10248.
//!
//! In come connections, out go answers made of the two tables, which are read through [`Pods`]. Every request proves who
//! it is from ([`authenticate`]) and is judged ([`authorize`]) before it is looked at; without a way to do both, the port
//! is not opened. Never here: an answer to nobody, or a change of a pod.

mod authenticate;
mod authorize;
mod cache;
mod healthz;
mod listen;
mod logs;
mod pods;
mod routes;
mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::{
    healthz::serve_healthz,
    pods::{LogError, Pods, container_with_log},
};
use crate::{
    certificates::{self, CertificateError},
    config::{Authorization, Config},
    metrics::Metrics,
};

/// How often the certificate and the client CA are looked at again, the kubelet's number.
pub const RELOAD_EVERY: Duration = Duration::from_secs(60);

/// What the server is made of.
pub struct Setup {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// The API server, which is asked about tokens and permissions.
    pub api: Option<kube::Client>,
    /// The pods.
    pub pods: Arc<dyn Pods>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The node's addresses, for a certificate of our own making.
    pub addresses: Vec<IpAddr>,
    /// How often the certificate and the client CA are looked at again: [`RELOAD_EVERY`].
    pub reload_every: Duration,
}

/// Why the port is not opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ServerError {
    #[error(
        "port {port} stays closed: nobody could prove who they are; name a client CA (authentication.x509.clientCAFile, \
         --client-ca-file), or an API server to ask about tokens (--kubeconfig)"
    )]
    NoAuthentication { port: u16 },
    #[error(
        "port {port} stays closed: there is no API server to ask what clients may do; name one (--kubeconfig), or let \
         whoever has a certificate do everything (--authorization-mode=AlwaysAllow)"
    )]
    NoAuthorization { port: u16 },
    #[error("port {port} stays closed: no certificate")]
    Certificate { port: u16, source: CertificateError },
    #[error("port {port} stays closed: TLS cannot be set up")]
    Tls { port: u16, source: rustls::Error },
    #[error("port {port} stays closed: the client CAs cannot be used")]
    ClientCa { port: u16, source: rustls::server::VerifierBuilderError },
    #[error("{address} cannot be listened on")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// The server at work. Dropping it ends it at once; [`Server::stop`] lets requests finish.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Opens the port.
///
/// # Errors
/// There is no safe way to open it, or none at all; the message says what to do.
pub async fn start(setup: Setup) -> Result<Server, ServerError> {
    let options = &setup.config.server;
    let port = options.address.port();
    let tokens = options.token_webhook.zip(setup.api.clone());
    if tokens.is_none() && options.client_ca_file.is_none() {
        return Err(ServerError::NoAuthentication { port });
    }
    let authorizer = match (options.authorization, &setup.api) {
        (Authorization::AlwaysAllow, _) => authorize::Authorizer::AlwaysAllow,
        (Authorization::Webhook { allowed_for, denied_for }, Some(client)) => {
            authorize::Authorizer::webhook(client.clone(), allowed_for, denied_for)
        }
        (Authorization::Webhook { .. }, None) => return Err(ServerError::NoAuthorization { port }),
    };
    let serving = certificates::serving(
        options,
        &setup.config.cert_dir,
        &setup.config.node_name,
        &setup.addresses,
        Timestamp::now(),
    )
    .map_err(|source| ServerError::Certificate { port, source })?;
    let tls = tls::Tls::new(options, serving)?;
    let listener = TcpListener::bind(options.address)
        .await
        .map_err(|source| ServerError::Listen { address: options.address, source })?;
    let address = listener.local_addr().map_err(|source| ServerError::Listen { address: options.address, source })?;
    let router = routes::router(routes::Shared {
        authenticator: authenticate::Authenticator::new(tokens),
        authorizer,
        config: Arc::clone(&setup.config),
        pods: setup.pods,
        metrics: setup.metrics,
    });
    info!(%address, "serving the kubelet's API");
    let stop = CancellationToken::new();
    let task = tokio::spawn(listen::serve(listener, tls, router, setup.reload_every, stop.clone()));
    Ok(Server { address, stop, task })
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, and waits a few seconds for those under way.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // It ends by itself within its own limit; a panic in it was reported where it happened.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests;
