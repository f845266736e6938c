//! Who asks: a client certificate's subject, or whom the API server knows a bearer token of.
//!
//! In come the connection's verified certificate and the request's headers, out goes a [`User`] or none. What the API
//! server said of a token holds for a while. Tokens are kept as hashes only.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, api::PostParams};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::cache::Cache;
use crate::api::{CallError, within};

const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// The group of everybody who has proved who they are.
const AUTHENTICATED: &str = "system:authenticated";

/// Somebody who has proved who they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The subject of a certificate that TLS has verified: CN is the name, each O a group. None without a name.
    pub(super) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let name =
            parsed.subject().iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?.to_owned();
        let organizations = parsed.subject().iter_organization().filter_map(|part| part.as_str().ok());
        let groups = organizations.map(str::to_owned).collect();
        Some(Self { name, uid: None, groups, extra: BTreeMap::new() }.authenticated())
    }

    fn authenticated(mut self) -> Self {
        if !self.groups.iter().any(|group| group == AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

/// How users prove who they are besides certificates.
pub(super) struct Authenticator {
    tokens: Option<TokenWebhook>,
}

struct TokenWebhook {
    reviews: Api<TokenReview>,
    known: Cache<[u8; 32], Option<User>>,
    holds_for: Duration,
}

impl Authenticator {
    /// `tokens` is how long an answer holds, and whom to ask.
    pub(super) fn new(tokens: Option<(Duration, kube::Client)>) -> Self {
        let tokens = tokens.map(|(holds_for, client)| TokenWebhook {
            reviews: Api::all(client),
            known: Cache::new(),
            holds_for,
        });
        Self { tokens }
    }

    /// Who asks; none is nobody we know.
    pub(super) async fn user(
        &self,
        certificate: Option<&User>,
        headers: &HeaderMap,
    ) -> Result<Option<User>, CallError> {
        if let Some(user) = certificate {
            return Ok(Some(user.clone()));
        }
        match (&self.tokens, bearer_token(headers)) {
            (Some(webhook), Some(token)) => webhook.review(token).await,
            _ => Ok(None),
        }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

impl TokenWebhook {
    async fn review(&self, token: &str) -> Result<Option<User>, CallError> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
            ..TokenReview::default()
        };
        let answer = within(REVIEW_TIMEOUT, self.reviews.create(&PostParams::default(), &review)).await?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).and_then(|info| {
            let name = info.username.filter(|name| !name.is_empty())?;
            let (groups, extra) = (info.groups.unwrap_or_default(), info.extra.unwrap_or_default());
            Some(User { name, uid: info.uid, groups, extra }.authenticated())
        });
        self.known.put(key, user.clone(), self.holds_for);
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found() {
        let token = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            bearer_token(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer  abc ").as_deref(), Some("abc"));
        for none in ["Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(token(none), None, "{none}");
        }
    }
}
