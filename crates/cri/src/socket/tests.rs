//! Tests of `socket`.

use std::os::unix::net::UnixListener as StdListener;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::Client;
use crate::fake::Fake;

/// A fake served at `path`, until told to stop.
async fn served(path: &Path) -> (oneshot::Sender<()>, JoinHandle<Result<(), SocketError>>) {
    let socket = UnixSocket::bind(path).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = Fake::new().routes();
    let serving = tokio::spawn(socket.serve(routes, async move {
        let _ = stopped.await;
    }));
    (stop, serving)
}

fn client(path: &Path) -> Client {
    Client::new(channel::unix(&format!("unix://{}", path.display())).unwrap())
}

#[tokio::test]
async fn a_socket_is_its_owners_alone_and_goes_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cri.sock");
    let (stop, serving) = served(&path).await;
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = client(&path);
    assert_eq!(client.version().await.unwrap().runtime_name, "fake");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(client.version().await.unwrap_err().is_unavailable());
}

#[tokio::test]
async fn an_open_event_stream_does_not_keep_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cri.sock");
    let (stop, serving) = served(&path).await;
    let _events = client(&path).container_events().await.unwrap();
    stop.send(()).unwrap();
    time::timeout(DRAIN * 5, serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_living_servers_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cri.sock");
    let (_stop, _serving) = served(&path).await;
    let error = UnixSocket::bind(&path).await.unwrap_err();
    assert!(matches!(error, SocketError::InUse { .. }), "{error:?}");
    client(&path).version().await.unwrap();
}

#[tokio::test]
async fn a_dead_servers_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cri.sock");
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves the file");
    let (_stop, _serving) = served(&path).await;
    client(&path).version().await.unwrap();
}

#[tokio::test]
async fn a_client_outlives_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cri.sock");
    let client = client(&path);
    for _ in 0..2 {
        let (stop, serving) = served(&path).await;
        client.version().await.unwrap();
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn another_file_is_not_taken_for_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cri.sock");
    fs::write(&path, "precious").unwrap();
    let error = UnixSocket::bind(&path).await.unwrap_err();
    assert!(matches!(error, SocketError::NotASocket { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let error = UnixSocket::bind(Path::new("/nonexistent/cri.sock")).await.unwrap_err();
    assert_eq!(error.to_string(), "binding /nonexistent/cri.sock");
}

#[tokio::test]
async fn a_successors_socket_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cri.sock");
    let first = UnixSocket::bind(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _second = UnixSocket::bind(&path).await.unwrap();
    drop(first);
    assert!(path.exists());
}
