//! Outgoing HTTP of guests: a `wasi:http` request comes in, a response whose body streams goes out.
//!
//! Plain HTTP/1.1 and HTTPS with the node's trusted roots, over a connection of its own from the pod's address. The
//! guest's own timeouts hold, with a bound where it sets none.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::Scheme;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, timeout};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::Grants;
use super::lookup::resolve;
use super::network::PodNetwork;
use super::tls::{TlsError, secured};

/// How long connecting may take where the guest does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a response may take to begin, or to go on, where the guest does not say.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(600);

/// The connector of one store.
pub(crate) struct Outgoing {
    network: Arc<PodNetwork>,
    hostname: Arc<str>,
    grants: Option<Arc<Grants>>,
}

type Finished = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Response = (http::Response<WasiBody>, Finished);

impl Outgoing {
    pub(crate) fn new(network: Arc<PodNetwork>, hostname: Arc<str>, grants: Option<Arc<Grants>>) -> Self {
        Self { network, hostname, grants }
    }

    /// Whether a request may go there.
    fn allows(&self, uri: &Uri) -> bool {
        let Some(grants) = &self.grants else { return true };
        let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
        grants.hosts.allows_url(scheme, host, uri.port_u16())
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Finished,
    ) -> Box<dyn Future<Output = Result<Response, Error>> + Send> {
        if !self.allows(request.uri()) {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        }
        let (network, hostname) = (Arc::clone(&self.network), Arc::clone(&self.hostname));
        Box::new(async move { send(&network, &hostname, request, options.unwrap_or_default()).await })
    }
}

async fn send(
    network: &PodNetwork,
    hostname: &str,
    mut request: http::Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response, Error> {
    let connecting = connect(network, hostname, request.uri());
    let connected = timeout(options.connect_timeout.unwrap_or(CONNECT_TIMEOUT), connecting).await;
    let (mut sender, connection) = connected.map_err(|_| Error::ConnectionTimeout)??;

    // On the wire a request to an origin carries the path alone.
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    let first_byte = options.first_byte_timeout.unwrap_or(RESPONSE_TIMEOUT);
    let response = timeout(first_byte, sender.send_request(request)).await;
    let response = response.map_err(|_| Error::ConnectionReadTimeout)??;

    let between_bytes = options.between_bytes_timeout.unwrap_or(RESPONSE_TIMEOUT);
    let response = response.map(|body| Timed::new(body, between_bytes).boxed_unsync());
    Ok((response, Box::new(connection)))
}

/// The connection's own work; ends when the guest drops the response.
type Connection = AbortOnDropJoinHandle<Result<(), Error>>;

async fn connect(
    network: &PodNetwork,
    hostname: &str,
    uri: &Uri,
) -> Result<(http1::SendRequest<WasiBody>, Connection), Error> {
    let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?;
    let secure = uri.scheme() == Some(&Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let found = resolve(network, hostname, host).await.map_err(|error| lookup_error(&error))?;
    let addresses = found.into_iter().map(|address| SocketAddr::new(address, port));
    let stream = network.connect_tcp(addresses).await.map_err(connect_error)?;
    if secure {
        handshake(TokioIo::new(secured(host, stream).await.map_err(tls_error)?)).await
    } else {
        handshake(TokioIo::new(stream)).await
    }
}

async fn handshake<S>(stream: S) -> Result<(http1::SendRequest<WasiBody>, Connection), Error>
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(stream).await?;
    Ok((sender, spawn(async move { connection.await.map_err(Error::from) })))
}

fn tls_error(error: TlsError) -> Error {
    match error {
        TlsError::Name(_) => Error::HttpRequestUriInvalid,
        TlsError::NoRoots(_) => Error::InternalError(Some(error.to_string())),
        TlsError::Handshake(error) => Error::Tls(error),
    }
}

fn lookup_error(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut => Error::DnsTimeout,
        io::ErrorKind::InvalidInput => Error::HttpRequestUriInvalid,
        _ => Error::DnsError { rcode: Some(error.to_string()), info_code: None },
    }
}

fn connect_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::PermissionDenied => Error::DestinationIpProhibited,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Error::DestinationIpUnroutable,
        _ => Error::Connect(error),
    }
}

/// A response's body that fails when nothing comes for too long.
struct Timed {
    body: Incoming,
    between_bytes: Duration,
    silence: Pin<Box<Sleep>>,
}

impl Timed {
    fn new(body: Incoming, between_bytes: Duration) -> Self {
        Self { body, between_bytes, silence: Box::pin(tokio::time::sleep(between_bytes)) }
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => {
                this.silence.as_mut().reset(Instant::now() + this.between_bytes);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => {
                std::task::ready!(this.silence.as_mut().poll(context));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http_body_util::{Empty, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const ADDRESS: &str = "127.97.0.1";

    fn outgoing() -> Outgoing {
        let network = PodNetwork::own(ADDRESS.parse().unwrap(), "127.98.0.1".parse().unwrap());
        Outgoing::new(Arc::new(network), "web-0".into(), None)
    }

    async fn sent(uri: String, body: WasiBody, options: RequestOptions) -> Result<Response, Error> {
        let request = http::Request::post(uri).header("host", "server").body(body).unwrap();
        Pin::from(outgoing().send_request(request, Some(options), Box::new(async { Ok(()) }))).await
    }

    fn empty() -> WasiBody {
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    }

    /// Takes one request, answers with `answer` and holds the connection; gives what it read and from whom.
    async fn serve(answer: &'static str) -> (SocketAddr, tokio::task::JoinHandle<(String, IpAddr, TcpStream)>) {
        let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, from) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"ping") && !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            (String::from_utf8(request).unwrap(), from.ip(), stream)
        });
        (address, served)
    }

    #[tokio::test]
    async fn a_request_goes_out_from_the_pods_address_and_its_answer_comes_back() {
        let (address, served) = serve("HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\n\r\npong").await;
        let body = Full::from("ping").map_err(|never| match never {}).boxed_unsync();
        // The pod's own name leads to the pod's own address.
        let uri = format!("http://web-0:{}/path?query=1", address.port());
        let (response, _connection) = sent(uri, body, RequestOptions::default()).await.unwrap();
        assert_eq!(response.status(), 202);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "pong");
        let (request, from, _) = served.await.unwrap();
        assert!(request.starts_with("POST /path?query=1 HTTP/1.1\r\n"), "{request}");
        assert_eq!(from, ADDRESS.parse::<IpAddr>().unwrap());
    }

    #[tokio::test]
    async fn silence_is_bounded_before_and_within_the_answer() {
        let soon = Some(Duration::from_millis(20));
        let (address, _served) = serve("").await;
        let options = RequestOptions { first_byte_timeout: soon, ..RequestOptions::default() };
        let ended = sent(format!("http://{address}/"), empty(), options).await;
        assert!(matches!(ended, Err(Error::ConnectionReadTimeout)));

        let (address, _served) = serve("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npo").await;
        let options = RequestOptions { between_bytes_timeout: soon, ..RequestOptions::default() };
        let (response, _connection) = sent(format!("http://{address}/"), empty(), options).await.unwrap();
        let ended = response.into_body().collect().await;
        assert!(matches!(ended, Err(Error::ConnectionReadTimeout)));
    }

    #[tokio::test]
    async fn the_loopback_of_others_is_prohibited_and_nobody_listening_is_refused() {
        let to = |uri: &str| sent(uri.to_owned(), empty(), RequestOptions::default());
        for foreign in ["127.98.0.2", "[::1]", "0.0.0.0", "[::]", "[::ffff:0.0.0.0]"] {
            let ended = to(&format!("http://{foreign}:80/")).await;
            assert!(matches!(ended, Err(Error::DestinationIpProhibited)), "{foreign}");
        }
        assert!(matches!(to("http://localhost:1/").await, Err(Error::ConnectionRefused)));
    }

    #[tokio::test]
    async fn a_server_that_nobody_vouches_for_is_a_tls_error() {
        let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
        let uri = format!("https://{}/", listener.local_addr().unwrap());
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"this is not TLS\r\n").await.unwrap();
            stream
        };
        let (ended, _stream) = tokio::join!(sent(uri, empty(), RequestOptions::default()), served);
        // A node without any trusted authority says that instead.
        assert!(matches!(ended, Err(Error::Tls(_) | Error::InternalError(_))));
    }
}
