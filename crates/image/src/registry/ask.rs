//! One request, as a value: so that it can be sent again with a token, or to another host.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use reqwest::{Body, Client, Method, RequestBuilder, Url};
use tokio::fs::File;
use tokio::sync::watch;
use tokio_util::io::ReaderStream;

const CHUNK_BYTES: usize = 256 * 1024;

/// A request of the distribution protocol.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) place: Place,
    /// Media types.
    pub(crate) accept: Option<String>,
    /// Bytes that are here already.
    pub(crate) from_byte: u64,
    pub(crate) content: Option<Content>,
    /// Hears how many bytes of the content have gone out.
    pub(crate) sent: Option<watch::Sender<u64>>,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Beneath `/v2/REPOSITORY/` of the host.
    Path(String),
    /// Where the host itself said.
    Url(Url),
}

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Of this media type.
    Bytes(String, Bytes),
    /// A file of this many bytes.
    File(PathBuf, u64),
}

impl Ask {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, place: Place::Path(path.into()), accept: None, from_byte: 0, content: None, sent: None }
    }

    pub(crate) fn to(method: Method, url: Url) -> Self {
        Self { place: Place::Url(url), ..Self::new(method, "") }
    }

    /// The request to `url`, without anything that says who asks.
    pub(crate) async fn request(&self, client: &Client, url: Url) -> io::Result<RequestBuilder> {
        let mut request = client.request(self.method.clone(), url);
        if let Some(accept) = &self.accept {
            request = request.header(ACCEPT, accept);
        }
        if self.from_byte > 0 {
            request = request.header(RANGE, format!("bytes={}-", self.from_byte));
        }
        Ok(match &self.content {
            None if self.method == Method::POST => request.header(CONTENT_LENGTH, 0),
            None => request,
            Some(Content::Bytes(media_type, bytes)) => {
                let request = request.header(CONTENT_TYPE, media_type).header(CONTENT_LENGTH, bytes.len());
                let bytes = bytes.clone();
                let chunks = (0..bytes.len()).step_by(CHUNK_BYTES);
                let chunks = chunks.map(move |at| Ok(bytes.slice(at..bytes.len().min(at + CHUNK_BYTES))));
                request.body(self.counted(stream::iter(chunks)))
            }
            Some(Content::File(path, size)) => {
                let file = ReaderStream::with_capacity(File::open(path).await?, CHUNK_BYTES);
                let request = request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, *size);
                request.body(self.counted(file))
            }
        })
    }

    fn counted(&self, content: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
        let Some(sent) = self.sent.clone() else { return Body::wrap_stream(content) };
        // It may be sent once more, with a token.
        sent.send_replace(0);
        let count = move |chunk: &Bytes| sent.send_modify(|bytes| *bytes += chunk.len() as u64);
        Body::wrap_stream(content.inspect_ok(count))
    }
}
