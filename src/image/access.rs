//! How registries are reached, and who asks.
//!
//! Comes in: flags, a password on standard input. Goes out: a puller's options and credentials.
//! Never here: a password on the command line, where everybody on the machine could read it.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, bail};
use image::{Credentials, PullerOptions, Reference, Store};

/// Bytes; the longest password or token that is read.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

#[derive(clap::Args, Clone)]
pub(super) struct AccessArgs {
    /// A registry, HOST or HOST:PORT, that is spoken to over plain HTTP (repeatable)
    #[arg(long, value_name = "HOST")]
    insecure_registry: Vec<String>,
    /// The user's name for the registry
    #[arg(long, short, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the user's password or token from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

impl AccessArgs {
    pub(super) fn puller_options(&self, store: Store, layouts: Vec<PathBuf>) -> PullerOptions {
        PullerOptions { layouts, plain_http: self.insecure_registry.clone(), ..PullerOptions::new(store) }
    }

    /// What proves to the registry of `image` who asks.
    pub(super) fn credentials(&self, image: &Reference) -> anyhow::Result<Option<Credentials>> {
        let Some(username) = &self.username else {
            return Ok(None);
        };
        let mut password = String::new();
        let read = std::io::stdin().lock().take(PASSWORD_BYTES_MAX).read_to_string(&mut password);
        read.context("reading the password from standard input")?;
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            bail!("--password-stdin: standard input holds no password; try `printenv TOKEN | wasklet image …`");
        }
        let _ = image;
        Ok(Some(Credentials::Basic { username: username.clone(), password: password.to_owned() }))
    }
}
