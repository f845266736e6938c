//! A node's credentials from a cluster whose authority is not ours.
//!
//! Comes in: an administrator's client, a node's name. Goes out: a kubeconfig whose certificate the cluster itself
//! issued. Never here: more rights than a node's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, ResourceExt};
use rcgen::{CertificateParams, DnType, KeyPair};

use crate::control_plane::access;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const ISSUED_WITHIN: Duration = Duration::from_secs(60);

/// Asks the cluster for a certificate of this node, approves it, and writes a kubeconfig with it under `dir`.
pub(super) async fn request(client: &Client, admin_kubeconfig: &Path, dir: &Path, node: &str) -> Result<PathBuf> {
    let key = KeyPair::generate().context("generating a key")?;
    let mut subject = CertificateParams::default();
    subject.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    subject.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    let signing_request = subject
        .serialize_request(&key)
        .and_then(|request| request.pem())
        .with_context(|| format!("requesting a certificate for node {node}"))?;

    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let created = requests
        .create(&PostParams::default(), &object(signing_request))
        .await
        .with_context(|| format!("creating a certificate signing request for node {node}"))?
        .name_any();
    let issued = tokio::time::timeout(ISSUED_WITHIN, approved(&requests, &created))
        .await
        .with_context(|| format!("no certificate for node {node} in {ISSUED_WITHIN:?}"))
        .flatten();
    // It has served its purpose either way; a cluster forgets it by itself after a while.
    let _ = requests.delete(&created, &DeleteParams::default()).await;

    write(admin_kubeconfig, dir, node, &issued?, &key.serialize_pem())
}

fn object(signing_request: String) -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("wasklet-test-".into()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(signing_request.into_bytes()),
            signer_name: SIGNER.into(),
            usages: Some(vec!["digital signature".into(), "client auth".into()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

async fn approved(requests: &Api<CertificateSigningRequest>, name: &str) -> Result<Vec<u8>> {
    let approval = serde_json::json!({ "status": { "conditions": [{
        "type": "Approved",
        "status": "True",
        "reason": "WaskletTest",
        "message": "a node of a test",
    }]}});
    requests
        .patch_approval(name, &PatchParams::default(), &Patch::Strategic(approval))
        .await
        .with_context(|| format!("approving certificate signing request {name}"))?;
    let mut states = std::pin::pin!(watch_object(requests.clone(), name).default_backoff());
    while let Some(state) = states.next().await {
        let certificate = state.ok().flatten().and_then(|request| request.status?.certificate);
        if let Some(ByteString(pem)) = certificate {
            return Ok(pem);
        }
    }
    anyhow::bail!("the watch of certificate signing request {name} ended")
}

/// The administrator's kubeconfig with another user: address and authority stay what they are.
fn write(admin: &Path, dir: &Path, node: &str, certificate: &[u8], key: &str) -> Result<PathBuf> {
    let mut kubeconfig = Kubeconfig::read_from(admin).with_context(|| format!("reading {}", admin.display()))?;
    let certificate = std::str::from_utf8(certificate).context("reading the certificate")?;
    let certificate_path = dir.join(format!("node-{node}.crt"));
    let key_path = dir.join(format!("node-{node}.key"));
    access::write_private(&certificate_path, certificate)?;
    access::write_private(&key_path, key)?;
    ensure!(!kubeconfig.auth_infos.is_empty(), "{} names no user", admin.display());
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = Some(AuthInfo {
            client_certificate: Some(certificate_path.display().to_string()),
            client_key: Some(key_path.display().to_string()),
            ..AuthInfo::default()
        });
    }
    let path = dir.join(format!("node-{node}.kubeconfig"));
    let text = serde_json::to_string_pretty(&kubeconfig).context("writing a kubeconfig")?;
    access::write_private(&path, &text)?;
    Ok(path)
}
