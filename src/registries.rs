//! How registries are reached and whose images are trusted: the same on every command line that pulls.
//!
//! Comes in: flags. Goes out: what the runtime half and the image commands are opened with.

use std::path::PathBuf;

#[derive(clap::Args, Clone)]
pub(crate) struct RegistryArgs {
    /// A registry, HOST or HOST:PORT, that is spoken to over plain HTTP (repeatable)
    #[arg(long, value_name = "HOST")]
    pub(crate) insecure_registry: Vec<String>,
    /// A directory of containerd's hosts.toml files: mirrors, certificate authorities, client certificates
    #[arg(long, value_name = "DIR")]
    pub(crate) registry_hosts_dir: Option<PathBuf>,
    /// Which images need whose signature: keys or identities by image pattern (see docs/registries.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) image_trust_policy: Option<PathBuf>,
}
