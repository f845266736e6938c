//! How registries are reached, and who asks.
//!
//! Comes in: flags, a password on standard input. Goes out: a puller's options and credentials.
//! Never here: a password on the command line, where everybody on the machine could read it.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use decide::keyring::{DockerConfig, Keyring, Source};
use image::{Credentials, PullerOptions, Reference, Registries, RegistryOptions, Store, TrustPolicy};

use super::block_on;
use crate::registries::RegistryArgs;
use crate::terminal;

/// Bytes; the longest password or token that is read.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

#[derive(clap::Args, Clone)]
pub(super) struct AccessArgs {
    #[command(flatten)]
    registries: RegistryArgs,
    /// The user's name for the registry [default: the login of ~/.docker/config.json, if there is one]
    #[arg(long, short, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the user's password or token from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

impl AccessArgs {
    pub(super) fn puller_options(&self, store: Store, layouts: Vec<PathBuf>) -> anyhow::Result<PullerOptions> {
        Ok(PullerOptions {
            layouts,
            plain_http: self.registries.insecure_registry.clone(),
            hosts_directory: self.registries.registry_hosts_dir.clone(),
            trust: self.registries.image_trust_policy.as_deref().map(TrustPolicy::read).transpose()?.map(Arc::new),
            ..PullerOptions::new(store)
        })
    }

    pub(super) fn registries(&self) -> Registries {
        Registries::new(RegistryOptions {
            plain_http: self.registries.insecure_registry.clone(),
            hosts_directory: self.registries.registry_hosts_dir.clone(),
            ..RegistryOptions::default()
        })
    }

    /// What proves to the registry of `image` who asks.
    pub(super) fn credentials(&self, image: &Reference) -> anyhow::Result<Option<Credentials>> {
        let Some(username) = &self.username else {
            return own_login(image);
        };
        let mut password = String::new();
        let read = std::io::stdin().lock().take(PASSWORD_BYTES_MAX).read_to_string(&mut password);
        read.context("reading the password from standard input")?;
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            bail!("--password-stdin: standard input holds no password; try `printenv TOKEN | wasklet image …`");
        }
        Ok(Some(Credentials::Basic { username: username.clone(), password: password.to_owned() }))
    }
}

/// The login that this user's Docker configuration has for the image.
fn own_login(image: &Reference) -> anyhow::Result<Option<Credentials>> {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let Some(path) = home.map(|home| home.join(".docker/config.json")) else {
        return Ok(None);
    };
    let content = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        content => content.with_context(|| format!("reading {}", path.display()))?,
    };
    let config = DockerConfig::parse(&content).with_context(|| format!("reading {}", path.display()))?;
    let name = image.name();
    let (config, failed) = block_on(async { Ok(kubelet::pulls::with_helper(config, &name).await) })?;
    if let Some(failed) = failed {
        terminal::say(&format!("wasklet: {}: {failed}", path.display()));
    }
    let mut keyring = Keyring::default();
    keyring.add(config, &Source::Node);
    Ok(keyring.fitting(&name).into_iter().next().map(|fitting| {
        let login = fitting.login;
        if !login.registry_token.is_empty() {
            Credentials::Bearer(login.registry_token)
        } else if !login.identity_token.is_empty() {
            Credentials::IdentityToken(login.identity_token)
        } else {
            Credentials::Basic { username: login.username, password: login.password }
        }
    }))
}
