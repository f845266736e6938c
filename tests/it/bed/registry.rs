//! A registry over plain HTTP on loopback, for images of a test's own.
//!
//! Comes in: wasm under a name, whenever the test likes. Goes out: what the distribution API asks for. Never here:
//! credentials or faults; the image crate's own tests have those.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Bytes;
use image::pack;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Content by tag and by digest.
type Content = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// A registry that ends with its value.
pub(crate) struct Registry {
    host: String,
    content: Content,
    server: JoinHandle<()>,
}

impl Registry {
    /// An empty one.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listening as a registry")?;
        let host = listener.local_addr().context("listening as a registry")?.to_string();
        let content = Content::default();
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
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
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

async fn manifest(State(content): State<Content>, Path((_, _, reference)): Path<(String, String, String)>) -> Response {
    let manifest = content.lock().unwrap_or_else(PoisonError::into_inner).get(&reference).cloned();
    match manifest {
        Some(manifest) => ([(header::CONTENT_TYPE, MANIFEST)], manifest).into_response(),
        None => unknown("MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

async fn blob(State(content): State<Content>, Path((_, _, digest)): Path<(String, String, String)>) -> Response {
    let blob = content.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
    blob.map_or_else(|| unknown("BLOB_UNKNOWN", "blob unknown to registry"), IntoResponse::into_response)
}

fn unknown(code: &str, message: &str) -> Response {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
