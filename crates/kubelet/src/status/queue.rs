//! Which pod's status is written next.
//!
//! Comes in: pods that changed, writes that ended. Goes out: pods in the order in which they changed, each at most once at
//! a time. One that failed waits, and holds up no other. Never here: a pod with nothing to write.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use decide::names::PodUid;
use tokio::time::Instant;

/// The pause after a write that failed, doubled for each further one…
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// …up to this.
const LAST_RETRY: Duration = Duration::from_secs(10);

/// The pods that have something to write.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pods: HashMap<PodUid, Entry>,
    ready: VecDeque<PodUid>,
    paused: BTreeSet<(Instant, PodUid)>,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    /// Writes in a row that failed.
    failures: u32,
}

#[derive(Debug)]
enum Place {
    Ready,
    Writing { again: bool },
    Paused,
}

impl Queue {
    /// The pod changed. One that waits to be tried again goes on waiting: what is true then is what is written.
    pub(super) fn changed(&mut self, uid: PodUid) {
        match self.pods.get_mut(&uid) {
            Some(Entry { place: Place::Writing { again }, .. }) => *again = true,
            Some(_) => {}
            None => {
                self.ready.push_back(uid.clone());
                self.pods.insert(uid, Entry { place: Place::Ready, failures: 0 });
            }
        }
    }

    /// The next pod to write, and how often that has failed; it counts as being written from now on.
    pub(super) fn take(&mut self, now: Instant) -> Option<(PodUid, u32)> {
        while self.paused.first().is_some_and(|(until, _)| *until <= now) {
            self.ready.extend(self.paused.pop_first().map(|(_, uid)| uid));
        }
        let uid = self.ready.pop_front()?;
        let entry = self.pods.get_mut(&uid)?;
        entry.place = Place::Writing { again: false };
        Some((uid, entry.failures))
    }

    /// When the next pause ends.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.paused.first().map(|(until, _)| *until)
    }

    /// What was to be written is.
    pub(super) fn done(&mut self, uid: &PodUid) {
        if let Some(Entry { place: Place::Writing { again: true }, .. }) = self.pods.remove(uid) {
            self.changed(uid.clone());
        }
    }

    /// It could not be written; the pod waits.
    pub(super) fn failed(&mut self, uid: PodUid, now: Instant) {
        let Some(entry) = self.pods.get_mut(&uid) else { return };
        let pause = FIRST_RETRY.saturating_mul(1 << entry.failures.min(8)).min(LAST_RETRY);
        entry.failures = entry.failures.saturating_add(1);
        entry.place = Place::Paused;
        let jittered = pause.mul_f64(0.75 + rand::random::<f64>() / 2.0);
        self.paused.insert((now + jittered, uid));
    }

    /// Whether nothing waits and nothing is being written.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.ready.is_empty() && self.paused.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> PodUid {
        PodUid::from(name)
    }

    fn taken(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.take(now).map(|(uid, _)| uid.as_str().to_owned())
    }

    #[test]
    fn pods_come_in_turn_and_once_at_a_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for name in ["a", "b", "a"] {
            queue.changed(uid(name));
        }
        assert_eq!(taken(&mut queue, now).as_deref(), Some("a"));
        queue.changed(uid("a"));
        assert_eq!(taken(&mut queue, now).as_deref(), Some("b"));
        assert_eq!(taken(&mut queue, now), None, "a is being written");
        queue.done(&uid("a"));
        assert_eq!(taken(&mut queue, now).as_deref(), Some("a"), "it changed meanwhile");
        queue.done(&uid("a"));
        queue.done(&uid("b"));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_failed_waits_longer_each_time_and_holds_up_no_other() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.changed(uid("bad"));
        let mut last = Duration::ZERO;
        for failures in 0..12 {
            assert_eq!(queue.take(now), Some((uid("bad"), failures)));
            queue.failed(uid("bad"), now);
            // Another change does not bring it forward.
            queue.changed(uid("bad"));
            assert_eq!(queue.take(now), None);
            queue.changed(uid("good"));
            assert_eq!(taken(&mut queue, now).as_deref(), Some("good"));
            queue.done(&uid("good"));
            let until = queue.next_retry().unwrap();
            last = until - now;
            assert!(last <= LAST_RETRY.mul_f64(1.25), "{last:?}");
            now = until;
        }
        assert!(last >= LAST_RETRY.mul_f64(0.75), "{last:?}");
        assert!(queue.take(now).is_some());
        queue.done(&uid("bad"));
        assert!(queue.is_empty());
    }
}
