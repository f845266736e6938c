//! Hooks in a plan: `postStart` once an instance runs, `preStop` before it is stopped.
//!
//! What stands for an instance is remembered with it: see [`PostStart`] and [`PreStop`].

use super::draft::Draft;
use super::probe::{is_being_stopped, restarts};
use super::{Action, TaskKind, Waiting};
use crate::observed::{ContainerObserved, Instance, InstanceState, PostStart, PreStop};
use crate::pod::Container;
use crate::report::Report;
use crate::time::{Timestamp, after, between};
use std::time::Duration;

/// How long a container shows that its hook failed before it shows that it waits to be restarted.
const HOOK_ERROR_SHOWN: Duration = Duration::from_secs(2);
/// What the kubelet says when it stops a container whose `postStart` failed.
const POST_START_FAILED: &str = "FailedPostStartHook";

/// Whether `instance` runs and its `postStart` is not done yet: until then it is not said to run.
pub(crate) fn waits_for_post_start(container: &Container, instance: &Instance) -> bool {
    container.hooks.post_start.is_some()
        && matches!(instance.state, InstanceState::Running { .. })
        && !matches!(instance.post_start, PostStart::Done)
}

/// Plans the `postStart` of whatever has just started.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let (pod, observed) = (draft.pod, draft.observed);
    for container in pod.all_containers() {
        let newest = observed.container(&container.name).and_then(|known| known.newest());
        let owed = |newest: &&Instance| newest.post_start == PostStart::Owed && waits_for_post_start(container, newest);
        if let Some(instance) = newest.filter(owed).filter(|_| !is_being_stopped(draft, container)) {
            let action = Action::RunPostStart { container: container.name.clone(), id: instance.id.clone() };
            draft.act(action, format!("container {} has started and has a postStart hook", container.name));
        }
    }
}

/// Why `instance` must not go on, if its `postStart` failed.
pub(super) fn why_not_go_on(instance: &Instance) -> Option<String> {
    matches!(instance.post_start, PostStart::Failed { .. }).then(|| POST_START_FAILED.to_owned())
}

/// For what a container waits whose hook failed and which is to be restarted, until it is seen to wait for that.
pub(super) fn waiting(draft: &Draft<'_>, container: &Container, known: &ContainerObserved) -> Option<Waiting> {
    let begun = |instance: &&Instance| !matches!(instance.state, InstanceState::Created);
    let last = known.instances.iter().rev().find(begun)?;
    let PostStart::Failed { message, at } = &last.post_start else { return None };
    if !last.exit().is_some_and(|exit| restarts(container, known, exit)) {
        return None;
    }
    let until = after(*at, HOOK_ERROR_SHOWN);
    let message = message.clone();
    (draft.now < until).then(|| Waiting {
        reason: "PostStartHookError",
        message,
        until: Some(until),
        reports: Vec::new(),
    })
}

/// Makes room for the `preStop` hook of an instance that is to be stopped at the latest at `deadline`. Gives the deadline
/// of the stop itself, or nothing while the hook has its time.
pub(super) fn before_stop(
    draft: &mut Draft<'_>,
    container: &Container,
    instance: &Instance,
    deadline: Timestamp,
    killing: &str,
) -> Option<Timestamp> {
    let name = &container.name;
    let runs = matches!(instance.state, InstanceState::Running { .. });
    match instance.pre_stop {
        PreStop::Owed if runs && container.hooks.pre_stop.is_some() && deadline > draft.now => {
            let grace = between(draft.now, deadline);
            let action = Action::RunPreStop { container: name.clone(), id: instance.id.clone(), grace, deadline };
            let announce = Some(Report::normal("Killing", killing).of(name));
            draft.announce(action, format!("container {name} is to stop and has a preStop hook"), announce);
            draft.wake(deadline);
            None
        }
        PreStop::Owed => Some(deadline),
        PreStop::Begun { deadline: first } => {
            let deadline = deadline.min(first);
            let under_way = draft.observed.is_in_flight(TaskKind::RunPreStop, Some(name));
            if runs && under_way && deadline > draft.now {
                draft.wake(deadline);
                return None;
            }
            Some(deadline)
        }
    }
}
