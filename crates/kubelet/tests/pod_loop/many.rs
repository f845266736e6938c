//! Many pods at once.

use std::time::Duration;

use tokio::time::sleep;

use crate::bed::{Bed, is_ready, pod};

#[tokio::test(start_paused = true)]
async fn two_thousand_pods_come_and_go() {
    const PODS: usize = 2000;
    let bed = Bed::new();
    // Two thousand addresses are the fake's own trouble.
    bed.fake.script().image_on_node("web:v1").network_ready(false);
    let pods: Vec<_> = (0..PODS).map(|number| pod(&format!("web-{number}"), "web:v1")).collect();
    bed.want(&pods).await;
    let observed = &bed.kubelet().tables().observed;
    let ready = || observed.all().iter().filter(|(_, row)| is_ready(row)).count();
    // Looked at when everything rests: at each change would be two thousand times two thousand looks.
    while ready() < PODS {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((bed.count("RunPodSandbox"), bed.count("StartContainer")), (PODS, PODS));
    assert!(bed.seconds() < 60, "{} s", bed.seconds());
    // Every listing makes the runtime look through all it has.
    let listings = bed.count("ListContainers");
    assert!(listings <= 4 * PODS, "{listings} listings for {PODS} pods");
    bed.want(&[]).await;
    while !observed.is_empty() {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(bed.runtime_is_empty().await);
    assert!(bed.kubelet().tables().desired.is_empty());
}
