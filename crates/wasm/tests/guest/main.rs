//! Guests run for real: compiled, started, stopped and killed, with files, sockets and HTTP. Wasmtime is not replaced
//! by anything here; what is beside it (the pod, the log file) is.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail where the tests would")]

mod cache;
mod commands;
mod compiler;
mod concurrent;
mod files;
mod http;
mod http_03;
mod kill;
mod limits;
mod live;
mod node;
