//! What is going on, for the person who waits.
//!
//! Goes out: on standard error, moving bars on a terminal and plain lines otherwise. Never here: results.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal;

const TICK: Duration = Duration::from_millis(120);

pub(super) enum Progress {
    Bars(MultiProgress),
    Lines,
    Quiet,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        if quiet {
            Self::Quiet
        } else if std::io::stderr().is_terminal() {
            Self::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
        } else {
            Self::Lines
        }
    }

    /// One step of unknown length; it is over when the value is dropped.
    pub(super) fn step(&self, what: &str) -> Step {
        match self {
            Self::Bars(bars) => {
                let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
                let bar =
                    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                let bar = bars.add(bar.with_message(what.to_owned()));
                bar.enable_steady_tick(TICK);
                Step(Some(bar))
            }
            Self::Lines => {
                terminal::say(what);
                Step(None)
            }
            Self::Quiet => Step(None),
        }
    }
}

pub(super) struct Step(Option<ProgressBar>);

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
