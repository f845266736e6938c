//! What a container is there for and when it is started again: from the list it stands in, its own `restartPolicy` and
//! `restartPolicyRules`, and the pod's `restartPolicy`.

use super::container::each;
use super::{invalid, unsupported_value};
use crate::pod::{ExitCodes, Rejection, Restart, RestartAction, RestartPolicy, RestartRule, Role};
use k8s_openapi::api::core::v1 as api;

/// The lists of a spec that hold containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Init,
    Main,
    Ephemeral,
}

impl List {
    /// Where the list is.
    pub(super) fn place(self) -> &'static str {
        match self {
            List::Init => "spec.initContainers",
            List::Main => "spec.containers",
            List::Ephemeral => "spec.ephemeralContainers",
        }
    }
}

pub(super) fn role_and_restart(
    api: &api::Container,
    list: List,
    of_pod: RestartPolicy,
    place: &str,
) -> Result<(Role, Restart), Rejection> {
    let own = match api.restart_policy.as_deref().filter(|policy| !policy.is_empty()) {
        Some(text) => Some(policy(text, &format!("{place}.restartPolicy"))?),
        None => None,
    };
    let rules = each(api.restart_policy_rules.as_ref(), &format!("{place}.restartPolicyRules"), rule)?;
    if own.is_none() && !rules.is_empty() {
        return Err(invalid(format!("{place}.restartPolicyRules needs {place}.restartPolicy beside it")));
    }
    let (role, policy) = match (list, own) {
        (List::Init, Some(RestartPolicy::Always)) => (Role::Sidecar, RestartPolicy::Always),
        (List::Init, own) => (Role::Init, until_success(own.unwrap_or(of_pod))),
        (List::Ephemeral, _) => (Role::Ephemeral, RestartPolicy::Never),
        (List::Main, own) => (Role::Main, own.unwrap_or(of_pod)),
    };
    Ok((role, Restart { rules, policy }))
}

/// A container that others wait for is not started again once it has succeeded.
fn until_success(policy: RestartPolicy) -> RestartPolicy {
    match policy {
        RestartPolicy::Always | RestartPolicy::OnFailure => RestartPolicy::OnFailure,
        RestartPolicy::Never => RestartPolicy::Never,
    }
}

pub(super) fn policy(text: &str, place: &str) -> Result<RestartPolicy, Rejection> {
    match text {
        "Always" => Ok(RestartPolicy::Always),
        "OnFailure" => Ok(RestartPolicy::OnFailure),
        "Never" => Ok(RestartPolicy::Never),
        other => Err(unsupported_value(place, other, "Always, OnFailure or Never")),
    }
}

fn rule(api: &api::ContainerRestartRule, place: &str) -> Result<RestartRule, Rejection> {
    let codes = api.exit_codes.as_ref().ok_or_else(|| invalid(format!("{place}.exitCodes is missing")))?;
    let values = codes.values.clone().unwrap_or_default();
    let exit_codes = match codes.operator.as_str() {
        "In" => ExitCodes::In(values),
        "NotIn" => ExitCodes::NotIn(values),
        other => return Err(unsupported_value(&format!("{place}.exitCodes.operator"), other, "In or NotIn")),
    };
    let action = match api.action.as_str() {
        "Restart" => RestartAction::Restart,
        "RestartAllContainers" => RestartAction::RestartAllContainers,
        other => return Err(unsupported_value(&format!("{place}.action"), other, "Restart or RestartAllContainers")),
    };
    Ok(RestartRule { exit_codes, action })
}
