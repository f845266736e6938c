//! `ExecSync`: runs a command beside a container's guest, and gathers what it writes.
//!
//! In comes an argument vector, out go both streams, bounded, and the exit code. What cannot be run by its words (no such
//! function, wrong arguments, no command at all) has the exit code and the complaint that a shell would give. Never here:
//! a command that goes on after its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cri::{MAX_EXEC_OUTPUT_BYTES, v1};
use image::{Content, ProgramError};
use tokio::sync::mpsc;

use crate::code::Code;
use crate::container::Container;
use crate::guest::exec::{Exec, ExecError, ExecSpec, named};
use crate::guest::{Exit, Stdin, Streams};
use crate::images::ImageError;
use crate::runtime::Core;
use crate::service::error::ServiceError;

/// Pieces between a command and what gathers them, each of at most 16 KiB.
const PIECES: usize = 16;
/// How long the end of a killed command is waited for. It takes a tick or two, unless a host call of it hangs.
const KILLED_WITHIN: Duration = Duration::from_secs(1);
/// What shells say by their exit codes of a command that is no program, and of one that is not there.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

impl Core {
    pub(super) async fn exec_sync(&self, request: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse, ServiceError> {
        let v1::ExecSyncRequest { container_id, cmd: args, timeout } = request;
        let container = self.registry().container(&container_id)?;
        if args.is_empty() {
            return Err(ServiceError::invalid("cmd", "missing"));
        }
        let guest = container.guest()?;
        let (code, args) = match self.program_of(&container, args).await {
            Ok(program) => program,
            Err(ServiceError::Image(ImageError::Program { source, .. })) => return Ok(not_runnable(&source)),
            Err(error) => return Err(error),
        };
        // Zero is no limit.
        let limit = u64::try_from(timeout).ok().filter(|&seconds| seconds > 0);
        let (stdout, from_stdout) = mpsc::channel(PIECES);
        let (stderr, from_stderr) = mpsc::channel(PIECES);
        let spec = ExecSpec { code, args, streams: Streams { stdin: Stdin::Empty, stdout, stderr, tty: false } };
        let started = tokio::task::spawn_blocking(move || guest.exec(spec)).await;
        let exec = match started.map_err(|_| ServiceError::ShuttingDown)? {
            Ok(exec) => exec,
            Err(ExecError::Refused(refusal)) => {
                let (stdout, stderr) = (Vec::new(), format!("{refusal}\n").into_bytes());
                return Ok(v1::ExecSyncResponse { stdout, stderr, exit_code: refusal.exit_code() });
            }
            Err(source) => return Err(ServiceError::Exec { id: container.id.clone(), source }),
        };
        let run = finish(&exec, from_stdout, from_stderr);
        let Some(seconds) = limit else { return Ok(run.await) };
        if let Ok(answer) = tokio::time::timeout(Duration::from_secs(seconds), run).await {
            return Ok(answer);
        }
        exec.kill();
        if tokio::time::timeout(KILLED_WITHIN, exec.exited()).await.is_err() {
            tracing::warn!(container = %container.id, "a command that was stopped has not ended yet");
        }
        Err(ServiceError::ExecTimeout { id: container.id.clone(), seconds })
    }
}

impl Core {
    /// The program that arguments mean in the container, and what it is to be called with. Without one, it is the guest's
    /// own, as in an image that is one wasm file, or where a function of the guest is named.
    async fn program_of(
        &self,
        container: &Container,
        args: Vec<String>,
    ) -> Result<(Option<Arc<Code>>, Vec<String>), ServiceError> {
        let of_files = container.programs.as_ref().filter(|it| matches!(it.image.content, Content::Rootfs(_)));
        match of_files {
            Some(programs) if named(&args).is_none() => {
                let program = self.images.program(programs, args).await?;
                let code = self.code(&programs.name, &program.wasm).await?;
                Ok((Some(code), program.args))
            }
            _ => Ok((None, args)),
        }
    }
}

/// What a shell would say of a command that is not there, or is no program.
fn not_runnable(error: &ProgramError) -> v1::ExecSyncResponse {
    let exit_code = if matches!(error, ProgramError::NotFound { .. }) { NOT_FOUND } else { NOT_EXECUTABLE };
    v1::ExecSyncResponse { stdout: Vec::new(), stderr: format!("{error}\n").into_bytes(), exit_code }
}

/// The command's end, with all it wrote.
async fn finish(
    exec: &Exec,
    mut stdout: mpsc::Receiver<Bytes>,
    mut stderr: mpsc::Receiver<Bytes>,
) -> v1::ExecSyncResponse {
    let mut gathered = Gathered::default();
    let (mut stdout_open, mut stderr_open) = (true, true);
    while stdout_open || stderr_open {
        tokio::select! {
            piece = stdout.recv(), if stdout_open => match piece {
                Some(piece) => gathered.take(Stream::Stdout, &piece),
                None => stdout_open = false,
            },
            piece = stderr.recv(), if stderr_open => match piece {
                Some(piece) => gathered.take(Stream::Stderr, &piece),
                None => stderr_open = false,
            },
        }
    }
    let exit: Exit = exec.exited().await;
    v1::ExecSyncResponse { stdout: gathered.stdout, stderr: gathered.stderr, exit_code: exit.code() }
}

#[derive(Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

/// What was written, as far as it fits into an answer.
#[derive(Default)]
struct Gathered {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Gathered {
    /// The rest is discarded, not waited with: the command goes on as if somebody read it.
    fn take(&mut self, stream: Stream, piece: &[u8]) {
        let room = MAX_EXEC_OUTPUT_BYTES.saturating_sub(self.stdout.len() + self.stderr.len());
        let piece = piece.get(..room).unwrap_or(piece);
        match stream {
            Stream::Stdout => self.stdout.extend_from_slice(piece),
            Stream::Stderr => self.stderr.extend_from_slice(piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_what_fits_a_message_of_both_streams_together() {
        let mut gathered = Gathered::default();
        gathered.take(Stream::Stderr, b"why");
        let piece = vec![b'x'; 16 * 1024];
        for _ in 0..=MAX_EXEC_OUTPUT_BYTES / piece.len() {
            gathered.take(Stream::Stdout, &piece);
        }
        gathered.take(Stream::Stderr, b"too late");
        assert_eq!(gathered.stdout.len() + gathered.stderr.len(), MAX_EXEC_OUTPUT_BYTES);
        assert_eq!(gathered.stderr, b"why");
    }
}
