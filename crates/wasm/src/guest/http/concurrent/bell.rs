//! What wakes an instance: wake-ups of its guest come in; a ring for the instance's own task goes out, unless somebody runs
//! the instance at that moment, who sees for himself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Wake;

use tokio::sync::Notify;

/// It has rung, and nobody has looked since.
const RUNG: u8 = 1;
/// Somebody runs the instance.
const ATTENDED: u8 = 2;

/// One instance's bell.
#[derive(Default)]
pub(super) struct Bell {
    state: AtomicU8,
    task: Notify,
}

impl Bell {
    /// Somebody begins to run the instance. What has rung before is seen to by that.
    pub(super) fn attend(&self) {
        self.state.store(ATTENDED, Ordering::SeqCst);
    }

    /// Whether it has rung while it was attended, and not been seen yet.
    pub(super) fn has_rung(&self) -> bool {
        self.state.swap(ATTENDED, Ordering::SeqCst) & RUNG != 0
    }

    /// He leaves it to the task.
    pub(super) fn leave(&self) {
        if self.state.swap(0, Ordering::SeqCst) & RUNG != 0 {
            self.ring();
        }
    }

    pub(super) fn ring(&self) {
        if self.state.fetch_or(RUNG, Ordering::SeqCst) == 0 {
            self.task.notify_one();
        }
    }

    /// Resolves once it has rung for the task; it may have been seen to since.
    pub(super) async fn rung(&self) {
        self.task.notified().await;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn calls_the_task(bell: &Bell) -> bool {
        bell.rung().now_or_never().is_some()
    }

    #[test]
    fn it_rings_for_the_task_once_until_somebody_looks() {
        let bell = Bell::default();
        assert!(!calls_the_task(&bell));
        bell.ring();
        bell.ring();
        assert!(calls_the_task(&bell) && !calls_the_task(&bell));
        bell.attend();
        bell.leave();
        bell.ring();
        assert!(calls_the_task(&bell));
    }

    #[test]
    fn who_runs_the_instance_hears_it_and_what_he_does_not_is_left_to_the_task() {
        let bell = Bell::default();
        bell.attend();
        bell.ring();
        assert!(bell.has_rung() && !bell.has_rung());
        bell.leave();
        assert!(!calls_the_task(&bell));
        bell.attend();
        bell.ring();
        bell.leave();
        assert!(calls_the_task(&bell));
    }
}
