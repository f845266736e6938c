//! The way to the API server.
//!
//! In comes a kubeconfig file, out goes a client whose connections cannot hang; [`within`] bounds each call made with it.
//! Never here: a retry of a call that changes something.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderValue, header::USER_AGENT};
use kube::config::{KubeConfigOptions, Kubeconfig};

pub use kube::Client;

/// How long the API server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one write to it may stand still.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the API server sees us as.
const AGENT: &str = concat!("wasklet/", env!("CARGO_PKG_VERSION"));

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ApiError {
    #[error("{}: the kubeconfig cannot be read", path.display())]
    Read { path: PathBuf, source: Box<kube::config::KubeconfigError> },
    #[error("{}: no client can be made of the kubeconfig", path.display())]
    Client { path: PathBuf, source: Box<kube::Error> },
}

/// Why a call of the API server came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server, or the way to it, said no.
    #[error("the API server refused")]
    Api(#[source] kube::Error),
    /// Nothing came back in this time.
    #[error("no answer of the API server for {0:?}")]
    Timeout(Duration),
}

impl CallError {
    /// The HTTP status of the API server's answer; `None` where there was none.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// The API server does not know the object.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object is there already, or was changed meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}

/// A client of the API server that the kubeconfig names. Nothing is sent yet.
///
/// # Errors
/// The file cannot be read, or says something no client can be made of.
pub async fn connect(kubeconfig: &Path) -> Result<kube::Client, ApiError> {
    // The first to ask decides for the process; whoever was before chose one that will do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let unreadable = |source| ApiError::Read { path: kubeconfig.to_owned(), source: Box::new(source) };
    let file = Kubeconfig::read_from(kubeconfig).map_err(unreadable)?;
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(file, &options).await.map_err(unreadable)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    // Watches are quiet for minutes and guard themselves; everything else goes through `within`.
    config.read_timeout = None;
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    kube::Client::try_from(config)
        .map_err(|source| ApiError::Client { path: kubeconfig.to_owned(), source: Box::new(source) })
}

/// One call that may take `limit`.
///
/// # Errors
/// The call failed, or took longer.
pub async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(outcome) => outcome.map_err(CallError::Api),
        Err(_) => Err(CallError::Timeout(limit)),
    }
}
