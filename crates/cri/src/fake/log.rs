//! Log files in CRI's format.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use jiff::Timestamp;

/// Appends whole lines of standard output, written at `now` (nanoseconds since the epoch). Makes the file, not its
/// directory: that is the kubelet's.
pub(super) fn write(path: &Path, now: i64, lines: &[String]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let at = Timestamp::from_nanosecond(i128::from(now)).map_err(io::Error::other)?;
    for line in lines {
        writeln!(file, "{at:.9} stdout F {line}")?;
    }
    Ok(())
}
