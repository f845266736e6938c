//! Docker's credential helpers: a configuration that leaves a login to a program comes in, the same with that login goes out.
//!
//! The program is `docker-credential-NAME` of the `PATH`, and is asked about one registry (`get`). What it prints is
//! bounded, and is never repeated: it is a secret.

use decide::keyring::{DockerConfig, Helper, Login};
use serde::Deserialize;
use tokio::process::Command;

use super::exec::{self, ExecError};

/// What a helper says instead of a login that it does not have, and the username that stands before a refresh token.
const NOT_FOUND: &[u8] = b"credentials not found in native keychain";
const TOKEN: &str = "<token>";

/// Why a helper gave no login.
#[derive(Debug, thiserror::Error)]
enum HelperError {
    #[error("its name is not one of a file")]
    Name,
    #[error(transparent)]
    Run(#[from] ExecError),
    #[error("its answer is no login")]
    Malformed,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the helper that a configuration names for the registry of `image`, if it names one, and puts its login in place of
/// what stands in the file. Where that fails the file counts, and a sentence says why.
pub async fn with_helper(config: DockerConfig, image: &str) -> (DockerConfig, Option<String>) {
    let Some(helper) = config.helper(image) else { return (config, None) };
    match ask(&helper).await {
        Ok(Some(login)) => (config.with_login(image, login), None),
        Ok(None) => (config, None),
        Err(error) => {
            let sentence =
                format!("Docker credential helper docker-credential-{} for {}: {error}", helper.name, helper.server);
            (config, Some(sentence))
        }
    }
}

async fn ask(helper: &Helper) -> Result<Option<Login>, HelperError> {
    let is_safe = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if !helper.name.chars().all(is_safe) {
        return Err(HelperError::Name);
    }
    let mut command = Command::new(format!("docker-credential-{}", helper.name));
    let (status, answer) = exec::run(command.arg("get"), helper.server.as_bytes()).await?;
    if !status.success() {
        return if answer.trim_ascii() == NOT_FOUND { Ok(None) } else { Err(ExecError::Failed(status).into()) };
    }
    let Answer { username, secret } = serde_json::from_slice(&answer).map_err(|_| HelperError::Malformed)?;
    Ok(Some(match username.as_str() {
        TOKEN => Login { identity_token: secret, ..Login::default() },
        _ => Login { username, password: secret, ..Login::default() },
    }))
}
