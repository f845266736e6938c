//! Case folders over the pure core: `cases/<name>/{pod.yaml, events.yaml, expect.yaml}`.
//!
//! `pod.yaml` is the pod, `events.yaml` what happens to it and when, `expect.yaml` every plan that follows.
//! `UPDATE_CASES=1` writes `expect.yaml` anew: read the difference before committing it.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads files, and fails by stopping")]

mod world;

use decide::admission::Capacity;
use decide::event::{Event, Eviction, Failure};
use decide::pod::{Rejection, Resources};
use decide::time::after;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use world::{Fault, Health, Life, World};

/// One line of `events.yaml`.
#[derive(Debug, Deserialize)]
struct Line {
    /// Seconds since the beginning. Until then everything runs its course.
    at: u64,
    #[serde(flatten)]
    step: Step,
}

/// What happens.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Step {
    /// The worker starts: pod, admission, first listing.
    Start {},
    /// The same, but admission says no.
    StartRejected { reason: String, message: String },
    /// How containers live from now on.
    Lives(BTreeMap<String, Vec<Life>>),
    /// What probes tell from now on.
    Health(BTreeMap<String, Health>),
    /// The next actions of a task fail.
    Fail { task: String, container: Option<String>, reason: String, message: String, times: u32 },
    /// The source changes the pod.
    Edit(Value),
    /// Somebody else says something of the pod's state: a condition.
    OthersSay(Value),
    /// The node has this much for pods, in thousandths of a core and bytes, and the pod is judged anew.
    Room { cpu_millis: u64, memory_bytes: u64 },
    /// Another pod has this much CPU, and the pod is judged anew.
    Neighbour { cpu: String },
    /// What every container holds from now on, in bytes.
    Uses { memory_bytes: u64 },
    /// The pod is deleted.
    Delete { grace: i64 },
    /// No source knows the pod any more.
    Removed {},
    /// A critical pod needs the room.
    Preempt {},
    /// A ConfigMap or Secret of the pod changed.
    ReferencesChanged {},
    /// The newest sandbox dies.
    SandboxDies {},
    /// The runtime loses every trace of a container, and is listed.
    Forget { container: String },
    /// The kubelet starts anew and finds what is there.
    RestartKubelet {},
    /// Nothing: only time passes until here.
    End {},
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Start {} => world.start(),
        Step::StartRejected { reason, message } => {
            world.happen(Event::Desired(world.pod.clone()));
            world.happen(Event::Admission(Err(Rejection { reason: reason.into(), message })));
            world.list();
        }
        Step::Health(health) => world.runtime.health.extend(health),
        Step::Lives(lives) => world.runtime.lives.extend(lives),
        Step::Fail { task, container, reason, message, times } => {
            world.faults.push(Fault { kind: task, container, failure: Failure::new(known(reason), message), times });
        }
        Step::Edit(change) => world.edit(&change),
        Step::OthersSay(condition) => world.others_say(condition),
        Step::Room { cpu_millis, memory_bytes } => {
            let allocatable = Resources {
                cpu_millis: Some(cpu_millis),
                memory_bytes: Some(memory_bytes),
                ephemeral_storage_bytes: None,
            };
            world.has(Capacity { allocatable, ..world.capacity.clone() });
        }
        Step::Neighbour { cpu } => world.has_neighbour(&cpu),
        Step::Uses { memory_bytes } => world.runtime.memory_used = memory_bytes,
        Step::Delete { grace } => world.delete(grace),
        Step::Removed {} => world.happen(Event::Removed),
        Step::Preempt {} => world.happen(Event::Evicted(Eviction::PREEMPTED)),
        Step::ReferencesChanged {} => world.happen(Event::ReferencesChanged),
        Step::SandboxDies {} => {
            world.runtime.sandbox_dies(world.now);
            world.list();
        }
        Step::Forget { container } => {
            world.runtime.forget(&container);
            world.list();
        }
        Step::RestartKubelet {} => {
            world.restart_kubelet();
            world.start();
        }
        Step::End {} => {}
    }
}

/// Reasons are static in the crate: a test may leak the few it reads.
fn known(reason: String) -> &'static str {
    Box::leak(reason.into_boxed_str())
}

fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display())).unwrap();
    serde_saphyr::from_str(&text).map_err(|error| format!("{}: {error}", path.display())).unwrap()
}

fn play(case: &Path) -> String {
    let mut world = World::new(yaml(&case.join("pod.yaml")));
    let start = world.now;
    let lines: Vec<Line> = serde_json::from_value(yaml(&case.join("events.yaml"))).unwrap();
    for Line { at, step } in lines {
        world.run_until(after(start, Duration::from_secs(at)));
        take(&mut world, step);
    }
    serde_saphyr::to_string(&world.journal).unwrap()
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

#[test]
fn every_case_goes_as_expected() {
    let update = std::env::var_os("UPDATE_CASES").is_some();
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 15, "the cases are gone");
    for case in cases {
        let played = play(&case);
        let file = case.join("expect.yaml");
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if played == expected {
            continue;
        }
        if update {
            std::fs::write(&file, &played).unwrap();
            continue;
        }
        let differs = played.lines().zip(expected.lines()).position(|(a, b)| a != b);
        let line = differs.unwrap_or_else(|| played.lines().count().min(expected.lines().count()));
        let around = |text: &str| text.lines().skip(line.saturating_sub(3)).take(8).collect::<Vec<_>>().join("\n");
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let (line, expected, played) = (line + 1, around(&expected), around(&played));
        wrong.push(format!("{name}, line {line}\n-- expected\n{expected}\n-- played\n{played}"));
    }
    assert!(wrong.is_empty(), "UPDATE_CASES=1 writes what was played\n\n{}", wrong.join("\n\n"));
}
