//! Runs one outside command to its end.
//!
//! Comes in: a prepared [`Command`] and what it is for. Goes out: its standard output, or an error that names the
//! purpose and carries the last lines the command wrote. Never here: a command whose output nobody reads.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// How many lines of a failed command's output an error carries.
const TAIL_LINES: usize = 20;

/// Runs `command` and returns what it wrote to standard output.
///
/// # Errors
/// When the program cannot be started or ends with anything but success; the error says `purpose`.
pub(crate) fn run(command: &mut Command, purpose: &str) -> Result<String> {
    let output = command.output().with_context(|| format!("{purpose}: start {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stderr.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    bail!("{purpose}: {} ended with {}\n{tail}", command.get_program().display(), output.status)
}
