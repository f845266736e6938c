//! How soon a guest's first instruction runs: a container through the seam, beside a process of `wasmtime run`.
//!
//! Comes in: how often. Goes out: from `CreateContainer` to what the guest writes first, by the time in its log; and from
//! the start of the process to its first byte. Both have their code compiled before. The two take turns. Never here: a
//! compilation.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Args;
use testbed::guests::wat;
use testbed::tools;

use super::figures::{micros, quantile};
use super::seam::Runtime;
use super::wasklet::release_binary;
use crate::say;

const GUEST: &str = "prints";

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Starts of each side
    #[arg(long, default_value_t = 300)]
    starts: usize,
}

/// Measures and prints.
pub(super) async fn run(options: &Options) -> Result<()> {
    let wasmtime = tools::wasmtime()?;
    let runtime = Runtime::start(&release_binary()?, &[]).await?;
    let place = tempfile::tempdir().context("making a directory")?;
    let compiled = compile(&wasmtime, place.path())?;
    let (mut ours, mut calls, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    // The first of each compiles, or reads what is not in memory yet.
    for number in 0..=options.starts {
        let pod = runtime.pod(&format!("start-{number}")).await?;
        let (wall, began) = (SystemTime::now(), Instant::now());
        let id = runtime.run(&pod, GUEST, None).await?;
        let answered = began.elapsed();
        runtime.ended(&id).await?;
        let wrote = first_stamp(&runtime.log_of(&pod)?)?;
        let process = process(&wasmtime, &compiled)?;
        if number > 0 {
            ours.push(wrote.duration_since(wall).unwrap_or_default());
            calls.push(answered);
            theirs.push(process);
        }
        runtime.remove(pod).await?;
    }
    say(&format!("to the first word of a guest whose code is compiled, {} starts, microseconds:", options.starts));
    let line = |what: &str, times: &[Duration]| {
        say(&format!(
            "  {what:<46} p50 {:>8.0}  p99 {:>8.0}",
            micros(quantile(times, 50)),
            micros(quantile(times, 99))
        ));
    };
    line("wasklet, from CreateContainer", &ours);
    line("wasklet, until StartContainer has answered", &calls);
    line("wasmtime run, precompiled, from its spawn", &theirs);
    let ratio = quantile(&theirs, 50).as_secs_f64() / quantile(&ours, 50).as_secs_f64();
    say(&format!("  {ratio:.1} x sooner  (wanted: at least 20, and a p50 of at most 300)"));
    Ok(())
}

fn compile(wasmtime: &Path, place: &Path) -> Result<std::path::PathBuf> {
    let (wasm, compiled) = (place.join("guest.wasm"), place.join("guest.cwasm"));
    std::fs::write(&wasm, wat::prints_and_exits("hello from wasm\n", 0)).context("writing the guest")?;
    let status = Command::new(wasmtime).arg("compile").arg("-o").arg(&compiled).arg(&wasm).status();
    let status = status.context("running wasmtime compile")?;
    ensure!(status.success(), "wasmtime compile ended with {status}");
    Ok(compiled)
}

/// From the spawn of a process to its first byte of output.
fn process(wasmtime: &Path, compiled: &Path) -> Result<Duration> {
    let began = Instant::now();
    let mut child = Command::new(wasmtime)
        .args(["run", "--allow-precompiled"])
        .arg(compiled)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting wasmtime run")?;
    let mut stdout = child.stdout.take().context("it has a standard output")?;
    stdout.read_exact(&mut [0]).context("reading what wasmtime's guest writes")?;
    let took = began.elapsed();
    child.wait().context("waiting for wasmtime run")?;
    Ok(took)
}

/// When the first line of a log was written.
fn first_stamp(log: &str) -> Result<SystemTime> {
    let stamp = log.split_whitespace().next().context("the guest has written nothing")?;
    let stamp: jiff::Timestamp = stamp.parse().with_context(|| format!("{stamp:?} is no time"))?;
    Ok(stamp.into())
}
