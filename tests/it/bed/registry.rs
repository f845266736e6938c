//! A registry over plain HTTP on loopback, for images of a test's own.
//!
//! Comes in: wasm under a name, whenever the test likes. Goes out: what the distribution API asks for, where it is private
//! only to who logs in. Never here: faults; the image crate's own tests have those.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use hyper::body::Bytes;
use image::pack;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Content by tag and by digest, and what one must send to get it.
#[derive(Default)]
struct Shelf {
    content: Mutex<BTreeMap<String, Bytes>>,
    login: Option<String>,
}

type Content = Arc<Shelf>;

/// A registry that ends with its value.
pub(crate) struct Registry {
    host: String,
    content: Content,
    server: JoinHandle<()>,
}

impl Registry {
    /// An empty one, for everybody.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// An empty one that only this user gets anything from.
    pub(crate) async fn start_private(user: &str, password: &str) -> Result<Self> {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Self::start_with(Some(format!("Basic {encoded}"))).await
    }

    async fn start_with(login: Option<String>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listening as a registry")?;
        let host = listener.local_addr().context("listening as a registry")?.to_string();
        let content = Arc::new(Shelf { content: Mutex::default(), login });
        let router = Router::new()
            .route("/v2/", get(|| async { StatusCode::OK }))
            .route("/v2/{owner}/{name}/manifests/{reference}", get(manifest))
            .route("/v2/{owner}/{name}/blobs/{digest}", get(blob))
            .with_state(Arc::clone(&content));
        let server = tokio::spawn(async move {
            // It serves until it is dropped; a test that needs it longer fails by itself.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { host, content, server })
    }

    /// `HOST:PORT`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The reference of an image here, whether it is there or not.
    pub(crate) fn reference(&self, tag: &str) -> String {
        format!("{}/test/guest:{tag}", self.host)
    }

    /// Serves this wasm under the tag from now on.
    pub(crate) fn push(&self, tag: &str, wasm: &[u8]) -> Result<()> {
        let artifact = pack::artifact(wasm).context("packing a guest")?;
        let manifest = Bytes::copy_from_slice(artifact.manifest());
        let mut content = self.content.content.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in [artifact.config(), artifact.layer()] {
            content.insert(image::Digest::of(blob).to_string(), Bytes::copy_from_slice(blob));
        }
        content.insert(artifact.digest().to_string(), manifest.clone());
        content.insert(tag.to_owned(), manifest);
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The content of this name, or the answer in its place.
fn find(shelf: &Shelf, headers: &HeaderMap, name: &str) -> Result<Option<Bytes>, Box<Response>> {
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shelf.login.is_some() && shelf.login.as_deref() != sent {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"test\"")];
        return Err(Box::new((StatusCode::UNAUTHORIZED, challenge).into_response()));
    }
    Ok(shelf.content.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
}

async fn manifest(
    State(content): State<Content>,
    Path((_, _, reference)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let manifest = match find(&content, &headers, &reference) {
        Ok(manifest) => manifest,
        Err(answer) => return *answer,
    };
    match manifest {
        Some(manifest) => ([(header::CONTENT_TYPE, MANIFEST)], manifest).into_response(),
        None => unknown("MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

async fn blob(
    State(content): State<Content>,
    Path((_, _, digest)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let blob = match find(&content, &headers, &digest) {
        Ok(blob) => blob,
        Err(answer) => return *answer,
    };
    blob.map_or_else(|| unknown("BLOB_UNKNOWN", "blob unknown to registry"), IntoResponse::into_response)
}

fn unknown(code: &str, message: &str) -> Response {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
