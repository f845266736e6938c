//! Words for the person at the terminal, and the log.
//!
//! Goes out: lines on standard error, so that standard output is the guest's alone.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// One line on standard error. A terminal that is gone is nobody to complain to.
pub(crate) fn say(line: &str) {
    let mut error = std::io::stderr().lock();
    // Nothing can be done about a standard error that is closed.
    drop(writeln!(error, "{line}"));
}

/// How the log is written.
#[derive(Clone, Copy)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Starts the log at `level` (`RUST_LOG` wins), on standard error.
pub(crate) fn start_log(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => EnvFilter::try_new(&text).with_context(|| format!("RUST_LOG is {text:?}"))?,
        Err(_) => EnvFilter::try_new(level).with_context(|| format!("log level {level:?}"))?,
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("starting the log: {error}"))
}
