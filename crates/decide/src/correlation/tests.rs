//! Tests of `correlation`.

use super::{Correlator, Entry, Object, Occurrence};
use crate::time::{Timestamp, after};
use std::time::Duration;

fn about(uid: &str, reason: &str, message: &str) -> Occurrence {
    Occurrence {
        object: Object { kind: "Pod".into(), uid: uid.into(), ..Object::default() },
        field_path: String::new(),
        warning: false,
        reason: reason.into(),
        message: message.into(),
    }
}

struct Bench {
    correlator: Correlator,
    now: Timestamp,
    named: u32,
}

impl Bench {
    fn new() -> Self {
        Self { correlator: Correlator::default(), now: Timestamp::UNIX_EPOCH, named: 0 }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = after(self.now, Duration::from_secs(seconds));
    }

    fn tell(&mut self, occurrence: Occurrence) -> Option<Entry> {
        self.named += 1;
        self.correlator.observe(occurrence, format!("name-{}", self.named), self.now)
    }

    /// Message and count of what is written.
    fn written(&mut self, occurrence: Occurrence) -> (String, u32) {
        self.tell(occurrence).map(|entry| (entry.message, entry.count)).unwrap()
    }
}

#[test]
fn the_same_again_counts_the_first_one_up() {
    let mut bench = Bench::new();
    let first = bench.tell(about("a", "Started", "Container started")).unwrap();
    assert_eq!((first.name.as_str(), first.count), ("name-1", 1));
    bench.pass(3600);
    let again = bench.tell(about("a", "Started", "Container started")).unwrap();
    assert_eq!(again, Entry { count: 2, ..first });
    let other = Occurrence { field_path: "spec.containers{b}".into(), ..about("a", "Started", "Container started") };
    assert_eq!(bench.written(other).1, 1, "another container");
    assert_eq!(bench.written(about("b", "Started", "Container started")).1, 1, "another pod");
}

#[test]
fn the_tenth_text_of_one_reason_begins_a_combined_entry() {
    let mut bench = Bench::new();
    for number in 1..=9 {
        assert_eq!(bench.written(about("a", "Unhealthy", &format!("try {number}"))), (format!("try {number}"), 1));
    }
    assert_eq!(bench.written(about("a", "Unhealthy", "try 9")).1, 2, "a text that is known combines nothing");
    let combined = |text: &str| format!("(combined from similar events): {text}");
    assert_eq!(bench.written(about("a", "Unhealthy", "try 10")), (combined("try 10"), 1));
    assert_eq!(bench.written(about("a", "Unhealthy", "try 11")), (combined("try 11"), 2));
    assert_eq!(bench.written(about("a", "Pulled", "try 12")), ("try 12".into(), 1), "another reason");
    bench.pass(601);
    assert_eq!(bench.written(about("a", "Unhealthy", "try 13")), ("try 13".into(), 1), "after ten quiet minutes");
}

#[test]
fn of_one_object_only_so_much_is_told() {
    let mut bench = Bench::new();
    for _ in 0..25 {
        assert!(bench.tell(about("a", "BackOff", "again")).is_some());
    }
    for _ in 0..5 {
        assert_eq!(bench.tell(about("a", "BackOff", "again")), None);
    }
    assert!(bench.tell(about("b", "BackOff", "again")).is_some(), "each object has its own measure");
    bench.pass(299);
    assert_eq!(bench.tell(about("a", "BackOff", "again")), None);
    bench.pass(2);
    assert_eq!(bench.written(about("a", "BackOff", "again")).1, 32, "what was not written is counted");
    assert_eq!(bench.tell(about("a", "BackOff", "again")), None);
    bench.pass(24 * 3600);
    let written = (0..100).filter(|_| bench.tell(about("a", "BackOff", "again")).is_some()).count();
    assert_eq!(written, 25, "a quiet day fills the measure and no more");
}

#[test]
fn a_clock_that_was_set_back_stops_nothing() {
    let mut bench = Bench::new();
    bench.pass(7200);
    assert_eq!(bench.written(about("a", "Started", "Container started")).1, 1);
    bench.now = Timestamp::UNIX_EPOCH;
    assert_eq!(bench.written(about("a", "Started", "Container started")).1, 2);
}
