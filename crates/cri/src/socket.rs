//! A runtime's Unix socket: made for its owner alone, never taken from a server that lives, gone at the end.
//!
//! In come a path and services, out goes a socket that serves them until it is told to stop. Never here: the making of
//! the directory, whose mode and owner the caller knows.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::Stream;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time;
use tonic::service::Routes;

use crate::channel;

/// How long calls under way may still take once the socket is told to stop. Short, because the event stream of a kubelet
/// ends only with its runtime.
const DRAIN: Duration = Duration::from_secs(3);

/// A pause after an accept that failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a socket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another server answers there.
    #[error("{} is in use: another runtime listens there", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else than a socket has the name.
    #[error("{} exists and is not a socket; move it away or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A step of making the socket.
    #[error("{step} {}", path.display())]
    Step {
        /// What was being done, as in "binding".
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("serving {}", path.display())]
    Serve {
        /// The socket.
        path: PathBuf,
        /// What ended it.
        source: tonic::transport::Error,
    },
}

/// Binds `path` and serves `routes` there until `shutdown` is done. See [`UnixSocket`] for the two halves.
///
/// # Errors
/// What [`UnixSocket::bind`] and [`UnixSocket::serve`] say.
pub async fn serve_unix(
    path: &Path,
    routes: Routes,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), SocketError> {
    UnixSocket::bind(path).await?.serve(routes, shutdown).await
}

/// A bound socket: clients may connect from now on, and are answered once it is served. Dropped, it removes its file.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl UnixSocket {
    /// Binds `path` for its owner alone (mode 0600). What a dead server left behind there is replaced.
    ///
    /// # Errors
    /// `InUse` when a server answers at `path`, `NotASocket` when something else has the name, and the steps of making
    /// one.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        refuse_if_taken(path).await?;
        // Bound under another name and moved: at its own name it never has a wider mode than its own, and a dead
        // server's socket gives way in the same step.
        let new = beside(path);
        let failed = |step, source| SocketError::Step { step, path: path.to_owned(), source };
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new).map_err(|error| failed("binding", error))?;
        let ready = fs::set_permissions(&new, Permissions::from_mode(0o600))
            .and_then(|()| fs::symlink_metadata(&new))
            .and_then(|made| fs::rename(&new, path).map(|()| made));
        match ready {
            Ok(made) => {
                Ok(Self { listener, file: SocketFile { path: path.to_owned(), identity: (made.dev(), made.ino()) } })
            }
            Err(error) => {
                let _ = fs::remove_file(&new);
                Err(failed("making", error))
            }
        }
    }

    /// Serves `routes` until `shutdown` is done, then no longer accepts, removes the file, and gives the calls under way
    /// three seconds.
    ///
    /// # Errors
    /// The server ended by itself.
    pub async fn serve(self, routes: Routes, shutdown: impl Future<Output = ()> + Send) -> Result<(), SocketError> {
        let Self { listener, file } = self;
        let path = file.path.clone();
        let (stop, mut stopping) = watch::channel(false);
        let server =
            channel::server().add_routes(routes).serve_with_incoming_shutdown(accepted(listener), async move {
                let _ = stopping.wait_for(|stop| *stop).await;
            });
        let drained = async move {
            shutdown.await;
            stop.send_replace(true);
            drop(file);
            time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = server => served.map_err(|source| SocketError::Serve { path, source }),
            () = drained => {
                tracing::debug!(socket = %path.display(), "calls still under way at the end");
                Ok(())
            }
        }
    }
}

/// The file of a socket, which goes when this does, unless another server has taken the name since.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "the socket stays behind");
        }
    }
}

async fn refuse_if_taken(path: &Path) -> Result<(), SocketError> {
    let failed = |step, source| SocketError::Step { step, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking at", error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match time::timeout(DRAIN, UnixStream::connect(path)).await {
        Ok(Ok(_)) => Err(SocketError::InUse { path: path.to_owned() }),
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(()),
            _ => Err(failed("asking who listens at", error)),
        },
        // Its queue is full: a server that is slow to accept is still a server.
        Err(_) => Err(SocketError::InUse { path: path.to_owned() }),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

fn accepted(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    futures::stream::unfold(listener, async |listener| {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(error) => {
                    tracing::warn!(%error, "the runtime socket could not accept a connection");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests;
