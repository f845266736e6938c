//! Checks of commands run in containers.

use std::time::Duration;

use tokio::time::{self, Instant};
use tonic::Code;

use super::container::{MARGIN, WRONG_TIME};
use super::pod::Pod;
use super::{Checked, Failure, PATIENCE, Seam, ensure, refused};
use crate::client::{CallError, ExecError};
use crate::v1::{ContainerState, ExecSyncResponse, KeyValue};

/// Far more than any of these commands needs.
const LIMIT: Duration = PATIENCE;

/// A command sees its own words and the container's environment; its two streams and its exit code come back, and the
/// container goes on.
///
/// # Errors
/// The check does not hold.
pub async fn a_command_gives_its_output_and_its_exit_code(seam: &Seam) -> Checked {
    let Some(image) = &seam.images.executes else { return Ok(()) };
    let pod = Pod::run(seam).await?;
    let id = start(&pod, image).await?;
    let shown = run(seam, &id, &["show", "--greeting", "hello world"], LIMIT).await?;
    let stdout = String::from_utf8_lossy(&shown.stdout);
    for line in ["--greeting", "hello world", "SUITE_WORD=a=b c"] {
        ensure!(stdout.lines().any(|shown| shown == line), "no {line:?} in {stdout:?}");
    }
    ensure!(shown.exit_code == 0, "exit code {}: {shown:?}", shown.exit_code);
    ensure!(shown.stderr.is_empty(), "it wrote to the wrong stream: {shown:?}");
    let failed = run(seam, &id, &["fail"], LIMIT).await?;
    ensure!(failed.exit_code == 7, "exit code {}: {failed:?}", failed.exit_code);
    ensure!(failed.stdout.is_empty() && !failed.stderr.is_empty(), "it wrote to the wrong stream: {failed:?}");
    still_runs(seam, &id).await?;
    pod.remove().await
}

/// A command that never yields ends with its limit, and its container goes on.
///
/// # Errors
/// The check does not hold.
pub async fn a_command_past_its_limit_is_stopped(seam: &Seam) -> Checked {
    let Some(image) = &seam.images.executes else { return Ok(()) };
    let pod = Pod::run(seam).await?;
    let id = start(&pod, image).await?;
    let limit = Duration::from_secs(1);
    let began = Instant::now();
    match command(seam, &id, &["spin"], limit).await {
        Err(ExecError::TimedOut { .. }) => {}
        other => return Err(Failure::Expectation(format!("a spinning command gave {other:?}"))),
    }
    let took = began.elapsed();
    ensure!(took >= limit && took < limit + MARGIN, "a limit of {limit:?} took {took:?}");
    still_runs(seam, &id).await?;
    let shown = run(seam, &id, &["show"], LIMIT).await?;
    ensure!(shown.exit_code == 0, "the next command: {shown:?}");
    pod.remove().await
}

/// A command without a limit lasts no longer than its container.
///
/// # Errors
/// The check does not hold.
pub async fn the_end_of_the_container_ends_its_commands(seam: &Seam) -> Checked {
    let Some(image) = &seam.images.executes else { return Ok(()) };
    let pod = Pod::run(seam).await?;
    let id = start(&pod, image).await?;
    let stop = async {
        // It need not have begun: a command that comes too late is refused.
        seam.client.stop_container(&id, Duration::ZERO).await
    };
    let (ended, stopped) = tokio::join!(time::timeout(PATIENCE, command(seam, &id, &["spin"], Duration::ZERO)), stop);
    stopped?;
    match ended {
        Ok(Ok(ended)) => ensure!(ended.exit_code != 0, "it ended well: {ended:?}"),
        Ok(Err(ExecError::Call(_))) => {}
        Ok(Err(ExecError::TimedOut { .. })) => {
            return Err(Failure::Expectation("a command without a limit timed out".to_owned()));
        }
        Err(_) => return Err(Failure::Expectation(format!("the command outlives its container by {PATIENCE:?}"))),
    }
    pod.remove().await
}

/// Not before its start, not after its end, and not of a name that nobody gave.
///
/// # Errors
/// The check does not hold.
pub async fn only_a_running_container_runs_commands(seam: &Seam) -> Checked {
    refused(failed(command(seam, "no-such-container", &["show"], LIMIT).await)?, &[Code::NotFound])?;
    let Some(image) = &seam.images.executes else { return Ok(()) };
    let pod = Pod::run(seam).await?;
    let id = create(&pod, image).await?;
    refused(failed(command(seam, &id, &["show"], LIMIT).await)?, &WRONG_TIME)?;
    seam.client.start_container(&id).await?;
    refused(failed(command(seam, &id, &[], LIMIT).await)?, &[Code::InvalidArgument, Code::Unknown])?;
    seam.client.stop_container(&id, Duration::ZERO).await?;
    refused(failed(command(seam, &id, &["show"], LIMIT).await)?, &WRONG_TIME)?;
    pod.remove().await
}

async fn create(pod: &Pod<'_>, image: &str) -> Checked<String> {
    let mut config = pod.container("main", image)?;
    config.command = vec!["park".to_owned()];
    config.envs = vec![KeyValue { key: "SUITE_WORD".to_owned(), value: b"a=b c".to_vec() }];
    pod.create_from(config).await
}

async fn start(pod: &Pod<'_>, image: &str) -> Checked<String> {
    let id = create(pod, image).await?;
    pod.seam().client.start_container(&id).await?;
    Ok(id)
}

async fn command(seam: &Seam, id: &str, words: &[&str], limit: Duration) -> Result<ExecSyncResponse, ExecError> {
    let words: Vec<_> = words.iter().copied().map(str::to_owned).collect();
    seam.client.exec_sync(id, &words, limit).await
}

async fn run(seam: &Seam, id: &str, words: &[&str], limit: Duration) -> Checked<ExecSyncResponse> {
    failed(command(seam, id, words, limit).await)?.map_err(Failure::from)
}

/// The call's own error; a command that took too long is none of them.
fn failed(call: Result<ExecSyncResponse, ExecError>) -> Checked<Result<ExecSyncResponse, CallError>> {
    match call {
        Ok(answer) => Ok(Ok(answer)),
        Err(ExecError::Call(error)) => Ok(Err(error)),
        Err(error @ ExecError::TimedOut { .. }) => Err(Failure::Expectation(error.to_string())),
    }
}

async fn still_runs(seam: &Seam, id: &str) -> Checked {
    let status = seam.client.container_status(id).await?;
    ensure!(status.state() == ContainerState::ContainerRunning, "a command ended its container: {status:?}");
    Ok(())
}
