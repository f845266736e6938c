//! Where the last lines of a file begin, found from its end.

use std::io::{self, SeekFrom};

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

const BLOCK: u64 = 64 * 1024;

/// The offset at which the last `lines` lines begin; the file's length for none.
pub(super) async fn start(file: &mut File, lines: u64) -> io::Result<u64> {
    let length = file.metadata().await?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut ends = 0;
    let mut block_end = length;
    while block_end > 0 {
        let block_start = block_end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(block_start)).await?;
        let mut block = Vec::new();
        (&mut *file).take(block_end - block_start).read_to_end(&mut block).await?;
        for (offset, _) in block.iter().enumerate().rev().filter(|&(_, &byte)| byte == b'\n') {
            let after = block_start + offset as u64 + 1;
            // The last byte ends the last line; it begins none.
            if after == length {
                continue;
            }
            ends += 1;
            if ends == lines {
                return Ok(after);
            }
        }
        block_end = block_start;
    }
    Ok(0)
}
