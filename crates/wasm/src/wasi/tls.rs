//! TLS of guests: a server's name and a stream come in, a stream that only that server can read goes out.
//!
//! The node's trusted roots vouch for servers, for outgoing HTTP and for `wasi:tls` alike; a guest cannot add to them, and
//! brings the stream along, which was connected as the pod may. Never here: a server's side.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmtime::component::Linker;
use wasmtime_wasi::WasiView;
use wasmtime_wasi_tls::{TlsProvider, TlsTransport, WasiTlsCtx, WasiTlsCtxBuilder, WasiTlsCtxView, WasiTlsView};

use super::Host;

/// Why there is no secured stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// No server can be called so.
    #[error("{0:?} is not a server's name")]
    Name(String),
    /// The node trusts nobody.
    #[error("this node trusts no certificate authority: {0}")]
    NoRoots(String),
    /// The two sides do not come together.
    #[error(transparent)]
    Handshake(io::Error),
}

/// A client's side of a stream to the server of this name.
pub(super) async fn secured<S>(name: &str, stream: S) -> Result<TlsStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    static TRUST: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();
    let trust = TRUST.get_or_try_init(trusted_roots).await?;
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let server = ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
    TlsConnector::from(Arc::clone(trust)).connect(server, stream).await.map_err(TlsError::Handshake)
}

/// The roots this node trusts, read from its files once.
async fn trusted_roots() -> Result<Arc<ClientConfig>, TlsError> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let found = found.map_err(|error| TlsError::NoRoots(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(TlsError::NoRoots(format!("{:?}", found.errors)));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| TlsError::NoRoots(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// What a store needs for it.
pub(super) fn context() -> WasiTlsCtx {
    WasiTlsCtxBuilder::new().provider(Box::new(Provider)).build()
}

/// Gives components `wasi:tls` 0.2.0-draft.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut options = wasmtime_wasi_tls::p2::LinkOptions::default();
    options.tls(true);
    wasmtime_wasi_tls::p2::add_to_linker(linker, &options)
}

/// Gives components `wasi:tls` 0.3.0-draft.
pub(super) fn add_concurrent_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasmtime_wasi_tls::p3::add_to_linker(linker)
}

impl WasiTlsView for Host {
    fn tls(&mut self) -> WasiTlsCtxView<'_> {
        WasiTlsCtxView { table: self.wasi.ctx().table, ctx: &mut self.tls }
    }
}

struct Provider;

type Connected = Result<Box<dyn wasmtime_wasi_tls::TlsStream>, wasmtime_wasi_tls::Error>;

impl TlsProvider for Provider {
    fn connect(&self, name: String, transport: Box<dyn TlsTransport>) -> BoxFuture<'static, Connected> {
        Box::pin(async move {
            let stream = secured(&name, transport).await.map_err(wasmtime_wasi_tls::Error::msg)?;
            Ok(Box::new(Secured(stream)) as Box<dyn wasmtime_wasi_tls::TlsStream>)
        })
    }
}

/// A stream as `wasmtime_wasi_tls` wants it.
struct Secured(TlsStream<Box<dyn TlsTransport>>);

impl wasmtime_wasi_tls::TlsStream for Secured {}

impl AsyncRead for Secured {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_does_not_speak_it_and_one_without_a_name_are_told() {
        let (client, mut server) = tokio::io::duplex(1024);
        let talk = async {
            tokio::io::AsyncWriteExt::write_all(&mut server, b"this is not TLS\r\n").await.unwrap();
            server
        };
        let transport: Box<dyn TlsTransport> = Box::new(client);
        let (connected, _server) = tokio::join!(Provider.connect("example.com".into(), transport), talk);
        let said = connected.err().expect("it is refused").to_string();
        // A node without any trusted authority says that instead.
        assert!(said.contains("corrupt") || said.contains("no certificate authority"), "{said}");
        let (client, _server) = tokio::io::duplex(1024);
        let unnamed = secured("not a name", client).await.unwrap_err();
        assert!(matches!(unnamed, TlsError::Name(_) | TlsError::NoRoots(_)), "{unnamed}");
    }
}
