//! A container's log file, in the CRI format that `kubectl logs` and every log collector read.
//!
//! ```text
//!   2026-11-23T14:42:00.123456789Z stdout F a whole line
//!   2026-11-23T14:42:00.123456789Z stderr P the beginning of a line that has not ended yet
//! ```
//! In come pieces of output in any size, out go whole lines, many to one write. A line longer than 16 KiB is cut into
//! parts tagged `P`, and so is what comes last without a newline. A file that cannot be written costs the lines, never
//! the guest. Memory is bounded: one unfinished line per stream, and one batch.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

/// A longer line is cut, as containerd does by default. In bytes.
const LONGEST_LINE: usize = 16 * 1024;
/// A batch is written once it is this long. In bytes.
const BATCH: usize = 128 * 1024;

/// A standard output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output; with a terminal, both.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Pieces of output made into lines of the CRI format.
#[derive(Debug, Default)]
struct Lines {
    unfinished_stdout: Vec<u8>,
    unfinished_stderr: Vec<u8>,
}

impl Lines {
    fn unfinished(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.unfinished_stdout,
            Stream::Stderr => &mut self.unfinished_stderr,
        }
    }

    /// Appends to `out` the lines that `piece` finishes.
    fn push(&mut self, stream: Stream, mut piece: &[u8], stamp: &str, out: &mut Vec<u8>) {
        let line = self.unfinished(stream);
        while !piece.is_empty() {
            let room = LONGEST_LINE - line.len();
            let newline = piece.iter().position(|&byte| byte == b'\n');
            let (taken, rest) = match newline {
                Some(at) if at <= room => {
                    write_line(out, stamp, stream, 'F', line, &piece[..at]);
                    (at + 1, true)
                }
                _ if piece.len() > room => {
                    write_line(out, stamp, stream, 'P', line, &piece[..room]);
                    (room, true)
                }
                _ => {
                    line.extend_from_slice(piece);
                    (piece.len(), false)
                }
            };
            if rest {
                line.clear();
            }
            piece = &piece[taken..];
        }
    }

    /// Appends to `out` what no newline will finish any more.
    fn finish(&mut self, stamp: &str, out: &mut Vec<u8>) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(self.unfinished(stream));
            if !line.is_empty() {
                write_line(out, stamp, stream, 'P', &line, b"");
            }
        }
    }
}

fn write_line(out: &mut Vec<u8>, stamp: &str, stream: Stream, tag: char, start: &[u8], end: &[u8]) {
    out.extend_from_slice(stamp.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(if tag == 'F' { b" F " } else { b" P " });
    out.extend_from_slice(start);
    out.extend_from_slice(end);
    out.push(b'\n');
}

/// The log file of one container. Without a path every line is dropped, as CRI has it for containers without a log.
#[derive(Debug)]
pub(crate) struct Log {
    path: Option<PathBuf>,
    file: Option<Arc<File>>,
    lines: Lines,
    batch: Vec<u8>,
    complained: bool,
}

impl Log {
    /// A log at `path`, which is opened for appending. A file that cannot be opened is said once; the lines are dropped
    /// until [`Log::reopen`] succeeds.
    pub(crate) async fn open(path: Option<PathBuf>) -> Self {
        let mut log = Self { path, file: None, lines: Lines::default(), batch: Vec::new(), complained: false };
        if let Err(error) = log.reopen().await {
            log.complain(&error);
        }
        log
    }

    /// Goes on in a new file at the same path, after the old one was renamed.
    ///
    /// # Errors
    /// When the new file cannot be opened; lines then go on into the old one.
    pub(crate) async fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = self.path.clone() {
            self.file = Some(Arc::new(blocking(move || open_file(&path)).await?));
        }
        Ok(())
    }

    /// Takes a piece of output; its whole lines are in the file after [`Log::flush`].
    pub(crate) async fn write(&mut self, stream: Stream, piece: &[u8], now: Timestamp) {
        if self.file.is_none() {
            return;
        }
        // A piece of nothing but newlines grows forty-fold: pieces of a fixed size keep the batch bounded.
        for piece in piece.chunks(LONGEST_LINE) {
            self.lines.push(stream, piece, &stamp(now), &mut self.batch);
            if self.batch.len() >= BATCH {
                self.flush().await;
            }
        }
    }

    /// Writes all whole lines so far to the file, in one go.
    pub(crate) async fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let Some(file) = self.file.clone() else {
            self.batch.clear();
            return;
        };
        let batch = std::mem::take(&mut self.batch);
        let (mut batch, written) = match tokio::task::spawn_blocking(move || {
            let written = (&*file).write_all(&batch);
            (batch, written)
        })
        .await
        {
            Ok(done) => done,
            Err(_runtime_is_gone) => return,
        };
        // After a burst its room is given back, as there may be thousands of logs.
        if batch.capacity() / 8 > batch.len() {
            batch.shrink_to(batch.len());
        }
        batch.clear();
        self.batch = batch;
        if let Err(error) = written {
            self.complain(&error);
        }
    }

    /// Writes what is left, the last line without its newline too.
    pub(crate) async fn finish(mut self, now: Timestamp) {
        if self.file.is_some() {
            self.lines.finish(&stamp(now), &mut self.batch);
            self.flush().await;
        }
    }

    /// Once per container: a full disk would otherwise fill the node's own log as well.
    fn complain(&mut self, error: &io::Error) {
        if !self.complained {
            self.complained = true;
            let path = self.path.as_deref().unwrap_or(Path::new("")).display();
            tracing::warn!(%path, %error, "the container's log cannot be written: lines are lost");
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|gone| Err(io::Error::other(gone)))
}

/// Go's `time.RFC3339Nano` at full width, in UTC.
fn stamp(now: Timestamp) -> String {
    format!("{now:.9}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const STAMP: &str = "2026-11-23T14:42:00.000000001Z";

    fn lines_of(pieces: &[(Stream, &[u8])]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for (stream, piece) in pieces {
            lines.push(*stream, piece, "T", &mut out);
        }
        lines.finish("T", &mut out);
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn small_pieces_become_lines_and_streams_do_not_mix() {
        let lines = lines_of(&[
            (Stream::Stderr, b"25"),
            (Stream::Stdout, b"out\nnext"),
            (Stream::Stderr, b"."),
            (Stream::Stderr, b"55\n\n"),
            (Stream::Stdout, b" line\nno newline"),
        ]);
        let expected =
            ["T stdout F out", "T stderr F 25.55", "T stderr F ", "T stdout F next line", "T stdout P no newline"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_long_line_is_cut_into_parts_that_add_up() {
        for length in [LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1, 3 * LONGEST_LINE, 3 * LONGEST_LINE + 5] {
            for piece_length in [1, 7, 4096, LONGEST_LINE, 1 << 20] {
                let text = [vec![b'x'; length], b"\ntail\n".to_vec()].concat();
                let pieces: Vec<_> = text.chunks(piece_length).map(|piece| (Stream::Stdout, piece)).collect();
                let lines = lines_of(&pieces);
                let (last, long) = lines.split_last().unwrap();
                assert_eq!(last, "T stdout F tail");
                let text_of = |line: &String| line["T stdout P ".len()..].len();
                assert_eq!(long.iter().map(text_of).sum::<usize>(), length);
                assert!(long.iter().all(|line| text_of(line) <= LONGEST_LINE));
                let (end, parts) = long.split_last().unwrap();
                assert!(end.starts_with("T stdout F ") && parts.iter().all(|part| part.starts_with("T stdout P ")));
            }
        }
    }

    #[test]
    fn stamps_have_nine_digits() {
        assert_eq!(stamp(STAMP.parse().unwrap()), STAMP);
        assert_eq!(stamp("2026-11-23T14:42:00Z".parse().unwrap()), "2026-11-23T14:42:00.000000000Z");
    }

    #[tokio::test]
    async fn a_renamed_file_is_left_behind_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ns_pod_uid/c/0.log");
        let now: Timestamp = STAMP.parse().unwrap();
        let mut log = Log::open(Some(path.clone())).await;
        log.write(Stream::Stdout, b"one\ntw", now).await;
        log.flush().await;
        let rotated = path.with_extension("log.1");
        std::fs::rename(&path, &rotated).unwrap();
        log.reopen().await.unwrap();
        log.write(Stream::Stdout, b"o\n", now).await;
        log.finish(now).await;
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), format!("{STAMP} stdout F one\n"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{STAMP} stdout F two\n"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[tokio::test]
    async fn a_full_disk_costs_lines_and_nothing_else() {
        let now: Timestamp = STAMP.parse().unwrap();
        let mut log = Log::open(Some("/dev/full".into())).await;
        for _ in 0..3 {
            log.write(Stream::Stderr, b"lost\n", now).await;
            log.flush().await;
        }
        assert!(log.complained && log.batch.is_empty());
        log.finish(now).await;
    }

    #[tokio::test]
    async fn a_flood_of_empty_lines_stays_within_its_batch() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = Log::open(Some(path.clone())).await;
        log.write(Stream::Stdout, &vec![b'\n'; 1 << 20], STAMP.parse().unwrap()).await;
        assert!(log.batch.capacity() < 2 << 20, "{}", log.batch.capacity());
        log.finish(STAMP.parse().unwrap()).await;
        assert_eq!(std::fs::read(&path).unwrap().iter().filter(|&&byte| byte == b'\n').count(), 1 << 20);
    }
}
