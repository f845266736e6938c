//! How long a guest lives beyond its grace, whatever it does.
//!
//! Comes in: how often. Goes out: for each kind of guest how long `StopContainer` without grace takes, the end of the
//! container included. Never here: a guest that listens.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use testbed::guests::wat;

use super::figures::{millis, quantile};
use super::seam::Runtime;
use super::wasklet::release_binary;
use crate::say;

/// What a guest is given before it is killed, so that it does what it is named after.
const BUSY_FOR: Duration = Duration::from_millis(30);

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Guests of each kind
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Other guests that compute without end meanwhile
    #[arg(long, default_value_t = 4)]
    neighbours: usize,
}

/// Measures and prints.
pub(super) async fn run(options: &Options) -> Result<()> {
    let guests = [("fills", wat::fills()), ("opens-sockets", wat::opens_sockets())];
    let runtime = Runtime::start(&release_binary()?, &guests).await?;
    let kinds = [
        ("loops", "a tight loop"),
        ("sleeps", "waits in a host call"),
        ("fills", "fills 512 MiB with one instruction"),
        ("opens-sockets", "has opened 10,000 sockets"),
    ];
    for neighbours in [0, options.neighbours] {
        let others = runtime.loops(neighbours).await?;
        say(&format!("from the kill to the end, {} guests of a kind, {neighbours} more that spin, ms:", options.kills));
        for (guest, what) in kinds {
            let mut times = Vec::new();
            for number in 0..options.kills {
                times.push(kill(&runtime, guest, &format!("{guest}-{neighbours}-{number}")).await?);
            }
            let at = |hundredths| millis(quantile(&times, hundredths));
            say(&format!("  {what:<36} p50 {:>6.2}  p99 {:>6.2}  most {:>6.2}  (wanted: 50)", at(50), at(99), at(100)));
        }
        runtime.remove_all(others).await?;
    }
    Ok(())
}

async fn kill(runtime: &Runtime, guest: &str, name: &str) -> Result<Duration> {
    let pod = runtime.pod(name).await?;
    let id = runtime.run(&pod, guest, None).await?;
    tokio::time::sleep(BUSY_FOR).await;
    let began = Instant::now();
    runtime.client.stop_container(&id, Duration::ZERO).await?;
    let took = began.elapsed();
    let status = runtime.ended(&id).await?;
    ensure!(status.exit_code == 137, "{guest} was to be killed and ended with {}", status.exit_code);
    runtime.remove(pod).await?;
    Ok(took)
}
