//! What a pod has to show for an image: the logins of its `imagePullSecrets`.
//!
//! Comes in: the pod, its Secrets. Goes out: the logins, each with the Secret it stands in. A Secret that is missing or
//! cannot be read is passed over, as the kubelet does; the pull then says that it was not let in. Never here: a log line
//! with a secret in it.

use decide::keyring::{ConfigError, DockerConfig, Source};
use decide::pod::Pod;
use decide::pulled::SecretProof;
use decide::report::Report;
use k8s_openapi::api::core::v1::Secret;

use crate::objects::Objects;
use crate::pulls::Logins;

/// The logins of a pod's Secrets, and what to tell of those that are not to be had.
pub(super) async fn of_pod(objects: &Objects, pod: &Pod) -> (Logins, Option<Report>) {
    let mut logins = Logins::default();
    let mut missing = Vec::new();
    for name in &pod.image_pull_secrets {
        let read = match objects.secret(&pod.name.namespace, name).await {
            Ok(Some(secret)) => match read(&secret) {
                Ok(config) => {
                    logins.keyring.add(config, &Source::Secret(proof(pod, &secret)));
                    continue;
                }
                Err(error) => error.to_string(),
            },
            Ok(None) => "it does not exist".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(pod = %pod.name, secret = name, "imagePullSecret not used: {read}");
        logins.hints.push(format!("imagePullSecret {name} was not used: {read}"));
        missing.push(name.as_str());
    }
    (logins, (!missing.is_empty()).then(|| decide::report::pull_secrets_missing(&missing)))
}

/// Which Secret it is; what it holds is hashed for each login.
fn proof(pod: &Pod, secret: &Secret) -> SecretProof {
    SecretProof {
        uid: secret.metadata.uid.clone().unwrap_or_default(),
        namespace: pod.name.namespace.clone(),
        name: secret.metadata.name.clone().unwrap_or_default(),
        credential_hash: String::new(),
    }
}

fn read(secret: &Secret) -> Result<DockerConfig, ConfigError> {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    match (data(".dockerconfigjson"), data(".dockercfg")) {
        (Some(json), _) => DockerConfig::parse(json),
        (None, Some(json)) => DockerConfig::parse_legacy(json),
        (None, None) => Err(ConfigError::Json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(key: &str, json: &str) -> Secret {
        let data = [(key.to_owned(), ByteString(json.as_bytes().to_vec()))].into();
        Secret { data: Some(data), ..Secret::default() }
    }

    #[test]
    fn both_types_of_secret_are_read_and_others_are_not() {
        assert!(read(&secret(".dockerconfigjson", r#"{"auths": {}}"#)).is_ok());
        assert!(read(&secret(".dockercfg", "{}")).is_ok());
        assert!(read(&secret(".dockercfg", "s3cret")).is_err());
        assert!(read(&secret("password", "s3cret")).is_err());
        assert!(read(&Secret::default()).is_err());
    }
}
