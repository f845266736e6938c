//! The real kubectl.
//!
//! Comes in: arguments as a user would type them. Goes out: what a user would see. Never here: the user's own
//! kubeconfig, preferences or discovery cache.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Longer than any `kubectl wait` of a test.
const ENDS_WITHIN: Duration = Duration::from_secs(180);

/// kubectl of one cluster, perhaps of one namespace.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
    namespace: Option<String>,
}

/// What a run of kubectl left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
    /// The exit code.
    pub code: i32,
    command_line: String,
}

impl Output {
    /// This output where the exit code is 0.
    ///
    /// # Errors
    /// For any other exit code; the error shows the command line and both streams.
    pub fn succeeded(self) -> Result<Output> {
        if self.code == 0 {
            return Ok(self);
        }
        bail!("`{}` ended with {}:\n{}{}", self.command_line, self.code, self.stdout, self.stderr)
    }
}

impl Kubectl {
    pub(super) fn new(program: PathBuf, kubeconfig: &Path, cache: &Path) -> Kubectl {
        Kubectl { program, kubeconfig: kubeconfig.to_path_buf(), cache: cache.to_path_buf(), namespace: None }
    }

    pub(super) fn in_namespace(&self, namespace: &str) -> Kubectl {
        Kubectl { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// A command for tests that talk to kubectl while it runs (`exec -i`, `port-forward`, `logs -f`). It is killed
    /// when its handle is dropped.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", &self.cache)
            .env("KUBECTL_KUBERC", "false")
            .kill_on_drop(true);
        // Before the verb, because what follows a `--` belongs to somebody else.
        command.args(self.namespace.iter().flat_map(|namespace| ["--namespace", namespace]));
        command.args(arguments);
        command
    }

    /// Runs kubectl to its end with this standard input.
    ///
    /// # Errors
    /// If it cannot be started or does not end in 3 minutes. An exit code other than 0 is no error here.
    pub async fn run(&self, arguments: &[impl AsRef<OsStr>], input: &str) -> Result<Output> {
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        let command_line = format!("kubectl {}", words.join(" "));
        let mut process = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting `{command_line}`"))?;
        let stdin = process.stdin.take();
        let feed = async move {
            if let Some(mut stdin) = stdin {
                // It may end without reading; its output then says why.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let ended = async { tokio::join!(feed, process.wait_with_output()).1 };
        let output = tokio::time::timeout(ENDS_WITHIN, ended)
            .await
            .with_context(|| format!("`{command_line}` did not end in {ENDS_WITHIN:?}"))?
            .with_context(|| format!("running `{command_line}`"))?;
        Ok(Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().with_context(|| format!("`{command_line}` was killed"))?,
            command_line,
        })
    }
}
