//! The runtime behind its services: every test speaks to it as a kubelet does, through a CRI client over the in-memory
//! channel, with guests of WebAssembly text in an image layout of the test's own.

mod attach;
mod bed;
mod containers;
mod guests;
mod network;
mod restart;
mod suite;
