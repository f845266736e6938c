//! Properties of the plan that hold whatever happens, in whatever order.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing where something must be has failed")]

mod world;

use decide::event::{Event, Eviction, Failure};
use decide::names::{ContainerId, ContainerName};
use decide::observed::{InstanceState, PostStart, PreStop};
use decide::plan::{Action, Phase, Plan, Stage, Task};
use decide::time::after;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use world::{Life, Run, World, fail};

/// One thing that may happen.
#[derive(Clone, Debug)]
enum Happening {
    /// An action in flight ends well.
    Succeeds(usize),
    /// An action in flight fails and has done nothing.
    Fails(usize),
    /// An action in flight fails, but what it was to do is done: an answer got lost.
    AnswerLost(usize),
    /// The runtime is listed.
    Listed,
    /// A listing arrives that was made some time ago.
    ListedLate,
    /// Seconds pass.
    Passes(u16),
    /// A container ends by itself.
    Exits(usize, i32),
    SandboxDies,
    /// The runtime loses a container that the worker knows of.
    Forgets(usize),
    ReferencesChange,
    ImageEdited(u8),
    /// `kubectl debug` adds an ephemeral container.
    Debugged,
    /// Other amounts are asked for, and granted.
    Resized(u8),
    Deleted(u8),
    Removed,
    /// The node ends the pod before its time.
    Evicted,
    /// The kubelet starts anew; of what was in flight, some was done and some was not.
    KubeletRestarts(Vec<bool>),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => any::<usize>().prop_map(Happening::Succeeds),
        2 => any::<usize>().prop_map(Happening::Fails),
        1 => any::<usize>().prop_map(Happening::AnswerLost),
        4 => Just(Happening::Listed),
        1 => Just(Happening::ListedLate),
        3 => (0..400_u16).prop_map(Happening::Passes),
        3 => (any::<usize>(), prop_oneof![3 => Just(0), 3 => Just(1), 3 => Just(137), 1 => Just(RESTARTS_ALL)]).prop_map(|(which, code)| Happening::Exits(which, code)),
        1 => Just(Happening::SandboxDies),
        1 => any::<usize>().prop_map(Happening::Forgets),
        1 => Just(Happening::ReferencesChange),
        1 => (0..3_u8).prop_map(Happening::ImageEdited),
        1 => Just(Happening::Debugged),
        1 => (1..4_u8).prop_map(Happening::Resized),
        1 => (0..40_u8).prop_map(Happening::Deleted),
        1 => Just(Happening::Removed),
        1 => Just(Happening::Evicted),
        1 => prop::collection::vec(any::<bool>(), 4).prop_map(Happening::KubeletRestarts),
    ]
}

/// The exit code for which a rule has all containers started again, in a pod that has the rule.
const RESTARTS_ALL: i32 = 42;

fn object(policy: &str, with_rule: bool) -> Value {
    // The API takes no other for a pod that restarts nothing.
    let resize = if policy == "Never" { "NotRequired" } else { "RestartContainer" };
    let hook = json!({ "exec": { "command": ["hook"] } });
    let hooks = json!({ "postStart": hook, "preStop": hook });
    let rules =
        json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [RESTARTS_ALL] } }]);
    let mut object = json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u", "generation": 1 },
        "spec": {
            "restartPolicy": policy,
            "terminationGracePeriodSeconds": 30,
            "initContainers": [
                { "name": "s", "image": "s:1", "restartPolicy": "Always" },
                { "name": "i", "image": "i:1" },
                { "name": "t", "image": "t:1", "restartPolicy": "Always" },
            ],
            "containers": [{ "name": "a", "image": "a:1", "lifecycle": hooks }, {
                "name": "b", "image": "b:1",
                "resizePolicy": [{ "resourceName": "memory", "restartPolicy": resize }],
            }],
        },
    });
    if with_rule {
        object["spec"]["containers"][1]["restartPolicy"] = policy.into();
        object["spec"]["containers"][1]["restartPolicyRules"] = rules;
    }
    object
}

/// How a container lives that goes on until it is stopped.
fn lasting_life() -> Life {
    let (post_start, pre_stop) = (Run::default(), Run::default());
    Life { exits: None, after: 0, stops_in: 0, stops_with: 143, says: String::new(), post_start, pre_stop }
}

/// How those containers live that are to come to an end by themselves.
fn ending_lives() -> BTreeMap<String, Vec<Life>> {
    let life = Life { exits: Some(0), after: 5, ..lasting_life() };
    ["i", "e"].map(|name| (name.to_owned(), vec![life.clone()])).into()
}

/// A world under watch.
struct Watched {
    world: World,
    never: bool,
    initialized: bool,
    phase: Option<Phase>,
    restarts: BTreeMap<String, i32>,
    late: Option<decide::event::RuntimeView>,
    removed: bool,
}

impl Watched {
    fn new(policy: &str, with_rule: bool) -> Self {
        let mut world = World::new(object(policy, with_rule));
        world.runtime.lives = ending_lives();
        world.start();
        let never = policy == "Never" && !with_rule;
        let mut watched = Watched {
            world,
            never,
            initialized: false,
            phase: None,
            restarts: BTreeMap::new(),
            late: None,
            removed: false,
        };
        watched.check();
        watched
    }

    fn pick(&self, which: usize) -> Option<Task> {
        self.world.pending.keys().nth(which.checked_rem(self.world.pending.len())?).cloned()
    }

    fn happen(&mut self, happening: Happening) {
        let world = &mut self.world;
        if world.plan.as_ref().is_some_and(|plan| plan.stage == Stage::Released) {
            return;
        }
        match happening {
            Happening::Succeeds(which) => {
                if let Some(task) = self.pick(which) {
                    self.world.perform(&task);
                }
            }
            Happening::Fails(which) => self.end_with_failure(which, false),
            Happening::AnswerLost(which) => self.end_with_failure(which, true),
            Happening::Listed => {
                self.late = Some(world.runtime.view(world.now));
                world.list();
            }
            Happening::ListedLate => {
                if let Some(view) = self.late.clone() {
                    world.happen(Event::Runtime(view));
                }
            }
            Happening::Passes(seconds) => {
                world.now = after(world.now, Duration::from_secs(seconds.into()));
                world.happen(Event::Tick);
            }
            Happening::Exits(which, code) => {
                let running: Vec<_> = world.observed.alive().map(|(_, instance)| instance.id.clone()).collect();
                if let Some(id) = which.checked_rem(running.len()).and_then(|which| running.get(which)) {
                    world.runtime.end(id, code, world.now);
                }
            }
            Happening::SandboxDies => world.runtime.sandbox_dies(world.now),
            Happening::Forgets(which) => self.forget(which),
            Happening::ReferencesChange => world.happen(Event::ReferencesChanged),
            Happening::ImageEdited(version) => {
                world.edit(&json!({ "spec": { "containers": [{ "image": format!("a:{version}") }] } }));
            }
            Happening::Resized(amount) => {
                let amounts = json!({ "limits": { "cpu": format!("{amount}"), "memory": format!("{amount}Mi") } });
                world.edit(&json!({ "spec": { "containers": [{ "resources": amounts }, { "resources": amounts }] } }));
            }
            Happening::Debugged => {
                world.edit(&json!({ "spec": { "ephemeralContainers": [{ "name": "e", "image": "e:1" }] } }));
            }
            Happening::Deleted(grace) if !self.removed => world.delete(grace.into()),
            Happening::Deleted(_) => {}
            Happening::Removed => {
                self.removed = true;
                world.happen(Event::Removed);
            }
            Happening::Evicted => world.happen(Event::Evicted(Eviction::PREEMPTED)),
            Happening::KubeletRestarts(done) => {
                if self.removed {
                    return;
                }
                let pending: Vec<_> = world.pending.values().cloned().collect();
                for (pending, done) in pending.into_iter().zip(done) {
                    if done {
                        world.runtime.perform(pending.action, &world.pod, world.now);
                    }
                }
                self.late = None;
                world.restart_kubelet();
                world.start();
            }
        }
        self.check();
    }

    fn end_with_failure(&mut self, which: usize, but_done: bool) {
        let Some(task) = self.pick(which) else {
            return;
        };
        let world = &mut self.world;
        let Some(pending) = world.pending.remove(&task) else {
            return;
        };
        if but_done {
            world.runtime.perform(pending.action.clone(), &world.pod, world.now);
        }
        world.happen(Event::Done(fail(pending.action, Failure::new("Error", "it did not work"))));
    }

    /// Only what the worker has seen can be forgotten without being run again: nobody else knows that it ran.
    fn forget(&mut self, which: usize) {
        let names: Vec<_> = self.world.observed.alive().map(|(name, _)| name.to_string()).collect();
        if let Some(name) = which.checked_rem(names.len()).and_then(|which| names.get(which)) {
            self.world.runtime.forget(name);
        }
    }

    /// What must hold after every event.
    fn check(&mut self) {
        let world = &self.world;
        let plan = world.plan.as_ref().unwrap();

        let phase = Phase::terminal(&plan.status);
        assert!(self.phase.is_none() || self.phase == phase, "{:?} became {:?}", self.phase, plan.status.phase);
        self.phase = phase;

        assert!(world.runtime.most_alive() <= 1, "two instances of one container run");

        let status = &plan.status;
        let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
        for status in lists.into_iter().flatten().flatten() {
            let before = self.restarts.insert(status.name.clone(), status.restart_count).unwrap_or(0);
            assert!(status.restart_count >= before, "{} restarts became {}", before, status.restart_count);
        }

        let tasks: BTreeSet<Task> = plan.actions.iter().map(|planned| planned.action.task()).collect();
        assert_eq!(tasks.len(), plan.actions.len(), "two actions of one task");
        assert_eq!(world.observed.in_flight.len(), world.pending.len(), "the worker lost count of its actions");

        if self.never {
            let is_sidecar = |name: &ContainerName| matches!(name.as_str(), "s" | "t");
            let twice: Vec<(&ContainerName, &u32)> =
                world.runtime.starts.iter().filter(|(name, times)| !is_sidecar(name) && **times > 1).collect();
            assert!(twice.is_empty(), "run again under Never: {twice:?}");
        }
        let debugged = world.runtime.starts.get(&ContainerName::from("e")).copied().unwrap_or(0);
        assert!(debugged <= 1, "an ephemeral container runs again");

        let mut ends = world.runtime.containers.iter().filter(|(name, _)| name.as_str() == "i");
        self.initialized |= ends.any(|(_, instance)| instance.exit().is_some_and(|exit| exit.code == 0));
        self.check_turns(plan);
        if plan.stage == Stage::Released {
            assert!(world.runtime.containers.is_empty(), "released with containers left");
            assert!(world.runtime.sandboxes.is_empty(), "released with sandboxes left");
        }
        self.check_hooks();
        let again = decide::plan::next(&world.pod, &world.observed, world.now);
        assert!(again.actions.is_empty(), "asked again, it plans again: {:?}", again.actions);
        assert_eq!(again.status, plan.status, "asked again, the status moved");
    }

    /// A stop comes after the hook that goes before it, and readiness after the hook that goes before that.
    fn check_hooks(&self) {
        let (world, plan) = (&self.world, self.world.plan.as_ref().unwrap());
        let of = |id: &ContainerId| world.observed.held().map(|(_, one)| one).find(|one| one.id == *id);
        for planned in &plan.actions {
            if let Action::StopContainer { container, id, deadline, .. } = &planned.action
                && container.as_str() == "a"
                && *deadline > world.now
                && let Some(instance) = of(id).filter(|one| matches!(one.state, InstanceState::Running { .. }))
            {
                assert_ne!(instance.pre_stop, PreStop::Owed, "stopped before its hook");
            }
        }
        let statuses = plan.status.container_statuses.iter().flatten();
        for status in statuses.filter(|status| status.name == "a" && status.ready) {
            let id = status.container_id.as_deref().and_then(|id| id.split_once("://")).unwrap().1;
            let instance = of(&ContainerId::from(id)).unwrap();
            assert_eq!(instance.post_start, PostStart::Done, "ready before its hook");
        }
    }

    /// Init containers before main ones; at the end main ones before sidecars, and of those the last one first.
    fn check_turns(&self, plan: &Plan) {
        let world = &self.world;
        let runs = |names: &[&str]| world.observed.alive().any(|(name, _)| names.contains(&name.as_str()));
        for planned in &plan.actions {
            match (&planned.action, plan.stage) {
                (Action::CreateContainer { container, .. }, _) if matches!(container.as_str(), "a" | "b") => {
                    assert!(self.initialized, "{container} begins before the init container has succeeded");
                }
                (Action::StopContainer { container, .. }, Stage::Terminating { deadline }) if world.now < deadline => {
                    let before_it: &[&str] = match container.as_str() {
                        "s" => &["a", "b", "t"],
                        "t" => &["a", "b"],
                        _ => &[],
                    };
                    assert!(!runs(before_it), "{container} stops before its turn");
                }
                _ => {}
            }
        }
    }

    /// From here on everything works. The pod must come to rest: running as wanted, over, or gone.
    fn settle(&mut self) {
        let life = lasting_life();
        self.world.runtime.lives = ["a", "b", "s", "t"].map(|name| (name.to_owned(), vec![life.clone()])).into();
        self.world.runtime.lives.extend(ending_lives());
        self.world.list();
        let end = after(self.world.now, Duration::from_secs(3600));
        self.world.run_until(end);
        self.world.list();
        self.world.run_until(self.world.now);
        self.check();
        let world = &self.world;
        let plan = world.plan.as_ref().unwrap();
        assert!(world.pending.is_empty(), "it never rests: {:?}", world.pending);
        assert_eq!(plan.wake_at, None, "it waits for nothing");
        let ending = world.observed.ending.is_some();
        match plan.stage {
            Stage::Released => assert!(ending),
            Stage::Ended(_) => assert!(!ending && world.observed.alive().next().is_none()),
            Stage::Running => {
                assert!(!ending);
                let init = world.pod.init_containers.iter().zip(plan.status.init_container_statuses.iter().flatten());
                let main = world.pod.containers.iter().zip(plan.status.container_statuses.iter().flatten());
                for (container, status) in init.chain(main) {
                    let state = status.state.as_ref().unwrap();
                    let rests =
                        state.terminated.as_ref().is_some_and(|end| !container.restart.restarts_after(end.exit_code));
                    assert!(state.running.is_some() || rests, "{}: {state:?}", container.name);
                }
                for (name, instance) in world.observed.alive() {
                    let container = world.pod.container(name).unwrap();
                    assert_eq!(instance.enforced, Some(container.enforced()), "{name} has not what was granted");
                }
                let mut conditions = plan.status.conditions.iter().flatten();
                assert!(conditions.all(|condition| !condition.type_.starts_with("PodResize")), "a resize goes on");
            }
            Stage::Starting | Stage::Terminating { .. } => panic!("it rests in {:?}", plan.stage),
        }
    }
}

// `PROPTEST_CASES` asks for more.
proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(600), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        with_rule in any::<bool>(),
        happenings in prop::collection::vec(happening(), 0..80),
    ) {
        let mut watched = Watched::new(policy, with_rule);
        for happening in happenings {
            watched.happen(happening);
        }
        watched.settle();
    }
}
