//! How long to wait before trying again. The numbers are the kubelet's.

use crate::pod::{Container, Resources};
use crate::time::{Timestamp, after, between};
use std::time::Duration;

/// Longest wait between restarts and between pulls.
const LONGEST: Duration = Duration::from_mins(5);
/// A run as long as this ends a streak of restarts.
const LONG_RUN: Duration = Duration::from_mins(10);
/// First wait, doubled each time.
const FIRST: Duration = Duration::from_secs(10);
/// Longest wait between tries of an effect on this node.
const LONGEST_EFFECT: Duration = Duration::from_mins(2);

/// What of a container's spec a streak of restarts hangs on: an edit of it begins a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edition {
    image: String,
    requests: Resources,
    limits: Resources,
}

impl Edition {
    /// The edition of `container` as its spec is now.
    #[must_use]
    pub fn of(container: &Container) -> Self {
        Edition { image: container.image.clone(), requests: container.requests, limits: container.limits }
    }
}

/// Restarts of one container in a row, none of them after a long run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// The edition that was restarted. `None` right after a restart of the kubelet, when only the count is known: it
    /// stands for any.
    pub of: Option<Edition>,
    /// How many restarts.
    pub restarts: u32,
}

impl Streak {
    /// How long to wait after the end of a run from `started_at` to `finished_at` of `edition`.
    #[must_use]
    pub fn wait(&self, edition: &Edition, started_at: Option<Timestamp>, finished_at: Timestamp) -> Duration {
        doubled(FIRST, LONGEST, self.counted(edition, started_at, finished_at))
    }

    /// The streak once a run from `started_at` to `finished_at` was followed by a restart.
    #[must_use]
    pub fn restarted(&self, edition: Edition, started_at: Option<Timestamp>, finished_at: Timestamp) -> Streak {
        let restarts = self.counted(&edition, started_at, finished_at).saturating_add(1);
        Streak { of: Some(edition), restarts }
    }

    /// The restarts that count against the next one.
    fn counted(&self, edition: &Edition, started_at: Option<Timestamp>, finished_at: Timestamp) -> u32 {
        let long = started_at.is_some_and(|at| between(at, finished_at) >= LONG_RUN);
        let edited = self.of.as_ref().is_some_and(|of| of != edition);
        if long || edited { 0 } else { self.restarts }
    }
}

/// When a pull that failed `attempts` times in a row, last at `at`, is tried again.
#[must_use]
pub fn pull_again(attempts: u32, at: Timestamp, spread: &str) -> Timestamp {
    let wait = doubled(FIRST, LONGEST, attempts.max(1));
    after(at, jittered(wait, spread, attempts))
}

/// When any other effect that failed `attempts` times in a row, last at `at`, is tried again.
#[must_use]
pub fn effect_again(attempts: u32, at: Timestamp, spread: &str) -> Timestamp {
    let wait = doubled(FIRST, LONGEST_EFFECT, attempts.max(1));
    after(at, jittered(wait, spread, attempts))
}

/// Nothing before the first restart, then `first`, doubled each time up to `longest`.
fn doubled(first: Duration, longest: Duration, times: u32) -> Duration {
    match times.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => first.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(longest),
    }
}

/// `wait` and up to a tenth more, so that pods that failed together do not try again together. What it adds follows
/// from `spread` and `attempts` alone: this crate knows no chance.
fn jittered(wait: Duration, spread: &str, attempts: u32) -> Duration {
    let thousandths = u32::try_from(hash(attempts.into(), spread) % 101).unwrap_or(0);
    wait.saturating_add(wait.saturating_mul(thousandths) / 1000)
}

/// A part of `whole`, less than all of it, that follows from `names` alone and differs from one set of names to another.
pub(crate) fn part(whole: Duration, names: [&str; 3]) -> Duration {
    let hash = names.iter().fold(0, |seed, name| hash(seed, name));
    // The lowest bits of names that differ in their last letter differ little.
    let thousandths = u32::try_from((hash >> 20) % 1000).unwrap_or(0);
    whole.saturating_mul(thousandths) / 1000
}

/// FNV-1a.
fn hash(seed: u64, text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
    text.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
