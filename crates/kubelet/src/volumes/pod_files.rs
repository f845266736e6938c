//! The single files that the kubelet adds to a pod's containers, beside their volumes:
//!
//! ```text
//!   <root>/pods/<uid>/etc-hosts                          0644, the same for all containers
//!   <root>/pods/<uid>/containers/<name>/<8 hex digits>   0666, the termination message of one instance
//! ```
//! Comes in: a pod whose volumes are prepared. Goes out: CRI's mounts. Like the volumes, these files go with the pod's
//! directory. Never here: what is in them, or what a container wrote.

use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::v1;
use decide::event::Failure;
use decide::hosts;
use decide::names::{ContainerName, PodUid};
use decide::pod::Pod;

use super::error::VolumeError;
use super::layout::{make_private, single};
use super::mounts::utf8;
use super::{Held, Volumes, hold, on_disk};

const HOSTS: &str = "etc-hosts";
const HOSTS_NEW: &str = ".etc-hosts.new";
const HOSTS_MODE: u32 = 0o644;
/// Beneath a pod's directory, one for each container.
const CONTAINERS: &str = "containers";
/// Whoever the container runs as may write there.
const MESSAGE_MODE: u32 = 0o666;
/// Digits of the name of a termination message's file.
const MESSAGE_DIGITS: usize = 8;
/// A node's hosts file that is longer is none. In bytes.
const NODE_HOSTS_LIMIT: u64 = 1024 * 1024;

/// Whose hosts file a pod has.
pub enum Hosts {
    /// Its own, and this is all of it.
    OfPod(String),
    /// The node's, with what the pod adds.
    OfNode(Arc<Pod>),
}

impl Volumes {
    /// Writes the pod's hosts file and says how a container gets it.
    ///
    /// # Errors
    /// `CreateContainerConfigError`: it cannot be written, or the pod's volumes are not prepared.
    pub async fn hosts_file(&self, uid: &PodUid, hosts: Hosts) -> Result<v1::Mount, Failure> {
        let written = async {
            let (directory, held) = self.directory_of(uid).await?;
            on_disk(&held, move || write_hosts(&directory, hosts)).await
        };
        let path = written.await.map_err(|error| failed("hosts file", uid, &error))?;
        mount(path, hosts::PATH).map_err(|error| failed("hosts file", uid, &error))
    }

    /// Makes the empty file that an instance of a container writes its termination message into, seen at `guest`.
    ///
    /// # Errors
    /// `CreateContainerConfigError`: it cannot be made, or the pod's volumes are not prepared.
    pub async fn termination_message(
        &self,
        uid: &PodUid,
        container: &ContainerName,
        attempt: u32,
        guest: &str,
    ) -> Result<v1::Mount, Failure> {
        let made = async {
            let (directory, held) = self.directory_of(uid).await?;
            let directory = directory.join(CONTAINERS).join(single(container.as_str())?);
            // A creation that is tried again has the same attempt, and so leaves no second file behind.
            let path = directory.join(format!("{attempt:0MESSAGE_DIGITS$x}"));
            on_disk(&held, move || {
                make_private(&directory)?;
                fs::write(&path, b"").map_err(VolumeError::at("write", &path))?;
                set_mode(&path, MESSAGE_MODE)?;
                without_links(&path)
            })
            .await
        };
        let path = made.await.map_err(|error| failed("termination message", uid, &error))?;
        mount(path, guest).map_err(|error| failed("termination message", uid, &error))
    }

    /// The pod's directory, and the right to write in it. A pod that was released gets none, as it would stay behind.
    pub(super) async fn directory_of(&self, uid: &PodUid) -> Result<(PathBuf, Held), VolumeError> {
        let directory = self.shared.layout.pod(uid)?;
        let gate = self.lock().get(uid).map(|kept| kept.gate.clone()).ok_or(VolumeError::NotPrepared)?;
        let held = hold(gate).await?;
        // It may have been released while this waited.
        if self.lock().contains_key(uid) { Ok((directory, held)) } else { Err(VolumeError::NotPrepared) }
    }
}

/// Whether a file is the termination message of this container, by where it is: a mount may be the user's own.
pub(crate) fn is_termination_message(path: &Path, uid: &str, container: &str) -> bool {
    let digits = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parent = ["pods", uid, CONTAINERS, container].iter().collect::<PathBuf>();
    digits.len() == MESSAGE_DIGITS
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        && path.parent().is_some_and(|directory| directory.ends_with(parent))
}

/// Swapped in whole: a runtime may be reading the old one for another container.
fn write_hosts(directory: &Path, hosts: Hosts) -> Result<PathBuf, VolumeError> {
    let text = match hosts {
        Hosts::OfPod(text) => text.into_bytes(),
        Hosts::OfNode(pod) => hosts::host_network_file(&pod, &of_node(Path::new(hosts::PATH))?),
    };
    make_private(directory)?;
    let (new, path) = (directory.join(HOSTS_NEW), directory.join(HOSTS));
    fs::write(&new, text).map_err(VolumeError::at("write", &new))?;
    set_mode(&new, HOSTS_MODE)?;
    fs::rename(&new, &path).map_err(VolumeError::at("replace", &path))?;
    without_links(&path)
}

/// A node without such a file knows no names.
fn of_node(path: &Path) -> Result<Vec<u8>, VolumeError> {
    let mut text = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(NODE_HOSTS_LIMIT).read_to_end(&mut text));
    match read {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(VolumeError::at("read", path)(error)),
        _ => Ok(text),
    }
}

/// Whatever the process' own mask is.
fn set_mode(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(VolumeError::at("set the mode of", path))
}

/// The root directory may be reached by one.
fn without_links(path: &Path) -> Result<PathBuf, VolumeError> {
    fs::canonicalize(path).map_err(VolumeError::at("resolve", path))
}

fn mount(host: PathBuf, guest: &str) -> Result<v1::Mount, VolumeError> {
    Ok(v1::Mount {
        container_path: guest.to_owned(),
        host_path: utf8(host)?,
        propagation: v1::MountPropagation::PropagationPrivate.into(),
        ..v1::Mount::default()
    })
}

fn failed(what: &str, uid: &PodUid, error: &VolumeError) -> Failure {
    Failure::new("CreateContainerConfigError", format!("{what} of pod {uid}: {}", error.message()))
}
