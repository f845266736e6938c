//! How a guest hears that it is to end: a request with its deadline comes in, and whoever waits for it is woken.
//!
//! A guest that waits is left to end by itself; whether one does is known here. Never here: the end itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// One guest's request to end. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Termination {
    asked: CancellationToken,
    /// When the guest is killed at the latest.
    deadline: Arc<Mutex<Option<Instant>>>,
    is_awaited: Arc<AtomicBool>,
}

impl Termination {
    /// As a command beside the guest hears it: what it waits for says nothing about the guest.
    pub(crate) fn of_a_command(&self) -> Self {
        Self { is_awaited: Arc::default(), ..self.clone() }
    }

    /// Asks the guest to end within `grace`. A shorter grace than an earlier one counts.
    pub(crate) fn ask(&self, grace: Duration) {
        let mut deadline = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = Instant::now().checked_add(grace) {
            *deadline = Some(deadline.map_or(asked, |earlier| earlier.min(asked)));
        }
        drop(deadline);
        self.asked.cancel();
    }

    /// What the guest waits for.
    pub(crate) fn awaited(&self) -> WaitForCancellationFutureOwned {
        self.is_awaited.store(true, Ordering::Relaxed);
        self.asked.clone().cancelled_owned()
    }

    /// Whether the guest waits, or has waited.
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }

    /// Resolves when the guest is asked to end.
    pub(crate) fn asked(&self) -> &CancellationToken {
        &self.asked
    }

    /// What is left of the grace; none as long as nobody has asked.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        Some(deadline?.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_known_and_woken_and_the_shorter_grace_counts() {
        let termination = Termination::default();
        assert_eq!(termination.time_left(), None);
        let command = termination.of_a_command();
        let waiting = command.awaited();
        assert!(command.is_awaited() && !termination.is_awaited());
        termination.ask(Duration::from_secs(1));
        termination.ask(Duration::from_secs(3600));
        waiting.await;
        assert!(command.time_left().unwrap() <= Duration::from_secs(1));
    }
}
