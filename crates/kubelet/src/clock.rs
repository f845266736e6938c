//! The time, for everything around the pure core that must say what time it is.
//!
//! Goes out: a timestamp. In tests under paused time it moves with tokio's clock, so that hours of back-off pass at once.

use jiff::Timestamp;
use tokio::time::Instant;

/// A clock.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// Tokio's, counted from a point in time.
    Tokio {
        /// What time it was…
        at: Timestamp,
        /// …at this instant.
        since: Instant,
    },
}

impl Clock {
    /// A clock that starts now and moves as tokio's does.
    pub fn tokio() -> Self {
        Self::Tokio { at: Timestamp::now(), since: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match *self {
            Self::System => Timestamp::now(),
            Self::Tokio { at, since } => decide::time::after(at, since.elapsed()),
        }
    }
}
