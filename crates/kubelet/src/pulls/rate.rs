//! `registryPullQPS` and `registryBurst`: a bucket of tokens, filled at a steady pace.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// How often registries may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullRate {
    /// Pulls per second on the long run; 0 is without limit.
    pub per_second: u32,
    /// Pulls at once.
    pub burst: u32,
}

impl PullRate {
    /// No limit.
    pub const UNLIMITED: Self = Self { per_second: 0, burst: 0 };
}

/// The bucket.
pub(super) struct Pace {
    rate: PullRate,
    /// Tokens, and when they were counted.
    left: Mutex<(f64, Instant)>,
}

impl Pace {
    pub(super) fn new(rate: PullRate) -> Self {
        Self { rate, left: Mutex::new((f64::from(rate.burst), Instant::now())) }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&self) -> bool {
        if self.rate.per_second == 0 {
            return true;
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, counted) = *left;
        let gained = counted.elapsed().as_secs_f64() * f64::from(self.rate.per_second);
        let tokens = (tokens + gained).min(f64::from(self.rate.burst));
        let taken = tokens >= 1.0;
        *left = (if taken { tokens - 1.0 } else { tokens }, Instant::now());
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_and_then_a_steady_pace() {
        let pace = Pace::new(PullRate { per_second: 5, burst: 10 });
        let take = |count| (0..count).filter(|_| pace.take()).count();
        assert_eq!(take(20), 10);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(take(20), 5);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(take(20), 10);
        let unlimited = Pace::new(PullRate::UNLIMITED);
        assert_eq!((0..1000).filter(|_| unlimited.take()).count(), 1000);
    }
}
