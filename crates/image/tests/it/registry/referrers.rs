//! Which manifests are about others: what a registry of OCI 1.1 keeps count of.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use image::Digest;
use serde_json::{Value, json};

use super::{OCI_INDEX, OCI_MANIFEST, Registry, Route};

impl Registry {
    /// From now on it keeps count of referrers, and gives them in pages of one.
    pub(crate) fn count_referrers(&self) {
        self.0.referrers.lock().unwrap().get_or_insert_default();
    }

    /// Puts a manifest beside the one that it is about, as its registry does or, where that keeps no count, its client.
    pub(crate) fn refer(&self, subject: Digest, artifact_type: &str, layers: &[Value]) {
        let config = self.blob("application/vnd.oci.empty.v1+json", "{}");
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": artifact_type,
            "config": config, "layers": layers,
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}})
        .to_string();
        let digest = self.manifest("latest-referrer", OCI_MANIFEST, manifest.as_bytes());
        let entry = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": manifest.len(),
            "artifactType": artifact_type});
        if let Some(counted) = self.0.referrers.lock().unwrap().as_mut() {
            counted.entry(subject.to_string()).or_default().push(entry);
            return;
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]});
        self.manifest(&format!("sha256-{}", subject.hex()), OCI_INDEX, index.to_string().as_bytes());
    }
}

pub(super) async fn referrers(
    State(registry): State<Registry>,
    Path((_, _, digest)): Path<(String, String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Some(fault) = registry.note(Route::Referrers, &digest, &method, &uri, &headers) {
        return super::answer(Some(fault), "", axum::body::Bytes::new());
    }
    let counted = registry.0.referrers.lock().unwrap().clone();
    let Some(counted) = counted else { return StatusCode::NOT_FOUND.into_response() };
    let entries = counted.get(&digest).cloned().unwrap_or_default();
    let page: usize = uri.query().and_then(|query| query.strip_prefix("page=")?.parse().ok()).unwrap_or(0);
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries.get(page).into_iter().collect::<Vec<_>>()});
    let content = ([(header::CONTENT_TYPE, OCI_INDEX)], index.to_string());
    match entries.len() > page + 1 {
        true => ([(header::LINK, format!("<?page={}>; rel=\"next\"", page + 1))], content).into_response(),
        false => content.into_response(),
    }
}
