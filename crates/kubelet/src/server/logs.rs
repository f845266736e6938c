//! `/containerLogs`: what is asked, and the bytes.
//!
//! In comes the query, out go the log's bytes as they are read. Memory holds a few pieces, however long the log; a client
//! that does not read makes the reader wait.

use std::{path::Path, sync::Arc};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::pods::Pods;
use crate::logs::{LogOptions, LogReader, Stream};

/// Entries that are there already go out together up to this many bytes.
const PIECE: usize = 16 * 1024;

/// Why a query is refused; the texts are the kubelet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A value cannot be read.
    Undecodable,
    /// Values make no sense.
    Invalid,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    pub(super) previous: bool,
    pub(super) options: LogOptions,
}

impl Wanted {
    /// Reads the query as the API server reads PodLogOptions. Parameters it does not know are no error there.
    pub(super) fn parse(query: &[(String, String)], now: Timestamp) -> Result<Self, Refusal> {
        let mut wanted = Self::default();
        let mut since_seconds = None;
        let mut seen = Vec::new();
        for (name, value) in query {
            // Of a parameter given twice, the first counts.
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            let options = &mut wanted.options;
            match name.as_str() {
                "previous" => wanted.previous = flag(value),
                "follow" => options.follow = flag(value),
                "timestamps" => options.timestamps = flag(value),
                "tailLines" => options.tail_lines = at_least(0, value)?.or(options.tail_lines),
                "tail" if value != "all" => options.tail_lines = at_least(0, value)?,
                "limitBytes" => options.limit_bytes = at_least(1, value)?,
                "sinceSeconds" => since_seconds = at_least(1, value)?,
                "sinceTime" if !value.is_empty() => {
                    options.since = Some(value.parse().map_err(|_| Refusal::Undecodable)?);
                }
                "stream" => {
                    options.stream = match value.as_str() {
                        "" | "All" => None,
                        "Stdout" => Some(Stream::Stdout),
                        "Stderr" => Some(Stream::Stderr),
                        _ => return Err(Refusal::Invalid),
                    }
                }
                _ => {}
            }
        }
        if let Some(seconds) = since_seconds {
            if wanted.options.since.is_some() {
                return Err(Refusal::Invalid);
            }
            let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            wanted.options.since = Some(now.saturating_sub(seconds).unwrap_or(Timestamp::MIN));
        }
        if wanted.options.stream.is_some() && wanted.options.tail_lines.is_some() {
            // So the API server says, too: lines of both streams are counted together.
            return Err(Refusal::Invalid);
        }
        Ok(wanted)
    }
}

/// As Kubernetes reads a flag: there is none but these two ways to say no.
fn flag(value: &str) -> bool {
    !matches!(value, "false" | "0")
}

/// A number that is at least so much; nothing is no number.
fn at_least(least: i64, value: &str) -> Result<Option<u64>, Refusal> {
    if value.is_empty() {
        return Ok(None);
    }
    let number: i64 = value.parse().map_err(|_| Refusal::Undecodable)?;
    if number < least { Err(Refusal::Invalid) } else { Ok(u64::try_from(number).ok()) }
}

/// The log as a response's body.
pub(super) async fn body(
    path: &Path,
    options: LogOptions,
    pods: Arc<dyn Pods>,
    pod: Arc<Pod>,
    container_id: String,
) -> std::io::Result<Body> {
    let reader = LogReader::open(path, options).await?;
    let ended = move || !pods.is_running(&pod, &container_id);
    let pieces = stream::try_unfold((reader, ended), async |(mut reader, ended)| {
        let piece = next_piece(&mut reader, &ended).await?;
        Ok::<_, std::io::Error>(piece.map(|piece| (piece, (reader, ended))))
    });
    Ok(Body::from_stream(pieces))
}

/// The next entry, and with it those that need no waiting for.
async fn next_piece(reader: &mut LogReader, ended: &impl Fn() -> bool) -> std::io::Result<Option<Bytes>> {
    let Some(first) = reader.next_text(ended).await? else { return Ok(None) };
    let mut piece = BytesMut::from(first);
    while piece.len() < PIECE {
        // What cannot be had at once, the end and errors included, is met again by the next call.
        match reader.next_text(ended).now_or_never() {
            Some(Ok(Some(more))) => piece.extend_from_slice(&more),
            _ => break,
        }
    }
    Ok(Some(piece.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Wanted, Refusal> {
        let now = Timestamp::from_second(1000).unwrap();
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs: Vec<_> = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Wanted::parse(&pairs, now)
    }

    #[test]
    fn reads_the_api_servers_options() {
        let wanted =
            parse("follow=true&previous=0&timestamps&tailLines=5&limitBytes=10&sinceSeconds=60&pretty=x").unwrap();
        assert!(!wanted.previous);
        let options = LogOptions {
            follow: true,
            timestamps: true,
            tail_lines: Some(5),
            limit_bytes: Some(10),
            since: Some(Timestamp::from_second(940).unwrap()),
            stream: None,
        };
        assert_eq!(wanted.options, options);
        assert_eq!(parse("stream=Stderr").unwrap().options.stream, Some(Stream::Stderr));
        assert_eq!(parse("stream=All&tailLines=1").unwrap().options.stream, None);
        assert_eq!(parse("tail=all").unwrap(), Wanted::default());
        let since = parse("sinceTime=2026-01-02T03:04:05Z").unwrap().options.since;
        assert_eq!(since, Some("2026-01-02T03:04:05Z".parse().unwrap()));
    }

    #[test]
    fn refuses_as_the_kubelet_does() {
        for query in ["tailLines=x", "limitBytes=1.5", "sinceTime=yesterday", "sinceSeconds=99999999999999999999"] {
            assert_eq!(parse(query), Err(Refusal::Undecodable), "{query}");
        }
        let invalid = [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z",
            "stream=stdout",
            "stream=Stdout&tailLines=1",
        ];
        for query in invalid {
            assert_eq!(parse(query), Err(Refusal::Invalid), "{query}");
        }
    }
}
