//! The seam's suite: what every runtime must do, checked through a client alone.
//!
//! In comes a `Seam` over any runtime, out goes for each check whether it holds and, if not, what was seen. Never here:
//! a fixed wait; each check waits for a condition, up to `PATIENCE`.
//!
//! The checks ask for what CRI demands and the kubelet relies on, no more. Each makes a sandbox of its own and removes
//! it; they may run beside one another and on a node that has other pods. The runtime must see the machine's temporary
//! directory, where the log directories of the sandboxes are.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use crate::client::{CallError, Client};

pub mod container;
pub mod event;
pub mod exec;
pub mod image;
pub mod limits;
pub mod log;
mod pod;
pub mod runtime;
pub mod sandbox;

/// How long a check waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime to check.
#[derive(Debug, Clone)]
pub struct Seam {
    /// The way to it.
    pub client: Client,
    /// What it can pull.
    pub images: SuiteImages,
}

/// Images that the runtime under test can pull, by what a start of them without command or arguments does.
#[derive(Debug, Clone)]
pub struct SuiteImages {
    /// Writes at least one line to standard output and exits 0.
    pub exits_zero: String,
    /// Exits 7. Of the kinds of guests, only wasip1 commands and callers of `exit-with-code` can.
    pub exits_seven: String,
    /// Sleeps until it is stopped.
    pub parked: String,
    /// Computes without end, and hears nothing.
    pub spins: String,
    /// Writes its arguments and, as `KEY=VALUE`, its environment to standard output, a line each, and exits 0. None where
    /// there is no such image: then that one check is passed over.
    pub shows_itself: Option<String>,
    /// Sleeps until it is stopped when its command is `park`. Else, by the first word of its command: `show` writes its
    /// arguments and environment as `shows_itself` does and exits 0, `fail` writes a line to standard error and exits 7,
    /// `spin` computes without end. None where there is no such image: then the checks of commands are passed over.
    pub executes: Option<String>,
    /// A well-formed name of an image that does not exist, in a registry that answers.
    pub missing: String,
}

/// Why a check does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something else was seen than what must be.
    #[error("{0}")]
    Expectation(String),
    /// A call failed that must not.
    #[error("a call that must succeed did not")]
    Call(#[from] CallError),
    /// The suite itself could not do its part.
    #[error("{step}")]
    Step {
        /// What it was about to do.
        step: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

/// What a check gives.
pub type Checked<T = ()> = Result<T, Failure>;

/// A check under way.
pub type Checking<'a> = Pin<Box<dyn Future<Output = Checked> + Send + 'a>>;

/// A check and its name.
#[derive(Clone, Copy)]
pub struct Check {
    /// Module and function.
    pub name: &'static str,
    /// The function.
    pub run: for<'a> fn(&'a Seam) -> Checking<'a>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! checks {
    ($($module:ident :: $name:ident,)*) => {
        /// All checks, in an order in which the first to fail says most.
        pub const CHECKS: &[Check] = &[$(Check {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: |seam| Box::pin($module::$name(seam)),
        },)*];
    };
}

checks! {
    runtime::version_names_the_runtime,
    runtime::status_has_the_two_conditions,
    runtime::image_file_systems_are_told,
    image::a_pulled_image_is_on_the_node,
    image::a_pull_of_a_missing_image_names_it,
    image::status_of_an_unknown_image_is_empty,
    image::removing_an_unknown_image_is_no_error,
    sandbox::a_sandbox_is_ready_then_stopped_then_gone,
    sandbox::a_ready_network_gives_an_address,
    sandbox::stop_and_remove_may_be_repeated,
    sandbox::stopping_a_sandbox_ends_its_containers,
    sandbox::removing_a_sandbox_removes_its_containers,
    sandbox::lists_are_filtered,
    sandbox::an_unknown_sandbox_is_not_found,
    container::it_runs_to_its_end_and_leaves_a_log,
    container::its_exit_code_is_told,
    container::its_states_and_times_are_in_order,
    container::it_starts_only_once,
    container::it_needs_its_image_on_the_node,
    container::environment_and_arguments_reach_the_guest,
    container::a_parked_guest_stops,
    container::a_spinning_guest_is_killed_after_its_grace,
    container::removing_it_kills_it,
    container::stop_and_remove_may_be_repeated,
    container::its_metadata_comes_back,
    container::lists_are_filtered,
    container::running_it_has_stats,
    container::a_moved_log_is_reopened,
    container::an_unknown_container_is_not_found,
    exec::a_command_gives_its_output_and_its_exit_code,
    exec::a_command_past_its_limit_is_stopped,
    exec::the_end_of_the_container_ends_its_commands,
    exec::only_a_running_container_runs_commands,
    limits::they_change_while_a_container_runs,
    event::a_whole_life_is_told,
}

/// What came of a run of all checks.
#[derive(Debug, Default)]
pub struct Report {
    /// The names of the checks that hold.
    pub held: Vec<&'static str>,
    /// The others, and why.
    pub failed: Vec<(&'static str, Failure)>,
}

impl Report {
    /// Whether every check holds.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }
}

/// The failures, a line each with its causes.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} checks hold, {} do not", self.held.len(), self.failed.len())?;
        for (name, failure) in &self.failed {
            write!(f, "{name}: {failure}")?;
            let mut cause = std::error::Error::source(failure);
            while let Some(source) = cause {
                write!(f, ": {source}")?;
                cause = source.source();
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Runs every check, one after another, each on a seam that `make` makes.
pub async fn run_all<F>(make: impl Fn() -> F) -> Report
where
    F: Future<Output = Seam>,
{
    let mut report = Report::default();
    for check in CHECKS {
        let seam = make().await;
        match (check.run)(&seam).await {
            Ok(()) => report.held.push(check.name),
            Err(failure) => report.failed.push((check.name, failure)),
        }
    }
    report
}

/// Ends a check unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($seen:tt)+) => {
        if !$condition {
            return Err($crate::suite::Failure::Expectation(format!($($seen)+)));
        }
    };
}
use ensure;

/// What of a call must be refused: its error, with one of `codes`.
fn refused<T>(call: Result<T, CallError>, codes: &[tonic::Code]) -> Checked<CallError> {
    match call {
        Ok(_) => Err(Failure::Expectation(format!("a call succeeded that must be refused with one of {codes:?}"))),
        Err(error) if codes.contains(&error.code()) => Ok(error),
        Err(error) => Err(Failure::Expectation(format!(
            "{error} with {:?} ({}), which must be one of {codes:?}",
            error.code(),
            error.message(),
        ))),
    }
}

#[cfg(test)]
mod tests;
