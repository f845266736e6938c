//! Container logs, read.
//!
//! Comes in: a log file in CRI's format, and which part of it is wanted. Goes out: entries in order, while the container
//! runs and to the end of what it wrote. Rotation is followed. Never here: a whole file in memory, or a decision about who
//! may read.

mod entry;
mod tail;

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::sleep;

pub use entry::{Entry, Stream};

/// A reader at the end of a growing log looks again after this long…
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// …and at the longest after this, once nothing has come for a while.
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// A line longer than this is no line of a CRI log: the runtime cuts at 16 KiB.
const LONGEST_LINE: usize = 256 * 1024;

/// Which part of a log, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only what was written at or after this.
    pub since: Option<Timestamp>,
    /// At most so many bytes, all in all.
    pub limit_bytes: Option<u64>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Goes on until the container has ended.
    pub follow: bool,
    /// Only one of the two streams.
    pub stream: Option<Stream>,
}

/// A log being read.
pub struct LogReader {
    path: PathBuf,
    file: File,
    inode: u64,
    buffer: BytesMut,
    options: LogOptions,
    left: Option<u64>,
    /// Which of the two streams is in the middle of a line.
    line_open: [bool; 2],
}

impl LogReader {
    /// Opens the log where the wanted part begins.
    ///
    /// # Errors
    /// The file cannot be read; `NotFound` if there is none.
    pub async fn open(path: &Path, options: LogOptions) -> io::Result<Self> {
        let mut file = File::open(path).await?;
        let inode = file.metadata().await?.ino();
        if let Some(lines) = options.tail_lines {
            let start = tail::start(&mut file, lines).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        let left = options.limit_bytes;
        Ok(Self { path: path.to_owned(), file, inode, buffer: BytesMut::new(), options, left, line_open: [false; 2] })
    }

    /// The next entry that is wanted; none at the end. With `follow`, `ended` says whether the container is over: what it
    /// wrote before that is still read. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The file cannot be read any further.
    pub async fn next(&mut self, ended: impl Fn() -> bool) -> io::Result<Option<Entry>> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(entry) = self.take_line() {
                if self.wanted(&entry) {
                    return Ok(Some(entry));
                }
                continue;
            }
            // Asked before the read: what was written before the end is then surely seen.
            let over = !self.options.follow || ended();
            if self.fill().await? {
                pause = FIRST_PAUSE;
                continue;
            }
            if self.rotated().await {
                continue;
            }
            if over {
                return Ok(None);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// The next piece as `kubectl logs` shows it; none at the end or at the limit.
    ///
    /// # Errors
    /// The file cannot be read any further.
    pub async fn next_text(&mut self, ended: impl Fn() -> bool) -> io::Result<Option<Bytes>> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let Some(entry) = self.next(ended).await? else { return Ok(None) };
        let mut text = Vec::with_capacity(entry.text.len() + 40);
        let line_open = &mut self.line_open[usize::from(entry.stream == Stream::Stderr)];
        if self.options.timestamps && !*line_open {
            text.extend_from_slice(entry.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&entry.text);
        *line_open = entry.partial;
        if !entry.partial {
            text.push(b'\n');
        }
        if let Some(left) = &mut self.left {
            text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= text.len() as u64;
        }
        Ok(Some(text.into()))
    }

    fn wanted(&self, entry: &Entry) -> bool {
        let stream = self.options.stream.is_none_or(|stream| stream == entry.stream);
        let since = self.options.since.is_none_or(|since| entry.at().is_none_or(|at| at >= since));
        stream && since
    }

    /// One whole line out of the buffer. A line that is none of a CRI log is passed over.
    fn take_line(&mut self) -> Option<Entry> {
        loop {
            let end = self.buffer.iter().position(|&byte| byte == b'\n')?;
            let line = self.buffer.split_to(end + 1).freeze();
            if let Some(entry) = Entry::parse(&line.slice(..end)) {
                return Some(entry);
            }
        }
    }

    /// Reads on; false at the end of the file.
    async fn fill(&mut self) -> io::Result<bool> {
        if self.buffer.len() > LONGEST_LINE {
            self.buffer.clear();
        }
        self.buffer.reserve(CHUNK);
        Ok(self.file.read_buf(&mut self.buffer).await? > 0)
    }

    /// Whether another file stands at the path by now; it is then the one that is read.
    async fn rotated(&mut self) -> bool {
        let Ok(file) = File::open(&self.path).await else { return false };
        let Ok(metadata) = file.metadata().await else { return false };
        if metadata.ino() == self.inode {
            return false;
        }
        self.inode = metadata.ino();
        self.file = file;
        // A last line without an end will never get one now.
        self.buffer.clear();
        true
    }
}

#[cfg(test)]
mod tests;
