//! Connections to pods: one for each question, closed when it is answered.
//!
//! Comes in: a host and a port, and whether to speak TLS. Goes out: a byte stream. The certificate of the other side is not
//! verified: it is the pod's own affair, and nothing is told to it that is not the pod's own. `SO_LINGER` is not set: a
//! wait of a second in `close` blocks the thread, and shortens no TIME_WAIT on Linux.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, InvalidMessage, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates;

/// `host:port`, with the brackets that an IPv6 address needs.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What the kubelet writes where TLS is spoken to who does not speak it.
pub(crate) const PLAIN_HTTP: &str = "http: server gave HTTP response to HTTPS client";

fn tls_error<'a>(error: &'a (dyn std::error::Error + Send + Sync + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref()
}

/// A byte stream to a pod, in the clear or not.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A new TCP connection.
pub(crate) async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let connected = match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    };
    let stream = connected.map_err(|error| format!("dial tcp {}: {}", authority(host, port), words(&error)))?;
    // Small messages, each waited for: none is to wait for a fuller packet. A socket that will not be told works, too.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// What the kubelet writes for the errors that people look for.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

/// The same connection, with TLS.
pub(crate) async fn tls(host: &str, stream: TcpStream) -> Result<Stream, String> {
    let config = CONFIG.clone().map_err(|error| format!("tls: {error}"))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("tls: {error}"))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    stream.map(|stream| Stream::Tls(Box::new(stream))).map_err(|error| match error.get_ref().and_then(tls_error) {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => PLAIN_HTTP.to_owned(),
        _ => format!("tls: {error}"),
    })
}

impl Stream {
    /// Whether the other side chose HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

static CONFIG: LazyLock<Result<Arc<ClientConfig>, rustls::Error>> = LazyLock::new(|| {
    let builder =
        ClientConfig::builder_with_provider(certificates::provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Each connection stands for itself: nothing is remembered of the one before.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
});

/// Takes whoever answers at the pod's address for the pod.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        certificates::provider().signature_verification_algorithms.supported_schemes()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Runs what an HTTP/2 connection does beside its caller, and ends it with the last clone: a question that is given up
/// leaves nothing behind.
#[derive(Clone, Default)]
pub(crate) struct Leash(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Leash {
    fn execute(&self, work: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(work);
    }
}

/// What keeps an HTTP connection going. It runs only while somebody waits for the connection.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The driver of `connection`. One that has ended is waited for no more: what it brought in is still to be read.
pub(crate) fn driver(connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static) -> Driver {
    Box::pin(async {
        // Whoever waits for the answer hears of the same error.
        let _ = connection.await;
        std::future::pending::<()>().await;
    })
}

/// Waits for `work`, which goes over the driver's connection.
pub(crate) async fn while_driven<T>(driver: &mut Driver, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = &mut *driver => {}
        }
    }
}

/// What went wrong, down to its cause.
pub(crate) fn reason(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}
