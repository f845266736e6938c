//! What they may do: the node's subresource that a path stands for, and the API server's word on it.
//!
//! In come a user, a method and a path, out goes whether it is allowed. Several subresources may stand for one path; any
//! of them will do. What the API server said holds for a while.

use std::time::Duration;

use http::Method;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

use super::{authenticate::User, cache::Cache};
use crate::api::{CallError, within};

const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// What a request asks for, in the API server's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Empty for methods the API has no verb for.
    pub(super) verb: &'static str,
    /// Any of them will do.
    pub(super) subresources: &'static [&'static str],
}

impl Attributes {
    /// The table of the kubelet's authorizer, fine-grained subresources first.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let below =
            |parent: &str| path == parent || path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'));
        let subresources: &[_] = if below("/stats") {
            &["stats"]
        } else if below("/metrics") {
            &["metrics"]
        } else if below("/logs") {
            &["log"]
        } else if below("/checkpoint") {
            &["checkpoint"]
        } else if below("/statusz") {
            &["statusz"]
        } else if below("/flagz") {
            &["configz"]
        } else if below("/pods") || below("/runningpods") {
            &["pods", "proxy"]
        } else if below("/healthz") {
            &["healthz", "proxy"]
        } else if below("/configz") {
            &["configz", "proxy"]
        } else {
            &["proxy"]
        };
        let verb = match *method {
            Method::POST => "create",
            Method::GET => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        Self { verb, subresources }
    }
}

/// How requests are judged.
pub(super) enum Authorizer {
    /// Whoever has proved who they are may do everything.
    AlwaysAllow,
    /// The API server is asked.
    Webhook(Box<Webhook>),
}

pub(super) struct Webhook {
    reviews: Api<SubjectAccessReview>,
    known: Cache<(User, &'static str, &'static str), bool>,
    allowed_for: Duration,
    denied_for: Duration,
}

impl Authorizer {
    pub(super) fn webhook(client: kube::Client, allowed_for: Duration, denied_for: Duration) -> Self {
        Self::Webhook(Box::new(Webhook { reviews: Api::all(client), known: Cache::new(), allowed_for, denied_for }))
    }

    /// Whether `user` may do it to the node.
    pub(super) async fn allows(&self, node: &str, user: &User, wanted: Attributes) -> Result<bool, CallError> {
        let Self::Webhook(webhook) = self else { return Ok(true) };
        for subresource in wanted.subresources {
            if webhook.review(node, user, wanted.verb, subresource).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Webhook {
    async fn review(
        &self,
        node: &str,
        user: &User,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, CallError> {
        let key = (user.clone(), verb, subresource);
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: user.uid.clone(),
                groups: Some(user.groups.clone()),
                extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(node.to_owned()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let answer = within(REVIEW_TIMEOUT, self.reviews.create(&PostParams::default(), &review)).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed && status.denied != Some(true));
        self.known.put(key, allowed, if allowed { self.allowed_for } else { self.denied_for });
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_for_subresources() {
        let cases: [(&str, &[&str]); 12] = [
            ("/pods", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz/ping", &["healthz", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/metrics", &["metrics"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/stats/summary", &["stats"]),
            ("/logs/", &["log"]),
            ("/checkpoint/a/b/c", &["checkpoint"]),
            ("/containerLogs/a/b/c", &["proxy"]),
            ("/podsecrets", &["proxy"]),
            ("/", &["proxy"]),
        ];
        for (path, subresources) in cases {
            assert_eq!(Attributes::of(&Method::GET, path), Attributes { verb: "get", subresources }, "{path}");
        }
        assert_eq!(Attributes::of(&Method::POST, "/run/a/b/c").verb, "create");
        assert_eq!(Attributes::of(&Method::HEAD, "/pods").verb, "");
    }
}
