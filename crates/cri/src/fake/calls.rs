//! The record of calls, and their names.

use std::fmt;

/// CRI's calls that change something. A command does, for all that anyone knows.
const CHANGING: [&str; 13] = [
    "RunPodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "CreateContainer",
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
    "UpdateContainerResources",
    "ExecSync",
    "PullImage",
    "RemoveImage",
    "ReopenContainerLog",
    "UpdateRuntimeConfig",
];

/// The other calls that the fake answers.
const LOOKING: [&str; 13] = [
    "Version",
    "Status",
    "PodSandboxStatus",
    "ListPodSandbox",
    "ListContainers",
    "ContainerStatus",
    "ContainerStats",
    "ListContainerStats",
    "GetContainerEvents",
    "ListImages",
    "ImageStatus",
    "ImageFsInfo",
    "Attach",
];

/// A call that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// CRI's name of it.
    pub call: &'static str,
    /// What it was about: a pod's or a container's name, an image, or, for what the runtime does not know, the id. For a
    /// command the container's name and the command, as in `web cat /ready`.
    pub object: String,
}

impl Call {
    /// Whether it is more than a look.
    #[must_use]
    pub fn changes_something(&self) -> bool {
        CHANGING.contains(&self.call)
    }
}

/// As in `StartContainer web`.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object.as_str() {
            "" => f.write_str(self.call),
            object => write!(f, "{} {object}", self.call),
        }
    }
}

/// A script that names a call that is never made would wait for it in silence.
pub(super) fn known(call: &str) -> bool {
    CHANGING.contains(&call) || LOOKING.contains(&call)
}
