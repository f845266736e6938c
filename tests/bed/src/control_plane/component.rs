//! One process of the control plane.
//!
//! Comes in: the binary, a component's name and its flags. Goes out: a process that ends with this one, and its
//! log. Never here: what the flags mean.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::Client;
use tokio::time::Instant;

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How often readiness is asked for: there is nothing to watch before the API server serves.
const ASK_EVERY: Duration = Duration::from_millis(100);

const LOG_TAIL_BYTES: u64 = 4096;

/// All that is needed to start a component, once or again.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) binary: PathBuf,
    pub(super) name: &'static str,
    pub(super) flags: Vec<String>,
    pub(super) dir: PathBuf,
}

impl Launch {
    pub(super) fn start(&self) -> Result<Component> {
        let logs = self.dir.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        let log = logs.join(format!("{}.log", self.name));
        let output = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let errors = output.try_clone().with_context(|| format!("opening {}", log.display()))?;
        let mut command = Command::new(&self.binary);
        command
            .arg(self.name)
            .args(&self.flags)
            .current_dir(&self.dir)
            .env("CONTROL_PLANE_LEASH", "stdin")
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors);
        if self.name == "etcd" {
            command.env("CONTROL_PLANE_LEFTOVER", self.dir.join("etcd"));
        }
        let process = command.spawn().with_context(|| format!("starting {}", self.name))?;
        Ok(Component { name: self.name, process, log })
    }
}

/// A running component; dropping it kills it. Its standard input, which the [`Child`] keeps open, is the leash
/// that `tests/controlplane/leash.go` watches.
#[derive(Debug)]
pub(super) struct Component {
    name: &'static str,
    process: Child,
    log: PathBuf,
}

impl Component {
    /// Waits until this path of this server answers 200 to the user of `config`.
    pub(super) async fn await_ready(
        &mut self,
        config: &kube::Config,
        server: &str,
        path: &str,
        within: Duration,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        let mut config = config.clone();
        config.cluster_url = server.parse().with_context(|| format!("asking {server}"))?;
        config.default_retry = false;
        let client = Client::try_from(config).with_context(|| format!("asking {server}"))?;
        loop {
            if let Some(status) = self.process.try_wait().context("waiting for a process")? {
                bail!("{} ended with {status}; its log ends with:\n{}", self.name, self.log_tail());
            }
            let request = http::Request::get(path).body(Vec::new()).context("building a request")?;
            let answer = tokio::time::timeout(ANSWER_WITHIN, client.request_text(request)).await;
            let refusal = match answer {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer in {ANSWER_WITHIN:?}"),
            };
            if Instant::now() >= deadline {
                bail!(
                    "{} is not ready after {within:?}: {server}{path}: {refusal}; its log ends with:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("({}: {error})", self.log.display()))
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        // Both fail only for a process that is gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}
