//! What runs that were killed have left on the disk.
//!
//! Comes in: the directory of all runs. Goes out: nothing in it that no run uses. A run in progress is known by the lock its
//! runtime holds, and one that just begins by its age.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// A run has taken its lock by this age.
const YOUNG: Duration = Duration::from_secs(60);

/// Removes the directories of runs that are no more. What cannot be removed stays, with a line in the log.
pub(super) fn remove(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if is_young(&path) || is_used(&path) {
            continue;
        }
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!("removing {}, left by a run that was killed: {error}", path.display());
        }
    }
}

fn is_young(run: &Path) -> bool {
    let modified = fs::symlink_metadata(run).and_then(|metadata| metadata.modified());
    // A time that cannot be read, or lies ahead, is no reason to remove anything.
    modified.ok().and_then(|at| at.elapsed().ok()).is_none_or(|age| age < YOUNG)
}

fn is_used(run: &Path) -> bool {
    let Ok(lock) = File::open(run.join("runtime/lock")) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_what_no_run_uses_goes() {
        let runs = tempfile::tempdir().unwrap();
        let make = |name: &str, age: u64| {
            let run = runs.path().join(name);
            fs::create_dir_all(run.join("runtime")).unwrap();
            let lock = File::create(run.join("runtime/lock")).unwrap();
            File::open(&run).unwrap().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            lock
        };
        let lock = make("used", 3600);
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        make("young", 1);
        make("left", 3600);
        remove(runs.path());
        let mut names: Vec<_> = fs::read_dir(runs.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["used", "young"]);
    }
}
