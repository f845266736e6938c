//! The compiler's own process: what it may take, what its end means, and that it ends with who started it. Some of these
//! compilers are shells that do what no wasm file should be able to.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use testbed::guests::wat;
use wasm::code::{CodeError, CompilerProgram};
use wasm::engine::{EngineOptions, Engines};

use crate::node::{compiler, digest, file, until};

/// Engines whose compiler is a shell with this script, which finds the directory of the test as `$0`.
fn engines(dir: &Path, script: &str) -> Arc<Engines> {
    let args = ["-c".into(), script.into(), dir.into()].into();
    let mut options = EngineOptions::new(dir.join("code"), CompilerProgram { program: "/bin/sh".into(), args });
    options.http_instances = 2;
    options.worker_threads = Some(1);
    Engines::new(options).unwrap()
}

async fn failure(engines: &Arc<Engines>) -> CodeError {
    let wasm = wat::sleeps();
    let (_dir, path) = file(&wasm);
    match engines.code(&path, &digest(&wasm)).await {
        Err(error) => error,
        Ok(_) => panic!("a shell compiles nothing"),
    }
}

#[tokio::test]
async fn a_compiler_that_ends_otherwise_than_with_an_answer_is_told_by_its_end() {
    let cases = [
        ("kill -XCPU $$", "more than 60 s of CPU time"),
        ("echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$", "MiB of memory"),
        ("echo 'an assertion' >&2; exit 101", "101: an assertion"),
        ("kill -KILL $$", "signal: 9"),
        ("true", "cannot run the compiler"),
        ("echo nonsense", "cannot run the compiler"),
        (r#"echo '{"Compiled":{"kind":"CommandP1","bytes":100}}'; echo short"#, "cannot run the compiler"),
    ];
    for (script, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let error = failure(&engines(dir.path(), script)).await;
        assert!(error.to_string().contains(expected), "{script}: {error}");
        let left: Vec<_> =
            std::fs::read_dir(dir.path().join("code")).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["key"], "{script}");
    }
}

#[tokio::test]
async fn what_took_too_much_once_is_not_compiled_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let engines = engines(dir.path(), "echo once >> $0/starts; kill -XCPU $$");
    for _ in 0..3 {
        assert!(matches!(failure(&engines).await, CodeError::TooCostly { .. }));
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("starts")).unwrap(), "once\n");
}

#[tokio::test]
async fn the_end_of_the_engines_is_that_of_their_compilers() {
    let dir = tempfile::tempdir().unwrap();
    let engines = engines(dir.path(), "echo $$ > $0/new; mv $0/new $0/pid; exec sleep 1000000");
    let waiting = tokio::spawn({
        let engines = Arc::clone(&engines);
        async move { failure(&engines).await }
    });
    until("it has started", || dir.path().join("pid").exists()).await;
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    let command_line = PathBuf::from(format!("/proc/{}/cmdline", pid.trim()));
    assert!(!std::fs::read(&command_line).unwrap().is_empty());
    engines.shut_down();
    assert!(matches!(waiting.await.unwrap(), CodeError::Interrupted));
    // A process that has ended has no command line, whether somebody has asked how it ended or not.
    until("it has ended", || std::fs::read(&command_line).is_ok_and(|line| line.is_empty()) || !command_line.exists())
        .await;
}

/// What the worker itself says to a request of `cpu_seconds` and `memory_bytes`, and how it ended.
fn asked(wasm: &[u8], memory_bytes: u64, cpu_seconds: u64) -> (String, std::process::ExitStatus) {
    let (_dir, path) = file(wasm);
    let sha256 = digest(wasm).split_off("sha256:".len());
    let request = serde_json::json!(
        {"wasm": path, "sha256": sha256, "memory_bytes": memory_bytes, "cpu_seconds": cpu_seconds});
    let mut worker = worker();
    let mut leash = worker.stdin.take().unwrap();
    writeln!(leash, "{request}").unwrap();
    let mut answer = Vec::new();
    let mut out = BufReader::new(worker.stdout.take().unwrap());
    out.read_until(b'\n', &mut answer).unwrap();
    // The code, too: a worker that nobody reads ends otherwise.
    io::copy(&mut out, &mut io::sink()).unwrap();
    (String::from_utf8(answer).unwrap(), worker.wait().unwrap())
}

fn worker() -> std::process::Child {
    let CompilerProgram { program, args } = compiler();
    let piped = Stdio::piped;
    // One thread, so that no machine has more stacks and heaps than another.
    let mut command = Command::new(program);
    command.env("MALLOC_ARENA_MAX", "1").env("RAYON_NUM_THREADS", "1");
    command.args(args).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap()
}

/// A hundred functions of some size each.
fn expensive() -> Vec<u8> {
    let body = "(local.set 0 (i32.add (i32.mul (local.get 0) (i32.const 3)) (i32.load (local.get 0))))".repeat(3000);
    let functions = format!("(func (local i32) {body})").repeat(100);
    ::wat::parse_str(format!(r#"(module (memory 1) {functions} (func (export "_start")))"#)).unwrap()
}

#[test]
fn the_kernel_holds_a_worker_to_its_memory_and_its_time() {
    const ABORTED: Option<i32> = Some(6);
    const OUT_OF_TIME: Option<i32> = Some(24);
    // A few times what the program itself takes.
    let (answer, ended) = asked(&wat::sleeps(), 60 << 20, 600);
    assert!(ended.success() && answer.contains("Compiled"), "{ended} {answer}");
    let (answer, ended) = asked(&expensive(), 60 << 20, 600);
    assert_eq!((answer.as_str(), ended.signal()), ("", ABORTED), "{ended}");
    let (answer, ended) = asked(&expensive(), 1 << 30, 1);
    assert_eq!((answer.as_str(), ended.signal()), ("", OUT_OF_TIME), "{ended}");
}

#[test]
fn a_worker_ends_with_who_started_it() {
    let mut worker = worker();
    let leash = worker.stdin.take().unwrap();
    drop(leash);
    assert!(!worker.wait().unwrap().success(), "no request at all");
}
