//! A registry as a source: what a reference names comes out of HTTP requests, streamed to disk.
//!
//! One value is one pull: credentials and tokens live and die with it, so that no pull ever rides on another's. Passing
//! failures are tried again here, after a pause; answers that will not change are not. What a registry says in words is
//! not repeated, only its status and error code are.

use std::error::Error;
use std::future::Future;
use std::io;
use std::time::Duration;

use futures::StreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};

use super::Limits;
use super::error::{Layouts, Part, PullError};
use super::fetch::finish;
use crate::credentials::Credentials;
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, OCI_INDEX, OCI_MANIFEST};
use crate::reference::Reference;
use crate::store::Store;

const ACCEPTED: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Characters; a longer error code is not one.
const ERROR_CODE_MAX: usize = 40;

/// How the client reaches a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// One pull's connection to its registry.
pub(crate) struct Registry {
    client: Client,
    auth: RegistryAuth,
    image: Reference,
    limits: Limits,
    /// Where the image was looked for before, for messages.
    layouts: Layouts,
}

/// How one try ended.
enum Failure {
    /// May go better next time, for this reason.
    Passing(String),
    /// Will end the same way next time.
    Lasting(PullError),
}

impl Registry {
    pub(crate) fn new(
        image: &Reference,
        credentials: Option<&Credentials>,
        scheme: Scheme,
        limits: Limits,
        layouts: Layouts,
    ) -> Result<Self, PullError> {
        let config = ClientConfig {
            protocol: match scheme {
                Scheme::Http => ClientProtocol::Http,
                Scheme::Https => ClientProtocol::Https,
            },
            connect_timeout: Some(limits.connect_timeout),
            read_timeout: Some(limits.stall_timeout),
            user_agent: concat!("wasklet/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config)
            .map_err(|error| PullError::Client { image: image.clone(), cause: root_cause(&error) })?;
        let auth = Credentials::to_registry_auth(credentials);
        Ok(Self { client, auth, image: image.clone(), limits, layouts })
    }

    /// Fetches the manifest or index `part`; its digest, where it has one, was checked.
    pub(crate) async fn manifest(&self, part: Part) -> Result<Vec<u8>, PullError> {
        self.with_tries(part, || self.manifest_once(part)).await
    }

    /// Fetches a blob into the store, where it is checked.
    pub(crate) async fn blob(&self, blob: &Descriptor, part: Part, store: &Store) -> Result<(), PullError> {
        self.with_tries(part, || async {
            let download = self.blob_once(blob, part, store);
            tokio::time::timeout(self.limits.layer_timeout, download).await.unwrap_or_else(|_| {
                let cause = format!("it took longer than {} s", self.limits.layer_timeout.as_secs());
                Err(Failure::Lasting(self.unavailable(part, cause)))
            })
        })
        .await
    }

    async fn manifest_once(&self, part: Part) -> Result<Vec<u8>, Failure> {
        let image = self.at(part);
        let request = async {
            // Asked for here and not left to the client, which would go on without a token and hide why it has none.
            if part == Part::Manifest {
                let token = self.client.auth(&image, &self.auth, RegistryOperation::Pull).await?;
                let usable = |token: String| token.bytes().all(|b| b.is_ascii_graphic());
                if !token.is_none_or(usable) {
                    return Ok(None);
                }
            }
            let (content, _) = self.client.pull_manifest_raw(&image, &self.auth, &ACCEPTED).await?;
            Ok(Some(content))
        };
        match tokio::time::timeout(self.limits.manifest_timeout, request).await {
            Ok(Ok(Some(content))) => Ok(content.into()),
            // The token would not fit into a header.
            Ok(Ok(None)) => Err(Failure::Lasting(self.unavailable(part, "the bearer token is not usable".into()))),
            Ok(Err(error)) => Err(self.classify(part, error)),
            Err(_) => Err(Failure::Passing("it did not answer in time".into())),
        }
    }

    async fn blob_once(&self, blob: &Descriptor, part: Part, store: &Store) -> Result<(), Failure> {
        let digest = blob.digest.to_string();
        let storing = |source| Failure::Lasting(PullError::Store { image: self.image.clone(), source });
        let writing = |source| Failure::Lasting(PullError::storing(&self.image, source));
        let response = self.client.pull_blob_stream(&self.at(part), digest.as_str()).await;
        let mut stream = response.map_err(|error| self.classify(part, error))?;
        let mut ingest = store.ingest().map_err(storing)?;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| self.classify(part, OciDistributionError::IoError(error)))?;
            ingest.write(&chunk).await.map_err(writing)?;
            if ingest.written_bytes() > blob.size {
                break;
            }
        }
        finish(&self.image, part, ingest, blob).await.map_err(Failure::Lasting)
    }

    async fn with_tries<T, F>(&self, part: Part, mut once: impl FnMut() -> F) -> Result<T, PullError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut tries = 1;
        loop {
            let cause = match once().await {
                Ok(value) => return Ok(value),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing(cause)) => cause,
            };
            if tries >= self.limits.tries {
                let cause = if tries > 1 { format!("{cause} (tried {tries} times)") } else { cause };
                return Err(self.unavailable(part, cause));
            }
            tracing::debug!(image = %self.image, %part, tries, cause, "trying again");
            tokio::time::sleep(pause(self.limits.pause, tries, rand::random())).await;
            tries += 1;
        }
    }

    fn at(&self, part: Part) -> oci_client::Reference {
        let (registry, repository) = (self.image.registry().to_owned(), self.image.repository().to_owned());
        let pinned = match part {
            Part::Manifest => self.image.digest(),
            _ => part.digest(),
        };
        match (pinned, self.image.tag()) {
            (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
            (None, tag) => oci_client::Reference::with_tag(registry, repository, tag.unwrap_or_default().to_owned()),
        }
    }

    fn unavailable(&self, part: Part, cause: String) -> PullError {
        PullError::Unavailable { image: self.image.clone(), part, cause, layouts: self.layouts.clone() }
    }

    fn classify(&self, part: Part, error: OciDistributionError) -> Failure {
        let lasting = |cause: &str| Failure::Lasting(self.unavailable(part, cause.to_owned()));
        match error {
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
                self.denied()
            }
            OciDistributionError::ServerError { code, .. } => match code {
                401 | 403 => self.denied(),
                404 => self.missing(part),
                408 | 425 | 429 | 500.. => Failure::Passing(format!("it answered HTTP {code}")),
                _ => lasting(&format!("it answered HTTP {code}")),
            },
            OciDistributionError::RegistryError { envelope, .. } => {
                let codes: Vec<&OciErrorCode> = envelope.errors.iter().map(|error| &error.code).collect();
                self.classify_codes(part, &codes)
            }
            OciDistributionError::RequestError(error) if error.is_builder() || error.is_redirect() => {
                lasting(&root_cause(&error.without_url()))
            }
            OciDistributionError::RequestError(error) => Failure::Passing(root_cause(&error.without_url())),
            OciDistributionError::IoError(error) => match digest_error(&error) {
                Some(mismatch) => self.corrupt(part, mismatch),
                None => Failure::Passing(root_cause(&error)),
            },
            OciDistributionError::DigestError(mismatch) => self.corrupt(part, &mismatch),
            OciDistributionError::RegistryTokenDecodeError(_) => {
                lasting("its token service answered with something else than a token")
            }
            _ => lasting("its answer does not follow the OCI distribution specification"),
        }
    }

    fn classify_codes(&self, part: Part, codes: &[&OciErrorCode]) -> Failure {
        use OciErrorCode as Code;
        let any = |wanted: &[Code]| codes.iter().any(|code| wanted.contains(code));
        if any(&[Code::Unauthorized, Code::Denied]) {
            self.denied()
        } else if any(&[Code::ManifestUnknown, Code::NameUnknown, Code::NotFound, Code::BlobUnknown]) {
            self.missing(part)
        } else if any(&[Code::Toomanyrequests]) {
            Failure::Passing("it answered TOOMANYREQUESTS".into())
        } else {
            let names: Vec<String> = codes.iter().filter_map(|code| code_name(code)).collect();
            Failure::Lasting(self.unavailable(part, format!("it refused the request {}", names.join(", "))))
        }
    }

    fn denied(&self) -> Failure {
        let with_credentials = self.auth != RegistryAuth::Anonymous;
        Failure::Lasting(PullError::Unauthorized {
            image: self.image.clone(),
            with_credentials,
            layouts: self.layouts.clone(),
        })
    }

    fn missing(&self, part: Part) -> Failure {
        Failure::Lasting(match part {
            Part::Manifest => PullError::NotFound { image: self.image.clone(), layouts: self.layouts.clone() },
            _ => self.unavailable(part, "it is named by the image and not there".into()),
        })
    }

    fn corrupt(&self, part: Part, mismatch: &DigestError) -> Failure {
        let problem = match mismatch {
            DigestError::VerificationError { actual, .. } => format!("its content has the digest {actual}"),
            _ => "the registry's digest header is malformed".to_owned(),
        };
        Failure::Lasting(PullError::Corrupt { image: self.image.clone(), part, problem })
    }
}

/// The client's verdict on a streamed body, which it wraps in an I/O error.
fn digest_error(error: &io::Error) -> Option<&DigestError> {
    error.get_ref()?.downcast_ref()
}

/// A code as its JSON has it, if it looks like one; anything else is a registry's free text.
fn code_name(code: &OciErrorCode) -> Option<String> {
    let value = serde_json::to_value(code).ok()?;
    let name = value.as_str()?;
    let is_code = name.len() <= ERROR_CODE_MAX && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    is_code.then(|| name.to_owned())
}

/// The innermost error's text: the system's or the TLS library's own words, which hold no request.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    // An HTTP client's own error would quote the URL, and with it a signature or token.
    if text.contains("://") { "the connection broke off".to_owned() } else { text }
}

/// Doubles with each try, up to [`PAUSE_MAX`]; `luck` in 0..1 spreads it over half to one and a half of that.
fn pause(first: Duration, tries: u32, luck: f64) -> Duration {
    let full = first.saturating_mul(1 << tries.saturating_sub(1).min(16));
    full.min(PAUSE_MAX).mul_f64(0.5 + luck.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_spread_and_are_capped() {
        let first = Duration::from_millis(500);
        assert_eq!(pause(first, 1, 0.5), first);
        assert_eq!(pause(first, 2, 0.5), first * 2);
        assert_eq!(pause(first, 1, 0.0), first / 2);
        assert_eq!(pause(first, u32::MAX, 0.5), PAUSE_MAX);
        assert!(pause(first, 1, 0.9) > pause(first, 1, 0.1));
    }

    #[test]
    fn only_codes_are_repeated() {
        assert_eq!(code_name(&OciErrorCode::NameInvalid).as_deref(), Some("NAME_INVALID"));
        assert_eq!(code_name(&OciErrorCode::Other("ARTIFACT_LOCKED".into())).as_deref(), Some("ARTIFACT_LOCKED"));
        assert_eq!(code_name(&OciErrorCode::Other("token=abc".into())), None);
        assert_eq!(code_name(&OciErrorCode::Other("A".repeat(41))), None);
    }

    /// A TLS server with a certificate nobody vouches for; it serves nothing beyond the handshake.
    async fn untrusted_server() -> std::net::SocketAddr {
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = acceptor.accept(stream).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_certificate_nobody_vouches_for_is_refused() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let image = Reference::parse(&format!("{}/a/b:c", untrusted_server().await)).unwrap();
        let limits = Limits { pause: Duration::from_millis(1), ..Limits::default() };
        let registry = Registry::new(&image, None, Scheme::Https, limits, Layouts::default()).unwrap();
        let error = registry.manifest(Part::Manifest).await.unwrap_err();
        assert!(error.message().contains("invalid peer certificate"), "{error}");
    }

    #[test]
    fn a_cause_never_quotes_a_url() {
        let quoting = io::Error::other("error for url (https://bucket.example/blob?signature=abc)");
        assert_eq!(root_cause(&quoting), "the connection broke off");
    }
}
