//! Reads CRI's log format: `TIME stdout|stderr F|P TEXT`, a line each.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use super::{Checked, Failure};

/// A line of a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub at: Timestamp,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Whether the next line of the same stream goes on with it.
    pub partial: bool,
    /// What the guest wrote, without its newline.
    pub text: String,
}

/// The lines of a log file.
///
/// # Errors
/// The file cannot be read, or holds a line that is not in CRI's format.
pub fn read(path: &Path) -> Checked<Vec<Line>> {
    let content =
        fs::read_to_string(path).map_err(|source| Failure::Step { step: "reading a container's log", source })?;
    content
        .lines()
        .map(|line| {
            parse(line).ok_or_else(|| Failure::Expectation(format!("a log line is not in CRI's format: {line:?}")))
        })
        .collect()
}

fn parse(line: &str) -> Option<Line> {
    let mut parts = line.splitn(4, ' ');
    let at = parts.next()?.parse().ok()?;
    let stream = parts.next().filter(|stream| matches!(*stream, "stdout" | "stderr"))?.to_owned();
    let partial = match parts.next()? {
        "F" => false,
        "P" => true,
        _ => return None,
    };
    Some(Line { at, stream, partial, text: parts.next()?.to_owned() })
}
