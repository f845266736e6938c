//! What is going on, for the person who waits.
//!
//! Goes out: on standard error, moving bars on a terminal and plain lines otherwise. Never here: results.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use image::{Digest, PullProgress, PushProgress, Reference};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::terminal;

const TICK: Duration = Duration::from_millis(120);
/// Hexadecimal digits that tell the blobs of one image apart.
const SHORT: usize = 12;

const WAITING: &str = "{spinner} {msg}";
const MOVING: &str = "  {prefix}  [{bar:30}] {bytes:>10} of {total_bytes:<10} {binary_bytes_per_sec:>12}";
const OVER: &str = "  {prefix}  {msg}";

/// Where it is shown.
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

    /// The blobs of one image on their way; `what` is done with `image` meanwhile.
    pub(super) fn transfers(self, what: &str, image: &Reference) -> Transfers {
        let title = format!("{what} {image}");
        let head = match &self {
            Self::Bars(bars) => {
                let head = bars.add(ProgressBar::new_spinner().with_style(style(WAITING)).with_message(title));
                head.enable_steady_tick(TICK);
                Some(head)
            }
            Self::Lines => {
                terminal::say(&title);
                None
            }
            Self::Quiet => None,
        };
        Transfers { progress: self, head, bars: Mutex::default() }
    }
}

/// The blobs of one image.
pub(super) struct Transfers {
    progress: Progress,
    head: Option<ProgressBar>,
    bars: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Transfers {
    pub(super) fn pulled(&self, told: PullProgress) {
        match told {
            PullProgress::Present(blob) => self.over(blob, "is here"),
            PullProgress::Fetching(blob, size_bytes) => self.begins(blob, size_bytes),
            PullProgress::Received(blob, bytes) => self.at(blob, bytes),
            PullProgress::Fetched(blob) => self.over(blob, "pulled"),
        }
    }

    pub(super) fn pushed(&self, told: PushProgress) {
        match told {
            PushProgress::Present(blob) => self.over(blob, "is there"),
            PushProgress::Sending(blob, size_bytes) => self.begins(blob, size_bytes),
            PushProgress::SentBytes(blob, bytes) => self.at(blob, bytes),
            PushProgress::Sent(blob) => self.over(blob, "pushed"),
            PushProgress::Done(_) => {}
        }
    }

    fn begins(&self, blob: Digest, size_bytes: u64) {
        let Progress::Bars(bars) = &self.progress else { return };
        let mut shown = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is tried again has its bar.
        let bar = shown.entry(blob).or_insert_with(|| bars.add(ProgressBar::no_length().with_prefix(short(blob))));
        bar.set_style(style(MOVING));
        bar.set_length(size_bytes);
        bar.set_position(0);
        bar.enable_steady_tick(TICK);
    }

    fn at(&self, blob: Digest, bytes: u64) {
        if let Some(bar) = self.bars.lock().unwrap_or_else(PoisonError::into_inner).get(&blob) {
            bar.set_position(bytes);
        }
    }

    fn over(&self, blob: Digest, how: &str) {
        match &self.progress {
            Progress::Bars(bars) => {
                let mut shown = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
                let bar =
                    shown.entry(blob).or_insert_with(|| bars.add(ProgressBar::no_length().with_prefix(short(blob))));
                let size = bar.length().map(|size| format!(", {}", output::size(size))).unwrap_or_default();
                bar.set_style(style(OVER));
                bar.finish_with_message(format!("{how}{size}"));
            }
            Progress::Lines => terminal::say(&format!("  {} {how}", short(blob))),
            Progress::Quiet => {}
        }
    }
}

impl Transfers {
    /// Takes away what is shown of blobs that did not come to their end.
    pub(super) fn end(&self) {
        for bar in self.bars.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if !bar.is_finished() {
                bar.finish_and_clear();
            }
        }
        if let Some(head) = &self.head {
            head.finish_and_clear();
        }
    }
}

fn short(blob: Digest) -> String {
    blob.hex().chars().take(SHORT).collect()
}

fn style(template: &str) -> ProgressStyle {
    // The templates are this file's own; the test below reads each of them.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_understood() {
        for template in [WAITING, MOVING, OVER] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
