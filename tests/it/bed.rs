//! What the tests stand on: processes, guests, nodes, and a few ways to look at them.
//!
//! Goes out: fixtures that clean up after themselves. Never here: a test.

pub(crate) mod guests;
pub(crate) mod http;
pub(crate) mod node;
pub(crate) mod place;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod registry;
pub(crate) mod scene;
pub(crate) mod tokens;

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How often a state is looked at that nobody tells of.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a condition may take that has no time of its own, on two busy cores.
pub(crate) const PATIENCE: Duration = testbed::cluster::PATIENCE;

/// Looks until `look` gives something. For what cannot be watched; its last complaint is the error.
pub(crate) async fn until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("waited {within:?} in vain for {what}")));
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// As [`until`], for a plain condition.
pub(crate) async fn until_true(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) -> Result<()> {
    let look = async || if holds().await { Ok(()) } else { bail!("it is not so") };
    until(what, within, look).await
}
