//! Properties of probes that hold whatever is told, in whatever order, and what a step of the plan costs.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by stopping, and measures for reading"
)]

mod world;

use decide::event::{Event, Outcome, ProbeResult};
use decide::names::{ContainerId, ContainerName};
use decide::observed::InstanceState;
use decide::plan::{Action, Stage, TaskKind};
use decide::pod::ProbeKind;
use decide::time::{Timestamp, after, between};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use world::{Health, Told, World};

/// Periods and thresholds of the pod of these tests.
const PERIOD: u64 = 4;
const FAILURES: usize = 2;
const SUCCESSES: usize = 2;

fn object(uid: &str, startup: bool) -> Value {
    let check = json!({ "port": 80 });
    let probe = json!({ "tcpSocket": check, "periodSeconds": PERIOD, "failureThreshold": FAILURES });
    let mut container = json!({ "name": "web", "image": "web:1", "livenessProbe": probe.clone() });
    container["readinessProbe"] = json!({ "tcpSocket": check, "periodSeconds": PERIOD, "failureThreshold": FAILURES, "successThreshold": SUCCESSES });
    if startup {
        container["startupProbe"] = probe;
    }
    json!({ "metadata": { "name": "p", "namespace": "n", "uid": uid }, "spec": { "containers": [container] } })
}

/// One thing that may happen.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// A probe in flight ends with this.
    Tells(usize, bool),
    /// Everything else in flight works.
    Works,
    /// Time passes, at most to when the plan wakes.
    Passes(u64),
    Exits,
    Listed,
    Deleted,
    KubeletRestarts,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => (any::<usize>(), any::<bool>()).prop_map(|(which, yes)| Happening::Tells(which, yes)),
        6 => Just(Happening::Works),
        10 => (0..6_u64).prop_map(Happening::Passes),
        1 => Just(Happening::Exits),
        1 => Just(Happening::Listed),
        1 => Just(Happening::Deleted),
        1 => Just(Happening::KubeletRestarts),
    ]
}

/// What was told of an instance by one probe, as far as it counts.
type History = BTreeMap<(ContainerId, ProbeKind), Vec<bool>>;

struct Watched {
    world: World,
    startup: bool,
    deleted: bool,
    history: History,
    /// When an instance was asked.
    asked: BTreeMap<(ContainerId, ProbeKind), Vec<Timestamp>>,
    /// What an earlier process told of the instance.
    remembered: BTreeSet<ContainerId>,
}

impl Watched {
    fn new(startup: bool) -> Self {
        let mut world = World::new(object("u", startup));
        world.start();
        let (history, asked) = (History::new(), BTreeMap::new());
        Watched { world, startup, deleted: false, history, asked, remembered: BTreeSet::new() }
    }

    fn happen(&mut self, happening: Happening) {
        if self.world.plan.as_ref().is_some_and(|plan| plan.stage == Stage::Released) {
            return;
        }
        let is_probe = |kind: TaskKind| matches!(kind, TaskKind::Probe(_));
        match happening {
            Happening::Tells(which, yes) => {
                let probes: Vec<_> = self.world.pending.keys().filter(|task| is_probe(task.kind)).cloned().collect();
                if let Some(task) = which.checked_rem(probes.len()).and_then(|which| probes.get(which)) {
                    let pending = self.world.pending.remove(task).unwrap();
                    self.told(pending.action, yes);
                }
            }
            Happening::Works => {
                let tasks: Vec<_> = self.world.pending.keys().filter(|task| !is_probe(task.kind)).cloned().collect();
                for task in tasks {
                    self.world.perform(&task);
                    self.check();
                }
            }
            Happening::Passes(seconds) => {
                let end = after(self.world.now, Duration::from_secs(seconds));
                let wake = self.world.plan.as_ref().and_then(|plan| plan.wake_at);
                self.world.now = wake.map_or(end, |wake| wake.min(end)).max(self.world.now);
                self.world.happen(Event::Tick);
            }
            Happening::Exits => {
                let running: Vec<_> = self.world.observed.alive().map(|(_, one)| one.id.clone()).collect();
                for id in running {
                    self.world.runtime.end(&id, 1, self.world.now);
                }
            }
            Happening::Listed => self.world.list(),
            Happening::Deleted => {
                if !self.deleted {
                    self.deleted = true;
                    self.world.delete(30);
                }
            }
            Happening::KubeletRestarts => {
                self.remembered = self.world.observed.alive().map(|(_, one)| one.id.clone()).collect();
                self.history.clear();
                self.world.restart_kubelet();
                self.world.start();
            }
        }
        self.check();
    }

    fn told(&mut self, action: Action, yes: bool) {
        let Action::Probe { container, id, kind, early, .. } = action else { unreachable!() };
        let result = if yes { ProbeResult::Success } else { ProbeResult::Failure("no".into()) };
        if yes || !early {
            self.history.entry((id.clone(), kind)).or_default().push(yes);
        }
        self.world.happen(Event::Done(Outcome::Probed { container, id, kind, result }));
    }

    /// The last answers of a probe, if so many were all the same.
    fn agreed(&self, id: &ContainerId, kind: ProbeKind, yes: bool, times: usize) -> bool {
        let told = self.history.get(&(id.clone(), kind)).map_or(&[][..], Vec::as_slice);
        told.windows(times).any(|run| run.iter().all(|told| *told == yes))
    }

    fn check(&mut self) {
        let world = &self.world;
        let plan = world.plan.as_ref().unwrap();
        let web = ContainerName::from("web");
        let newest = world.observed.container(&web).and_then(|known| known.newest()).cloned();
        let status = plan.status.container_statuses.iter().flatten().next();
        let (started, ready) = status.map_or((false, false), |one| (one.started == Some(true), one.ready));
        let running = status.and_then(|one| one.state.as_ref()).is_some_and(|state| state.running.is_some());
        assert!(!ready || started, "ready and not started");
        assert!(!started || running, "started and not running");
        let stops = |action: &Action| matches!(action, Action::StopContainer { .. });
        for planned in &plan.actions {
            match &planned.action {
                Action::Probe { id, kind, at, .. } => {
                    let newest = newest.as_ref().unwrap();
                    assert_eq!(*id, newest.id, "a former instance is asked");
                    assert!(matches!(newest.state, InstanceState::Running { .. }), "what does not run is asked");
                    if *kind != ProbeKind::Readiness {
                        assert!(!self.deleted && !world.observed.in_flight.values().any(stops), "it is on its way out");
                        assert!(!self.agreed(id, *kind, false, FAILURES), "what failed for good is asked again");
                    }
                    assert!(!self.startup || (*kind == ProbeKind::Startup) != started, "{kind:?}, started: {started}");
                    let times = self.asked.entry((id.clone(), *kind)).or_default();
                    // A plan is looked at more than once.
                    if times.last() != Some(at) {
                        times.push(*at);
                    }
                }
                Action::StopContainer { id, .. } if !self.deleted && planned.why.contains("probe") => {
                    let failed = |kind| self.agreed(id, kind, false, FAILURES);
                    assert!(
                        failed(ProbeKind::Liveness) || failed(ProbeKind::Startup),
                        "stopped for nothing: {planned:?}"
                    );
                }
                _ => {}
            }
        }
        let Some(newest) = newest.filter(|_| running) else { return };
        if !self.remembered.contains(&newest.id) {
            let success = |kind, times| self.agreed(&newest.id, kind, true, times);
            let passed = !self.startup || success(ProbeKind::Startup, 1);
            // What is told of a startup while the pod ends is not heard.
            assert!(started == passed || (self.deleted && !started), "started: {started}, passed: {passed}");
            assert!(!ready || success(ProbeKind::Readiness, SUCCESSES), "ready for nothing");
        }
        for ((id, kind), times) in &self.asked {
            let span = between(times[0], *times.last().unwrap()).as_secs();
            let most = usize::try_from(span / PERIOD).unwrap() + 3;
            // One more for each restart of the kubelet, which spreads anew.
            let restarts = if self.remembered.is_empty() { 0 } else { times.len() };
            assert!(times.len() <= most + restarts, "{id} {kind:?} was asked {} times in {span} s", times.len());
        }
    }
}

// `PROPTEST_CASES` asks for more.
proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_told(startup in any::<bool>(), happenings in prop::collection::vec(happening(), 0..120)) {
        let mut watched = Watched::new(startup);
        for happening in happenings {
            watched.happen(happening);
        }
    }
}

fn running(uid: &str) -> World {
    let mut world = World::new(object(uid, false));
    world.runtime.health =
        BTreeMap::from([("web".to_owned(), Health { readiness: Told::Succeeds, ..Health::default() })]);
    world.start();
    world.run_until(after(world.now, Duration::from_secs(60)));
    world
}

/// When the pod is next asked whether it lives, after a restart of the kubelet.
fn first_turn(uid: &str) -> Duration {
    let mut world = running(uid);
    world.restart_kubelet();
    world.start();
    world.run_until(world.now);
    between(world.now, world.plan.unwrap().wake_at.unwrap())
}

#[test]
fn a_kubelet_that_begins_again_does_not_ask_all_at_once() {
    let turns: Vec<Duration> = (0..200).map(|number| first_turn(&format!("pod-{number}"))).collect();
    let tenth = Duration::from_secs(PERIOD) / 10;
    for share in 0..5 {
        let (from, to) = (tenth * share, tenth * (share + 1));
        let inside = turns.iter().filter(|turn| (from..to).contains(turn)).count();
        assert!((8..70).contains(&inside), "{inside} of {} between {from:?} and {to:?}", turns.len());
    }
}

#[test]
fn a_probe_that_tells_nothing_new_changes_nothing_that_is_shown() {
    let mut world = running("u");
    let (status, waits) = (world.status().clone(), world.plan.as_ref().unwrap().waiting.clone());
    let began = Instant::now();
    let steps = 2000;
    for _ in 0..steps / 2 {
        world.now = world.plan.as_ref().unwrap().wake_at.unwrap();
        world.happen(Event::Tick);
        let tasks: Vec<_> = world.pending.keys().cloned().collect();
        assert!(!tasks.is_empty(), "it woke for nothing");
        tasks.iter().for_each(|task| world.perform(task));
        assert_eq!(*world.status(), status, "nothing has changed");
    }
    assert_eq!(world.plan.unwrap().waiting, waits);
    // For reading, with `--nocapture`: no time is asserted.
    let each = began.elapsed() / steps;
    eprintln!("a step of a pod's worker in the pure core takes {each:?}");
}
