//! How often and after what wait something is asked again.

use std::time::Duration;

use super::Limits;
use super::failure::{Failure, RegistryError};

/// The longest pause of our own between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The tries of one request.
pub(crate) struct Tries {
    limits: Limits,
    most: u32,
    made: u32,
}

impl Tries {
    /// At most `most` tries.
    pub(crate) fn new(limits: Limits, most: u32) -> Self {
        Self { limits, most, made: 0 }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// There is none: the failure will last, or it was the last try.
    pub(crate) async fn after(&mut self, failure: Failure) -> Result<(), RegistryError> {
        let (cause, after) = match failure {
            Failure::Lasting(error) => return Err(error),
            Failure::Passing { cause, after } => (cause, after),
        };
        self.made += 1;
        if let Some(asked) = after.filter(|asked| *asked > self.limits.retry_after_max) {
            let cause = format!("{cause} and asks to wait {} s", asked.as_secs());
            return Err(RegistryError::Unavailable(cause));
        }
        if self.made >= self.most {
            let cause = if self.made > 1 { format!("{cause} (tried {} times)", self.made) } else { cause };
            return Err(RegistryError::Unavailable(cause));
        }
        tracing::debug!(tries = self.made, cause, "trying again");
        let pause = pause(self.limits.pause, self.made, rand::random());
        tokio::time::sleep(pause.max(after.unwrap_or_default())).await;
        Ok(())
    }

    /// What was done meanwhile is worth more than a try: all are there again.
    pub(crate) fn begin_again(&mut self) {
        self.made = 0;
    }
}

/// Doubles with each try, up to [`PAUSE_MAX`]; `luck` in 0..1 spreads it over half to one and a half of that.
fn pause(first: Duration, tries: u32, luck: f64) -> Duration {
    let full = first.saturating_mul(1 << tries.saturating_sub(1).min(16));
    full.min(PAUSE_MAX).mul_f64(0.5 + luck.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_spread_and_are_capped() {
        let first = Duration::from_millis(500);
        assert_eq!(pause(first, 1, 0.5), first);
        assert_eq!(pause(first, 2, 0.5), first * 2);
        assert_eq!(pause(first, 1, 0.0), first / 2);
        assert_eq!(pause(first, u32::MAX, 0.5), PAUSE_MAX);
        assert!(pause(first, 1, 0.9) > pause(first, 1, 0.1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_may_ask_for_a_longer_wait_but_not_for_any() {
        let mut tries = Tries::new(Limits::default(), 3);
        let asked = |seconds| Failure::Passing { cause: "busy".into(), after: Some(Duration::from_secs(seconds)) };
        let began = tokio::time::Instant::now();
        tries.after(asked(20)).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(20));
        let Err(RegistryError::Unavailable(cause)) = tries.after(asked(3600)).await else { panic!() };
        assert_eq!(cause, "busy and asks to wait 3600 s");
    }
}
