//! Why a wasm file runs on no node like this one. It is found out by the compiler, in another process, and told from there.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The largest wasm file that is compiled, in bytes. Compiling takes some 25 times a file's size in memory.
pub(super) const SIZE_LIMIT_BYTES: u64 = 512 << 20;

/// What is wrong with a wasm file: its own fault, and nothing that another attempt would mend.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Unfit {
    /// The file is larger than anything we compile.
    #[error("the wasm file has {size} bytes, more than the {SIZE_LIMIT_BYTES} that are compiled")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The file does not begin as WebAssembly does.
    #[error("not a WebAssembly file: it does not begin with \\0asm")]
    NotWasm,
    /// The file is cut short or damaged.
    #[error("not a complete WebAssembly file: {detail}")]
    Malformed {
        /// What is wrong, and at which offset.
        detail: String,
    },
    /// Nothing in it can be started.
    #[error("no entry point: {detail}")]
    NoEntryPoint {
        /// What was looked for and what is there.
        detail: String,
    },
    /// It needs threads.
    #[error("needs threads, which are not supported: it uses {what}")]
    Threads {
        /// The memory or import that needs them.
        what: String,
    },
    /// It is no valid WebAssembly, or uses a proposal that is not enabled.
    #[error("cannot be compiled: {detail}")]
    Invalid {
        /// What Wasmtime said.
        detail: String,
    },
}
