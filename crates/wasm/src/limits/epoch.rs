//! The clock that makes guests yield: engines come in, ticks of their epochs go out while any guest is being polled.
//!
//! An OS thread of its own, so that nothing on the guests' runtime can hold it up. It sleeps for good while no guest
//! runs: an idle node takes no wake-ups for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::EngineWeak;

/// How often running guests are looked at: the longest a kill takes, and half the longest slice of one poll.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Ticks without a running guest before the thread goes to sleep.
const IDLE_TICKS: u32 = 100;

/// A handle on the ticking thread, which ends with it.
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Thread,
}

#[derive(Default)]
struct State {
    /// Guests being polled now.
    polling: AtomicUsize,
    asleep: AtomicBool,
    ending: AtomicBool,
}

/// A guest is being polled while this lives.
pub(crate) struct Polling<'a>(&'a State);

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(engines: Vec<EngineWeak>) -> io::Result<Arc<Self>> {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let ticking = thread::Builder::new().name("guest-ticker".to_owned()).spawn(move || shared.tick(&engines))?;
        Ok(Arc::new(Self { state, thread: ticking.thread().clone() }))
    }

    /// Keeps the epochs ticking until the returned value is dropped.
    pub(crate) fn polling(&self) -> Polling<'_> {
        // Sequentially consistent on both sides: either the thread sees this count before it sleeps, or this sees
        // that it sleeps.
        self.state.polling.fetch_add(1, Ordering::SeqCst);
        if self.state.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Polling(&self.state)
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.polling.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.ending.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl State {
    fn tick(&self, engines: &[EngineWeak]) {
        let mut idle = 0;
        while !self.ending.load(Ordering::SeqCst) {
            if self.polling.load(Ordering::SeqCst) == 0 {
                idle += 1;
            } else {
                idle = 0;
            }
            if idle > IDLE_TICKS {
                self.sleep_until_polled();
                idle = 0;
            }
            thread::sleep(TICK);
            engines.iter().filter_map(EngineWeak::upgrade).for_each(|engine| engine.increment_epoch());
        }
    }

    fn sleep_until_polled(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.polling.load(Ordering::SeqCst) == 0 && !self.ending.load(Ordering::SeqCst) {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn wait_until(what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(20), "still waiting until {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_thread_sleeps_while_idle_wakes_for_a_poll_and_ends_with_its_handle() {
        let ticker = Ticker::start(Vec::new()).unwrap();
        let state = Arc::clone(&ticker.state);
        wait_until("it sleeps", || state.asleep.load(Ordering::SeqCst));
        let polling = ticker.polling();
        wait_until("it is awake", || !state.asleep.load(Ordering::SeqCst));
        drop(polling);
        wait_until("it sleeps again", || state.asleep.load(Ordering::SeqCst));
        drop(ticker);
        wait_until("the thread has ended", || Arc::strong_count(&state) == 1);
    }
}
