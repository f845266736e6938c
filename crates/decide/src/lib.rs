//! The pure core of wasklet: pods, plans and statuses as values.
//!
//! Comes in: API objects, what is observed of a pod, and the time. Goes out: plans (actions with their reasons), pod
//! statuses and reports (Kubernetes Events to be). Never happens here: I/O, clocks, async, locks, randomness. The
//! crate's `clippy.toml` holds that.
//!
//! The way through, for one pod: [`parse::parse`] makes a [`pod::Pod`]; [`observed::Observed::apply`] folds each
//! [`event::Event`] into what is known; [`plan::next`] says what to do about it; the worker carries the actions out and
//! hands every [`event::Outcome`] back as an event.

pub mod admission;
pub mod allocation;
pub mod backoff;
pub mod correlation;
pub mod env;
pub mod event;
pub mod hosts;
pub mod image_gc;
pub mod keyring;
pub mod mirror;
pub mod names;
pub mod node;
pub mod observed;
pub mod parse;
pub mod plan;
pub mod pod;
pub mod pulled;
pub mod qos;
pub mod quantity;
pub mod report;
pub mod status;
pub mod support;
pub mod time;
pub mod volume;
