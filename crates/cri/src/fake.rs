//! A scripted runtime: all of CRI's states, no guest.
//!
//! In come CRI calls and a script, out go answers, events, log files, and a record of the calls. Time is Tokio's, so that
//! a test may pause it. Never here: leniency; what a runtime refuses, this one refuses too.
//!
//! ```text
//! sandbox    READY ──Stop──▶ NOTREADY ──Remove──▶ (gone)
//! container  CREATED ──Start──▶ RUNNING ──its end, or Stop──▶ EXITED ──Remove──▶ (gone)
//!                └──Start that fails (128, StartError)──▶ EXITED
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{broadcast, watch};
use tokio::time::{self, Instant};
use tonic::Status;
use tonic::service::Routes;

use crate::channel;
use crate::client::Client;

mod calls;
mod container;
mod exec;
mod images;
mod log;
mod runtime;
mod sandbox;
mod script;
mod state;
mod stats;
mod stdio;

pub use calls::Call;
pub use script::{Exec, Outcome, Script};

use state::{Feed, State};

/// Events that a slow reader may fall behind by before its stream fails.
const EVENTS: usize = 4096;

/// A runtime that does what its script says. Clones are the same runtime.
#[derive(Clone, Debug)]
pub struct Fake {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    feed: broadcast::Sender<Feed>,
    /// Counts the calls that have begun and the changes of the state; whoever waits for either looks again.
    turn: watch::Sender<u64>,
    born: (SystemTime, Instant),
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

impl Fake {
    /// A runtime without images, whose containers run for ever until a script says otherwise.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::default()),
                feed: broadcast::channel(EVENTS).0,
                turn: watch::channel(0).0,
                born: (SystemTime::now(), Instant::now()),
            }),
        }
    }

    /// What is to happen from now on.
    #[must_use]
    pub fn script(&self) -> Script<'_> {
        Script::new(self)
    }

    /// Its services, for a channel of the test's choice.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let fake = Arc::new(self.clone());
        channel::routes(fake.clone(), fake.clone(), fake)
    }

    /// A client over an in-memory channel. Must be called inside a Tokio runtime.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(channel::in_memory(self.routes()))
    }

    /// The calls so far, in their order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// The calls so far that change something: the ones a test of a sequence cares for.
    #[must_use]
    pub fn changes(&self) -> Vec<String> {
        self.calls().iter().filter(|call| call.changes_something()).map(Call::to_string).collect()
    }

    /// Waits until `wanted` holds for the calls so far.
    pub async fn until_calls(&self, wanted: impl Fn(&[Call]) -> bool) {
        self.until(|state| wanted(&state.calls)).await;
    }

    /// Ends a running container as its guest would. A container that does not run stays as it is.
    pub fn exit(&self, container_id: &str, code: i32) {
        self.end(container_id, code, state::reason_of(code), "");
    }

    /// The runtime dies and comes back: all containers that were alive are EXITED (255, Unknown), all sandboxes NOTREADY,
    /// no event tells of it, and the event streams break.
    pub fn crash(&self) {
        let now = self.now();
        self.state().crash(now);
        let _ = self.shared.feed.send(Feed::Down);
        self.turned();
    }

    /// The range for pod addresses that the kubelet last told, if any.
    #[must_use]
    pub fn pod_cidr(&self) -> Option<String> {
        self.state().pod_cidr.clone()
    }

    /// Nanoseconds since the Unix epoch, by Tokio's clock.
    fn now(&self) -> i64 {
        let (wall, tick) = self.shared.born;
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from((since_epoch + tick.elapsed()).as_nanos()).unwrap_or(i64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for a call or a state.
    fn turned(&self) {
        self.shared.turn.send_modify(|turn| *turn = turn.wrapping_add(1));
    }

    async fn until(&self, wanted: impl Fn(&State) -> bool) {
        let mut turns = self.shared.turn.subscribe();
        loop {
            turns.mark_unchanged();
            if wanted(&self.state()) {
                return;
            }
            // The sender lives as long as `self`.
            let _ = turns.changed().await;
        }
    }

    /// Records a call, then lets the script delay it or fail it.
    async fn enter(&self, call: &'static str, object: &str) -> Result<(), Status> {
        let (delay, fault) = {
            let mut state = self.state();
            state.calls.push(Call { call, object: object.to_owned() });
            (state.delays.get(call).copied().unwrap_or(Duration::ZERO), state.next_fault(call))
        };
        self.turned();
        if !delay.is_zero() {
            time::sleep(delay).await;
        }
        fault.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
