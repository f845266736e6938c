//! How much is told of one object: a probe that fails each second is news for a while, and then a flood.
//!
//! Comes in: an object's uid and the time. Goes out: whether one more Event about it may be told. The numbers are the
//! kubelet's own (client-go's spam filter).

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Events about one object that may come at once…
const BURST: u32 = 25;
/// …and how long it takes until one more may.
const REFILL: Duration = Duration::from_secs(300);
/// Objects that are remembered. Beyond it, those that may tell all again are forgotten.
const REMEMBERED: usize = 4096;

/// What was told of each object of late.
#[derive(Debug, Default)]
pub(super) struct SpamFilter {
    /// When the object's bucket will be full again: each event moves it on by a refill.
    full_at: HashMap<String, Instant>,
}

impl SpamFilter {
    /// Whether an Event about the object may be told at `now`.
    pub(super) fn lets_through(&mut self, uid: &str, now: Instant) -> bool {
        let full_at = self.full_at.get(uid).copied().unwrap_or(now).max(now);
        let next = full_at + REFILL;
        if next > now + REFILL * BURST {
            return false;
        }
        if self.full_at.len() >= REMEMBERED && !self.full_at.contains_key(uid) {
            self.full_at.retain(|_, full_at| *full_at > now);
            // More objects than that at once all have something to tell.
            if self.full_at.len() >= REMEMBERED {
                return true;
            }
        }
        self.full_at.insert(uid.to_owned(), next);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_cannot_tell_more_than_anybody_reads() {
        let (mut filter, begin) = (SpamFilter::default(), Instant::now());
        let told = |filter: &mut SpamFilter, now| (0..100).filter(|_| filter.lets_through("a", now)).count();
        assert_eq!(told(&mut filter, begin), 25);
        assert!(filter.lets_through("b", begin), "another object is not concerned");
        assert_eq!(told(&mut filter, begin + Duration::from_secs(299)), 0);
        assert_eq!(told(&mut filter, begin + Duration::from_secs(300)), 1);
        assert_eq!(told(&mut filter, begin + Duration::from_secs(24 * 60 * 60)), 25);
    }

    #[test]
    fn its_memory_is_bounded() {
        let (mut filter, now) = (SpamFilter::default(), Instant::now());
        assert!((0..10_000).all(|number| filter.lets_through(&number.to_string(), now)));
        assert_eq!(filter.full_at.len(), REMEMBERED);
    }
}
