//! Compiling, in a process of its own for each file: a wasm file comes in, [`Verified`] code in the cache or the reason
//! against it goes out.
//!
//! A module that makes the compiler slow or big costs its own process and nothing else: the kernel holds that process to
//! memory and CPU time by the file's size, the clock to twice that, and few run at one time. It is killed when whoever asked
//! for it goes. What it answers is taken as what the compiler in this process would have returned, no more: nothing of a
//! stranger's file is read here.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, Command};
use tokio::sync::Semaphore;

use super::cache::{Draft, Verified};
use super::unfit::Unfit;
use super::worker::{Answer, Request};
use super::{CodeError, Kind};

/// Files compiled at one time. Each compilation uses every core there is; a second one so that a file which takes long
/// does not hold up all others.
const AT_ONE_TIME: usize = 2;
/// Address space that the smallest of compilations needs, most of it for the program itself and its threads.
const LEAST_MEMORY_BYTES: u64 = 512 << 20;
/// Threads of one compilation: each takes address space, and few files have work for more.
const THREADS: usize = 8;
/// The longest answer before the compiled code, in bytes: more than any refusal has.
const ANSWER_BYTES: u64 = 1 << 20;
/// Of what a worker complains of, in bytes.
const COMPLAINT_BYTES: u64 = 4 << 10;

/// The program whose `main` is [`compile_worker`](super::compile_worker), which must come from the same build as this.
#[derive(Debug, Clone)]
pub struct CompilerProgram {
    /// Its file.
    pub program: PathBuf,
    /// What it is started with.
    pub args: Vec<OsString>,
}

/// What one compilation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    memory_bytes: u64,
    cpu_seconds: u64,
}

impl Limits {
    /// Measured: 25 times a file's size in memory and a second of CPU time for each of its megabytes, optimised. All
    /// compilations together may have half of the machine's memory.
    fn of(wasm_bytes: u64, machine_bytes: u64) -> Self {
        let memory = (1_u64 << 30).saturating_add(wasm_bytes.saturating_mul(64));
        let share = (machine_bytes / 2 / AT_ONE_TIME as u64).max(LEAST_MEMORY_BYTES);
        Self { memory_bytes: memory.min(share), cpu_seconds: 60 + 10 * (wasm_bytes >> 20) }
    }

    /// By the clock, on a machine that has something else to do as well.
    fn wall(self) -> Duration {
        Duration::from_secs(2 * self.cpu_seconds)
    }
}

/// Starts compilers.
pub(super) struct Compiler {
    program: CompilerProgram,
    places: Semaphore,
}

impl Compiler {
    pub(super) fn new(program: CompilerProgram) -> Self {
        Self { program, places: Semaphore::new(AT_ONE_TIME) }
    }

    /// Compiles the file, whose bytes hash to `sha256`, into what `draft` gives for a guest of its kind. Must be called on
    /// a tokio runtime; dropping the future kills the compiler.
    pub(super) async fn compile(
        &self,
        wasm: &Path,
        sha256: &str,
        draft: impl FnOnce(Kind) -> Result<Draft, CodeError> + Send + 'static,
    ) -> Result<(Kind, Verified), CodeError> {
        let _place = self.places.acquire().await.map_err(|_| CodeError::Interrupted)?;
        let unreadable = |source| CodeError::Read { path: wasm.to_owned(), source };
        let size = tokio::fs::metadata(wasm).await.map_err(unreadable)?.len();
        let limits = Limits::of(size, machine_bytes());
        let failed = |source| CodeError::CompilerProcess { program: self.program.program.clone(), source };

        let (answers, out) = io::pipe().map_err(failed)?;
        let mut command = Command::new(&self.program.program);
        command.args(&self.program.args).env_clear();
        // Of the C library and of rayon, which runs the compiler's threads: without bounds of theirs they would fill the
        // address space of a small compilation on a large machine.
        let threads = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(THREADS));
        command.env("MALLOC_ARENA_MAX", "2").env("RAYON_NUM_THREADS", threads.to_string());
        command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        // With it goes our end of what only the child may write to.
        drop(command);
        let (Some(mut leash), Some(complaints)) = (child.stdin.take(), child.stderr.take()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let Limits { memory_bytes, cpu_seconds } = limits;
        let request = Request { wasm: wasm.to_owned(), sha256: sha256.to_owned(), memory_bytes, cpu_seconds };
        let mut line = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
        line.push(b'\n');

        let receiving = tokio::task::spawn_blocking(move || receive(answers, draft));
        let worked = tokio::time::timeout(limits.wall(), async {
            // A child that does not even read it says why by its end.
            let _ = leash.write_all(&line).await;
            let complaint = complaint(complaints).await;
            (child.wait().await, complaint)
        });
        let Ok((status, complaint)) = worked.await else {
            child.kill().await.map_err(failed)?;
            return Err(CodeError::TooCostly { limit: format!("{} s", limits.wall().as_secs()) });
        };
        drop(leash);
        let status = status.map_err(failed)?;
        // An error here is one of keeping the code, of which the compiler only sees that nobody reads any more.
        let received = receiving.await.map_err(|_| CodeError::Interrupted)??;
        if !status.success() {
            return Err(limits.exceeded(status, &complaint));
        }
        match received {
            Received::Code(kind, draft) => Ok((kind, draft.keep()?)),
            Received::Unfit(unfit) => Err(unfit.into()),
            Received::OtherDigest(found) => {
                let expected = format!("sha256:{sha256}");
                Err(CodeError::DigestMismatch { path: wasm.to_owned(), expected, found })
            }
            Received::Unreadable(why) => Err(unreadable(io::Error::other(why))),
            Received::Broken(source) => Err(failed(source)),
        }
    }
}

impl Limits {
    /// What a compiler's end means that was not of its own choice.
    fn exceeded(self, status: ExitStatus, complaint: &str) -> CodeError {
        let signal = status.signal();
        if signal == Some(Signal::XCPU.as_raw()) {
            return CodeError::TooCostly { limit: format!("{} s of CPU time", self.cpu_seconds) };
        }
        // A Rust program that gets no memory ends by this signal, with a complaint that says so.
        if signal == Some(Signal::ABORT.as_raw()) && complaint.contains("memory allocation") {
            return CodeError::TooCostly { limit: format!("{} MiB of memory", self.memory_bytes >> 20) };
        }
        let how = if complaint.is_empty() { status.to_string() } else { format!("{status}: {complaint}") };
        CodeError::CompilerFailed { how }
    }
}

/// An answer, with the code that came with it.
enum Received {
    Code(Kind, Draft),
    Unfit(Unfit),
    OtherDigest(String),
    Unreadable(String),
    /// It ends before it is complete.
    Broken(io::Error),
}

/// Reads the answer, and the code behind it into the cache. Blocks for as long as the compiler works.
fn receive(answers: PipeReader, draft: impl FnOnce(Kind) -> Result<Draft, CodeError>) -> Result<Received, CodeError> {
    let mut answers = BufReader::new(answers);
    let mut line = Vec::new();
    let answer = (&mut answers).take(ANSWER_BYTES).read_until(b'\n', &mut line);
    let answer = answer.and_then(|_| serde_json::from_slice(&line).map_err(io::Error::from));
    Ok(match answer {
        Ok(Answer::Compiled { kind, bytes }) => {
            let mut draft = draft(kind)?;
            if draft.write_from(&mut answers)? == bytes {
                Received::Code(kind, draft)
            } else {
                Received::Broken(io::ErrorKind::UnexpectedEof.into())
            }
        }
        Ok(Answer::Unfit(unfit)) => Received::Unfit(unfit),
        Ok(Answer::OtherDigest(found)) => Received::OtherDigest(found),
        Ok(Answer::Unreadable(why)) => Received::Unreadable(why),
        Err(error) => Received::Broken(error),
    })
}

/// What this machine has.
fn machine_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    u64::from(system.mem_unit).saturating_mul(system.totalram)
}

/// What the compiler complained of last, in one line.
async fn complaint(from: ChildStderr) -> String {
    let mut bytes = Vec::new();
    // What is read until it fails is still worth telling.
    let _ = from.take(COMPLAINT_BYTES).read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_compiled_by_its_size_within_the_machines() {
        let machine = 64 << 30;
        let small = Limits::of(1_000, machine);
        assert_eq!((small.memory_bytes >> 20, small.cpu_seconds, small.wall().as_secs()), (1024, 60, 120));
        let large = Limits::of(12 << 20, machine);
        assert_eq!((large.memory_bytes >> 20, large.cpu_seconds), (1024 + 12 * 64, 180));
        assert_eq!(Limits::of(512 << 20, machine).memory_bytes, machine / 4);
    }

    #[test]
    fn the_end_of_a_compiler_is_told_by_what_ended_it() {
        let limits = Limits::of(0, 64 << 30);
        let told = |status, complaint| limits.exceeded(ExitStatus::from_raw(status), complaint).to_string();
        assert!(told(24, "").contains("60 s of CPU time"), "{}", told(24, ""));
        let memory = told(6, "memory allocation of 4096 bytes failed");
        assert!(memory.contains("1024 MiB of memory"), "{memory}");
        let panic = told(101 << 8, "index out of bounds");
        assert!(panic.contains("101") && panic.contains("index out of bounds"), "{panic}");
    }
}
