//! A layer's bytes: a compressed archive comes in, its tar stream goes out, counted and hashed while it passes.
//!
//! The content decides how it is compressed, as media types of other tools are not always right about it. No more bytes
//! ever come out than are allowed, whatever a small archive claims to unfold to.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

const BUFFER_BYTES: usize = 128 * 1024;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Frames of anything but data may come before the data; their magic numbers differ in the lowest four bits.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];

/// What all layers of one image may still unfold to.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    left_bytes: Rc<Cell<u64>>,
    spent: Rc<Cell<bool>>,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { left_bytes: Rc::new(Cell::new(bytes)), spent: Rc::default() }
    }

    /// Whether more was asked for than there was.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.get()
    }
}

/// The tar stream of one layer.
pub(super) struct Layer {
    stream: Box<dyn Read>,
    hasher: Sha256,
    budget: Budget,
}

impl Layer {
    pub(super) fn open(blob: File, budget: &Budget) -> io::Result<Self> {
        let mut blob = BufReader::with_capacity(BUFFER_BYTES, blob);
        let begin = blob.fill_buf()?;
        let stream: Box<dyn Read> = if begin.starts_with(GZIP) {
            Box::new(MultiGzDecoder::new(blob))
        } else if begin.starts_with(ZSTD) || begin.get(1..4) == Some(ZSTD_SKIPPABLE) {
            Box::new(ZstdFrames::new(blob))
        } else {
            Box::new(blob)
        };
        Ok(Self { stream, hasher: Sha256::new(), budget: budget.clone() })
    }

    /// Reads what is left behind the archive's end, and gives the digest of the whole.
    pub(super) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest::from_hasher(self.hasher))
    }
}

impl Read for Layer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        let left = self.budget.left_bytes.get();
        match left.checked_sub(count as u64) {
            Some(left) => self.budget.left_bytes.set(left),
            None => {
                self.budget.spent.set(true);
                return Err(io::Error::other("it unfolds to more than is allowed"));
            }
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// A zstd stream of any number of frames, of which some may carry no data.
struct ZstdFrames {
    source: BufReader<File>,
    frame: FrameDecoder,
}

impl ZstdFrames {
    fn new(source: BufReader<File>) -> Self {
        Self { source, frame: FrameDecoder::new() }
    }

    /// Starts the next frame of data; `false` at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.frame.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl Read for ZstdFrames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.frame.can_collect() == 0 {
            if !self.frame.is_finished() {
                let decoded = self.frame.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
                decoded.map_err(io::Error::other)?;
            } else if !self.next_frame()? {
                return Ok(0);
            }
        }
        self.frame.read(buffer)
    }
}
