//! The files of a container: a private root directory, the mounted host directories and images, and the few single files
//! that the kubelet adds to each container.
//!
//! ```text
//!   <state_dir>/containers/<id>/root/      the guest's "/", with an empty directory at each mount point (see `root`)
//!   <state_dir>/containers/<id>/files/N/   a writable "/dev" or "/etc" beside a root that is read-only
//! ```
//! In come mounts, out go directories for the guest to open. WASI opens directories only, so a single file is copied in,
//! and the termination message is copied out again when the container has ended. The guest may put what it likes into
//! its directories, links to anywhere too: nothing here follows one, on the way to a mounted directory neither. Not here:
//! what is in a volume.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use cri::v1;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::container::root::{Root, RootError};
use crate::guest::Mount;
use crate::host_path;
use crate::records::{RecordError, create_directory};
use crate::sandbox::spec::Dns;
use crate::service::error::ServiceError;

/// The file that the kubelet adds to each container on a pod network, with the pod's own names.
const HOSTS: &str = "/etc/hosts";
/// The kubelet reads less of a termination message. In bytes.
const TERMINATION_MESSAGE_LIMIT: u64 = 16 * 1024;
/// A larger hosts file is none. In bytes.
const HOSTS_LIMIT: u64 = 1024 * 1024;

/// Why a container's files cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The host path is not there or cannot be read.
    #[error("mount {guest}: host path {}", host.display())]
    HostPath {
        /// The path in the guest.
        guest: String,
        /// The path on the node.
        host: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The host path is a file.
    #[error("mount {guest}: {} is a file: mounting a single file is not supported", host.display())]
    SingleFile {
        /// The path in the guest.
        guest: String,
        /// The path on the node.
        host: PathBuf,
    },
    /// A directory of the runtime's own cannot be made.
    #[error(transparent)]
    Directory(#[from] RecordError),
    /// The root directory cannot be made.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A file of the runtime's own cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// The file on the node.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A mount as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRequest {
    /// An absolute path without `.` and `..`, never `/`.
    pub(crate) guest: String,
    /// An absolute path on the node; that of an image is known once it was looked up.
    pub(crate) host: PathBuf,
    /// The image whose files are mounted, if these are not the node's.
    #[serde(default)]
    pub(crate) image: Option<ImageMount>,
    pub(crate) read_only: bool,
    /// Guests cannot mount, so nothing of theirs is ever propagated; kept to be shown.
    pub(crate) propagation: i32,
}

/// An image as a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageMount {
    /// The image as it was asked for.
    pub(crate) image: String,
    /// Which of its directories, relative; empty is its root.
    pub(crate) sub_path: String,
}

impl MountRequest {
    /// Understands CRI's message.
    pub(crate) fn parse(mount: &v1::Mount) -> Result<Self, ServiceError> {
        let field = "mounts";
        let at = |problem: &str| format!("{}: {problem}", mount.container_path);
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(ServiceError::unsupported(field, at("a guest has no users to be mapped")));
        }
        let guest = normal_guest_path(&mount.container_path)
            .filter(|guest| guest != "/")
            .ok_or_else(|| ServiceError::invalid(field, at("must be an absolute path below /, without ..")))?;
        let host = PathBuf::from(&mount.host_path);
        let image = mount.image.as_ref().filter(|image| !image.image.is_empty());
        let Some(image) = image else {
            if !host.is_absolute() {
                return Err(ServiceError::invalid(field, at("host_path must be an absolute path")));
            }
            return Ok(Self { guest, host, image: None, read_only: mount.readonly, propagation: mount.propagation });
        };
        if !mount.readonly {
            return Err(ServiceError::invalid(field, at("an image is mounted read-only")));
        }
        let sub_path = mount.image_sub_path.clone();
        if Path::new(&sub_path).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(ServiceError::invalid(field, at("image_sub_path must be relative, without ..")));
        }
        let image = Some(ImageMount { image: image.image.clone(), sub_path });
        Ok(Self { guest, host: PathBuf::new(), image, read_only: true, propagation: mount.propagation })
    }
}

impl From<&MountRequest> for v1::Mount {
    fn from(mount: &MountRequest) -> Self {
        Self {
            container_path: mount.guest.clone(),
            host_path: mount.host.to_string_lossy().into_owned(),
            readonly: mount.read_only,
            propagation: mount.propagation,
            image: mount.image.as_ref().map(|it| v1::ImageSpec { image: it.image.clone(), ..Default::default() }),
            image_sub_path: mount.image.as_ref().map(|it| it.sub_path.clone()).unwrap_or_default(),
            ..Default::default()
        }
    }
}

/// What a container's files are made from.
pub(crate) struct Wanted<'a> {
    /// The container's own directory.
    pub(crate) directory: &'a Path,
    /// The image's files, if it has any.
    pub(crate) image: Option<&'a Path>,
    pub(crate) mounts: &'a [MountRequest],
    pub(crate) read_only_root: bool,
    /// The mount that is a file whose content the kubelet wants to have in the end.
    pub(crate) termination_message_path: Option<&'a str>,
    /// Where the guest starts, which is made as an image's other directories would be.
    pub(crate) working_dir: Option<&'a str>,
    pub(crate) hostname: &'a str,
    pub(crate) dns: &'a Dns,
}

/// A container's files, ready for its guest.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The first of the mounts, which lasts as long as this is held.
    pub(crate) root: Root,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) termination_message: Option<TerminationMessage>,
}

/// Makes a container's directories and copies its single files in. Blocks for some system calls per mount.
pub(crate) fn prepare(wanted: &Wanted<'_>) -> Result<Prepared, MountError> {
    let root = Root::make(wanted.directory, wanted.image)?;
    let at_root = Mount { host: root.path().to_owned(), guest: "/".to_owned(), read_only: wanted.read_only_root };
    let mut mounts = vec![at_root];
    let mut files = Vec::new();
    for mount in wanted.mounts {
        let failed = |source| MountError::HostPath { guest: mount.guest.clone(), host: mount.host.clone(), source };
        if host_path::find(&mount.host).map_err(failed)?.is_directory() {
            mounts.push(Mount { host: mount.host.clone(), guest: mount.guest.clone(), read_only: mount.read_only });
        } else {
            files.push(mount);
        }
    }
    for at in 1..mounts.len() {
        make_mount_point(&mounts, &mounts[at].guest)?;
    }

    if let Some(directory) = wanted.working_dir.and_then(normal_guest_path) {
        make_mount_point(&mounts, &directory)?;
    }

    let mut tree = Tree { wanted, mounts };
    let is_message = |file: &&MountRequest| wanted.termination_message_path == Some(file.guest.as_str());
    // First, as it may add a mount that the others then belong in. The kubelet's own comes after the user's.
    let termination_message = match files.iter().rposition(is_message) {
        Some(at) => {
            let MountRequest { guest, host, .. } = files.remove(at);
            tree.writable(guest)?.map(|inside| TerminationMessage { inside, host: host.clone() })
        }
        None => None,
    };
    tree.write("/etc/hostname", format!("{}\n", wanted.hostname).as_bytes())?;
    tree.write("/etc/resolv.conf", resolv_conf(wanted.dns).as_bytes())?;
    for file in files {
        if file.guest != HOSTS {
            return Err(MountError::SingleFile { guest: file.guest.clone(), host: file.host.clone() });
        }
        let failed = |source| MountError::HostPath { guest: file.guest.clone(), host: file.host.clone(), source };
        let mut hosts = Vec::new();
        let opened = host_path::find(&file.host).and_then(|found| found.open(OpenOptions::new().read(true)));
        opened.and_then(|file| file.take(HOSTS_LIMIT).read_to_end(&mut hosts)).map_err(failed)?;
        tree.write(HOSTS, &hosts)?;
    }
    Ok(Prepared { root, mounts: tree.mounts, termination_message })
}

/// Makes a directory of the root, such as the one that shows a mount in its parent's listing. Within a volume it is left
/// out: what is in there is not ours, and may be a link to anywhere.
fn make_mount_point(mounts: &[Mount], guest: &str) -> Result<(), MountError> {
    let parent = guest.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
    match inside(mounts, parent) {
        Some((root, _)) if root.guest == "/" => Ok(create_directory(&below(&root.host, guest))?),
        _ => Ok(()),
    }
}

/// A container's mounts, while its single files are put in.
struct Tree<'a> {
    wanted: &'a Wanted<'a>,
    mounts: Vec<Mount>,
}

impl Tree<'_> {
    /// Puts a file of ours where the guest sees it, unless a volume is mounted there: then that has the say.
    fn write(&self, guest: &str, content: &[u8]) -> Result<(), MountError> {
        let Some((mount, path)) = inside(&self.mounts, guest) else { return Ok(()) };
        if !self.is_ours(mount) {
            return Ok(());
        }
        write_new(&path, content)
    }

    /// Makes an empty file that the guest can write, also if its root is read-only.
    fn writable(&mut self, guest: &str) -> Result<Option<InsideFile>, MountError> {
        let Some((mount, path)) = inside(&self.mounts, guest) else { return Ok(None) };
        if !self.is_ours(mount) {
            // In a volume the guest makes the file itself.
            return Ok(relative(mount, guest).map(|path| InsideFile { directory: mount.host.clone(), path }));
        }
        let (directory, name) = match guest.rsplit_once('/') {
            Some((directory, name)) if !directory.is_empty() => (directory.to_owned(), name.to_owned()),
            // Directly in the root, there is no directory to make writable.
            _ if mount.read_only => {
                tracing::warn!(path = guest, "the root is read-only: the guest cannot write its termination message");
                return Ok(None);
            }
            _ => (String::new(), guest.trim_start_matches('/').to_owned()),
        };
        if !mount.read_only {
            let file = relative(mount, guest).map(|path| InsideFile { directory: mount.host.clone(), path });
            write_new(&path, b"")?;
            return Ok(file);
        }
        let host = self.wanted.directory.join("files").join(self.mounts.len().to_string());
        create_directory(&host)?;
        make_mount_point(&self.mounts, &directory)?;
        self.mounts.push(Mount { host: host.clone(), guest: directory, read_only: false });
        write_new(&host.join(&name), b"")?;
        Ok(Some(InsideFile { directory: host, path: name.into() }))
    }

    fn is_ours(&self, mount: &Mount) -> bool {
        mount.host.starts_with(self.wanted.directory)
    }
}

/// The mount that a path in the guest lies in, and where that is on the node.
fn inside<'a>(mounts: &'a [Mount], guest: &str) -> Option<(&'a Mount, PathBuf)> {
    let covering = mounts.iter().filter_map(|mount| relative(mount, guest).map(|path| (mount, path)));
    let (mount, path) = covering.max_by_key(|(mount, _)| mount.guest.len())?;
    Some((mount, mount.host.join(path)))
}

fn relative(mount: &Mount, guest: &str) -> Option<PathBuf> {
    Path::new(guest).strip_prefix(&mount.guest).ok().map(Path::to_owned)
}

fn below(host: &Path, guest: &str) -> PathBuf {
    host.join(guest.trim_start_matches('/'))
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), MountError> {
    if let Some(directory) = path.parent() {
        create_directory(directory)?;
    }
    // In place of what the image has there, be it a link.
    let written = match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| file.write_all(content)),
    };
    written.map_err(|source| MountError::Write { path: path.to_owned(), source })
}

fn resolv_conf(dns: &Dns) -> String {
    let mut text = String::new();
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    for (word, values) in [("search", &dns.searches), ("options", &dns.options)] {
        if !values.is_empty() {
            text.push_str(&format!("{word} {}\n", values.join(" ")));
        }
    }
    text
}

/// The path without `.` and doubled slashes, if it is absolute and never goes up.
fn normal_guest_path(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut normal = String::new();
    for part in Path::new(path).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                normal.push('/');
                normal.push_str(name.to_str()?);
            }
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(if normal.is_empty() { "/".to_owned() } else { normal })
}

/// A file in a directory that the guest can change.
#[derive(Debug, Clone)]
struct InsideFile {
    directory: PathBuf,
    path: PathBuf,
}

/// The file that a guest may leave a last word in, and the file on the node that the kubelet reads it from.
#[derive(Debug, Clone)]
pub(crate) struct TerminationMessage {
    inside: InsideFile,
    host: PathBuf,
}

impl TerminationMessage {
    /// Copies what the guest wrote, its end if it is long. A guest that wrote nothing, or left something else than a
    /// file there, has left no message.
    pub(crate) fn copy_out(&self) -> io::Result<()> {
        let directory = host_path::find(&self.inside.directory)?;
        // The guest may have put a link there, to a file of the node's that it must not get to read.
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(&directory, &self.inside.path, flags, Mode::empty(), beneath);
        let Ok(mut file) = opened.map(File::from) else { return Ok(()) };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Ok(());
        }
        file.seek(SeekFrom::Start(metadata.len().saturating_sub(TERMINATION_MESSAGE_LIMIT)))?;
        let mut message = Vec::new();
        file.take(TERMINATION_MESSAGE_LIMIT).read_to_end(&mut message)?;
        let host = host_path::find(&self.host)?;
        host.open(OpenOptions::new().write(true).truncate(true))?.write_all(&message)
    }
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
