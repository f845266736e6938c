//! What the probes of one instance have told: counted, and judged by the thresholds. When to ask is decided elsewhere.

use super::{InstanceState, Observed};
use crate::event::ProbeResult;
use crate::names::{ContainerId, ContainerName};
use crate::plan::{Action, TaskKind};
use crate::pod::{Pod, Probe, ProbeKind};
use crate::report::Report;
use crate::time::Timestamp;

/// What the probes of one instance have told. Another instance begins with nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeRecord {
    /// The instance that was asked.
    pub id: ContainerId,
    /// When it passed its startup probe.
    pub passed_at: Option<Timestamp>,
    startup: Tally,
    liveness: Tally,
    readiness: Tally,
}

/// The results of one probe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// When the container was last asked.
    pub asked_at: Option<Timestamp>,
    /// What was told so often that it counts; nothing before that.
    pub verdict: Option<Verdict>,
    last: Option<Verdict>,
    /// How often `last` was told in a row.
    run: u32,
}

/// What a probe says of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Success,
    /// No.
    Failure,
}

impl Observed {
    /// What the probe of an instance told, and what to say of it. Nothing, if the instance does not run any more, or is being
    /// stopped and only whether it can serve is of interest.
    pub(super) fn probed(
        &mut self,
        pod: &Pod,
        (name, id, kind): (&ContainerName, &ContainerId, ProbeKind),
        action: Option<&Action>,
        result: ProbeResult,
        now: Timestamp,
    ) -> Vec<Report> {
        let stops = [TaskKind::StopContainer, TaskKind::RunPreStop];
        let ends = self.ending.is_some() || stops.into_iter().any(|kind| self.is_in_flight(kind, Some(name)));
        let probe = pod.container(name).and_then(|container| container.probes.get(kind));
        let (Some(probe), Some(known)) = (probe, self.containers.get_mut(name)) else {
            return Vec::new();
        };
        let newest = known.newest().filter(|newest| newest.id == *id);
        let runs = newest.is_some_and(|newest| matches!(newest.state, InstanceState::Running { .. }));
        if !runs || (ends && kind != ProbeKind::Readiness) {
            return Vec::new();
        }
        let asked = match action {
            Some(Action::Probe { at, early, .. }) => Asked { at: *at, answered_at: now, early: *early },
            _ => Asked { at: now, answered_at: now, early: false },
        };
        let mut record = known.probes.take().filter(|record| record.id == *id);
        let counts = record.get_or_insert_with(|| ProbeRecord::new(id.clone())).take(kind, probe, asked, &result);
        known.probes = record;
        if counts { report(kind, result).map(|report| report.of(name)).into_iter().collect() } else { Vec::new() }
    }
}

fn report(kind: ProbeKind, result: ProbeResult) -> Option<Report> {
    let kind = kind.as_str();
    match result {
        ProbeResult::Success => None,
        ProbeResult::Warning(why) => Some(Report::warning("ProbeWarning", format!("{kind} probe warning: {why}"))),
        ProbeResult::Failure(why) => Some(Report::warning("Unhealthy", format!("{kind} probe failed: {why}"))),
        ProbeResult::Errored { state, message } => {
            let message = format!("{kind} probe errored and resulted in {state} state: {message}");
            Some(Report::warning("Unhealthy", message))
        }
    }
}

impl ProbeRecord {
    /// Nothing is known of the instance.
    #[must_use]
    pub fn new(id: ContainerId) -> Self {
        let none = Tally::default;
        ProbeRecord { id, passed_at: None, startup: none(), liveness: none(), readiness: none() }
    }

    /// What an earlier process published of the instance, so that nobody takes a restart of the kubelet for one of the
    /// container: what had started need not start again, and what was ready stays so until a probe says otherwise.
    pub(super) fn remembered(id: ContainerId, started: bool, ready: bool, now: Timestamp) -> Self {
        let readiness = Tally { verdict: ready.then_some(Verdict::Success), ..Tally::default() };
        ProbeRecord { passed_at: started.then_some(now), readiness, ..ProbeRecord::new(id) }
    }

    /// The results of one probe.
    #[must_use]
    pub fn tally(&self, kind: ProbeKind) -> &Tally {
        match kind {
            ProbeKind::Startup => &self.startup,
            ProbeKind::Liveness => &self.liveness,
            ProbeKind::Readiness => &self.readiness,
        }
    }

    /// Takes in how a probe ended that began at `asked_at`. Returns whether the result counts: an early probe's failure
    /// does not, nor does an answer that says nothing of the container.
    pub(super) fn take(&mut self, kind: ProbeKind, probe: &Probe, asked: Asked, result: &ProbeResult) -> bool {
        let tally = match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        };
        tally.asked_at = Some(asked.at);
        let told = match result {
            ProbeResult::Success | ProbeResult::Warning(_) => Verdict::Success,
            ProbeResult::Failure(_) if asked.early => return false,
            ProbeResult::Failure(_) => Verdict::Failure,
            ProbeResult::Errored { .. } => return !asked.early,
        };
        tally.count(told, probe);
        if kind == ProbeKind::Startup && tally.verdict == Some(Verdict::Success) {
            self.passed_at = self.passed_at.or(Some(asked.answered_at));
        }
        true
    }
}

/// When a container was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// When the probe began.
    pub(super) at: Timestamp,
    /// When it ended.
    pub(super) answered_at: Timestamp,
    /// Whether it came before its time: see [`crate::plan::Action::Probe`].
    pub(super) early: bool,
}

impl Tally {
    fn count(&mut self, told: Verdict, probe: &Probe) {
        self.run = if self.last == Some(told) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(told);
        let threshold = match told {
            Verdict::Success => probe.success_threshold,
            Verdict::Failure => probe.failure_threshold,
        };
        if self.run >= threshold {
            self.verdict = Some(told);
        }
    }
}
