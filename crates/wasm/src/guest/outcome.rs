//! How a guest ended. What Wasmtime returned comes in, an [`Exit`] goes out; nothing is guessed from texts.

use std::any::Any;

use wasmtime_wasi::I32Exit;

use crate::limits::{MemoryLimitReached, MemoryShared};

/// The longest trap message kept, in bytes: what fits a termination message with its backtrace.
const MESSAGE_LIMIT_BYTES: usize = 12 * 1024;

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself with this code, as a Linux parent would see it (0 to 255). Exact for p1 guests and for
    /// those that call `exit-with-code`; other p2 guests can only say 0 or 1.
    Code(i32),
    /// It did something WebAssembly or WASI forbids. The message carries the guest's backtrace and is bounded.
    Trap {
        /// What happened and where.
        message: String,
    },
    /// It grew past its memory limit.
    OutOfMemory,
    /// It was asked to stop and had no way to answer.
    Stopped,
    /// It was killed.
    Killed,
    /// Code of ours panicked while running it: a bug of the node, not of the guest.
    HostPanic {
        /// What the panic said.
        message: String,
    },
}

impl Exit {
    /// The exit code to report: a signal's 128+n where a signal would have ended a process.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Exit::Code(code) => *code,
            // SIGABRT: what a trap is to a process.
            Exit::Trap { .. } | Exit::HostPanic { .. } => 134,
            Exit::OutOfMemory | Exit::Killed => 137,
            Exit::Stopped => 143,
        }
    }

    /// The reason Kubernetes shows for a terminated container.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Exit::Code(0) => "Completed",
            Exit::OutOfMemory => "OOMKilled",
            Exit::Code(_) | Exit::Trap { .. } | Exit::Stopped | Exit::Killed | Exit::HostPanic { .. } => "Error",
        }
    }

    /// What the container's log is to say about it, if anything.
    pub(crate) fn complaint(&self) -> Option<String> {
        match self {
            Exit::Trap { message } => Some(message.clone()),
            Exit::OutOfMemory => Some("out of memory: the container's memory limit is reached".to_owned()),
            Exit::HostPanic { message } => Some(format!("internal error of the node: {message}")),
            Exit::Code(_) | Exit::Stopped | Exit::Killed => None,
        }
    }

    /// What a call into the guest that did not return normally means.
    pub(crate) fn from_error(error: &wasmtime::Error) -> Self {
        if let Some(I32Exit(code)) = error.downcast_ref() {
            return Exit::Code(*code & 0xff);
        }
        // Whether it is the program or the command beside it that asked for the last page: as in a cgroup, it ends.
        if error.chain().any(|cause| cause.is::<MemoryLimitReached>() || cause.is::<MemoryShared>()) {
            return Exit::OutOfMemory;
        }
        // Not {:?}: with RUST_BACKTRACE set that symbolises native frames, 50 ms a time.
        Exit::Trap { message: bounded(format!("{error:#}")) }
    }

    pub(crate) fn from_panic(panic: &(dyn Any + Send)) -> Self {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Exit::HostPanic { message: bounded(said.unwrap_or("a panic without a message").to_owned()) }
    }
}

fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE_LIMIT_BYTES {
        let end = message.floor_char_boundary(MESSAGE_LIMIT_BYTES);
        message.truncate(end);
        message.push_str(" [cut]");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_a_linux_parent_would_see() {
        let exit = |code| Exit::from_error(&wasmtime::Error::from(I32Exit(code)));
        assert_eq!(exit(0), Exit::Code(0));
        assert_eq!(exit(42), Exit::Code(42));
        assert_eq!(exit(-1), Exit::Code(255));
    }

    #[test]
    fn reaching_the_memory_limit_is_found_beneath_context() {
        let error = wasmtime::Error::from(MemoryLimitReached { limit_bytes: 1 }).context("while growing");
        assert_eq!(Exit::from_error(&error), Exit::OutOfMemory);
        assert_eq!(Exit::from_error(&wasmtime::Error::from(MemoryLimitReached { limit_bytes: 1 })), Exit::OutOfMemory);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let message = bounded("ä".repeat(MESSAGE_LIMIT_BYTES));
        assert!(message.len() <= MESSAGE_LIMIT_BYTES + 6);
        assert!(message.ends_with("ä [cut]"));
    }
}
