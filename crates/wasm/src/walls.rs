//! How many pods one process can hold: what the machine allows it of open files, memory mappings and address space.
//!
//! In come the process's limits, out goes a number of pods, of one parked command each, which take most of all three. Never
//! here: memory and CPU, of which the scheduler keeps account.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where the kernel says how many mappings a process may have.
const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";
/// As many mappings as address space has room for pods; well known from databases that ask for the same.
const ENOUGH_MAPS: u64 = 262_144;

/// Files that the process itself holds open: its sockets, images, records.
const OWN_FILES: u64 = 512;
/// Of a pod: its log, its directories, sockets. Measured: 3 or 4, and 1 for each volume.
const POD_FILES: u64 = 8;
/// Mappings of the process itself: its threads, the pool of HTTP instances, compiled code.
const OWN_MAPS: u64 = 4_096;
/// Of a guest: its stack, its memories with their guards. Measured: 5.3.
const POD_MAPS: u64 = 8;
/// What user space has on 64-bit machines whose page tables have four levels.
const ADDRESS_SPACE: u64 = 1 << 47;
/// Of the process itself.
const OWN_ADDRESS_SPACE: u64 = 8 << 30;
/// Of the pool of HTTP instances, where there is one: it reserves a memory for each of them.
const POOL_ADDRESS_SPACE: u64 = 4 << 40;
/// Of a guest: one memory of 4 GiB with its guards, and a stack.
const POD_ADDRESS_SPACE: u64 = (4 << 30) + (72 << 20);

/// What this process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Walls {
    open_files: u64,
    mappings: u64,
    address_space: u64,
}

/// Raises what this process may raise: the open files as far as they go and, with the right to it, the machine's
/// `vm.max_map_count`. What fails is said in the log; the node then has room for fewer pods.
pub fn raise() {
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: files.maximum, maximum: files.maximum };
    if files.current != files.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "the limit on open files stays at {:?}", files.current);
    }
    match raise_maps() {
        Ok(None) => {}
        Ok(Some(before)) => tracing::info!(before, now = ENOUGH_MAPS, "vm.max_map_count raised"),
        Err(error) => tracing::info!(%error, "vm.max_map_count stays as it is, which limits how many pods fit"),
    }
}

/// The value from before, if it was too low.
fn raise_maps() -> io::Result<Option<u64>> {
    let before = max_map_count()?;
    if before >= ENOUGH_MAPS {
        return Ok(None);
    }
    fs::write(MAX_MAP_COUNT, ENOUGH_MAPS.to_string())?;
    Ok(Some(before))
}

fn max_map_count() -> io::Result<u64> {
    fs::read_to_string(MAX_MAP_COUNT)?.trim().parse().map_err(io::Error::other)
}

impl Walls {
    /// Those of this moment. What cannot be read is no limit.
    pub(crate) fn now() -> Self {
        let limit = |resource| getrlimit(resource).current.unwrap_or(u64::MAX);
        Self {
            open_files: limit(Resource::Nofile),
            mappings: max_map_count().unwrap_or(u64::MAX),
            address_space: limit(Resource::As).min(ADDRESS_SPACE),
        }
    }

    /// How many pods fit, beside a pool of HTTP instances or without.
    pub(crate) fn pods(self, is_pooled: bool) -> u32 {
        let own_space = OWN_ADDRESS_SPACE + if is_pooled { POOL_ADDRESS_SPACE } else { 0 };
        let fit = |there: u64, own: u64, each: u64| there.saturating_sub(own) / each;
        let pods = fit(self.open_files, OWN_FILES, POD_FILES).min(fit(self.mappings, OWN_MAPS, POD_MAPS)).min(fit(
            self.address_space,
            own_space,
            POD_ADDRESS_SPACE,
        ));
        u32::try_from(pods).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Walls = Walls { open_files: u64::MAX, mappings: u64::MAX, address_space: ADDRESS_SPACE };

    #[test]
    fn the_nearest_wall_counts() {
        assert_eq!(WIDE.pods(true), 31193);
        assert_eq!(Walls { mappings: 65_530, ..WIDE }.pods(true), 7_679);
        assert_eq!(Walls { open_files: 1_024, ..WIDE }.pods(true), 64);
        assert_eq!(Walls { address_space: 64 << 30, ..WIDE }.pods(false), 13);
    }

    #[test]
    fn this_process_has_room() {
        assert!(Walls::now().pods(false) > 0, "{:?}", Walls::now());
    }
}
