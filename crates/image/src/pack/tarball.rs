//! Files come in, a tar archive goes out that is the same for the same files: the order is the caller's, times are zero,
//! owners are root, and modes are one of two.

use std::io::{self, Write};

use tar::{Builder, EntryType, Header};

const FILE_MODE: u32 = 0o644;
const EXECUTABLE_MODE: u32 = 0o755;

pub(super) struct Tarball<W: Write>(Builder<W>);

impl<W: Write> Tarball<W> {
    pub(super) fn new(to: W) -> Self {
        Self(Builder::new(to))
    }

    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut header = header(EntryType::Directory, EXECUTABLE_MODE, 0);
        self.0.append_data(&mut header, format!("{path}/"), io::empty())
    }

    pub(super) fn file(&mut self, path: &str, content: &[u8], executable: bool) -> io::Result<()> {
        let mode = if executable { EXECUTABLE_MODE } else { FILE_MODE };
        self.0.append_data(&mut header(EntryType::Regular, mode, content.len() as u64), path, content)
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.0.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)
    }

    /// Ends the archive and gives back where it was written to.
    pub(super) fn finish(self) -> io::Result<W> {
        self.0.into_inner()
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
