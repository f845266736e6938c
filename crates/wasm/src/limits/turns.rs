//! Turns among guests that would all compute without end: what their containers requested decides how they share the CPU.
//!
//! ```text
//!   a long slice ─▶ asks for a turn ─▶ waits, by virtual time ─▶ has it for one poll ─▶ gives it back
//! ```
//! In come guests that have just used a thread for a whole slice, out go turns, as many at one time as there are threads.
//! Virtual time is CPU time divided by shares, as in the kernel's fair scheduling: whoever has had least of what is due
//! to them is next. Guests that wait for something most of the time need no turn, and are never held up by one. Never
//! here: a clock, or the CPU limit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

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
    free: usize,
    /// By virtual time, and in the order of arrival.
    waiting: BTreeMap<Place, W>,
    arrivals: u64,
    /// The virtual time of who had the last turn. Nobody comes in below it: who was idle has saved up nothing.
    floor: u64,
}

type Place = (u64, u64);

impl Turns {
    /// For this many threads.
    pub(crate) fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Queue::new(threads))))
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
    place: Option<Place>,
}

impl Turn {
    /// Waits for one.
    pub(crate) async fn take(turns: &Arc<Turns>, share: &Share) -> Self {
        let mut turn = Self { turns: Arc::clone(turns), place: None };
        std::future::poll_fn(|context| turn.poll(share, context)).await;
        turn
    }

    fn poll(&mut self, share: &Share, context: &Context<'_>) -> Poll<()> {
        let mut queue = self.turns.queue();
        match self.place {
            None => {
                let due = share.virtual_time.fetch_max(queue.floor, Ordering::Relaxed).max(queue.floor);
                let place = queue.arrive(due, || context.waker().clone());
                self.place = Some(place);
                if queue.waiting.contains_key(&place) { Poll::Pending } else { Poll::Ready(()) }
            }
            Some(place) => match queue.waiting.get_mut(&place) {
                Some(waker) => {
                    waker.clone_from(context.waker());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            },
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let next = self.turns.queue().leave(place);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl<W> Queue<W> {
    fn new(turns: usize) -> Self {
        Self { free: turns.max(1), waiting: BTreeMap::new(), arrivals: 0, floor: 0 }
    }

    /// Somebody's place: they wait there unless a turn is free.
    fn arrive(&mut self, virtual_time: u64, waker: impl FnOnce() -> W) -> Place {
        let place = (virtual_time, self.arrivals);
        self.arrivals += 1;
        if self.free > 0 {
            self.free -= 1;
            self.floor = self.floor.max(virtual_time);
        } else {
            self.waiting.insert(place, waker());
        }
        place
    }

    /// Gives up a place. If that was a turn, whoever is next has it now.
    fn leave(&mut self, place: Place) -> Option<W> {
        if self.waiting.remove(&place).is_some() {
            return None;
        }
        let Some(((virtual_time, _), waker)) = self.waiting.pop_first() else {
            self.free += 1;
            return None;
        };
        self.floor = self.floor.max(virtual_time);
        Some(waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guests that never stop computing, by their shares, on this many threads: the slices that each had of many.
    fn slices(threads: usize, shares: &[u32]) -> Vec<u64> {
        const SLICE: u64 = 5_000_000;
        let guests: Vec<_> = shares.iter().map(|&shares| Share::new(Some(shares))).collect();
        let mut had = vec![0; shares.len()];
        let mut queue = Queue::new(threads);
        let mut running: Vec<(Place, usize)> = Vec::new();
        let arrive = |queue: &mut Queue<usize>, guest: usize| {
            let virtual_time = guests[guest].virtual_time.load(Ordering::Relaxed);
            let place = queue.arrive(virtual_time.max(queue.floor), || guest);
            (!queue.waiting.contains_key(&place)).then_some((place, guest))
        };
        for guest in 0..shares.len() {
            running.extend(arrive(&mut queue, guest));
        }
        for _ in 0..4096 {
            let (place, guest) = running.remove(0);
            had[guest] += 1;
            guests[guest].charge(SLICE);
            let waiting: Vec<(Place, usize)> = queue.waiting.iter().map(|(place, guest)| (*place, *guest)).collect();
            if let Some(next) = queue.leave(place) {
                running.extend(waiting.into_iter().find(|(_, waits)| *waits == next));
            }
            running.extend(arrive(&mut queue, guest));
            assert!(running.len() <= threads);
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
        let context = Context::from_waker(Waker::noop());
        busy.charge(1_000_000_000);
        for share in [&busy, &idle] {
            let mut turn = Turn { turns: Arc::clone(&turns), place: None };
            assert!(turn.poll(share, &context).is_ready());
        }
        assert_eq!(idle.virtual_time.load(Ordering::Relaxed), 1_000_000_000);
    }

    #[test]
    fn a_turn_goes_to_the_next_and_a_place_that_is_left_is_nobodys() {
        let (turns, share) = (Turns::new(1), Share::new(None));
        let context = Context::from_waker(Waker::noop());
        let place = || Turn { turns: Arc::clone(&turns), place: None };
        let (mut first, mut second, mut third) = (place(), place(), place());
        assert!(first.poll(&share, &context).is_ready());
        assert!(second.poll(&share, &context).is_pending() && third.poll(&share, &context).is_pending());
        drop(second);
        drop(first);
        assert!(third.poll(&share, &context).is_ready());
        drop(third);
        assert!(place().poll(&share, &context).is_ready(), "the turn came back");
    }
}
