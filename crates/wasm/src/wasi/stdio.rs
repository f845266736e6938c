//! Standard streams: bounded channels of the container's owner on one side, WASI streams on the other.
//!
//! Back-pressure reaches the guest: while the channel is full its writes wait. What a guest can leave behind in our
//! buffers is bounded. A guest may open the same stream any number of times; all of them share one order.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::guest::{OutputSink, Stdin};

/// The largest piece handed to the sink, and the most a guest may write at once.
const PIECE_BYTES: usize = 16 * 1024;
/// What may wait in our buffers if a guest writes through many handles without waiting for any.
const WAITING_BYTES: usize = 1024 * 1024;

/// Whether output leaves as it comes or in whole lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pieces {
    /// As the guest writes it.
    AsWritten,
    /// Whole lines (at most 16 KiB), so that concurrent requests do not tear each other's lines apart.
    Lines,
}

/// Standard output or standard error of one store.
#[derive(Clone)]
pub(crate) struct Output {
    shared: Arc<Shared>,
    tty: bool,
}

struct Shared {
    sink: OutputSink,
    pieces: Pieces,
    waiting: Mutex<Waiting>,
}

/// What the guest wrote and the sink has not taken yet.
#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    line: BytesMut,
    bytes: usize,
}

impl Output {
    pub(crate) fn new(sink: OutputSink, tty: bool, pieces: Pieces) -> Self {
        Self { shared: Arc::new(Shared { sink, pieces, waiting: Mutex::default() }), tty }
    }

    /// Hands over all that waits, unfinished lines too. Returns early if nobody listens any more.
    pub(crate) async fn finish(&self) {
        self.shared.waiting().end_line();
        // A closed sink has nothing left to wait for.
        let _ = self.shared.hand_over().await;
    }

    /// A line of our own, behind what the guest wrote.
    pub(crate) async fn write_line(&self, line: &str) {
        {
            let mut waiting = self.shared.waiting();
            waiting.end_line();
            waiting.add(format!("{line}\n").as_bytes(), Pieces::AsWritten);
        }
        self.finish().await;
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what the sink takes without waiting; whether all is gone.
    fn try_hand_over(&self) -> StreamResult<bool> {
        let mut waiting = self.waiting();
        while let Some(piece) = waiting.pop() {
            match self.sink.try_send(piece) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(piece)) => {
                    waiting.put_back(piece);
                    return Ok(false);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    *waiting = Waiting::default();
                    return Err(StreamError::Closed);
                }
            }
        }
        if self.sink.is_closed() { Err(StreamError::Closed) } else { Ok(true) }
    }

    async fn hand_over(&self) -> StreamResult<()> {
        while !self.try_hand_over()? {
            let permit = self.sink.reserve().await.map_err(|_| StreamError::Closed)?;
            if let Some(piece) = self.waiting().pop() {
                permit.send(piece);
            }
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> StreamResult<()> {
        {
            let mut waiting = self.waiting();
            if waiting.bytes.saturating_add(bytes.len()) > WAITING_BYTES {
                return Err(StreamError::trap("wrote far more than was permitted to standard output or error"));
            }
            waiting.add(bytes, self.pieces);
        }
        self.try_hand_over().map(drop)
    }
}

impl Waiting {
    fn add(&mut self, bytes: &[u8], pieces: Pieces) {
        self.bytes += bytes.len();
        match pieces {
            Pieces::AsWritten => self.push(&Bytes::copy_from_slice(bytes)),
            Pieces::Lines => {
                self.line.extend_from_slice(bytes);
                let end = self.line.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
                let whole = self.line.split_to(end).freeze();
                self.push(&whole);
                if self.line.len() >= PIECE_BYTES {
                    self.end_line();
                }
            }
        }
    }

    fn end_line(&mut self) {
        let line = self.line.split().freeze();
        self.push(&line);
    }

    fn push(&mut self, bytes: &Bytes) {
        let pieces = (0..bytes.len()).step_by(PIECE_BYTES);
        self.pieces.extend(pieces.map(|start| bytes.slice(start..bytes.len().min(start + PIECE_BYTES))));
    }

    fn pop(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        Some(piece)
    }

    fn put_back(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push_front(piece);
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        self.tty
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(AsyncOutput { shared: Arc::clone(&self.shared), waiting: Mutex::new(None) })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(P2Output(Arc::clone(&self.shared)))
    }
}

struct P2Output(Arc<Shared>);

#[wasmtime_wasi::async_trait]
impl Pollable for P2Output {
    async fn ready(&mut self) {
        // A closed sink is ready: the next write says so.
        let _ = self.0.hand_over().await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for P2Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.write(&bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.0.try_hand_over().map(drop)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.0.try_hand_over()? { PIECE_BYTES } else { 0 })
    }
}

/// The same stream as bytes, for WASI versions that want it so.
struct AsyncOutput {
    shared: Arc<Shared>,
    waiting: Mutex<Option<BoxFuture<'static, StreamResult<()>>>>,
}

impl AsyncOutput {
    fn poll_handed_over(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiting = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
        let shared = Arc::clone(&self.shared);
        let waits = waiting.get_or_insert_with(|| async move { shared.hand_over().await }.boxed());
        let done = ready!(waits.as_mut().poll(context));
        *waiting = None;
        Poll::Ready(done.map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }
}

impl AsyncWrite for AsyncOutput {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_handed_over(context))?;
        let taken = bytes.len().min(PIECE_BYTES);
        let written = self.shared.write(bytes.get(..taken).unwrap_or_default());
        Poll::Ready(written.map(|()| taken).map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_handed_over(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

/// Standard input of one store.
#[derive(Clone)]
pub(crate) struct Input {
    shared: Arc<Mutex<Incoming>>,
    tty: bool,
}

/// What has come in and was not read yet. No receiver: the input is at its end.
struct Incoming {
    from: Option<mpsc::Receiver<Bytes>>,
    left: Bytes,
}

impl Input {
    pub(crate) fn new(stdin: Stdin, tty: bool) -> Self {
        let from = match stdin {
            Stdin::Empty => None,
            Stdin::Pipe(from) => Some(from),
        };
        Self { shared: Arc::new(Mutex::new(Incoming { from, left: Bytes::new() })), tty }
    }

    /// Ready when there are bytes to read or there will be none.
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).poll_ready(context)
    }

    fn read(&self, most: usize) -> StreamResult<Bytes> {
        let mut incoming = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = incoming.poll_ready(&mut Context::from_waker(std::task::Waker::noop()));
        if incoming.left.is_empty() {
            return if ready.is_ready() { Err(StreamError::Closed) } else { Ok(Bytes::new()) };
        }
        let length = incoming.left.len().min(most);
        Ok(incoming.left.split_to(length))
    }
}

impl Incoming {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.left.is_empty() {
            let Some(from) = &mut self.from else { break };
            match ready!(from.poll_recv(context)) {
                Some(bytes) => self.left = bytes,
                None => self.from = None,
            }
        }
        Poll::Ready(())
    }
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        self.tty
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        poll_fn(|context| self.poll_ready(context)).await;
    }
}

impl InputStream for Input {
    fn read(&mut self, most: usize) -> StreamResult<Bytes> {
        Input::read(self, most)
    }
}

impl AsyncRead for Input {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(context));
        // Closed is the end: nothing is put into the buffer.
        if let Ok(bytes) = Input::read(&self, into.remaining()) {
            into.put_slice(&bytes);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(capacity: usize, pieces: Pieces) -> (Output, mpsc::Receiver<Bytes>) {
        let (sink, taken) = mpsc::channel(capacity);
        (Output::new(sink, false, pieces), taken)
    }

    #[tokio::test]
    async fn a_full_sink_makes_the_writer_wait_and_loses_nothing() {
        let (output, mut taken) = output(1, Pieces::AsWritten);
        let mut stream = output.p2_stream();
        stream.write(Bytes::from_static(b"one")).unwrap();
        stream.write(Bytes::from_static(b"two")).unwrap();
        assert_eq!(stream.check_write().unwrap(), 0);
        assert_eq!(taken.recv().await.unwrap(), "one");
        stream.ready().await;
        assert_eq!(stream.check_write().unwrap(), PIECE_BYTES);
        assert_eq!(taken.recv().await.unwrap(), "two");
    }

    #[test]
    fn writing_on_and_on_without_leave_is_a_trap() {
        let (output, _taken) = output(1, Pieces::AsWritten);
        let mut stream = output.p2_stream();
        let piece = Bytes::from(vec![b'x'; PIECE_BYTES]);
        let refused = (0..1_000).find_map(|_| stream.write(piece.clone()).err());
        assert!(matches!(refused, Some(StreamError::Trap(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn a_sink_nobody_reads_is_a_closed_pipe() {
        let (output, taken) = output(1, Pieces::AsWritten);
        drop(taken);
        assert!(matches!(output.p2_stream().check_write(), Err(StreamError::Closed)));
        output.finish().await;
    }

    #[tokio::test]
    async fn lines_leave_whole_and_the_last_one_at_the_end() {
        let (output, mut taken) = output(8, Pieces::Lines);
        let mut stream = output.p2_stream();
        for piece in ["2", "5.5", "\nab", "c"] {
            stream.write(Bytes::from_static(piece.as_bytes())).unwrap();
        }
        assert_eq!(taken.try_recv().unwrap(), "25.5\n");
        assert!(taken.try_recv().is_err());
        output.finish().await;
        assert_eq!(taken.recv().await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn input_is_read_to_its_end() {
        let (sender, receiver) = mpsc::channel(2);
        let mut input = Input::new(Stdin::Pipe(receiver), false);
        assert_eq!(input.read(10).unwrap(), "");
        sender.send(Bytes::from_static(b"hello")).await.unwrap();
        drop(sender);
        input.ready().await;
        assert_eq!(input.read(2).unwrap(), "he");
        assert_eq!(input.read(10).unwrap(), "llo");
        input.ready().await;
        assert!(matches!(input.read(10), Err(StreamError::Closed)));
    }
}
