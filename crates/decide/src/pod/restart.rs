//! When a container that has ended is started again.

/// What a container's own fields and the pod's policy make of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// `restartPolicyRules`, in order: the first that knows the exit code counts.
    pub rules: Vec<RestartRule>,
    /// What holds where no rule does: the container's `restartPolicy`, else the pod's. A container that must end before
    /// others begin has `OnFailure` where the pod has `Always`; an ephemeral one always has `Never`.
    pub policy: RestartPolicy,
}

impl Restart {
    /// No rules, only a policy.
    #[must_use]
    pub fn by(policy: RestartPolicy) -> Self {
        Restart { rules: Vec::new(), policy }
    }

    /// Whether a container that ended with `code` is started again, alone or with all others.
    #[must_use]
    pub fn restarts_after(&self, code: i32) -> bool {
        self.action(code).is_some() || self.policy.restarts_after(code)
    }

    /// Whether the end with `code` has every container of the pod started again.
    #[must_use]
    pub fn restarts_all_after(&self, code: i32) -> bool {
        self.action(code) == Some(RestartAction::RestartAllContainers)
    }

    fn action(&self, code: i32) -> Option<RestartAction> {
        self.rules.iter().find(|rule| rule.exit_codes.hold(code)).map(|rule| rule.action)
    }
}

/// One of `restartPolicyRules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartRule {
    /// `exitCodes`.
    pub exit_codes: ExitCodes,
    /// `action`.
    pub action: RestartAction,
}

/// The exit codes a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitCodes {
    /// These.
    In(Vec<i32>),
    /// All but these.
    NotIn(Vec<i32>),
}

impl ExitCodes {
    fn hold(&self, code: i32) -> bool {
        match self {
            ExitCodes::In(codes) => codes.contains(&code),
            ExitCodes::NotIn(codes) => !codes.contains(&code),
        }
    }
}

/// What a rule has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartAction {
    /// The container is started again.
    Restart,
    /// Every container of the pod is started again, from the first init container on.
    RestartAllContainers,
}

/// `restartPolicy`, of the pod or of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// After an exit code other than 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// Whether a container that ended with `code` is started again.
    #[must_use]
    pub fn restarts_after(self, code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }
}
