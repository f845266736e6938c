//! Turns among guests that would all compute without end: what their containers requested decides how they share the CPU.
//!
//! ```text
//!   a long slice ─▶ asks for a turn ─▶ waits, by virtual time ─▶ has it for one poll ─▶ gives it back
//! ```
//! In come guests that have just used a thread for a whole slice, out go turns, as many at one time as there are threads.
//! Virtual time is CPU time divided by shares, as in the kernel's fair scheduling: whoever has had least of what is due
//! to them is next. Guests that wait for something most of the time need no turn, and are never held up by one. Never
//! here: a clock, or the CPU limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Shares of a container that says nothing of them, the kernel's default; as many are one CPU.
const DEFAULT_SHARES: u32 = 1024;

/// The turns of one process.
pub(crate) struct Turns(Mutex<Queue<Waker>>);

/// What is due to one container, and what it has had.
pub(crate) struct Share {
    shares: AtomicU32,
    /// Nanoseconds of CPU time, each as long as a CPU's whole shares are to the container's.
    virtual_time: AtomicU64,
}

/// Who waits, and how many have a turn. `W` is how one is told.
struct Queue<W> {
    turns: usize,
    /// Who has a turn.
    begun: BTreeSet<Place>,
    /// By virtual time, and in the order of arrival.
    waiting: BTreeMap<Place, W>,
    arrivals: u64,
    /// The least virtual time of all of them, and never less than it was. Nobody comes in below it: who was idle has saved
    /// up nothing.
    floor: u64,
}

type Place = (u64, u64);

impl Turns {
    /// For this many threads.
    pub(crate) fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Queue::new(threads))))
    }

    fn ask(&self, share: &Share, had: Option<Place>, waker: &Waker) -> Place {
        let mut queue = self.queue();
        let due = share.virtual_time.fetch_max(queue.floor, Ordering::Relaxed).max(queue.floor);
        let (place, first) = queue.ask(due, had, waker.clone());
        drop(queue);
        if let Some(first) = first {
            first.wake();
        }
        place
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    pub(crate) fn new(shares: Option<u32>) -> Self {
        let share = Self { shares: AtomicU32::new(0), virtual_time: AtomicU64::new(0) };
        share.set(shares);
        share
    }

    /// From now on its time counts by these; `None` is the default.
    pub(crate) fn set(&self, shares: Option<u32>) {
        self.shares.store(shares.unwrap_or(DEFAULT_SHARES).max(1), Ordering::Relaxed);
    }

    pub(crate) fn charge(&self, nanos: u64) {
        let shares = u64::from(self.shares.load(Ordering::Relaxed));
        self.virtual_time.fetch_add(nanos.saturating_mul(DEFAULT_SHARES.into()) / shares, Ordering::Relaxed);
    }
}

/// A turn, or a place in the queue for one. It is given back when this is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    place: Place,
}

impl Turn {
    /// Asks for a turn.
    pub(crate) fn ask(turns: &Arc<Turns>, share: &Share, waker: &Waker) -> Self {
        Self { turns: Arc::clone(turns), place: turns.ask(share, None, waker) }
    }

    /// Gives the turn back and asks for another, for which it is not passed over by those that have had more.
    pub(crate) fn ask_again(&mut self, share: &Share, waker: &Waker) {
        self.place = self.turns.ask(share, Some(self.place), waker);
    }

    /// Resolves once it is there.
    pub(crate) async fn begun(&self) {
        std::future::poll_fn(|context| match self.turns.queue().waiting.get_mut(&self.place) {
            Some(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            None => Poll::Ready(()),
        })
        .await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.turns.queue().leave(self.place);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl<W> Queue<W> {
    fn new(turns: usize) -> Self {
        Self { turns: turns.max(1), begun: BTreeSet::new(), waiting: BTreeMap::new(), arrivals: 0, floor: 0 }
    }

    /// A place for somebody, who gives back the turn they had. Whoever is first has a turn then; they are told, unless it is
    /// the one who asks.
    fn ask(&mut self, virtual_time: u64, had: Option<Place>, waker: W) -> (Place, Option<W>) {
        let place = (virtual_time, self.arrivals);
        self.arrivals += 1;
        self.waiting.insert(place, waker);
        if let Some(had) = had {
            self.begun.remove(&had);
        }
        let first = self.grant();
        (place, first.filter(|(first, _)| *first != place).map(|(_, waker)| waker))
    }

    /// Gives up a place. If that was a turn, whoever is next has it now.
    fn leave(&mut self, place: Place) -> Option<W> {
        self.waiting.remove(&place);
        self.begun.remove(&place);
        self.grant().map(|(_, waker)| waker)
    }

    /// A free turn for whoever is first. Nobody waits while another is free.
    fn grant(&mut self) -> Option<(Place, W)> {
        if self.begun.len() >= self.turns {
            return None;
        }
        let (place, waker) = self.waiting.pop_first()?;
        self.begun.insert(place);
        // Those who wait come after this one.
        let least = self.begun.first().map_or(0, |(virtual_time, _)| *virtual_time);
        self.floor = self.floor.max(least);
        Some((place, waker))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::FutureExt;

    use super::*;

    /// Guests that never stop computing, by their shares, on this many threads: the slices that each had of many.
    fn slices(threads: usize, shares: &[u32]) -> Vec<u64> {
        const SLICE: u64 = 5_000_000;
        let guests: Vec<_> = shares.iter().map(|&shares| Share::new(Some(shares))).collect();
        let due = |queue: &Queue<usize>, guest: usize| {
            guests[guest].virtual_time.fetch_max(queue.floor, Ordering::Relaxed).max(queue.floor)
        };
        let mut queue = Queue::new(threads);
        let mut places: Vec<Place> = Vec::new();
        let mut running = VecDeque::new();
        for guest in 0..shares.len() {
            let (place, _) = queue.ask(due(&queue, guest), None, guest);
            places.push(place);
            running.extend((!queue.waiting.contains_key(&place)).then_some(guest));
        }
        let mut had = vec![0; shares.len()];
        for _ in 0..4096 {
            let guest = running.pop_front().unwrap();
            had[guest] += 1;
            guests[guest].charge(SLICE);
            let (place, next) = queue.ask(due(&queue, guest), Some(places[guest]), guest);
            places[guest] = place;
            running.push_back(next.unwrap_or(guest));
            assert_eq!(running.len(), threads);
        }
        had
    }

    #[test]
    fn guests_that_compete_have_what_their_shares_say() {
        assert_eq!(slices(1, &[1024, 1024]), [2048, 2048]);
        let had = slices(1, &[3072, 1024]);
        assert!(had[0].abs_diff(3072) <= 4 && had[1].abs_diff(1024) <= 4, "{had:?}");
        let had = slices(2, &[512, 512, 1024]);
        assert!(had[0].abs_diff(1024) <= 8 && had[2].abs_diff(2048) <= 8, "{had:?}");
    }

    #[test]
    fn no_more_than_a_thread_is_of_use_to_one_guest() {
        let had = slices(2, &[100_000, 2, 2]);
        assert!(had[0].abs_diff(2048) <= 8 && had[1].abs_diff(1024) <= 8, "{had:?}");
    }

    #[test]
    fn who_was_idle_has_saved_up_nothing() {
        let (turns, busy, idle) = (Turns::new(1), Share::new(None), Share::new(None));
        busy.charge(1_000_000_000);
        for share in [&busy, &idle] {
            assert!(Turn::ask(&turns, share, Waker::noop()).begun().now_or_never().is_some());
        }
        assert_eq!(idle.virtual_time.load(Ordering::Relaxed), 1_000_000_000);
    }

    #[test]
    fn a_turn_goes_to_the_next_and_a_place_that_is_left_is_nobodys() {
        let (turns, share) = (Turns::new(1), Share::new(None));
        let ask = || Turn::ask(&turns, &share, Waker::noop());
        let has_begun = |turn: &Turn| turn.begun().now_or_never().is_some();
        let (first, second, third) = (ask(), ask(), ask());
        assert_eq!([&first, &second, &third].map(has_begun), [true, false, false]);
        drop(second);
        drop(first);
        assert!(has_begun(&third));
        drop(third);
        assert!(has_begun(&ask()), "the turn came back");
    }
}
