//! One HTTP request, as curl would make it.
//!
//! Goes out: the answer's status and body. Never here: a retry, unless a test asks to wait.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{PATIENCE, until, until_true};

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What a server said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The body, as text.
    pub(crate) body: String,
}

/// `GET http://address/path` over a connection of its own.
pub(crate) async fn get(address: impl Into<SocketAddr>, path: &str) -> Result<Answer> {
    let address = address.into();
    let answer = tokio::time::timeout(ANSWER_WITHIN, exchange(address, path)).await;
    answer.with_context(|| format!("http://{address}{path}: no answer in {ANSWER_WITHIN:?}"))?
}

async fn exchange(address: SocketAddr, path: &str) -> Result<Answer> {
    let step = || format!("http://{address}{path}");
    let stream = TcpStream::connect(address).await.with_context(step)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(step)?;
    let request = hyper::Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
    };
    let connection = tokio::spawn(connection);
    let outcome = exchange.await;
    connection.abort();
    let (status, body) = outcome.with_context(step)?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Waits until there is an answer with status 200, and gives its body.
pub(crate) async fn await_answer(address: impl Into<SocketAddr>, path: &str) -> Result<String> {
    let address = address.into();
    until("an HTTP answer", PATIENCE, async || {
        let answer = get(address, path).await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer.body)
    })
    .await
}

/// Waits until nobody listens there any more.
pub(crate) async fn await_silence(address: impl Into<SocketAddr>) -> Result<()> {
    let address = address.into();
    let silent = async || TcpStream::connect(address).await.is_err();
    until_true(&format!("nobody to listen at {address}"), PATIENCE, silent).await
}
