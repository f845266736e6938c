//! A real registry: Debian's `docker-registry`, in a process and a directory of its own.
//!
//! Comes in: how it is reached and who may. Goes out: its address, its certificate authority, what it was asked for.
//! Never here: the registry that the package's installation may start, and its port.

mod certificate;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tools;

/// The user that a registry of [`Access::Basic`] lets in.
pub const USER: &str = "alice";
/// The user's password.
pub const PASSWORD: &str = "p4ssw0rd-of-alice";
/// What `htpasswd -nbBC 4 alice p4ssw0rd-of-alice` printed: the registry takes nothing but bcrypt.
const HTPASSWD: &str = "alice:$2y$04$lT.31pM.zzhDGE/OJn5rHehZ4Th1JkZsWEuiDhANXXXQFgjveDF0y\n";

/// How long it may take to listen.
const READY_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Who may push and pull.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// Everybody.
    #[default]
    Open,
    /// [`USER`] with [`PASSWORD`], in every request.
    Basic,
    /// Who has a token that a service has signed.
    Token {
        /// The service's URL.
        realm: String,
        /// Who signs.
        issuer: String,
        /// The certificate tokens are checked with.
        certificate: PathBuf,
    },
}

/// How the registry is to be.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether it speaks TLS, under a certificate of an authority of its own.
    pub tls: bool,
    /// Who may push and pull.
    pub access: Access,
}

/// A registry that runs until it is dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    dir: TempDir,
    host: String,
}

/// The name by which the registry knows itself to a token service.
pub const SERVICE: &str = "registry.test";

impl Registry {
    /// Starts one, and waits until it listens.
    ///
    /// # Errors
    /// When `docker-registry` is not installed, with the way to get it, or does not start, with its log.
    pub async fn start(options: &Options) -> Result<Self> {
        let binary = tools::find("docker-registry")?;
        let dir = tempfile::tempdir().context("making a directory for the registry")?;
        let config = configuration(dir.path(), options)?;
        let path = dir.path().join("config.json");
        // The registry reads YAML, which JSON is.
        std::fs::write(&path, config.to_string()).with_context(|| format!("writing {}", path.display()))?;
        let log = dir.path().join("log");
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let errors = output.try_clone().with_context(|| format!("opening {}", log.display()))?;
        let mut command = Command::new("setpriv");
        // The kernel ends it with the thread that started it, however that ends.
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary).arg("serve").arg(path);
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(output).stderr(errors);
        // Variables of this name would change the configuration.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("REGISTRY_")) {
            command.env_remove(name);
        }
        let process = command.spawn().context("starting docker-registry")?;
        let mut registry = Self { process, dir, host: String::new() };
        registry.host = registry.await_address().await?;
        Ok(registry)
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The reference of a repository and tag here.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// The certificate of the authority of a registry that speaks TLS.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// The paths of all blobs that were asked for and given, in order: one for each whole or partial download.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn blobs_given(&self) -> Result<Vec<String>> {
        let given = |line: &str| {
            let (_, request) = line.split_once("\"GET ")?;
            let (path, rest) = request.split_once(" HTTP/")?;
            let status = rest.split_whitespace().nth(1)?;
            (path.contains("/blobs/") && matches!(status, "200" | "206")).then(|| path.to_owned())
        };
        Ok(self.log()?.lines().filter_map(given).collect())
    }

    fn log(&self) -> Result<String> {
        let path = self.dir.path().join("log");
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    async fn await_address(&mut self) -> Result<String> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let log = self.log()?;
            let listens = log.lines().find_map(|line| line.split_once("listening on "));
            if let Some((_, rest)) = listens {
                let address = rest.split(['"', ',', ' ']).next().unwrap_or_default();
                ensure!(address.contains(':'), "docker-registry listens on no address: {rest}");
                return Ok(address.to_owned());
            }
            if let Some(status) = self.process.try_wait().context("waiting for docker-registry")? {
                bail!("docker-registry ended with {status}:\n{log}");
            }
            ensure!(Instant::now() < deadline, "docker-registry does not listen after {READY_WITHIN:?}:\n{log}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Both fail only for a process that is gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(dir: &Path, options: &Options) -> Result<Value> {
    let mut config = json!({
        "version": 0.1,
        "log": { "level": "info", "accesslog": { "disabled": false } },
        "storage": { "filesystem": { "rootdirectory": dir.join("storage") } },
        // The system chooses a port that is free, and the log says which.
        "http": { "addr": "127.0.0.1:0", "secret": "of one test" },
    });
    if options.tls {
        let files = certificate::write(dir)?;
        config["http"]["tls"] = json!({ "certificate": files.certificate, "key": files.key });
    }
    match &options.access {
        Access::Open => {}
        Access::Basic => {
            let path = dir.join("htpasswd");
            std::fs::write(&path, HTPASSWD).with_context(|| format!("writing {}", path.display()))?;
            config["auth"] = json!({ "htpasswd": { "realm": SERVICE, "path": path } });
        }
        Access::Token { realm, issuer, certificate } => {
            config["auth"] = json!({ "token": {
                "realm": realm, "service": SERVICE, "issuer": issuer, "rootcertbundle": certificate,
            }});
        }
    }
    Ok(config)
}
