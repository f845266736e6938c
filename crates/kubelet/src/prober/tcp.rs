//! `tcpSocket`: whether a connection can be opened. It is closed at once.

use std::time::Duration;

use decide::event::ProbeResult;
use tokio::time::timeout;

use super::dial;

/// Opens a connection and closes it.
pub(super) async fn probe(host: &str, port: u16, limit: Duration) -> ProbeResult {
    match timeout(limit, dial::tcp(host, port)).await {
        Ok(Ok(_)) => ProbeResult::Success,
        Ok(Err(why)) => ProbeResult::Failure(why),
        Err(_) => ProbeResult::Failure(format!("dial tcp {}: i/o timeout", dial::authority(host, port))),
    }
}
