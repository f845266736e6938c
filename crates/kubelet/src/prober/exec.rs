//! `exec`: a command in the container, or one of its exported functions.

use std::time::Duration;

use cri::Client;
use cri::client::ExecError;
use decide::env::static_command;
use decide::event::ProbeResult;
use decide::names::ContainerId;
use decide::pod::Container;

use super::errored;

/// What of the output is told at the most, in bytes (the kubelet's `maxReadLength`).
const LONGEST_OUTPUT: usize = 10 * 1024;

/// Runs the command and waits for its end.
pub(super) async fn probe(
    runtime: &Client,
    container: &Container,
    id: &ContainerId,
    command: &[String],
    limit: Duration,
) -> ProbeResult {
    let command = static_command(command, container);
    match runtime.exec_sync(id.as_str(), &command, limit).await {
        Ok(answer) if answer.exit_code == 0 => ProbeResult::Success,
        Ok(answer) => {
            let mut output = answer.stdout.to_vec();
            output.extend_from_slice(&answer.stderr);
            output.truncate(LONGEST_OUTPUT);
            ProbeResult::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error @ ExecError::TimedOut { .. }) => ProbeResult::Failure(error.to_string()),
        Err(ExecError::Call(error)) => errored(error.message().to_owned()),
    }
}
