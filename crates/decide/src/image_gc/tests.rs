//! Tests of `image_gc`.

use proptest::prelude::*;

use super::*;

const POLICY: Policy = Policy {
    high_threshold_percent: 85,
    low_threshold_percent: 80,
    min_age: SignedDuration::from_secs(120),
    max_age: None,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn found(ids: &[&str]) -> Vec<Found> {
    ids.iter().map(|&id| Found { id: id.to_owned(), size_bytes: 10, pinned: false }).collect()
}

fn used(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

fn ids(candidates: Vec<Candidate>) -> Vec<String> {
    candidates.into_iter().map(|candidate| candidate.id).collect()
}

#[test]
fn what_was_not_used_for_longest_goes_first_and_what_just_came_stays() {
    let mut images = Images::default();
    images.detect(found(&["a", "b", "c"]), &used(&["a", "b"]), at(0));
    images.detect(found(&["a", "b", "c", "new"]), &used(&["a"]), at(300));
    assert_eq!(ids(images.by_last_use(&POLICY, at(301))), ["c", "b", "a"]);
    images.detect(found(&["a", "b", "c", "new"]), &used(&["b"]), at(500));
    assert_eq!(ids(images.by_last_use(&POLICY, at(500))), ["c", "new", "a"]);
    images.forget("c");
    assert_eq!(ids(images.by_last_use(&POLICY, at(500))), ["new", "a"]);
}

#[test]
fn what_is_gone_is_forgotten_and_a_pinned_image_stays() {
    let mut images = Images::default();
    images.detect(found(&["a", "b"]), &used(&[]), at(0));
    let pinned = Found { id: "p".into(), size_bytes: 1, pinned: true };
    images.detect(vec![pinned, found(&["b"]).remove(0)], &used(&[]), at(300));
    assert_eq!(ids(images.by_last_use(&POLICY, at(600))), ["b"]);
}

#[test]
fn an_image_is_outdated_only_once_this_kubelet_has_been_there_as_long() {
    let policy = Policy { max_age: Some(SignedDuration::from_secs(1000)), ..POLICY };
    let mut images = Images::default();
    images.detect(found(&["used", "never"]), &used(&["used"]), at(0));
    assert!(images.outdated(&policy, at(0), at(1000)).is_empty());
    images.detect(found(&["used", "never"]), &used(&["used"]), at(500));
    assert_eq!(ids(images.outdated(&policy, at(0), at(1001))), ["never"]);
    assert_eq!(ids(images.outdated(&policy, at(0), at(1500))), ["never", "used"]);
    assert!(images.outdated(&POLICY, at(0), at(1500)).is_empty());
}

#[test]
fn room_is_made_down_to_the_low_threshold() {
    let excess =
        |capacity_bytes, available_bytes| excess_bytes(FileSystem { capacity_bytes, available_bytes }, &POLICY);
    assert_eq!(excess(1000, 160), Ok(0));
    // 100 - 15.9 % rounded down.
    assert_eq!(excess(1000, 159), Ok(41));
    assert_eq!(excess(1000, 150), Ok(50));
    assert_eq!(excess(1000, 2000), Ok(0));
    assert_eq!(excess(0, 0), Err("invalid capacity 0 on image filesystem".to_owned()));
    let never = Policy { high_threshold_percent: 100, ..POLICY };
    assert!(!never.is_on() && POLICY.is_on());
}

#[derive(Debug, Clone)]
struct Look {
    found: BTreeSet<u8>,
    in_use: BTreeSet<u8>,
    after_seconds: i64,
}

fn look() -> impl Strategy<Value = Look> {
    let some = || proptest::collection::btree_set(0..6_u8, 0..6);
    (some(), some(), 0..400_i64).prop_map(|(found, in_use, after_seconds)| Look { found, in_use, after_seconds })
}

proptest! {
    #[test]
    fn what_is_used_or_just_came_never_goes(
        looks in proptest::collection::vec(look(), 1..12),
        max_age in proptest::option::of(0..1000_i64),
    ) {
        let policy = Policy { max_age: max_age.map(SignedDuration::from_secs), ..POLICY };
        let mut images = Images::default();
        let mut now = 0;
        let mut since: BTreeMap<u8, i64> = BTreeMap::new();
        for (position, look) in looks.iter().enumerate() {
            now += look.after_seconds;
            since.retain(|id, _| look.found.contains(id));
            for &id in &look.found {
                since.entry(id).or_insert(if position == 0 { i64::MIN / 2 } else { now });
            }
            let names = |ids: &BTreeSet<u8>| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
            let found = names(&look.found).into_iter().map(|id| Found { id, size_bytes: 1, pinned: false });
            images.detect(found.collect(), &names(&look.in_use).into_iter().collect(), at(now));
            let candidates = [images.by_last_use(&policy, at(now)), images.outdated(&policy, at(0), at(now))].concat();
            for Candidate { id, .. } in candidates {
                let id: u8 = id.parse().unwrap();
                prop_assert!(look.found.contains(&id), "{id} is not there");
                prop_assert!(!look.in_use.contains(&id), "{id} is in use");
                prop_assert!(now - since[&id] >= 120, "{id} came just now");
            }
        }
    }
}
