//! Hooks: what is done with a container right after its start and right before its stop.

use super::probe::HttpGet;
use std::time::Duration;

/// The hooks of one container (`lifecycle`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `postStart`: until it is done the container is not said to run, and if it fails the container is stopped.
    pub post_start: Option<Hook>,
    /// `preStop`: its time is taken from the grace period.
    pub pre_stop: Option<Hook>,
}

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `exec`: a command, run in the container, not expanded. It succeeds with exit code 0.
    Exec(Vec<String>),
    /// `httpGet`. It succeeds with any answer.
    HttpGet(HttpGet),
    /// `sleep`.
    Sleep(Duration),
    /// `tcpSocket`, which the API takes and no kubelet knows any more: it always fails.
    TcpSocket,
}
