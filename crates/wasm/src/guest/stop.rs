//! What a request to end does: a guest's run comes in, the same run goes out, cut short or waited for as the guest
//! chose. Never here: the end of the grace period.

use std::future::Future;
use std::pin::pin;

use futures::future::{BoxFuture, join};

use super::exec::{ExecSpec, Run};
use super::{Exit, Ground, OutputSink, Stdin, Streams, Termination};

/// The function of `wit/wasklet-pod.wit` that a component may export.
const HANDLE: &str = "#wasklet:pod/stop-handler.handle";

/// What it takes to call a guest's stop handler, if it has one.
pub(super) struct StopHandler {
    ground: Ground,
    stdout: OutputSink,
    stderr: OutputSink,
    tty: bool,
    termination: Termination,
}

impl StopHandler {
    pub(super) fn new(ground: Ground, streams: &Streams, termination: Termination) -> Self {
        let (stdout, stderr) = (streams.stdout.clone(), streams.stderr.clone());
        Self { ground, stdout, stderr, tty: streams.tty, termination }
    }

    /// The call; none if there is nothing to call.
    fn call(self) -> Option<BoxFuture<'static, Exit>> {
        let streams = Streams { stdin: Stdin::Empty, stdout: self.stdout, stderr: self.stderr, tty: self.tty };
        let spec = ExecSpec { code: None, args: vec![HANDLE.to_owned()], streams };
        self.ground.run(spec, self.termination).ok().map(|(Run::New(run) | Run::Live(run))| run)
    }
}

/// A command: one that waits for the request ends by itself, any other at once or with its stop handler.
pub(super) async fn command(run: impl Future<Output = Exit>, termination: Termination, handler: StopHandler) -> Exit {
    let mut run = pin!(run);
    tokio::select! {
        biased;
        exit = run.as_mut() => return exit,
        () = termination.asked().cancelled() => {}
    }
    if termination.is_awaited() {
        return run.await;
    }
    let Some(handled) = handler.call() else { return Exit::Stopped };
    tokio::select! {
        biased;
        exit = run => exit,
        _ = handled => Exit::Stopped,
    }
}

/// A server, which ends by itself once it has finished what it began. Its stop handler runs meanwhile.
pub(super) async fn server(serve: impl Future<Output = Exit>, termination: Termination, handler: StopHandler) -> Exit {
    let mut serve = pin!(serve);
    tokio::select! {
        biased;
        exit = serve.as_mut() => return exit,
        () = termination.asked().cancelled() => {}
    }
    match handler.call() {
        Some(handled) => join(serve, handled).await.0,
        None => serve.await,
    }
}
