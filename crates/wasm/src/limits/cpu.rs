//! CPU accounting and the CPU limit: a guest's future comes in, the same future comes out, timed and throttled.
//!
//! The clock is the thread's CPU time around each poll, so that waiting costs nothing and host calls count. A limited
//! guest has a token bucket filled every [`PERIOD`], as the kernel's CFS quota does; while it is empty the guest is
//! not polled. What one slice overdraws is paid back from the following periods. Who has used a whole slice has a turn
//! first ([`super::turns`]), so that guests that compete share the CPU as they requested it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, Sleep};
use wasmtime::{Store, UpdateDeadline};

use super::Metering;
use super::turns::{Share, Turn};

/// How often a limited guest's bucket is filled, and the longest it takes until a new limit is felt.
const PERIOD: Duration = Duration::from_millis(100);

/// A slice of this length has kept a thread from others, and from its sockets and timers. Before the next one others have
/// their turn, and the thread looks at those.
const LONG_SLICE: Duration = Duration::from_millis(2);

/// What one guest's tasks used together, and may use.
pub(crate) struct Cpu {
    used_nanos: AtomicU64,
    /// Thousandths of a CPU, 0 for no limit. Looked at before the bucket, which an unlimited guest never locks.
    millis: AtomicU32,
    bucket: Mutex<Bucket>,
    share: Share,
}

/// CPU time a guest may still use in this period. Below zero it has a debt.
#[derive(Debug)]
struct Bucket {
    per_period: i64,
    left: i64,
    period: Instant,
}

impl Cpu {
    pub(crate) fn new(millis: Option<u32>, shares: Option<u32>) -> Self {
        let millis = millis.map_or(0, |millis| millis.max(1));
        let bucket = Mutex::new(Bucket::new(millis, Instant::now()));
        Self { used_nanos: AtomicU64::new(0), millis: AtomicU32::new(millis), bucket, share: Share::new(shares) }
    }

    /// From now on this is the limit. What was used beyond the old one is still paid back.
    pub(crate) fn set_limit(&self, millis: Option<u32>) {
        let millis = millis.map_or(0, |millis| millis.max(1));
        let mut bucket = self.bucket();
        if self.millis.swap(millis, Ordering::Relaxed) == 0 {
            *bucket = Bucket::new(millis, Instant::now());
        } else {
            bucket.set_limit(millis);
        }
    }

    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    fn is_limited(&self) -> bool {
        self.millis.load(Ordering::Relaxed) > 0
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used_nanos.load(Ordering::Relaxed))
    }

    fn charge(&self, used: Duration) {
        let nanos = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        self.used_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.share.charge(nanos);
        if self.is_limited() {
            let mut bucket = self.bucket();
            bucket.left = bucket.left.saturating_sub(i64::try_from(nanos).unwrap_or(i64::MAX));
        }
    }

    /// When the guest may run again, or is to be looked at again, as it does not sleep through a change of its limit, however
    /// long its debt; `None` is now.
    fn throttled_until(&self, now: Instant) -> Option<Instant> {
        let until = self.is_limited().then(|| self.bucket().throttled_until(now))??;
        Some(until.min(now + PERIOD))
    }

    pub(super) async fn may_run(&self) {
        while let Some(until) = self.throttled_until(Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Bucket {
    fn new(millis: u32, now: Instant) -> Self {
        let per_period = per_period(millis);
        Self { per_period, left: per_period, period: now }
    }

    fn set_limit(&mut self, millis: u32) {
        self.per_period = per_period(millis);
        self.left = self.left.min(self.per_period);
    }

    fn throttled_until(&mut self, now: Instant) -> Option<Instant> {
        let periods = u32::try_from(now.duration_since(self.period).as_nanos() / PERIOD.as_nanos()).unwrap_or(u32::MAX);
        if periods > 0 {
            // What was not used is lost, as with a CFS quota without burst.
            let filled = self.left.saturating_add(self.per_period.saturating_mul(i64::from(periods)));
            self.left = filled.min(self.per_period);
            self.period += PERIOD.saturating_mul(periods);
        }
        if self.left > 0 {
            return None;
        }
        let debt = self.left.saturating_neg();
        let periods = u32::try_from(debt / self.per_period + 1).unwrap_or(u32::MAX);
        Some(self.period + PERIOD.saturating_mul(periods))
    }
}

/// In nanoseconds.
fn per_period(millis: u32) -> i64 {
    let period = i64::try_from(PERIOD.as_nanos()).unwrap_or(i64::MAX);
    i64::from(millis.max(1)).saturating_mul(period / 1_000)
}

/// A guest's future, timed and throttled. Each poll of it is charged to the guest.
pub(crate) struct Metered<F> {
    run: Pin<Box<F>>,
    metering: Arc<Metering>,
    polls: PollCount,
    parked: Option<Pin<Box<Sleep>>>,
    /// The last slice was a long one.
    needs_turn: bool,
    /// What leads to the next slice then.
    next_slice: Option<BoxFuture<'static, Turn>>,
}

/// Counts the polls of one task, so that its stores can tell a new slice from an old one.
#[derive(Clone, Default)]
pub(crate) struct PollCount(Arc<AtomicU64>);

impl PollCount {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<F: Future> Metered<F> {
    pub(crate) fn new(metering: Arc<Metering>, polls: PollCount, run: F) -> Self {
        Self { run: Box::pin(run), metering, polls, parked: None, needs_turn: false, next_slice: None }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        loop {
            if let Some(parked) = &mut this.parked {
                std::task::ready!(parked.as_mut().poll(context));
                this.parked = None;
            }
            // After waking, others of the same guest may have emptied the bucket again.
            match this.metering.cpu.throttled_until(Instant::now()) {
                Some(until) => {
                    // Asleep it has no use for its turn.
                    this.next_slice = None;
                    this.parked = Some(Box::pin(tokio::time::sleep_until(until)));
                }
                None => break,
            }
        }
        if this.needs_turn && this.next_slice.is_none() {
            let turn = Turn::ask(&this.metering.turns, this.metering.cpu.share(), context.waker());
            this.next_slice = Some(next_slice(turn).boxed());
        }
        let turn = match &mut this.next_slice {
            Some(next_slice) => {
                let turn = std::task::ready!(next_slice.as_mut().poll(context));
                this.next_slice = None;
                Some(turn)
            }
            None => None,
        };
        this.polls.0.fetch_add(1, Ordering::Relaxed);
        let polling = this.metering.ticker.polling();
        let before = thread_cpu_time();
        let result = this.run.as_mut().poll(context);
        let used = thread_cpu_time().saturating_sub(before);
        this.metering.cpu.charge(used);
        drop(polling);
        this.needs_turn = used > LONG_SLICE;
        if let Some(mut turn) = turn
            && this.needs_turn
        {
            turn.ask_again(this.metering.cpu.share(), context.waker());
            this.next_slice = Some(next_slice(turn).boxed());
        }
        result
    }
}

async fn next_slice(turn: Turn) -> Turn {
    turn.begun().await;
    // Last: whoever is told that it is their turn would else run before the thread looks at anything.
    tokio::task::yield_now().await;
    turn
}

fn thread_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Makes a store's code yield to its task at a tick, once its poll has lasted a full one. Without the second condition
/// every wake-up after a sleep would pay for one needless yield.
pub(crate) fn yield_at_ticks<T>(store: &mut Store<T>, polls: &PollCount) {
    let polls = polls.clone();
    let mut seen = 0;
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        let poll = polls.0.load(Ordering::Relaxed);
        if poll == seen {
            return Ok(UpdateDeadline::Yield(1));
        }
        seen = poll;
        Ok(UpdateDeadline::Continue(1))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: i64 = 1_000_000;

    #[test]
    fn an_empty_bucket_waits_for_the_next_period() {
        let start = Instant::now();
        let mut bucket = Bucket::new(200, start);
        assert_eq!(bucket.throttled_until(start), None);
        bucket.left -= 20 * MILLISECOND;
        assert_eq!(bucket.throttled_until(start + Duration::from_millis(20)), Some(start + PERIOD));
        assert_eq!(bucket.throttled_until(start + PERIOD), None);
        assert_eq!(bucket.left, 20 * MILLISECOND);
    }

    #[test]
    fn a_debt_is_paid_over_as_many_periods_as_it_takes() {
        let start = Instant::now();
        let mut bucket = Bucket::new(50, start);
        bucket.left -= 17 * MILLISECOND;
        assert_eq!(bucket.throttled_until(start), Some(start + 3 * PERIOD));
        assert!(bucket.throttled_until(start + 2 * PERIOD).is_some());
        assert_eq!(bucket.throttled_until(start + 3 * PERIOD), None);
    }

    #[test]
    fn a_new_limit_holds_at_once_and_leaves_the_debt() {
        let start = Instant::now();
        let mut bucket = Bucket::new(50, start);
        bucket.left -= 45 * MILLISECOND;
        assert_eq!(bucket.throttled_until(start), Some(start + 9 * PERIOD));
        bucket.set_limit(500);
        assert_eq!(bucket.throttled_until(start), Some(start + PERIOD));
        assert_eq!(bucket.throttled_until(start + PERIOD), None);
        bucket.set_limit(10);
        assert_eq!(bucket.left, MILLISECOND, "no more is left than the new limit gives");
    }

    #[test]
    fn a_limit_comes_and_goes() {
        let cpu = Cpu::new(None, None);
        cpu.charge(Duration::from_secs(1));
        assert_eq!(cpu.throttled_until(Instant::now()), None);
        cpu.set_limit(Some(100));
        assert_eq!(cpu.throttled_until(Instant::now()), None, "what was used before the limit does not count");
        cpu.charge(Duration::from_secs(1));
        assert!(cpu.throttled_until(Instant::now()).is_some());
        cpu.set_limit(None);
        assert_eq!(cpu.throttled_until(Instant::now()), None);
        assert_eq!(cpu.used(), Duration::from_secs(2));
    }

    #[test]
    fn unused_time_is_not_saved_up() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1_000, start);
        assert_eq!(bucket.throttled_until(start + 50 * PERIOD), None);
        assert_eq!(bucket.left, 100 * MILLISECOND);
    }
}
