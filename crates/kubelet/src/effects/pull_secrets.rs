//! Credentials for a registry out of a pod's `imagePullSecrets`.
//!
//! Comes in: the pod, the image's name, its Secrets. Goes out: the credentials of the entry that fits the image best.
//! Never here: a log line with a secret in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cri::v1::AuthConfig;
use decide::pod::Pod;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;

use crate::objects::Objects;

/// One entry of a Docker configuration.
#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// The credentials for `image`. A Secret that is missing or cannot be read is passed over, as the kubelet does; the
/// pull then says that it is not authorised.
pub(super) async fn credentials(objects: &Objects, pod: &Pod, image: &str) -> Option<AuthConfig> {
    let mut entries = BTreeMap::new();
    for name in &pod.image_pull_secrets {
        match objects.secret(&pod.name.namespace, name).await {
            Ok(Some(secret)) => entries.extend(read(&secret)),
            Ok(None) => tracing::warn!(pod = %pod.name, secret = name, "imagePullSecret not found"),
            Err(error) => tracing::warn!(pod = %pod.name, secret = name, "imagePullSecret not read: {error}"),
        }
    }
    best(entries, image)
}

fn read(secret: &Secret) -> BTreeMap<String, Entry> {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let modern = data(".dockerconfigjson").and_then(|json| serde_json::from_slice::<DockerConfig>(json).ok());
    let legacy = || data(".dockercfg").and_then(|json| serde_json::from_slice(json).ok());
    modern.map(|config| config.auths).or_else(legacy).unwrap_or_default()
}

/// The entry with the longest path that the image lies beneath.
fn best(entries: BTreeMap<String, Entry>, image: &str) -> Option<AuthConfig> {
    let image = full_name(image);
    let fitting = entries.into_iter().filter_map(|(place, entry)| {
        let place = place.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        let place = match place {
            "index.docker.io/v1" | "index.docker.io/v2" | "index.docker.io" => "docker.io",
            other => other,
        };
        let rest = image.strip_prefix(place)?;
        let beneath = rest.is_empty() || rest.starts_with(['/', ':', '@']);
        beneath.then(|| (place.len(), auth(place, entry)))
    });
    fitting.max_by_key(|(length, _)| *length).map(|(_, auth)| auth)
}

fn full_name(image: &str) -> String {
    let first = image.split('/').next().unwrap_or_default();
    let has_registry = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if has_registry { image.to_owned() } else { format!("docker.io/{image}") }
}

fn auth(place: &str, entry: Entry) -> AuthConfig {
    let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match decoded.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((username, password)) => (username.to_owned(), password.to_owned()),
        None => (entry.username, entry.password),
    };
    AuthConfig {
        username,
        password,
        server_address: place.to_owned(),
        identity_token: entry.identity_token,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn check(config: &str, image: &str, wanted: Option<&str>) {
        let data = [(".dockerconfigjson".to_owned(), ByteString(config.into()))].into();
        let entries = read(&Secret { data: Some(data), ..Secret::default() });
        assert_eq!(best(entries, image).map(|auth| auth.username).as_deref(), wanted, "{image}");
    }

    #[test]
    fn the_most_specific_entry_is_taken() {
        let config = r#"{"auths": {
            "https://registry.example": {"username": "any", "password": "p"},
            "registry.example/team": {"auth": "dGVhbTpw"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"}}}"#;
        check(config, "registry.example/team/app:v1", Some("team"));
        check(config, "registry.example/teams/app", Some("any"));
        check(config, "registry.example.evil/app", None);
        check(config, "app", Some("hub"));
        check("not json", "app", None);
    }
}
