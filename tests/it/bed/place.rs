//! `wasklet run` and `wasklet image` in a place of the test's own.
//!
//! Comes in: arguments as a user would type them. Goes out: a process, or how it ended. Never here: the user's state
//! directory or images.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::guests;
use super::process::{self, Ended, Process, WASKLET};

/// A directory for state and files, gone with its value.
pub(crate) struct Place {
    dir: TempDir,
    layout: PathBuf,
}

impl Place {
    /// A place with the guests that need no compiler.
    pub(crate) async fn new() -> Result<Self> {
        Self::with(guests::without_compiler().await?)
    }

    /// A place with all guests.
    pub(crate) async fn with_all_guests() -> Result<Self> {
        Self::with(guests::all().await?)
    }

    fn with(layout: PathBuf) -> Result<Self> {
        let dir = tempfile::tempdir().context("creating a directory for a test")?;
        Ok(Self { dir, layout })
    }

    /// The layout of the guests.
    pub(crate) fn guests(&self) -> &Path {
        &self.layout
    }

    /// Where the state is kept.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A path in this place.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file here and gives its path.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        let path = self.path(name);
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        path.into_os_string().into_string().ok().context("a path is no text")
    }

    /// Makes a directory here and gives its path.
    pub(crate) fn directory(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        path.into_os_string().into_string().ok().context("a path is no text")
    }

    /// `wasklet run` with this place's state and images, and these arguments; not started yet.
    pub(crate) fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = process::command(WASKLET);
        command.arg("run").arg("--state-dir").arg(self.state_dir()).args(arguments);
        command.env("WASKLET_IMAGE_LAYOUT", &self.layout);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `wasklet image` with a subcommand and its arguments, with this place's images and home directory; not started yet.
    pub(crate) fn image_command(&self, subcommand: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = process::command(WASKLET);
        command.args(["image", subcommand]);
        // A push goes by this machine's images.
        if subcommand != "push" {
            command.arg("--root-dir").arg(self.state_dir());
        }
        command.args(arguments);
        command.env("HOME", self.dir.path()).current_dir(self.dir.path());
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(proxy);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `wasklet image` to its end.
    pub(crate) async fn image(&self, subcommand: &str, arguments: &[impl AsRef<OsStr>]) -> Result<Ended> {
        Process::start(self.image_command(subcommand, arguments)).await?.ended().await
    }

    /// Runs `wasklet image … --output json`, which must succeed, and gives what it wrote.
    pub(crate) async fn image_json(&self, subcommand: &str, arguments: &[&str]) -> Result<serde_json::Value> {
        let ended = self.image(subcommand, &[&["--output", "json"], arguments].concat()).await?;
        ensure!(ended.code == 0, "{ended:?}");
        serde_json::from_slice(&ended.stdout).with_context(|| format!("{ended:?}"))
    }

    /// Runs any other tool to its end, in this place; it must succeed. Gives its standard output.
    pub(crate) async fn tool(&self, program: impl AsRef<Path>, arguments: &[impl AsRef<OsStr>]) -> Result<String> {
        let mut command = process::command(program);
        command.args(arguments).env("HOME", self.dir.path()).current_dir(self.dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = Process::start(command).await?.ended().await?;
        ensure!(ended.code == 0, "{ended:?}");
        Ok(ended.text())
    }

    /// Starts `wasklet run`.
    pub(crate) async fn start(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Process> {
        Process::start(self.command(arguments)).await
    }

    /// Runs `wasklet run` to its end.
    pub(crate) async fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Ended> {
        self.start(arguments).await?.ended().await
    }
}
