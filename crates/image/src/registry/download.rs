//! One blob: it is streamed into the store and checked on the way; what broke off is gone on with where it broke off.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, Response, StatusCode};

use super::ask::Ask;
use super::failure::{Failure, RegistryError};
use super::host::Host;
use super::tries::Tries;
use crate::manifest::Descriptor;
use crate::store::{Ingest, IngestError, Store, StoreError};

/// Bytes that a try must have brought for it not to count.
const PROGRESS_BYTES: u64 = 1024 * 1024;

impl Host {
    /// Fetches a blob into the store.
    pub(super) async fn download(
        &self,
        blob: &Descriptor,
        store: &Store,
        mut tries: Tries,
        stall_timeout: Duration,
        received: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let mut ingest = store.ingest().map_err(RegistryError::Store)?;
        loop {
            let (before, resumed) = (ingest.written_bytes(), ingest.written_bytes() > 0);
            match self.fetch(blob, &mut ingest, store, stall_timeout, received).await {
                Ok(()) => {
                    let mismatch = match ingest.finish(blob).await {
                        Ok(()) => return Ok(()),
                        Err(IngestError::Io(source)) => {
                            return Err(RegistryError::Store(StoreError::Write(Arc::new(source))));
                        }
                        Err(mismatch) => mismatch.to_string(),
                    };
                    // Two halves of two answers may not belong together.
                    if !resumed {
                        return Err(RegistryError::Corrupt(mismatch));
                    }
                    tries.after(Failure::passing(mismatch)).await?;
                    ingest = store.ingest().map_err(RegistryError::Store)?;
                }
                Err(failure) => {
                    if ingest.written_bytes() >= before.saturating_add(PROGRESS_BYTES) {
                        tries.begin_again();
                    }
                    tries.after(failure).await?;
                }
            }
        }
    }

    /// Appends what the host sends, until there is no more.
    async fn fetch(
        &self,
        blob: &Descriptor,
        ingest: &mut Ingest,
        store: &Store,
        stall_timeout: Duration,
        received: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Failure> {
        let from_byte = ingest.written_bytes();
        if from_byte == blob.size && from_byte > 0 {
            return Ok(());
        }
        let ask = Ask { from_byte, ..Ask::new(Method::GET, format!("blobs/{}", blob.digest)) };
        let answer = self.send(&ask).await?;
        if from_byte > 0 && !goes_on(&answer, from_byte) {
            *ingest = store.ingest().map_err(|source| Failure::Lasting(RegistryError::Store(source)))?;
        }
        let mut chunks = answer.bytes_stream();
        loop {
            let chunk = match tokio::time::timeout(stall_timeout, chunks.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(chunk)) => chunk.map_err(|error| Failure::of_request(&error))?,
                Err(_) => return Err(Failure::passing("the connection timed out: nothing came on it")),
            };
            let written = ingest.write(&chunk).await;
            written.map_err(|source| Failure::Lasting(RegistryError::Store(StoreError::Write(Arc::new(source)))))?;
            received(ingest.written_bytes());
            // One byte too many is enough to see that it is wrong.
            if ingest.written_bytes() > blob.size {
                return Ok(());
            }
        }
    }
}

/// Whether an answer begins where we left off, and not at the start.
fn goes_on(answer: &Response, from_byte: u64) -> bool {
    let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let begins = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok());
    answer.status() == StatusCode::PARTIAL_CONTENT && begins == Some(from_byte)
}
