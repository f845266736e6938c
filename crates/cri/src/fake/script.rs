//! What a test tells the fake to do.

use std::time::Duration;

use tonic::Status;

use super::{Fake, calls};

/// What comes of a container's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It runs until it is stopped, and ends at once when asked to (143).
    RunForever,
    /// It runs until it is killed, and does not hear that it is asked to end (137).
    IgnoreStop,
    /// It ends by itself.
    ExitAfter {
        /// Its exit code.
        code: i32,
        /// How long it runs.
        delay: Duration,
    },
    /// It takes more memory than it may (137, `OOMKilled`).
    OutOfMemoryAfter {
        /// How long it runs.
        delay: Duration,
    },
    /// It cannot be started, for the reason given.
    FailStart(String),
}

impl Outcome {
    /// It ends with `code` as soon as it has started.
    #[must_use]
    pub fn exit(code: i32) -> Self {
        Self::ExitAfter { code, delay: Duration::ZERO }
    }
}

/// What comes of a command run in a container.
#[derive(Debug, Clone)]
pub enum Exec {
    /// It ends at once.
    Exit {
        /// Its exit code.
        code: i32,
        /// What it writes to its standard output.
        stdout: String,
        /// What it writes to its standard error.
        stderr: String,
    },
    /// It runs until its time is over or its container ends (137).
    Hang,
    /// It cannot be run.
    Fail(Status),
}

impl Exec {
    /// It ends with `code` and writes nothing.
    #[must_use]
    pub fn exit(code: i32) -> Self {
        Self::says(code, "")
    }

    /// It writes `stdout` and ends with `code`.
    #[must_use]
    pub fn says(code: i32, stdout: &str) -> Self {
        Self::Exit { code, stdout: stdout.to_owned(), stderr: String::new() }
    }
}

/// What is to happen; each line holds from the moment it is said.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    fake: &'a Fake,
}

impl<'a> Script<'a> {
    pub(super) fn new(fake: &'a Fake) -> Self {
        Self { fake }
    }

    /// An image that can be pulled.
    pub fn image(self, image: &str) -> Self {
        self.fake.state().images.publish(image);
        self
    }

    /// An image that only this user can pull.
    pub fn private_image(self, image: &str, username: &str, password: &str) -> Self {
        let mut state = self.fake.state();
        state.images.publish(image);
        state.images.require(image, username, password);
        drop(state);
        self
    }

    /// An image that is on the node already.
    pub fn image_on_node(self, image: &str) -> Self {
        let mut state = self.fake.state();
        state.images.publish(image);
        state.images.pull(image);
        drop(state);
        self
    }

    /// What comes of every start of `image`, which can be pulled from now on.
    pub fn on_start(self, image: &str, outcome: Outcome) -> Self {
        let mut state = self.fake.state();
        state.images.publish(image);
        state.outcomes.entry(image.to_owned()).or_default().always = outcome;
        drop(state);
        self
    }

    /// What comes of the next start of `image` that has no outcome yet; said twice, of the next two.
    pub fn on_next_start(self, image: &str, outcome: Outcome) -> Self {
        let mut state = self.fake.state();
        state.images.publish(image);
        state.outcomes.entry(image.to_owned()).or_default().next.push_back(outcome);
        drop(state);
        self
    }

    /// A line that each start of `image` writes to its standard output.
    pub fn prints(self, image: &str, line: &str) -> Self {
        let mut state = self.fake.state();
        state.images.publish(image);
        state.outcomes.entry(image.to_owned()).or_default().lines.push(line.to_owned());
        drop(state);
        self
    }

    /// Each start of `image` writes its arguments, then its environment as `KEY=VALUE`, a line each.
    pub fn shows_arguments_and_environment(self, image: &str) -> Self {
        let mut state = self.fake.state();
        state.images.publish(image);
        state.outcomes.entry(image.to_owned()).or_default().shows_itself = true;
        drop(state);
        self
    }

    /// What comes of every run of `command` in a container of `image`. A command of which nothing is said cannot be run.
    pub fn on_exec(self, image: &str, command: &[&str], exec: Exec) -> Self {
        self.fake.state().execs_of(image, command).always = Some(exec);
        self
    }

    /// What comes of the next run of `command` in a container of `image` that has nothing yet; said twice, of the next
    /// two.
    pub fn on_next_exec(self, image: &str, command: &[&str], exec: Exec) -> Self {
        self.fake.state().execs_of(image, command).next.push_back(exec);
        self
    }

    /// The next `call` that has no fault yet fails; said twice, the next two.
    ///
    /// # Panics
    /// No call that the fake answers has this name.
    pub fn fail_next(self, call: &'static str, status: Status) -> Self {
        assert!(calls::known(call), "{call} is no call of CRI that the fake answers");
        self.fake.state().faults.entry(call).or_default().push_back(status);
        self
    }

    /// Every `call` from now on takes `delay` before anything comes of it. Zero ends that.
    ///
    /// # Panics
    /// No call that the fake answers has this name.
    pub fn delay(self, call: &'static str, delay: Duration) -> Self {
        assert!(calls::known(call), "{call} is no call of CRI that the fake answers");
        self.fake.state().delays.insert(call, delay);
        self
    }

    /// Whether the runtime says that its network is ready, as it does at first. Without one a sandbox has no address.
    pub fn network_ready(self, ready: bool) -> Self {
        self.fake.state().network_ready = ready;
        self
    }
}
