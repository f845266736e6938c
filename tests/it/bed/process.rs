//! A running wasklet.
//!
//! Comes in: a command. Goes out: its output while it runs, signals to it, and how it ended. The kernel ends it when we
//! end, however we end. Never here: what it was started for.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{oneshot, watch};

use super::PATIENCE;

/// How long dropping waits for a graceful end: a node takes its route away in this time.
const DROP_GRACE: Duration = Duration::from_secs(15);

/// What cargo built for this test.
pub(crate) const WASKLET: &str = env!("CARGO_BIN_EXE_wasklet");

/// `program`, ended by the kernel when this test process is no more. A guest's messages are not ours to translate.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program.as_ref());
    // An error that shows a backtrace shows it where somebody asked for one.
    command.env("RUST_BACKTRACE", "1").env_remove("RUST_LOG").env_remove("WASKLET_IMAGE_LAYOUT");
    command.stdin(Stdio::null());
    command
}

/// The kernel's word is bound to the thread that started the process, and a test's thread ends with the test: one
/// thread that never ends starts them all.
static STARTER: LazyLock<mpsc::Sender<(Command, oneshot::Sender<io::Result<Child>>)>> = LazyLock::new(|| {
    let (sender, asked) = mpsc::channel::<(Command, oneshot::Sender<io::Result<Child>>)>();
    std::thread::spawn(move || {
        while let Ok((mut command, answer)) = asked.recv() {
            // Nobody waits any more: the child's handle is dropped, and the child ends with us.
            drop(answer.send(command.spawn()));
        }
    });
    sender
});

/// What came out of one stream so far.
#[derive(Debug, Default, Clone)]
struct Output {
    bytes: Vec<u8>,
    ended: bool,
}

/// A running process. Dropping it asks it to end, and kills it if it does not.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    stdin: Option<std::process::ChildStdin>,
    stdout: watch::Receiver<Output>,
    stderr: watch::Receiver<Output>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

/// How a process ended.
pub(crate) struct Ended {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output, to the last byte.
    pub(crate) stdout: Vec<u8>,
    /// Standard error, as text.
    pub(crate) stderr: String,
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it ended with {}\nstdout: {:?}\nstderr: {}", self.code, self.text(), self.stderr)
    }
}

impl Ended {
    /// Ended with `code` and a complaint that has these words, and nothing that only its authors understand.
    #[track_caller]
    pub(crate) fn complains(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {}", self.stderr);
        }
        assert!(self.stdout.is_empty(), "a complaint on standard output: {}", self.text());
        for noise in ["panicked", "stack backtrace", "RUST_BACKTRACE", "ServiceError", "Status {"] {
            assert!(!self.stderr.contains(noise), "{noise:?} is in {}", self.stderr);
        }
    }

    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Process {
    /// Starts the command. Streams that it does not say otherwise of are read by us.
    pub(crate) async fn start(command: Command) -> Result<Self> {
        let line = format!("{command:?}");
        let (answer, started) = oneshot::channel();
        STARTER.send((command, answer)).ok().context("the thread that starts processes is gone")?;
        let mut child = started.await.context("the thread that starts processes is gone")?.context(line)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process has no id")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map_or_else(nothing, read);
        let stderr = child.stderr.take().map_or_else(nothing, read);
        let (sender, exit) = watch::channel(None);
        std::thread::spawn(move || {
            // Fails only where somebody else has waited for our child.
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(-1));
            sender.send_replace(Some(status));
        });
        Ok(Self { pid, stdin, stdout, stderr, exit })
    }

    /// Its standard input, where the command has a pipe there. Dropping it is the end of the input.
    pub(crate) fn stdin(&mut self) -> Result<std::process::ChildStdin> {
        self.stdin.take().context("its standard input is no pipe, or was taken")
    }

    /// Whether it has not ended.
    pub(crate) fn runs(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Sends it a signal; one that has ended does not mind.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.runs() {
            // It may end between the look and the signal; nobody has its number so soon.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Waits until standard output, as text, is what it should be.
    pub(crate) async fn await_stdout(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        await_output(&mut self.stdout, what, holds).await.with_context(|| self.state())
    }

    /// Waits until standard error is what it should be.
    pub(crate) async fn await_stderr(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        await_output(&mut self.stderr, what, holds).await.with_context(|| self.state())
    }

    /// Waits for its end, and reads the rest of what it wrote.
    pub(crate) async fn ended(mut self) -> Result<Ended> {
        let code = self.await_end(PATIENCE).await?;
        let stdout = await_end_of(&mut self.stdout).await?;
        let stderr = String::from_utf8_lossy(&await_end_of(&mut self.stderr).await?).into_owned();
        Ok(Ended { code, stdout, stderr })
    }

    /// Waits for its end and gives the exit code.
    pub(crate) async fn await_end(&mut self, within: Duration) -> Result<i32> {
        let mut exit = self.exit.clone();
        let ended = tokio::time::timeout(within, exit.wait_for(Option::is_some)).await;
        let status = ended.with_context(|| format!("it runs after {within:?}: {}", self.state()))?;
        let status = status.ok().and_then(|status| *status).context("nobody waits for the process")?;
        status.code().with_context(|| format!("ended by {status}: {}", self.state()))
    }

    /// Kills it, as a crash would, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL);
        let mut exit = self.exit.clone();
        let gone = tokio::time::timeout(PATIENCE, exit.wait_for(Option::is_some)).await;
        ensure!(gone.is_ok(), "a killed process is still there after {PATIENCE:?}");
        Ok(())
    }

    fn state(&self) -> String {
        let text = |output: &watch::Receiver<Output>| String::from_utf8_lossy(&output.borrow().bytes).into_owned();
        let exit = self.exit.borrow().map_or_else(|| "running".to_owned(), |status| status.to_string());
        format!("({exit})\nstdout: {}\nstderr: {}", text(&self.stdout), text(&self.stderr))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.signal(Signal::TERM);
        let deadline = std::time::Instant::now() + DROP_GRACE;
        while self.runs() && std::time::Instant::now() < deadline {
            std::thread::sleep(super::LOOK_EVERY);
        }
        self.signal(Signal::KILL);
    }
}

fn nothing() -> watch::Receiver<Output> {
    watch::channel(Output { bytes: Vec::new(), ended: true }).1
}

fn read(mut stream: impl Read + Send + 'static) -> watch::Receiver<Output> {
    let (sender, receiver) = watch::channel(Output::default());
    std::thread::spawn(move || {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(length) = stream.read(&mut chunk) {
            if length == 0 {
                break;
            }
            sender.send_modify(|output| output.bytes.extend_from_slice(&chunk[..length]));
        }
        sender.send_modify(|output| output.ended = true);
    });
    receiver
}

async fn await_output(
    output: &mut watch::Receiver<Output>,
    what: &str,
    holds: impl Fn(&str) -> bool,
) -> Result<String> {
    let mut found = String::new();
    let waited = output.wait_for(|output| {
        found = String::from_utf8_lossy(&output.bytes).into_owned();
        holds(&found) || output.ended
    });
    let seen = tokio::time::timeout(PATIENCE, waited).await.map(drop);
    seen.with_context(|| format!("waited {PATIENCE:?} in vain for {what}"))?;
    ensure!(holds(&found), "it ended without {what}");
    Ok(found)
}

async fn await_end_of(output: &mut watch::Receiver<Output>) -> Result<Vec<u8>> {
    let ended = tokio::time::timeout(PATIENCE, output.wait_for(|output| output.ended)).await;
    let ended = ended.context("a stream is open although its process has ended")?;
    Ok(ended.context("nobody reads the stream")?.bytes.clone())
}
