//! What of a machine one control plane has to itself: a directory, ports, address ranges.
//!
//! Comes in: the machine as it is. Goes out: one of 64 slots, held by a lock on its directory until dropped. Never
//! here: a port out of the ephemeral range, which anyone might get while an API server restarts on its own.

use std::fs::{DirBuilder, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const SLOTS: u16 = 64;
const FIRST_PORT: u16 = 20_000;
const PORTS_PER_SLOT: u16 = 8;

/// Set to anything: directories of control planes stay.
const KEEP: &str = "WASKLET_TEST_KEEP";

#[derive(Debug, Clone, Copy)]
pub(super) enum Port {
    EtcdClient = 0,
    EtcdPeer = 1,
    ApiServer = 2,
    ControllerManager = 3,
    Scheduler = 4,
}

#[derive(Debug)]
pub(super) struct Slot {
    number: u16,
    dir: PathBuf,
    _lock: File,
}

impl Slot {
    /// The first slot whose directory nobody holds and whose ports nobody listens on, its directory emptied of
    /// what a killed process left.
    pub(super) fn take() -> Result<Slot> {
        let base = base_dir();
        for number in 0..SLOTS {
            let dir = base.join(format!("wasklet-control-plane-{number}"));
            let Some(lock) = try_lock(&dir)? else {
                continue;
            };
            let slot = Slot { number, dir, _lock: lock };
            if slot.ports_are_free() {
                slot.empty()?;
                return Ok(slot);
            }
        }
        bail!("all {SLOTS} slots for control planes under {} are in use", base.display())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn port(&self, port: Port) -> u16 {
        FIRST_PORT + self.number * PORTS_PER_SLOT + port as u16
    }

    pub(super) fn url(&self, port: Port) -> String {
        format!("https://127.0.0.1:{}", self.port(port))
    }

    pub(super) fn plain_url(&self, port: Port) -> String {
        format!("http://127.0.0.1:{}", self.port(port))
    }

    /// Pod addresses: a /19 of 10.200.0.0/13, for 32 nodes with a /24 each.
    pub(super) fn cluster_cidr(&self) -> String {
        format!("{}/19", self.network(200))
    }

    /// Service addresses: a /19 of 10.208.0.0/13.
    pub(super) fn service_cidr(&self) -> String {
        format!("{}/19", self.network(208))
    }

    /// The one that the API server gives to the Service `kubernetes`.
    pub(super) fn first_service_address(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network(208)) + 1)
    }

    fn network(&self, second_octet: u32) -> Ipv4Addr {
        Ipv4Addr::from((10 << 24) + (second_octet << 16) + (u32::from(self.number) << 13))
    }

    fn ports_are_free(&self) -> bool {
        let first = FIRST_PORT + self.number * PORTS_PER_SLOT;
        (first..first + PORTS_PER_SLOT).all(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok())
    }

    fn empty(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.dir).with_context(|| format!("reading {}", self.dir.display()))? {
            let entry = entry.with_context(|| format!("reading {}", self.dir.display()))?;
            let path = entry.path();
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(&path),
                _ => std::fs::remove_file(&path),
            };
            removed.with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os(KEEP).is_some() {
            eprint(&format!("the control plane's logs are under {}", self.dir.join("logs").display()));
        } else if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprint(&format!("{} stays behind: {error}", self.dir.display()));
        }
    }
}

/// Memory where it can be had: an etcd on a slow disk makes every test slow.
fn base_dir() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if tempfile::tempfile_in(memory).is_ok() { memory.to_path_buf() } else { std::env::temp_dir() }
}

/// `None` where the directory is another's: another process's by its lock, or another user's.
fn try_lock(dir: &Path) -> Result<Option<File>> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("creating {}", dir.display()));
        }
        _ => {}
    }
    let Ok(lock) = File::open(dir) else {
        return Ok(None);
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("locking {}", dir.display()));
        }
    }
    // Its last holder may have removed the directory between our opening and our locking it, and another made it
    // anew; then the lock we hold is of nothing.
    let (Ok(locked), Ok(current)) = (lock.metadata(), std::fs::symlink_metadata(dir)) else {
        return Ok(None);
    };
    let ours = current.uid() == rustix::process::geteuid().as_raw() && current.mode() & 0o777 == 0o700;
    Ok((ours && locked.ino() == current.ino()).then_some(lock))
}

#[expect(clippy::print_stderr, reason = "a test's log is its standard error")]
pub(super) fn eprint(line: &str) {
    eprintln!("control plane: {line}");
}
