//! Whether a CPU limit holds, and whether neighbours notice who computes.
//!
//! Comes in: limits and durations. Goes out: the CPU time that limited loops used, and the latency of an HTTP guest alone,
//! beside a limited loop and beside loops without a limit. Never here: a load that fills the machine by itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::seam::Runtime;
use super::wasklet::release_binary;
use super::wrk::Wrk;
use crate::say;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Thousandths of a CPU that a loop may use (repeatable)
    #[arg(long, default_values_t = [50, 200, 500])]
    millis: Vec<i64>,
}

/// Measures and prints.
pub(super) async fn run(options: &Options) -> Result<()> {
    let wrk = Wrk::find()?;
    let runtime = Runtime::start(&release_binary()?, &[]).await?;
    let web = runtime.pod("web").await?;
    runtime.run(&web, "http-answers", None).await?;
    let web = SocketAddr::new(web.address, 80);
    let seconds = options.seconds;
    say(&format!("loops with a limit, alone, {seconds} s each, thousandths of a CPU:"));
    for millis in &options.millis {
        let pod = runtime.pod(&format!("limited-{millis}")).await?;
        let id = runtime.run(&pod, "loops", Some(*millis)).await?;
        let used = used(&runtime, &id, Duration::from_secs(u64::from(seconds))).await?;
        say(&format!("  limit {millis:>4}   used {used:>6.1}"));
        runtime.remove(pod).await?;
    }
    say(&format!("an HTTP guest's latency, one connection, {seconds} s each, ms:"));
    latency(&wrk, web, seconds, "alone")?;
    let limited = runtime.pod("limited").await?;
    runtime.run(&limited, "loops", Some(200)).await?;
    latency(&wrk, web, seconds, "beside a loop limited to 200m")?;
    runtime.remove(limited).await?;
    let loops = runtime.loops(4).await?;
    latency(&wrk, web, seconds, "beside 4 loops without a limit")?;
    runtime.remove_all(loops).await
}

/// What a container uses over this time, in thousandths of a CPU.
async fn used(runtime: &Runtime, id: &str, over: Duration) -> Result<f64> {
    let (before, began) = (nanos(runtime, id).await?, Instant::now());
    tokio::time::sleep(over).await;
    let (after, took) = (nanos(runtime, id).await?, began.elapsed());
    Ok((after - before) / took.as_secs_f64() / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "seconds of CPU time are few")]
async fn nanos(runtime: &Runtime, id: &str) -> Result<f64> {
    let cpu = runtime.client.container_stats(id).await?.cpu.context("stats without CPU")?;
    Ok(cpu.usage_core_nano_seconds.context("stats without CPU time")?.value as f64)
}

fn latency(wrk: &Wrk, web: SocketAddr, seconds: u32, what: &str) -> Result<()> {
    let seen = wrk.run(web, 1, seconds)?;
    say(&format!("  {what:<34} p50 {:>6.3}  p90 {:>6.3}  p99 {:>6.3}", seen.p50, seen.p90, seen.p99));
    Ok(())
}
