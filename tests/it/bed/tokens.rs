//! A token service, as registries that do not know their users themselves send people to.
//!
//! Comes in: a name, a password and what is to be allowed. Goes out: a token, signed with a key of this value's own.
//! Never here: the registry that believes it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use testbed::registry::{Access, PASSWORD, SERVICE, USER};
use tokio::task::JoinHandle;

const ISSUER: &str = "tokens.test";
/// Seconds before and after now that a token is good for.
const GOOD_FOR: u64 = 300;

/// A running token service; dropping it ends it.
pub(crate) struct Tokens {
    service: Arc<Service>,
    realm: String,
    directory: tempfile::TempDir,
    server: JoinHandle<()>,
}

struct Service {
    key: EcdsaKeyPair,
    random: SystemRandom,
    certificate: String,
    scopes: Mutex<Vec<String>>,
}

impl Tokens {
    /// Starts one on loopback.
    pub(crate) async fn start() -> Result<Self> {
        let pair = KeyPair::generate().context("generating a key for tokens")?;
        let params = CertificateParams::new([ISSUER.to_owned()]).context("naming the token service")?;
        let certificate = params.self_signed(&pair).context("signing the token service's certificate")?;
        let directory = tempfile::tempdir().context("making a directory for the token service")?;
        std::fs::write(directory.path().join("tokens.crt"), certificate.pem()).context("writing the certificate")?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der(), &random);
        let key = key.map_err(|error| anyhow::anyhow!("reading the key for tokens: {error}"))?;
        let certificate = STANDARD.encode(certificate.der());
        let service = Arc::new(Service { key, random, certificate, scopes: Mutex::default() });

        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.context("listening for token requests")?;
        let realm = format!("http://{}/token", listener.local_addr().context("asking for our address")?);
        let router = Router::new().route("/token", get(token)).with_state(Arc::clone(&service));
        let server = tokio::spawn(async move {
            // It ends with its task.
            drop(axum::serve(listener, router).await);
        });
        Ok(Self { service, realm, directory, server })
    }

    /// What a registry is told of us.
    pub(crate) fn access(&self) -> Access {
        let certificate = self.directory.path().join("tokens.crt");
        Access::Token { realm: self.realm.clone(), issuer: ISSUER.to_owned(), certificate }
    }

    /// What was asked for and granted.
    pub(crate) fn scopes(&self) -> Vec<String> {
        self.service.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn token(State(service): State<Arc<Service>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let login = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    if headers.get(header::AUTHORIZATION).is_none_or(|found| found != login.as_str()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let query = query.unwrap_or_default();
    let scopes: Vec<String> = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("scope="))
        .map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","))
        .collect();
    match service.sign(&scopes) {
        Ok(token) => {
            service.scopes.lock().unwrap_or_else(PoisonError::into_inner).extend(scopes);
            Json(json!({ "token": token, "expires_in": GOOD_FOR })).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

impl Service {
    /// A JSON web token that grants these scopes, each `repository:NAME:ACTION,ACTION`.
    fn sign(&self, scopes: &[String]) -> Result<String> {
        let access: Vec<Value> = scopes
            .iter()
            .filter_map(|scope| {
                let (kind, rest) = scope.split_once(':')?;
                let (name, actions) = rest.rsplit_once(':')?;
                Some(json!({ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }))
            })
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let head = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "jti": "one", "access": access,
            "iat": now, "nbf": now - GOOD_FOR, "exp": now + GOOD_FOR,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&head), encode(&claims));
        let signature = self.key.sign(&self.random, signed.as_bytes());
        let signature = signature.map_err(|error| anyhow::anyhow!("signing a token: {error}"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
