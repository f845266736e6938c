//! `cargo xtask bench`: figures that need the whole binary, each beside what it is measured against, in one run.
//!
//! Comes in: what to measure. Goes out: figures of both sides and their ratio, as text. Never here: a verdict that fails a
//! build; these machines are noisy, and a reader judges.

mod figures;
mod http;
mod image;
mod pods;
mod wasklet;

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
    }
}
