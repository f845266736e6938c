//! Calls of exported functions in the instance that a guest's program runs in: a function with its arguments comes in, what it
//! returned goes out, as of a command.
//!
//! A program of WASI 0.3 can be called while it waits, so that a call sees what the program has done. One instance runs on
//! one thread: while the program computes or blocks, calls wait, for as long as who calls has patience; a call that
//! computes keeps the program waiting; and one that traps ends it. What a function writes is the program's output. Never
//! here: a limit of time, which nothing could hold in the instance itself.

use std::future::Future;
use std::pin::pin;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use wasmtime::component::{Accessor, Instance};

use super::command::{self, Ended};
use super::export::{Call, Returned};
use super::{Exit, Streams, known};
use crate::wasi::Host;
use crate::wasi::stdio::{Output, Pieces};

/// Calls on their way into an instance. There are not more commands at one time than that.
const CALLS: usize = super::exec::COMMANDS;

/// A call, and who waits for what it returns.
struct Asked {
    call: Call,
    answer: oneshot::Sender<wasmtime::Result<Returned>>,
}

/// The way to a guest's instance.
#[derive(Clone)]
pub(super) struct Live {
    calls: mpsc::Sender<Asked>,
    ended: watch::Receiver<Option<Exit>>,
}

/// The calls as the instance gets them.
pub(super) struct Calls(mpsc::Receiver<Asked>);

/// Tells who waits for an answer how the program ended.
pub(super) struct Obituary(watch::Sender<Option<Exit>>);

/// The way into an instance that is to be made.
pub(super) fn way() -> (Live, Calls, Obituary) {
    let (calls, receiver) = mpsc::channel(CALLS);
    let (ended, exit) = watch::channel(None);
    (Live { calls, ended: exit }, Calls(receiver), Obituary(ended))
}

impl Live {
    /// What makes the call, and writes what it returned.
    pub(super) fn call(&self, call: Call, streams: Streams) -> impl Future<Output = Exit> + Send + use<> {
        let Self { calls, ended } = self.clone();
        let Streams { stdin: _, stdout, stderr, tty } = streams;
        let output = Output::new(stdout, tty, Pieces::AsWritten);
        let error = Output::new(stderr, tty, Pieces::AsWritten);
        async move {
            let (answer, answered) = oneshot::channel();
            let returned = match calls.send(Asked { call, answer }).await {
                Ok(()) => answered.await.ok(),
                Err(_) => None,
            };
            let outcome = match returned {
                Some(returned) => returned.map(Ended::from).map_err(|error| Exit::from_error(&error)),
                None => Err(match known(ended).await {
                    // By this call, or another.
                    exit @ (Exit::Trap { .. } | Exit::OutOfMemory | Exit::HostPanic { .. }) => exit,
                    Exit::Code(_) | Exit::Stopped | Exit::Killed => Exit::Killed,
                }),
            };
            command::told(outcome, &output, &error).await
        }
    }
}

impl Calls {
    /// Runs a program, and what is called beside it, until the program ends.
    pub(super) async fn beside<T>(
        mut self,
        program: impl Future<Output = T>,
        store: &Accessor<Host>,
        instance: Instance,
    ) -> T {
        let mut program = pin!(program);
        let mut running = FuturesUnordered::new();
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                ended = program.as_mut() => return ended,
                Some(()) = running.next() => {}
                asked = self.0.recv(), if open => match asked {
                    // Nobody waits any more for one whose time is over.
                    Some(Asked { answer, .. }) if answer.is_closed() => {}
                    Some(Asked { call, answer }) => running.push(async move {
                        // Who has no patience left does not hear it.
                        let _ = answer.send(call.live(store, instance).await);
                    }),
                    None => open = false,
                },
            }
        }
    }
}

impl Obituary {
    /// The same program, whose end is told.
    pub(super) async fn of(self, program: impl Future<Output = Exit>) -> Exit {
        let exit = program.await;
        self.0.send_replace(Some(exit.clone()));
        exit
    }
}
