//! The compiler's own process: one [`Request`] comes in on standard input, one [`Answer`] goes out on standard output, and
//! behind it the compiled code.
//!
//! What a stranger wrote is read and compiled here and nowhere else: by a process that the kernel limits, that may open no
//! other file and has no privileges, and that ends with whoever holds the other end of its standard input. The bytes that
//! are compiled are those that were hashed. Never here: what is done with the code.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::unfit::{SIZE_LIMIT_BYTES, Unfit};
use super::{Kind, inspect};
use crate::engine;

/// Files beyond the wasm file and the standard streams.
const OPEN_FILES: u64 = 16;
/// Behind everything else that wants the processor.
const NICENESS: i32 = 10;
/// The user and group nobody.
const NOBODY: u32 = 65_534;

/// What is to be compiled, and at what expense.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) wasm: PathBuf,
    /// What its bytes must hash to, in hex.
    pub(super) sha256: String,
    /// Address space.
    pub(super) memory_bytes: u64,
    /// CPU time of all threads together.
    pub(super) cpu_seconds: u64,
}

/// What has become of it: a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// This many bytes of compiled code follow.
    Compiled {
        kind: Kind,
        bytes: u64,
    },
    Unfit(Unfit),
    /// The file has another digest, in hex.
    OtherDigest(String),
    /// The file cannot be read.
    Unreadable(String),
}

/// Compiles one wasm file, as the process that has been started for that: what `main` of a
/// [`CompilerProgram`](super::CompilerProgram) has to come to before it does anything else.
#[must_use]
pub fn compile_worker() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever would read it may have gone.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line)?;
    // Before the privileges to do so are given up.
    let wasm = open(&request.wasm);
    // Before there are other threads, which have what their creator has.
    confine(&request)?;
    thread::Builder::new().name("leash".to_owned()).spawn(end_with_the_asker)?;
    let (answer, code) = match wasm.and_then(|(file, size)| compile(file, size, &request.sha256)) {
        Ok((kind, code)) => (Answer::Compiled { kind, bytes: code.len() as u64 }, code),
        Err(answer) => (answer, Vec::new()),
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    out.write_all(&code)?;
    out.flush()
}

/// Takes from this process what compiling does not need.
fn confine(request: &Request) -> io::Result<()> {
    let limit = |resource, most: u64| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    limit(Resource::As, request.memory_bytes)?;
    limit(Resource::Nofile, OPEN_FILES)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Core, 0)?;
    // The soft limit ends the process by a signal that says so, the hard one by one that does not.
    let (current, maximum) = (Some(request.cpu_seconds), Some(request.cpu_seconds.saturating_add(1)));
    setrlimit(Resource::Cpu, Rlimit { current, maximum })?;
    rustix::process::nice(NICENESS)?;
    // Where memory is short, this is what the node can do without. Not every node shows the file.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    rustix::thread::set_no_new_privs(true)?;
    // Only root may become nobody, and not in every user namespace; it is left without capabilities in any case.
    if rustix::process::geteuid().is_root() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        let _ = rustix::thread::set_thread_groups(&[])
            .and_then(|()| rustix::thread::set_thread_res_gid(group, group, group))
            .and_then(|()| rustix::thread::set_thread_res_uid(user, user, user));
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

/// Nothing more ever comes in; the end of the stream is that of the process which asked.
fn end_with_the_asker() {
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    std::process::exit(1);
}

fn open(path: &Path) -> Result<(File, u64), Answer> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
    opened.map_err(|error| Answer::Unreadable(error.to_string()))
}

fn compile(file: File, size: u64, sha256: &str) -> Result<(Kind, Vec<u8>), Answer> {
    let bytes = read(file, size)?;
    let found = hex::encode(Sha256::digest(&bytes));
    if found != sha256 {
        return Err(Answer::OtherDigest(found));
    }
    let kind = inspect::kind(&bytes).map_err(Answer::Unfit)?;
    let invalid = |error: wasmtime::Error| Answer::Unfit(Unfit::Invalid { detail: format!("{error:#}") });
    let engine = engine::compiling(kind).map_err(invalid)?;
    let code = if kind.is_module() { engine.precompile_module(&bytes) } else { engine.precompile_component(&bytes) };
    Ok((kind, code.map_err(invalid)?))
}

fn read(file: File, size: u64) -> Result<Vec<u8>, Answer> {
    let too_large = |size| Err(Answer::Unfit(Unfit::TooLarge { size }));
    if size > SIZE_LIMIT_BYTES {
        return too_large(size);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // Once more by count: a file may grow, and a device has no size.
    let read = file.take(SIZE_LIMIT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Answer::Unreadable(error.to_string()))?;
    let size = bytes.len() as u64;
    if size > SIZE_LIMIT_BYTES { too_large(size) } else { Ok(bytes) }
}
