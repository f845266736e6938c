//! The load on an HTTP server: an address and a number of connections come in, what `wrk` saw goes out.
//!
//! Never here: what the server used meanwhile.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use testbed::tools;

/// The program, of Debian's package of the same name.
pub(super) struct Wrk(PathBuf);

/// What one run saw; latencies in milliseconds.
pub(super) struct Seen {
    pub(super) requests: f64,
    pub(super) per_second: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
}

impl Wrk {
    pub(super) fn find() -> Result<Self> {
        Ok(Self(tools::find("wrk")?))
    }

    /// Asks over and over from one thread. An answer that is an error is one here, too.
    pub(super) fn run(&self, address: SocketAddr, connections: u32, seconds: u32) -> Result<Seen> {
        let output = Command::new(&self.0)
            .args(["--threads=1", "--latency"])
            .args([format!("--connections={connections}"), format!("--duration={seconds}s")])
            .arg(format!("http://{address}/"))
            .output()
            .context("running wrk")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk ended with {}: {said}", output.status);
        ensure!(!said.contains("Non-2xx"), "{address} answers with errors: {said}");
        let word = |label: &str| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(label));
            line.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("wrk says no {label}: {said}"))
        };
        let requests = said.lines().find_map(|line| line.trim().split_once(" requests in ")).map(|(count, _)| count);
        let requests = requests.and_then(|count| count.parse().ok());
        Ok(Seen {
            requests: requests.with_context(|| format!("wrk counts nothing: {said}"))?,
            per_second: word("Requests/sec:")?.parse().context("wrk's rate")?,
            p50: milliseconds(word("50%")?)?,
            p90: milliseconds(word("90%")?)?,
            p99: milliseconds(word("99%")?)?,
        })
    }
}

/// What wrk writes as `1.23ms`, `456.00us` or `1.02s`.
fn milliseconds(text: &str) -> Result<f64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.trim_end_matches(unit).parse().with_context(|| format!("{text:?} is no time"))?;
    let factor = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        _ => anyhow::bail!("{text:?} is no time"),
    };
    Ok(number * factor)
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn times_of_wrk_are_read() {
        for (text, expected) in [("456.00us", 0.456), ("1.23ms", 1.23), ("2.00s", 2000.0)] {
            assert!((milliseconds(text).unwrap() - expected).abs() < 1e-9, "{text}");
        }
        assert!(milliseconds("12").is_err() && milliseconds("x").is_err());
    }
}
