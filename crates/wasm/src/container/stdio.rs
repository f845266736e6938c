//! A container's standard streams: from the guest to its log and to those who are attached, and from them to the guest.
//!
//! In come pieces of output, out go log lines and copies; in come bytes of attached clients, out go bytes the guest
//! reads. The log holds the guest up, a client never does: one that does not keep up is let go. Not here: gRPC.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::container::config::StdinMode;
use crate::guest::{OutputSink, Stdin};
use crate::log::{Log, Stream};

/// Pieces between a guest and its log, each of at most 16 KiB.
const PIECES: usize = 16;
/// Pieces that a client may lag behind.
const CLIENT_PIECES: usize = 256;
/// Pieces of input on their way to the guest.
const STDIN_PIECES: usize = 4;

/// A piece of output, as a client gets it.
pub(crate) type Piece = (Stream, Bytes);

/// The ends of a container's standard streams that others than the guest hold.
pub(crate) struct Stdio {
    mode: StdinMode,
    inner: Mutex<Inner>,
}

struct Inner {
    /// To the guest; absent if there is no input, or no more.
    stdin: Option<mpsc::Sender<Bytes>>,
    /// Until the guest is started.
    unread_stdin: Option<mpsc::Receiver<Bytes>>,
    clients: Clients,
}

enum Clients {
    Open(Vec<mpsc::Sender<Piece>>),
    /// The container has ended.
    Closed,
}

impl Stdio {
    pub(crate) fn new(mode: StdinMode) -> Self {
        let (stdin, unread_stdin) = match mode {
            StdinMode::None => (None, None),
            StdinMode::Open | StdinMode::Once => {
                let (stdin, unread) = mpsc::channel(STDIN_PIECES);
                (Some(stdin), Some(unread))
            }
        };
        Self { mode, inner: Mutex::new(Inner { stdin, unread_stdin, clients: Clients::Open(Vec::new()) }) }
    }

    /// The streams of a container that has ended.
    pub(crate) fn closed() -> Self {
        let stdio = Self::new(StdinMode::None);
        stdio.close();
        stdio
    }

    /// What the guest reads; nothing the second time.
    pub(crate) fn guest_stdin(&self) -> Stdin {
        self.inner().unread_stdin.take().map_or(Stdin::Empty, Stdin::Pipe)
    }

    /// Copies the output from now on; `None` once the container has ended.
    pub(crate) fn attach(&self) -> Option<mpsc::Receiver<Piece>> {
        match &mut self.inner().clients {
            Clients::Open(clients) => {
                let (client, output) = mpsc::channel(CLIENT_PIECES);
                clients.push(client);
                Some(output)
            }
            Clients::Closed => None,
        }
    }

    /// Hands input to the guest, and waits while it does not read. Input after the end of input is lost, as in a
    /// terminal.
    pub(crate) async fn write_stdin(&self, piece: Bytes) {
        let stdin = self.inner().stdin.clone();
        if let Some(stdin) = stdin
            && stdin.send(piece).await.is_err()
        {
            // The guest has closed its side.
            self.close_stdin();
        }
    }

    /// Ends the guest's input.
    pub(crate) fn close_stdin(&self) {
        self.inner().stdin = None;
    }

    /// Says that an attached client has gone.
    pub(crate) fn detached(&self) {
        if self.mode == StdinMode::Once {
            self.close_stdin();
        }
    }

    /// Lets all clients go: the container has ended.
    pub(crate) fn close(&self) {
        let mut inner = self.inner();
        inner.stdin = None;
        inner.unread_stdin = None;
        inner.clients = Clients::Closed;
    }

    /// Whether the container has not ended, as far as its clients are concerned.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.inner().clients, Clients::Open(_))
    }

    fn copy_to_clients(&self, stream: Stream, piece: &Bytes) {
        if let Clients::Open(clients) = &mut self.inner().clients {
            clients.retain(|client| match client.try_send((stream, piece.clone())) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::info!("an attached client does not keep up with the output and is let go");
                    false
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            });
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The guest's ends of its output streams, and the ends to pump them from.
pub(crate) struct Output {
    pub(crate) stdout: OutputSink,
    pub(crate) stderr: OutputSink,
    pub(crate) pump: Pump,
}

/// The receiving ends of a guest's output.
pub(crate) struct Pump {
    stdout: mpsc::Receiver<Bytes>,
    stderr: mpsc::Receiver<Bytes>,
}

/// Asks a pump to go on in a new log file.
pub(crate) type Reopen = oneshot::Sender<std::io::Result<()>>;

/// The streams of a guest; with a terminal both outputs are one.
pub(crate) fn output(tty: bool) -> Output {
    let (stdout, from_stdout) = mpsc::channel(PIECES);
    let (stderr, from_stderr) = mpsc::channel(PIECES);
    let stderr = if tty { stdout.clone() } else { stderr };
    Output { stdout, stderr, pump: Pump { stdout: from_stdout, stderr: from_stderr } }
}

impl Pump {
    /// Carries output to the log and to the clients until the guest has closed both streams. From `ended` on no more is
    /// waited for than is here already: what is left of a killed guest may hold its ends for a while.
    pub(crate) async fn run(
        mut self,
        mut log: Log,
        stdio: &Stdio,
        mut reopen: mpsc::Receiver<Reopen>,
        ended: CancellationToken,
    ) {
        let (mut out, mut err) = (Vec::with_capacity(PIECES), Vec::with_capacity(PIECES));
        let (mut stdout_open, mut stderr_open, mut reopen_open) = (true, true, true);
        while stdout_open || stderr_open {
            tokio::select! {
                () = ended.cancelled(), if !self.stdout.is_closed() => {
                    self.stdout.close();
                    self.stderr.close();
                }
                count = self.stdout.recv_many(&mut out, PIECES), if stdout_open => stdout_open = count > 0,
                count = self.stderr.recv_many(&mut err, PIECES), if stderr_open => stderr_open = count > 0,
                request = reopen.recv(), if reopen_open => {
                    match request {
                        Some(answer) => drop(answer.send(log.reopen().await)),
                        None => reopen_open = false,
                    }
                }
            }
            let now = Timestamp::now();
            for (stream, pieces) in [(Stream::Stdout, &mut out), (Stream::Stderr, &mut err)] {
                for piece in pieces.drain(..) {
                    stdio.copy_to_clients(stream, &piece);
                    log.write(stream, &piece, now).await;
                }
            }
            log.flush().await;
        }
        log.finish(Timestamp::now()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn a_client_that_does_not_keep_up_is_let_go_and_the_log_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let stdio = Stdio::new(StdinMode::None);
        let mut slow = stdio.attach().unwrap();
        let Output { stdout, stderr, pump } = output(false);
        drop(stderr);
        let (_reopen, requests) = mpsc::channel(1);
        let lines = CLIENT_PIECES + 10;
        let write = async move {
            for _ in 0..lines {
                stdout.send(piece("line\n")).await.unwrap();
            }
        };
        let log = Log::open(Some(path.clone())).await;
        tokio::join!(write, pump.run(log, &stdio, requests, CancellationToken::new()));
        let mut heard = 0;
        while slow.recv().await.is_some() {
            heard += 1;
        }
        assert_eq!(heard, CLIENT_PIECES);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), lines);
    }

    #[tokio::test]
    async fn what_a_killed_guest_wrote_is_logged_and_no_more_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let Output { stdout, stderr: _held, pump } = output(false);
        stdout.send(piece("last\n")).await.unwrap();
        let (_reopen, requests) = mpsc::channel(1);
        let ended = CancellationToken::new();
        ended.cancel();
        pump.run(Log::open(Some(path.clone())).await, &Stdio::new(StdinMode::None), requests, ended).await;
        assert!(std::fs::read_to_string(path).unwrap().ends_with("stdout F last\n"));
        assert!(stdout.send(piece("too late\n")).await.is_err());
    }

    #[tokio::test]
    async fn input_waits_for_the_guest_and_ends_once() {
        let stdio = Stdio::new(StdinMode::Once);
        let Stdin::Pipe(mut guest) = stdio.guest_stdin() else { panic!("no input") };
        assert!(matches!(stdio.guest_stdin(), Stdin::Empty));
        for _ in 0..STDIN_PIECES {
            stdio.write_stdin(piece("x")).await;
        }
        let mut waiting = Box::pin(stdio.write_stdin(piece("last")));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(guest.recv().await, Some(piece("x")));
        waiting.await;
        stdio.detached();
        let mut rest = Vec::new();
        while let Some(piece) = guest.recv().await {
            rest.push(piece);
        }
        assert_eq!(rest.last(), Some(&piece("last")));
        stdio.write_stdin(piece("too late")).await;
    }

    #[tokio::test]
    async fn input_that_stays_open_outlives_its_clients() {
        let stdio = Stdio::new(StdinMode::Open);
        let Stdin::Pipe(mut guest) = stdio.guest_stdin() else { panic!("no input") };
        stdio.detached();
        stdio.write_stdin(piece("more")).await;
        assert_eq!(guest.recv().await, Some(piece("more")));
        stdio.close_stdin();
        assert_eq!(guest.recv().await, None);
        stdio.close();
        assert!(stdio.attach().is_none());
    }
}
