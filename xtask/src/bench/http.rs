//! Answers to HTTP requests: `wasklet run` beside `wasmtime serve`, as it is shipped and with the flags that suit it best.
//!
//! Comes in: how long, how often and with how many connections. Goes out: requests per second, CPU time per request and
//! latencies of each server, and their ratios, as text. The servers take turns under one load of `wrk`, all of them with
//! the same component, so that a machine that slows down slows all. Never here: a load of our own.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use testbed::guests::{self, wat};
use testbed::tools;

use super::figures::median;
use super::wasklet::{Running, free_address, release_binary, usage};
use super::wrk::Wrk;
use crate::say;

/// How long a server may take until it listens; it may have to compile first.
const UP_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Requests of one instance where instances are shared.
const SHARED: &str = "1000000";

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds of each turn
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Turns of each server
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections at one time (repeatable)
    #[arg(long, default_values_t = [32, 256])]
    connections: Vec<u32>,
    /// A component of wasi:http/incoming-handler@0.2 to serve in place of examples/hello-http
    #[arg(long, value_name = "FILE.wasm")]
    guest: Option<PathBuf>,
}

/// One server under measurement.
struct Server {
    name: &'static str,
    address: SocketAddr,
    process: Running,
    turns: Vec<Turn>,
}

/// What one turn of a server gave.
#[derive(Clone, Copy)]
struct Turn {
    per_second: f64,
    /// In microseconds, of the server.
    cpu: f64,
    /// In milliseconds.
    p50: f64,
    p99: f64,
}

/// Measures and prints.
pub(super) fn run(options: &Options) -> Result<()> {
    let bench = Bench { wasklet: release_binary()?, wasmtime: tools::wasmtime()?, wrk: Wrk::find()? };
    let place = tempfile::tempdir().context("making a directory")?;
    let guest = match &options.guest {
        Some(file) => std::path::absolute(file).with_context(|| format!("finding {}", file.display()))?,
        None => written(place.path(), "hello-http.wasm", &guests::example("hello-http")?)?,
    };
    let best = [
        "-O",
        "pooling-pagemap-scan=y",
        "-O",
        "pooling-memory-keep-resident=2097152",
        "-O",
        "pooling-table-keep-resident=65536",
    ];
    let shared: Vec<_> = best.into_iter().chain(["--max-instance-reuse-count", SHARED]).collect();
    say("an instance for each request:");
    let servers = [
        bench.ours("wasklet", &guest, place.path(), &[])?,
        bench.theirs("wasmtime serve", &guest, &[])?,
        bench.theirs("wasmtime serve, best flags", &guest, &best)?,
    ];
    bench.measure(servers, options)?;
    say("instances that answer many requests:");
    let annotation = format!("wasklet.dev/http-requests-per-instance={SHARED}");
    let servers = [
        bench.ours("wasklet, shared", &guest, place.path(), &["--annotation", &annotation])?,
        bench.theirs("wasmtime serve, shared", &guest, &shared)?,
    ];
    bench.measure(servers, options)?;
    let of_03 = written(place.path(), "hello-03.wasm", &wat::http_03_answers(200, "hello from wasm\n"))?;
    say("WASI 0.3, instances that answer many requests, as both have it:");
    let servers = [bench.ours("wasklet", &of_03, place.path(), &[])?, bench.theirs("wasmtime serve", &of_03, &[])?];
    bench.measure(servers, options)?;
    say("WASI 0.3, an instance for each request:");
    let one_each = ["--annotation", "wasklet.dev/http-requests-per-instance=1"];
    let servers = [
        bench.ours("wasklet, one each", &of_03, place.path(), &one_each)?,
        bench.theirs("wasmtime serve, one each", &of_03, &["--max-instance-reuse-count", "1"])?,
    ];
    bench.measure(servers, options)
}

struct Bench {
    wasklet: PathBuf,
    wasmtime: PathBuf,
    wrk: Wrk,
}

impl Bench {
    fn ours(&self, name: &'static str, guest: &Path, place: &Path, flags: &[&str]) -> Result<Server> {
        let address = free_address()?;
        let mut command = Command::new(&self.wasklet);
        command.arg("run").arg(format!("--publish={address}:80")).arg("--state-dir").arg(place.join("state"));
        command.args(flags).arg(guest);
        Server::start(name, address, command)
    }

    fn theirs(&self, name: &'static str, guest: &Path, flags: &[&str]) -> Result<Server> {
        let address = free_address()?;
        let mut command = Command::new(&self.wasmtime);
        // Guests of Rust's standard library import wasi:cli.
        command.args(["serve", "-Scli", "-Wcomponent-model-async", "--addr"]).arg(address.to_string());
        command.args(flags).arg(guest);
        Server::start(name, address, command)
    }

    /// All servers in turns; prints each one's median turn, and the ratios of the first to the others.
    fn measure<const N: usize>(&self, mut servers: [Server; N], options: &Options) -> Result<()> {
        for connections in &options.connections {
            for round in 0..options.rounds {
                // Who comes first may find another machine than who comes last.
                for turn in 0..N {
                    if let Some(server) = servers.get_mut((turn + round) % N) {
                        let turn = self.turn(server, *connections, options.seconds)?;
                        server.turns.push(turn);
                    }
                }
            }
            say(&format!("  {connections} connections, the median of {} turns:", options.rounds));
            let medians =
                servers.each_mut().map(|server| (server.name, Turn::median(&std::mem::take(&mut server.turns))));
            for (name, Turn { per_second, cpu, p50, p99 }) in medians {
                say(&format!(
                    "    {name:<34}{per_second:>8.0} requests/s {cpu:>7.1} us CPU   p50 {p50:>7.2} ms  p99 {p99:>7.2} ms"
                ));
            }
            if let Some(((_, ours), others)) = medians.split_first() {
                for (name, theirs) in others {
                    say(&format!(
                        "    to {name:<31}{:>8.2} x requests/s {:>5.2} x less CPU      p99 {:.2} of theirs",
                        ours.per_second / theirs.per_second,
                        theirs.cpu / ours.cpu,
                        ours.p99 / theirs.p99
                    ));
                }
            }
        }
        Ok(())
    }

    fn turn(&self, server: &Server, connections: u32, seconds: u32) -> Result<Turn> {
        let before = usage(&server.process.0)?.0;
        let seen = self.wrk.run(server.address, connections, seconds).with_context(|| server.name)?;
        let after = usage(&server.process.0)?.0;
        let cpu = (after - before) * 1e6 / seen.requests;
        Ok(Turn { per_second: seen.per_second, cpu, p50: seen.p50, p99: seen.p99 })
    }
}

impl Server {
    fn start(name: &'static str, address: SocketAddr, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Running(command.spawn().with_context(|| format!("starting {name}"))?);
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(started.elapsed() < UP_WITHIN, "{name} does not listen on {address} after {UP_WITHIN:?}");
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(Self { name, address, process, turns: Vec::new() })
    }
}

impl Turn {
    fn median(turns: &[Turn]) -> Turn {
        let of = |figure: fn(&Turn) -> f64| median(&turns.iter().map(figure).collect::<Vec<_>>());
        Turn {
            per_second: of(|turn| turn.per_second),
            cpu: of(|turn| turn.cpu),
            p50: of(|turn| turn.p50),
            p99: of(|turn| turn.p99),
        }
    }
}

fn written(place: &Path, name: &str, wasm: &[u8]) -> Result<PathBuf> {
    let path = place.join(name);
    std::fs::write(&path, wasm).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
