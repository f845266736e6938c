//! Tokens: a challenge and credentials come in, what goes into the `Authorization` header comes out.
//!
//! Credentials are sent to the token service the registry names, but never over plain HTTP for a registry that is
//! itself reached over HTTPS.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::failure::{Failure, RegistryError};
use super::host::{answer_failure, read_bounded};
use crate::credentials::Credentials;

/// Bytes of a token service's answer; tokens have some kilobytes at most.
const TOKEN_BYTES_MAX: u64 = 1024 * 1024;
/// What we call ourselves where OAuth2 asks for a name.
const CLIENT_ID: &str = "wasklet";

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// What to send to a registry that answered with `challenge`; `None` where there is nothing to send.
pub(crate) async fn authorization(
    client: &Client,
    challenge: &Challenge,
    credentials: Option<&Credentials>,
    scope: &str,
    plain: bool,
) -> Result<Option<HeaderValue>, Failure> {
    let (realm, service, asked) = match (challenge, credentials) {
        (_, Some(Credentials::Bearer(token))) => return bearer(token).map(Some),
        (Challenge::Basic, Some(Credentials::Basic { username, password })) => {
            return basic(username, password).map(Some);
        }
        (Challenge::Basic, _) => return Ok(None),
        (Challenge::Bearer { realm, service, scope }, _) => (realm, service, scope),
    };
    let realm = Url::parse(realm).ok().filter(|realm| realm.scheme() == "https" || (plain && realm.scheme() == "http"));
    let mut realm =
        realm.ok_or_else(|| Failure::unavailable("it names a token service that is not at an https URL"))?;
    let scope = asked.as_deref().unwrap_or(scope);
    let request = match credentials {
        Some(Credentials::IdentityToken(token)) => {
            let mut form =
                Url::parse("form:///").map_err(|_| Failure::unavailable("its token service is not usable"))?;
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("service", service.as_deref().unwrap_or_default())
                .append_pair("client_id", CLIENT_ID)
                .append_pair("scope", scope)
                .append_pair("refresh_token", token);
            let form = form.query().unwrap_or_default().to_owned();
            client.post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
        }
        other => {
            {
                let mut query = realm.query_pairs_mut();
                if let Some(service) = service {
                    query.append_pair("service", service);
                }
                query.append_pair("scope", scope);
                if let Some(Credentials::Basic { username, .. }) = other {
                    query.append_pair("account", username);
                }
            }
            let request = client.get(realm);
            match other {
                Some(Credentials::Basic { username, password }) => {
                    request.header(AUTHORIZATION, basic(username, password)?)
                }
                _ => request,
            }
        }
    };
    let sent = request.header(ACCEPT, "application/json").send().await;
    let answer = sent.map_err(|error| Failure::of_request(&error))?;
    if !answer.status().is_success() {
        // 400 is what OAuth2 says of a refresh token that has been revoked.
        let refused = credentials.is_some() && answer.status().as_u16() == 400;
        return Err(match refused {
            true => Failure::Lasting(RegistryError::Denied { with_credentials: true }),
            false => match answer_failure(answer, credentials.is_some()).await {
                Failure::Lasting(RegistryError::Missing) => Failure::unavailable("its token service answered HTTP 404"),
                failure => failure,
            },
        });
    }
    let no_token = || Failure::unavailable("its token service answered with something else than a token");
    let body = read_bounded(answer, TOKEN_BYTES_MAX).await.map_err(|failure| match failure {
        Failure::Lasting(RegistryError::TooLarge { .. }) => no_token(),
        other => other,
    })?;
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| no_token())?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(no_token)?;
    bearer(&token).map(Some)
}

fn bearer(token: &str) -> Result<HeaderValue, Failure> {
    let usable = token.bytes().all(|b| b.is_ascii_graphic());
    let value = usable.then(|| HeaderValue::from_str(&format!("Bearer {token}")).ok()).flatten();
    secret(value.ok_or_else(|| Failure::unavailable("the bearer token is not usable"))?)
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, Failure> {
    let encoded = STANDARD.encode(format!("{username}:{password}"));
    let value = HeaderValue::from_str(&format!("Basic {encoded}"));
    secret(value.map_err(|_| Failure::unavailable("the credentials are not usable"))?)
}

/// Marked so that no `Debug` prints it.
fn secret(mut value: HeaderValue) -> Result<HeaderValue, Failure> {
    value.set_sensitive(true);
    Ok(value)
}
