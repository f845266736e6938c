//! Arithmetic on points in time that neither panics nor overflows. The present is always an argument.

pub use jiff::Timestamp;
use std::time::Duration;

/// `at` plus `wait`; the end of time where that does not exist.
#[must_use]
pub fn after(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// `at` minus `span`; the beginning of time where that does not exist.
#[must_use]
pub fn before(at: Timestamp, span: Duration) -> Timestamp {
    at.checked_sub(span).unwrap_or(Timestamp::MIN)
}

/// How much later `later` is than `earlier`; zero if it is not.
#[must_use]
pub fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or(Duration::ZERO)
}

/// The same point in whole seconds, as API objects carry it.
#[must_use]
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
