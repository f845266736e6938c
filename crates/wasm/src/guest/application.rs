//! A Spin application as a guest: its routes, and its components beside the one that is the guest's own code.
//!
//! Comes in: what was planned, with each component's code and files. Goes out: what the HTTP server needs of it. Never
//! here: where any of it comes from.

use std::sync::Arc;

use bytes::Bytes;

use super::http::{Handler, Routed};
use super::{Mount, StartError};
use crate::code::Code;
use crate::spin::Answer;
use crate::spin::route::Router;
use crate::wasi::{Grants, Pod, Surroundings};

/// A Spin application. What its first component is made of stands in the guest's own fields, but for what it is granted.
pub struct Application {
    pub(crate) router: Router,
    pub(crate) answers: Vec<Answer>,
    /// What it tells of itself, in JSON.
    pub(crate) about: Bytes,
    pub(crate) first: Grants,
    pub(crate) others: Vec<Part>,
}

/// Another component.
pub(crate) struct Part {
    /// Its name, which it gets as its only argument.
    id: String,
    handler: Handler,
    env: Vec<(String, String)>,
    mounts: Vec<Mount>,
    grants: Grants,
}

impl Part {
    /// A component of this code; none if that answers no HTTP.
    pub(crate) fn new(
        id: String,
        code: &Code,
        env: Vec<(String, String)>,
        mounts: Vec<Mount>,
        grants: Grants,
    ) -> Option<Self> {
        Some(Self { id, handler: Handler::of(code)?, env, mounts, grants })
    }
}

impl Application {
    /// What the first component is granted, and what the server needs of the others.
    pub(super) fn routed(self, pod: &Pod) -> Result<(Grants, Routed), StartError> {
        let other = |part: Part| {
            let surroundings = Surroundings::new(part.env, None, part.mounts, pod.clone())?.held_to(part.grants);
            Ok((part.id, part.handler, Arc::new(surroundings)))
        };
        let others = self.others.into_iter().map(other).collect::<Result<_, StartError>>()?;
        Ok((self.first, Routed { router: self.router, answers: self.answers, about: self.about, others }))
    }
}
