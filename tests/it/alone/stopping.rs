//! Ctrl-C, once and twice, and two wasklets that share a state directory.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bed::guests::wat;
use crate::bed::place::Place;
use crate::bed::{PATIENCE, ports, until};

/// A pod's grace period where nothing else is said.
const GRACE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn ctrl_c_ends_a_command_as_sigterm_would() -> Result<()> {
    let place = Place::new().await?;
    let mut wasklet = place.start(&[place.put("ticks.wasm", wat::ticks())?]).await?;
    wasklet.await_stdout("a tick", |said| said.contains("tick\n")).await?;
    wasklet.signal(Signal::INT);
    let asked = Instant::now();
    let ended = wasklet.ended().await?;
    assert_eq!(ended.code, 143, "{ended:?}");
    assert!(asked.elapsed() < GRACE, "longer than the grace period");
    assert!(ended.stderr.contains("wasklet: stopping"), "{ended:?}");
    assert!(!place.path("state/run").read_dir()?.any(|_| true), "the run's own directory stays behind");
    Ok(())
}

#[tokio::test]
async fn a_second_ctrl_c_does_not_wait_for_the_guest() -> Result<()> {
    let place = Place::new().await?;
    let port = ports::free()?;
    let guest = place.put("echoes.wasm", wat::http_echoes())?;
    let mut wasklet = place.start(&["--publish", &format!("127.0.0.1:{port}:80"), &guest]).await?;
    // A request whose body does not end keeps the guest from ending by itself.
    let mut client = connected(port).await?;
    client.write_all(b"POST / HTTP/1.1\r\nhost: guest\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await?;
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("hello") {
        let read = tokio::time::timeout(PATIENCE, client.read_buf(&mut answer)).await.context("no echo")??;
        assert!(read > 0, "the guest ended its answer: {}", String::from_utf8_lossy(&answer));
    }

    wasklet.signal(Signal::INT);
    wasklet.await_stderr("the way out", |said| said.contains("once more to stop at once")).await?;
    let asked = Instant::now();
    wasklet.signal(Signal::INT);
    let ended = wasklet.ended().await?;
    assert_eq!(ended.code, 130, "{ended:?}");
    assert!(asked.elapsed() < GRACE / 2, "the second Ctrl-C waited {:?}", asked.elapsed());
    drop(client);
    Ok(())
}

/// A connection to the guest, as soon as it listens.
async fn connected(port: u16) -> Result<TcpStream> {
    let address = ("127.0.0.1", port);
    until("the guest to listen", PATIENCE, async || Ok(TcpStream::connect(address).await?)).await
}

#[tokio::test]
async fn two_at_once_share_a_state_directory() -> Result<()> {
    let place = Place::new().await?;
    let ticks = place.put("ticks.wasm", wat::ticks())?;
    let mut first = place.start(&[&ticks]).await?;
    first.await_stdout("a tick", |said| said.contains("tick\n")).await?;
    // The same guest once more, and another.
    let mut second = place.start(&[&ticks]).await?;
    second.await_stdout("a tick", |said| said.contains("tick\n")).await?;
    let third = place.run(&[place.put("prints.wasm", wat::prints_and_exits("me too\n", 0))?]).await?;
    assert_eq!((third.code, third.text().as_str()), (0, "me too\n"), "{third:?}");
    assert!(first.runs() && second.runs());
    for one in [first, second] {
        one.signal(Signal::INT);
        assert_eq!(one.ended().await?.code, 143);
    }
    Ok(())
}
