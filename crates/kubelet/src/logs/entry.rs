//! One line of a CRI log: `<RFC 3339 with nanoseconds> <stdout|stderr> <F|P> <text>`.

use bytes::Bytes;
use jiff::Timestamp;

/// Which of its two outputs a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was written, as the log has it.
    pub time: String,
    /// Where to.
    pub stream: Stream,
    /// The line goes on in the next entry of the same stream.
    pub partial: bool,
    /// What was written, without the end of the line.
    pub text: Bytes,
}

impl Entry {
    /// Reads a line without its end; none if it is no line of a CRI log.
    pub fn parse(line: &Bytes) -> Option<Self> {
        let mut fields = line.splitn(4, |&byte| byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // Tags are parted by colons, and the first says whether the line is whole.
        let partial = match fields.next()?.split(|&byte| byte == b':').next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        let text = fields.next().unwrap_or_default();
        Some(Self { time: time.to_owned(), stream, partial, text: line.slice_ref(text) })
    }

    /// When it was written, if its time can be read.
    pub fn at(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}
