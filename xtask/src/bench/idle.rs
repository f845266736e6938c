//! What idle pods cost: memory and CPU time of many in one runtime.
//!
//! Comes in: how many of each kind. Goes out: KiB a pod, page tables included, how soon they were up, and the CPU time of
//! the process while all of them wait. Never here: pods that do something.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use futures::{StreamExt, TryStreamExt};

use super::seam::{Held, Runtime};
use super::wasklet::release_binary;
use crate::say;

/// Pods that are made at one time.
const AT_ONCE: usize = 32;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Pods of each kind
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Of this kind only: http-answers, sleeps or run-sleeps (repeatable)
    #[arg(long)]
    only: Vec<String>,
    /// Seconds that they are idle for
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// Measures and prints.
pub(super) async fn run(options: &Options) -> Result<()> {
    let binary = release_binary()?;
    let kinds = [
        ("http-answers", "HTTP handler", "wanted: 16"),
        ("sleeps", "parked command, WASI 0.1", "the bare engine: 42 to 46"),
        ("run-sleeps", "parked command, WASI 0.2", "the bare engine: 48 to 55"),
    ];
    say(&format!("{} idle pods, each kind in a process of its own:", options.pods));
    for (guest, what, beside) in kinds {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == guest) {
            continue;
        }
        let runtime = Runtime::start(&binary, &[]).await?;
        // What the first pod brings is the node's, not a pod's.
        let first = runtime.pod("first").await?;
        runtime.run(&first, guest, None).await?;
        let before = runtime.held()?;
        let began = Instant::now();
        fill(&runtime, guest, options.pods).await?;
        let up = began.elapsed();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let held = runtime.held()?;
        let cpu = runtime.cpu()?;
        tokio::time::sleep(Duration::from_secs(options.seconds)).await;
        let cpu = runtime.cpu()? - cpu;
        #[expect(clippy::cast_precision_loss, reason = "KiB and pods are few")]
        let each = |of: fn(&Held) -> u64| of(&held).saturating_sub(of(&before)) as f64 / options.pods as f64;
        #[expect(clippy::cast_precision_loss, reason = "seconds are few")]
        let idle = cpu / options.seconds as f64 * 100.0;
        say(&format!(
            "  {what:<26}{:>6.1} KiB + {:>4.1} of page tables ({beside}), {:.1} mappings, {:.1} files; up in {:.1} s; \
             idle CPU {idle:.2} %",
            each(|held| held.pss),
            each(|held| held.page_tables),
            each(|held| held.maps),
            each(|held| held.files),
            up.as_secs_f64()
        ));
    }
    Ok(())
}

async fn fill(runtime: &Runtime, guest: &str, pods: usize) -> Result<()> {
    let one = async |number: usize| -> Result<()> {
        let pod = runtime.pod(&format!("idle-{number}")).await?;
        runtime.run(&pod, guest, None).await?;
        Ok(())
    };
    futures::stream::iter(0..pods).map(one).buffer_unordered(AT_ONCE).try_collect::<()>().await
}
