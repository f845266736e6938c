//! `cargo xtask bench`: figures that need the whole binary, each beside what it is measured against, in one run.
//!
//! Comes in: what to measure. Goes out: figures of both sides and their ratio, as text. Never here: a verdict that fails a
//! build; these machines are noisy, and a reader judges.

mod figures;
mod http;
mod idle;
mod image;
mod kill;
mod pods;
mod quota;
mod seam;
mod start;
mod wasklet;
mod wrk;

use anyhow::Result;
use clap::Subcommand;

/// What can be measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Start the pods of a Deployment, side by side with kwok, a simulator that runs nothing
    Pods(pods::Options),
    /// Answer HTTP requests, side by side with `wasmtime serve`
    Http(http::Options),
    /// Pull an image beside `skopeo copy`; count what many pods of one image, and a second start, fetch, compile and read
    Image(image::Options),
    /// Start guests, side by side with processes of `wasmtime run`
    Start(start::Options),
    /// Kill guests that do not want to end
    Kill(kill::Options),
    /// Limit the CPU time of loops, and look at their neighbours' latency
    Quota(quota::Options),
    /// Hold many pods that do nothing
    Idle(idle::Options),
}

/// Measures it.
///
/// # Errors
/// When something does not start or does not become ready; a slow figure is no error.
pub(crate) async fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Pods(options) => pods::run(&options).await,
        Bench::Http(options) => http::run(&options),
        Bench::Image(options) => image::run(&options).await,
        Bench::Start(options) => start::run(&options).await,
        Bench::Kill(options) => kill::run(&options).await,
        Bench::Quota(options) => quota::run(&options).await,
        Bench::Idle(options) => idle::run(&options).await,
    }
}
