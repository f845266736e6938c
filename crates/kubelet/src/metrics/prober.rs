//! What probes told, for each of them, while their pod is on the node.
//!
//! Comes in: results. Goes out: the families of `/metrics/probes`. A pod's numbers go with the pod, so there are no more of
//! them than probes in the pods of the node.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use decide::event::ProbeResult;
use decide::names::{ContainerName, PodName, PodUid};
use decide::pod::{Pod, ProbeKind};

use super::Metrics;
use super::family::{Histogram, write_histogram, write_sample, write_type};

/// Upper bounds in seconds.
const BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Everything counted about probes.
#[derive(Debug, Default)]
pub(super) struct Probes {
    pods: Mutex<HashMap<PodUid, PodProbes>>,
}

#[derive(Debug)]
struct PodProbes {
    name: PodName,
    probes: BTreeMap<(ContainerName, ProbeKind), Told>,
}

#[derive(Debug)]
struct Told {
    successful: u64,
    failed: u64,
    /// Of those that succeeded.
    durations: Histogram,
}

impl Metrics {
    /// A probe has told something.
    pub(crate) fn probed(
        &self,
        pod: &Pod,
        container: &ContainerName,
        kind: ProbeKind,
        result: &ProbeResult,
        took: Duration,
    ) {
        let succeeded = match result {
            ProbeResult::Success | ProbeResult::Warning(_) => true,
            ProbeResult::Failure(_) => false,
            // It told nothing.
            ProbeResult::Errored { .. } => return,
        };
        let mut pods = self.probes.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let pod = pods
            .entry(pod.uid.clone())
            .or_insert_with(|| PodProbes { name: pod.name.clone(), probes: BTreeMap::new() });
        let told = pod.probes.entry((container.clone(), kind)).or_insert_with(|| Told {
            successful: 0,
            failed: 0,
            durations: Histogram::new(BOUNDS),
        });
        if succeeded {
            told.successful += 1;
            told.durations.observe(BOUNDS, took);
        } else {
            told.failed += 1;
        }
    }

    /// Nothing of the pod is left on this node.
    pub(crate) fn forget_probes_of(&self, pod: &PodUid) {
        self.probes.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
    }

    /// The page `/metrics/probes`.
    pub fn render_probes(&self) -> String {
        let mut text = String::new();
        let out = &mut text;
        let pods = self.probes.pods.lock().unwrap_or_else(PoisonError::into_inner);
        write_type(out, DURATION, "Duration in seconds for a probe response.", "histogram");
        for (labels, told) in pods.values().flat_map(PodProbes::each).filter(|(_, told)| told.successful > 0) {
            write_histogram(out, DURATION, &labels, BOUNDS, &told.durations);
        }
        let help = "Cumulative number of a liveness, readiness or startup probe for a container by result.";
        write_type(out, TOTAL, help, "counter");
        for (uid, pod) in pods.iter() {
            for ([container, namespace, name, kind], told) in pod.each() {
                for (result, count) in [("failed", told.failed), ("successful", told.successful)] {
                    let labels = [container, namespace, name, ("pod_uid", uid.as_str()), kind, ("result", result)];
                    if count > 0 {
                        write_sample(out, TOTAL, &labels, count);
                    }
                }
            }
        }
        text
    }
}

const DURATION: &str = "prober_probe_duration_seconds";
const TOTAL: &str = "prober_probe_total";

impl PodProbes {
    fn each(&self) -> impl Iterator<Item = ([(&'static str, &str); 4], &Told)> {
        self.probes.iter().map(|((container, kind), told)| {
            let labels = [
                ("container", container.as_str()),
                ("namespace", self.name.namespace.as_str()),
                ("pod", self.name.name.as_str()),
                ("probe_type", kind.as_str()),
            ];
            (labels, told)
        })
    }
}
