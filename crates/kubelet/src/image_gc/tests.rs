//! Tests of `image_gc`, on the scripted runtime.

use cri::fake::Fake;
use jiff::SignedDuration;
use tokio::sync::mpsc;

use super::*;

const POLICY: Policy = Policy {
    high_threshold_percent: 85,
    low_threshold_percent: 80,
    min_age: SignedDuration::from_secs(120),
    max_age: None,
};
/// What each image of the fake takes.
const IMAGE: u64 = 64 * 1024;

struct Bench {
    fake: Fake,
    client: cri::Client,
    collector: Collector,
    metrics: Arc<Metrics>,
    records: mpsc::Receiver<EventRecord>,
}

impl Bench {
    /// A node with the images `a`, `b` and `c`.
    fn new(policy: Policy, probe: fn(&Path) -> io::Result<FileSystem>) -> Self {
        let fake = Fake::new();
        fake.script().image_on_node("a:1").image_on_node("b:1").image_on_node("c:1");
        let client = fake.client();
        let (recorder, records) = Recorder::new();
        let metrics = Arc::new(Metrics::new("node"));
        let setup = Setup {
            node_name: "node".to_owned(),
            runtime: client.clone(),
            policy,
            probe,
            recorder,
            metrics: Arc::clone(&metrics),
            clock: Clock::tokio(),
        };
        Self { fake, client, collector: Collector::new(setup), metrics, records }
    }

    async fn images(&self) -> Vec<String> {
        let images = self.client.list_images(None).await.unwrap();
        images.into_iter().flat_map(|image| image.repo_tags).collect()
    }

    /// Makes a container of an image.
    async fn uses(&self, image: &str) {
        let sandbox = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "pod".into(),
                namespace: "default".into(),
                uid: "uid".into(),
                attempt: 0,
            }),
            ..Default::default()
        };
        let id = self.client.run_pod_sandbox(sandbox.clone(), "").await.unwrap();
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        self.client.create_container(&id, config, sandbox).await.unwrap();
    }

    fn reasons(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.records.try_recv().ok()).map(|record| record.reason).collect()
    }
}

fn of_ten(available_images: u64) -> io::Result<FileSystem> {
    Ok(FileSystem { capacity_bytes: 10 * IMAGE, available_bytes: available_images * IMAGE })
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_too_full_costs_images_that_nothing_uses() {
    let mut bench = Bench::new(POLICY, |_| of_ten(1));
    bench.uses("a:1").await;
    bench.collector.look().await;
    assert_eq!(bench.images().await, ["a:1", "c:1"]);
    assert!(bench.reasons().is_empty());
    let counts = crate::metrics::PodCounts { desired: &[], static_pods: 0, mirrors: 0, running: 0 };
    let text = bench.metrics.render(counts);
    assert!(text.contains("kubelet_image_garbage_collected_total{reason=\"space\"} 1"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_with_room_costs_none() {
    let mut bench = Bench::new(POLICY, |_| of_ten(2));
    bench.collector.look().await;
    assert_eq!(bench.images().await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn too_little_to_give_up_is_said_and_so_is_a_failure_that_comes_again() {
    let mut bench = Bench::new(POLICY, |_| Ok(FileSystem { capacity_bytes: 1000 * IMAGE, available_bytes: 0 }));
    bench.uses("a:1").await;
    bench.collector.look().await;
    assert_eq!(
        (bench.images().await, bench.reasons()),
        (vec!["a:1".to_owned()], vec!["FreeDiskSpaceFailed".to_owned()])
    );
    bench.collector.look().await;
    assert_eq!(bench.reasons(), ["FreeDiskSpaceFailed", "ImageGCFailed"]);
    let mut bench = Bench::new(POLICY, |_| Ok(FileSystem { capacity_bytes: 0, available_bytes: 0 }));
    bench.collector.look().await;
    assert_eq!(bench.reasons(), ["InvalidDiskCapacity"]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_just_came_and_one_that_the_runtime_holds_stay() {
    let mut bench = Bench::new(POLICY, |_| of_ten(2));
    bench.collector.look().await;
    bench.fake.script().image_on_node("new:1");
    bench.collector.setup.probe = |_| Ok(FileSystem { capacity_bytes: 1000 * IMAGE, available_bytes: 0 });
    bench.fake.script().fail_next("RemoveImage", tonic::Status::failed_precondition("in use by another process"));
    bench.collector.look().await;
    assert_eq!(bench.images().await, ["a:1", "new:1"]);
    tokio::time::advance(Duration::from_secs(300)).await;
    bench.collector.look().await;
    assert_eq!(bench.images().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_nothing_has_used_for_too_long_goes_from_a_disk_with_room() {
    let policy = Policy { max_age: Some(SignedDuration::from_secs(3600)), ..POLICY };
    let mut bench = Bench::new(policy, |_| of_ten(9));
    bench.uses("a:1").await;
    bench.collector.look().await;
    assert_eq!(bench.images().await.len(), 3);
    tokio::time::advance(Duration::from_secs(3601)).await;
    bench.collector.look().await;
    assert_eq!(bench.images().await, ["a:1"]);
}
