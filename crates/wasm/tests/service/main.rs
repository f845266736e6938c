//! The runtime behind its services: every test speaks to it as a kubelet does, through a CRI client over the in-memory
//! channel, with guests of WebAssembly text in an image layout of the test's own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod accounting;
mod attach;
mod bad_input;
mod bed;
mod containers;
mod events;
mod exec;
mod guests;
mod images;
mod kill;
mod layout;
mod network;
mod restart;
mod spin;
mod stop;
mod stores;
mod suite;
