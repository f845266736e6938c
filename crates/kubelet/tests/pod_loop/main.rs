//! The pod loop from source to runtime, on the scripted runtime, under paused time: hours pass at once, and every test
//! waits for what it wants to see.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing where something must be has failed")]

mod api_server;
mod bed;

mod adoption;
mod cluster;
mod events;
mod faults;
mod files;
mod hooks;
mod kinds;
mod life;
mod manifest_url;
mod many;
mod preemption;
mod probes;
mod pulls;
mod resize;
mod static_pods;
mod stop;
