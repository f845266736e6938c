//! Whatever goes wrong, once it no longer does, every pod runs, and each exactly once.

use std::time::Duration;

use cri::Status;
use proptest::prelude::*;
use tokio::time::sleep;

use crate::bed::{Bed, is_ready, pod};

const PODS: usize = 4;
/// Longer than any back-off.
const QUIET: Duration = Duration::from_secs(6 * 60);

/// What goes wrong.
#[derive(Clone, Debug)]
enum Trouble {
    Fail(&'static str),
    Crash,
    Exit(usize),
    Restart,
    Wait(u64),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let call = prop::sample::select(vec![
        "RunPodSandbox",
        "PodSandboxStatus",
        "ListPodSandbox",
        "ListContainers",
        "ContainerStatus",
        "CreateContainer",
        "StartContainer",
        "StopContainer",
        "StopPodSandbox",
        "RemoveContainer",
        "RemovePodSandbox",
        "PullImage",
        "ImageStatus",
        "GetContainerEvents",
    ]);
    prop_oneof![
        6 => call.prop_map(Trouble::Fail),
        1 => Just(Trouble::Crash),
        2 => (0..PODS).prop_map(Trouble::Exit),
        1 => Just(Trouble::Restart),
        4 => prop_oneof![0..3_u64, 5..120_u64].prop_map(Trouble::Wait),
    ]
}

async fn make(bed: &mut Bed, pods: &[serde_json::Value], trouble: &Trouble) {
    match *trouble {
        Trouble::Fail(call) => {
            bed.fake.script().fail_next(call, Status::unavailable("trouble"));
        }
        Trouble::Crash => bed.fake.crash(),
        Trouble::Exit(number) => {
            let instance = bed.row(&pods[number]).and_then(|row| row.containers.last().cloned());
            if let Some(instance) = instance {
                bed.fake.exit(instance.id.as_str(), 1);
            }
        }
        Trouble::Restart => {
            bed.kill();
            bed.start();
            bed.want(pods).await;
        }
        Trouble::Wait(seconds) => sleep(Duration::from_secs(seconds)).await,
    }
}

/// Waits for what must come, at the latest after many back-offs.
async fn until(wanted: impl Fn() -> bool) {
    for _ in 0..60 {
        if wanted() {
            return;
        }
        sleep(QUIET).await;
    }
}

async fn all_heal(troubles: Vec<Trouble>, last_troubles: Vec<Trouble>) {
    let mut bed = Bed::new();
    bed.fake.script().image("web:v1");
    let pods: Vec<_> = (0..PODS).map(|number| pod(&format!("web-{number}"), "web:v1")).collect();
    bed.want(&pods).await;
    for trouble in &troubles {
        make(&mut bed, &pods, trouble).await;
    }
    // Faults that are still to strike may each cost the longest back-off, and what runs must go on running.
    let all_ready = |bed: &Bed| pods.iter().all(|pod| bed.row(pod).is_some_and(|row| is_ready(&row)));
    until(|| all_ready(&bed)).await;
    sleep(QUIET).await;
    for pod in &pods {
        let row = bed.row(pod).unwrap();
        assert!(is_ready(&row), "{row:#?}");
    }
    assert_eq!(bed.alive().await.len(), PODS, "{:#?}", bed.fake.changes());
    let mut ready = bed.ready_sandboxes().await;
    ready.sort();
    assert_eq!(ready, ["web-0", "web-1", "web-2", "web-3"]);

    bed.want(&[]).await;
    for trouble in last_troubles.iter().filter(|trouble| !matches!(trouble, Trouble::Restart)) {
        make(&mut bed, &pods, trouble).await;
    }
    until(|| bed.kubelet().tables().observed.is_empty()).await;
    sleep(QUIET).await;
    assert!(pods.iter().all(|pod| bed.row(pod).is_none()));
    // The bed's own look may meet a fault that nothing else has met.
    while bed.runtime.list_pod_sandboxes(None).await.is_err() || bed.runtime.list_containers(None).await.is_err() {}
    assert!(bed.runtime_is_empty().await, "{:#?}", bed.fake.changes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_pod_runs_once_trouble_is_over(
        troubles in prop::collection::vec(trouble(), 0..40),
        last_troubles in prop::collection::vec(trouble(), 0..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(all_heal(troubles, last_troubles));
    }
}
