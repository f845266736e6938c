//! Tokens of ServiceAccounts, bound to a pod.
//!
//! Comes in: who wants a token for what. Goes out: one that is not due, from memory where there is one. Never here: a
//! token in a log or in an error.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use decide::names::PodUid;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use tokio::time::timeout;

use super::{FIRST_ANSWER, ObjectError};
use crate::clock::Clock;

/// A token is renewed when this part of its life is over…
const RENEW_AT: f64 = 0.8;
/// …or at this age, whatever comes first. Both are the kubelet's.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Which token is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenRequest {
    /// The pod's namespace, and so the account's.
    pub namespace: String,
    /// The account.
    pub service_account: String,
    /// The pod the token is bound to.
    pub pod_name: String,
    /// That pod's UID.
    pub pod_uid: PodUid,
    /// Who the token is for; empty for the API server itself.
    pub audience: String,
    /// How long it shall live.
    pub expiration: Duration,
}

/// A token and when another is due.
#[derive(Clone)]
pub struct Token {
    /// What a bearer bears.
    pub token: String,
    /// When it should be renewed.
    pub renew_at: Timestamp,
    expires_at: Timestamp,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

pub(super) struct Tokens {
    client: kube::Client,
    clock: Clock,
    issued: Mutex<HashMap<TokenRequest, Token>>,
}

impl Tokens {
    pub(super) fn new(client: kube::Client, clock: Clock) -> Self {
        Self { client, clock, issued: Mutex::default() }
    }

    pub(super) fn forget(&self, pod: &PodUid) {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).retain(|request, _| request.pod_uid != *pod);
    }

    pub(super) async fn get(&self, request: &TokenRequest) -> Result<Token, ObjectError> {
        let had = self.issued.lock().unwrap_or_else(PoisonError::into_inner).get(request).cloned();
        let now = self.clock.now();
        if let Some(token) = had.as_ref().filter(|token| token.renew_at > now) {
            return Ok(token.clone());
        }
        match self.issue(request).await {
            Ok(token) => {
                let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
                issued.insert(request.clone(), token.clone());
                Ok(token)
            }
            // Due is not over: the old one serves while the API server is away.
            Err(error) => had.filter(|token| token.expires_at > now).ok_or(error),
        }
    }

    async fn issue(&self, request: &TokenRequest) -> Result<Token, ObjectError> {
        let account = format!("{}/{}", request.namespace, request.service_account);
        let accounts: kube::Api<ServiceAccount> = kube::Api::namespaced(self.client.clone(), &request.namespace);
        let body = authentication::TokenRequest {
            spec: Some(authentication::TokenRequestSpec {
                attestations: None,
                audiences: Some(vec![request.audience.clone()]).filter(|_| !request.audience.is_empty()),
                bound_object_ref: Some(authentication::BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(request.pod_name.clone()),
                    uid: Some(request.pod_uid.as_str().to_owned()),
                }),
                expiration_seconds: i64::try_from(request.expiration.as_secs()).ok(),
            }),
            ..authentication::TokenRequest::default()
        };
        let asked_at = self.clock.now();
        let parameters = PostParams::default();
        let call = accounts.create_token_request(&request.service_account, &parameters, &body);
        let answer = match timeout(FIRST_ANSWER, call).await {
            Ok(answer) => {
                answer.map_err(|source| ObjectError::Token { account: account.clone(), source: Box::new(source) })?
            }
            Err(_) => return Err(ObjectError::NoAnswer { kind: "the token of ServiceAccount", name: account }),
        };
        let status = answer.status.unwrap_or_default();
        let (Some(token), Some(expires_at)) = (status.token, status.expiration_timestamp) else {
            return Err(ObjectError::NoAnswer { kind: "the token of ServiceAccount", name: account });
        };
        let expires_at = expires_at.0;
        let life = decide::time::between(asked_at, expires_at);
        // Jitter keeps a thousand pods that started together from renewing together.
        let due = life.mul_f64(RENEW_AT - rand::random::<f64>() * 0.05).min(RENEW_AFTER);
        Ok(Token { token, renew_at: decide::time::after(asked_at, due), expires_at })
    }
}
