//! One run of a credential provider plugin: a request on its standard input, an answer on its standard output.
//!
//! What it prints is bounded, and is never repeated: it may be a secret.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::provider::Provider;
use crate::config::GoDuration;

/// The kubelet's.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Why a plugin gave no logins.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExecError {
    #[error("it cannot be started: {0}")]
    Start(#[source] std::io::Error),
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("its output cannot be read: {0}")]
    Output(#[source] std::io::Error),
    #[error("it printed more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("it ended with {0}; run it by hand to see what it says")]
    Failed(ExitStatus),
    #[error("it answered in {found} where {wanted} was asked for")]
    Version { wanted: String, found: String },
    #[error("its answer is no CredentialProviderResponse")]
    Malformed,
}

/// Under what an answer is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum CacheKey {
    Image(String),
    Registry(String),
    Global,
}

/// For what an answer holds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) enum CacheKeyType {
    Image,
    Registry,
    Global,
}

/// What a plugin answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) cache_key_type: CacheKeyType,
    pub(super) cache_duration: Option<GoDuration>,
    pub(super) auth: Option<BTreeMap<String, AuthConfig>>,
}

/// A login.
#[derive(Deserialize)]
pub(super) struct AuthConfig {
    #[serde(default)]
    pub(super) username: String,
    #[serde(default)]
    pub(super) password: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
}

/// Asks a plugin for the logins of `image`.
pub(super) async fn ask(provider: &Provider, image: &str) -> Result<Answer, ExecError> {
    let mut command = Command::new(&provider.program);
    command.args(&provider.args).envs(provider.env.iter().map(|(name, value)| (name, value)));
    let request = json!({ "kind": "CredentialProviderRequest", "apiVersion": provider.api_version, "image": image });
    let (status, answer) = run(&mut command, request.to_string().as_bytes()).await?;
    if !status.success() {
        return Err(ExecError::Failed(status));
    }
    let meta: TypeMeta = serde_json::from_slice(&answer).map_err(|_| ExecError::Malformed)?;
    if meta.api_version != provider.api_version {
        // Whatever else stands there is not repeated.
        let known = meta.api_version.starts_with("credentialprovider.kubelet.k8s.io/") && meta.api_version.len() < 64;
        let found = if known { meta.api_version } else { "another apiVersion".to_owned() };
        return Err(ExecError::Version { wanted: provider.api_version.clone(), found });
    }
    if meta.kind != "CredentialProviderResponse" {
        return Err(ExecError::Malformed);
    }
    serde_json::from_slice(&answer).map_err(|_| ExecError::Malformed)
}

/// Runs a program with this on its standard input, and gives how it ended and what it printed.
pub(super) async fn run(command: &mut Command, input: &[u8]) -> Result<(ExitStatus, Vec<u8>), ExecError> {
    tokio::time::timeout(TIMEOUT, run_to_end(command, input)).await.map_err(|_| ExecError::Timeout)?
}

async fn run_to_end(command: &mut Command, input: &[u8]) -> Result<(ExitStatus, Vec<u8>), ExecError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(ExecError::Start)?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that does not read its input may know its answer all the same.
        let _ = pipe.write_all(input).await;
    }
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).await.map_err(ExecError::Output)?;
    }
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(ExecError::TooLong);
    }
    let status = child.wait().await.map_err(ExecError::Output)?;
    Ok((status, answer))
}
