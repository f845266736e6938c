//! The crate from outside: pulls from a registry of the test's own and from layouts, into stores that get killed.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod bench;
mod crash;
mod faults;
mod layouts;
mod ordinary;
mod protocol;
mod pull;
mod push;
mod registry;
mod trust;
