//! Where a node keeps everything, and how nothing of it stays.
//!
//! Comes in: a node's name. Goes out: a directory in the place that cargo gives to tests. What a kubelet mounts there
//! outlives it if it is killed, so mounts are taken away before the files, for the nodes of test processes that were
//! killed too. Never here: a directory of a process that runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, test_kill_process};

/// Set to anything: directories of nodes stay until the next run.
const KEEP: &str = "WASKLET_TEST_KEEP";

/// A node's directory, gone with its value.
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn create(node: &str) -> Result<Self> {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nodes");
        let ours = all.join(std::process::id().to_string());
        if !ours.exists() {
            remove_what_the_dead_left(&all);
        }
        let path = ours.join(node);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::env::var_os(KEEP).is_none() {
            remove(&self.path);
        }
    }
}

/// The shared node of a process that has ended, and all nodes of one that was killed.
fn remove_what_the_dead_left(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH)) {
            remove(&entry.path());
        }
    }
}

/// What cannot be removed now is tried again by the next run.
fn remove(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|path| path.replace("\\040", " "));
    let mut ours: Vec<_> = points.map(PathBuf::from).filter(|point| point.starts_with(directory)).collect();
    // Inner ones first.
    ours.sort_by(|a, b| b.cmp(a));
    for point in ours {
        let _ = unmount(&point, UnmountFlags::DETACH);
    }
    let _ = fs::remove_dir_all(directory);
}
