//! Log files of pods on this node: their directories, found by collectors, and gone with what wrote them.
//!
//! Comes in: pods and containers that begin, start and go. Goes out: directories for the runtime to write into, links
//! `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`, where log collectors look, and the removal of files. The
//! runtime writes the logs; CRI leaves it to the kubelet to make their directories and to remove them. A link that cannot
//! be made or a file that cannot be removed is told in the log and harms no pod.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use cri::names::PodIdentity;
use decide::names::{ContainerId, ContainerName};
use tokio::fs;

use super::messages::log_directory;

/// Where the kubelet's own default puts the logs of pods…
const DEFAULT_PODS: &str = "/var/log/pods";
/// …and where collectors then find a link to each.
const DEFAULT_LINKS: &str = "/var/log/containers";
/// The longest file name, in bytes.
const LONGEST_NAME: usize = 255;
/// How long the disk may take.
const DISK: Duration = Duration::from_secs(30);

/// The logs of this node's pods.
#[derive(Clone, Debug)]
pub struct LogFiles {
    pods: PathBuf,
    links: Option<PathBuf>,
    keep: bool,
}

impl LogFiles {
    /// Logs beneath `pods`. There are links to them only if that is the kubelet's own default. With `keep`, whoever reads
    /// the logs removes them, too.
    pub fn new(pods: PathBuf, keep: bool) -> Self {
        let links = (pods == Path::new(DEFAULT_PODS)).then(|| PathBuf::from(DEFAULT_LINKS));
        Self { pods, links, keep }
    }

    /// Where the logs of all pods are.
    pub fn pods(&self) -> &Path {
        &self.pods
    }

    /// Makes the directory that the runtime writes a container's logs into; with no container, the pod's.
    pub(super) async fn prepare(&self, pod: &PodIdentity, container: Option<&ContainerName>) -> Result<(), String> {
        let mut directory = log_directory(&self.pods, pod);
        directory.extend(container.map(ContainerName::as_str));
        let made = in_time(fs::create_dir_all(&directory)).await;
        made.map_err(|error| format!("create the log directory {}: {error}", directory.display()))
    }

    /// Collectors find the log from now on.
    pub(super) async fn link(&self, pod: &PodIdentity, container: &ContainerName, id: &ContainerId, log: &str) {
        let Some(links) = &self.links else { return };
        let (Some(log), link) = (self.own(log), links.join(link_name(pod, container, id))) else { return };
        let made = async {
            fs::create_dir_all(links).await?;
            match fs::symlink(&log, &link).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        };
        told(in_time(made).await, "linking a log at", &link);
    }

    /// A container is removed: its log, what was rotated out of it, and its link go.
    pub(super) async fn remove_container(
        &self,
        pod: &PodIdentity,
        container: &ContainerName,
        id: &ContainerId,
        log: Option<&str>,
    ) {
        if self.keep {
            return;
        }
        if let Some(links) = &self.links {
            let link = links.join(link_name(pod, container, id));
            told(in_time(gone_is_done(fs::remove_file(&link))).await, "removing", &link);
        }
        if let Some(log) = log.and_then(|log| self.own(log)) {
            told(in_time(remove_with_rotated(&log)).await, "removing", &log);
        }
    }

    /// Nothing of the pod is left: its logs go, and what linked to them.
    pub async fn remove_pod(&self, pod: &PodIdentity) {
        if self.keep {
            return;
        }
        let directory = log_directory(&self.pods, pod);
        // Labels of a sandbox say who the pod is, and labels can say anything.
        if self.own(&directory.to_string_lossy()).is_none() || directory.parent() != Some(&self.pods) {
            return;
        }
        told(in_time(gone_is_done(fs::remove_dir_all(&directory))).await, "removing", &directory);
        // Containers that went with their sandbox left their links behind.
        if let Some(links) = &self.links {
            told(in_time(remove_links(links, &directory)).await, "removing links in", links);
        }
    }

    /// The path, if it lies beneath the logs of pods.
    fn own(&self, path: &str) -> Option<PathBuf> {
        let path = PathBuf::from(path);
        let plain = path.components().all(|part| !matches!(part, Component::ParentDir));
        (plain && path.starts_with(&self.pods) && path != self.pods).then_some(path)
    }
}

/// As the kubelet names it, cut to what a file name may be long.
fn link_name(pod: &PodIdentity, container: &ContainerName, id: &ContainerId) -> String {
    const SUFFIX: &str = ".log";
    let name = format!("{}_{}_{container}-{id}", pod.name, pod.namespace);
    let cut: String = name.chars().filter(char::is_ascii).take(LONGEST_NAME - SUFFIX.len()).collect();
    format!("{cut}{SUFFIX}")
}

async fn remove_with_rotated(log: &Path) -> io::Result<()> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let mut entries = match fs::read_dir(directory).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    while let Some(entry) = entries.next_entry().await? {
        let rotated = entry.file_name().to_str().and_then(|other| other.strip_prefix(name)).map(str::to_owned);
        if rotated.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
            gone_is_done(fs::remove_file(entry.path())).await?;
        }
    }
    Ok(())
}

/// Removes what in `links` leads into `directory`.
async fn remove_links(links: &Path, directory: &Path) -> io::Result<()> {
    let mut entries = match fs::read_dir(links).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    while let Some(entry) = entries.next_entry().await? {
        // What is no link is somebody else's.
        let Ok(target) = fs::read_link(entry.path()).await else { continue };
        if target.starts_with(directory) {
            gone_is_done(fs::remove_file(entry.path())).await?;
        }
    }
    Ok(())
}

async fn gone_is_done(removal: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    match removal.await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

async fn in_time(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("the disk took longer than {DISK:?}"));
    tokio::time::timeout(DISK, work).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

fn told(result: io::Result<()>, step: &str, path: &Path) {
    if let Err(error) = result {
        tracing::warn!("{step} {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodIdentity {
        PodIdentity { name: "web".into(), namespace: "default".into(), uid: "u-1".into() }
    }

    struct Node {
        folder: tempfile::TempDir,
        logs: LogFiles,
    }

    impl Node {
        fn new(keep: bool) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let links = Some(folder.path().join("containers"));
            let logs = LogFiles { pods: folder.path().join("pods"), links, keep };
            Self { folder, logs }
        }

        fn write(&self, name: &str) -> String {
            let path = log_directory(&self.logs.pods, &pod()).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, name).unwrap();
            path.to_str().unwrap().to_owned()
        }

        fn link(&self) -> PathBuf {
            self.folder.path().join("containers/web_default_main-id1.log")
        }
    }

    #[tokio::test]
    async fn links_go_with_their_pod_and_those_of_others_stay() {
        let node = Node::new(false);
        let log = node.write("main/0.log");
        node.logs.link(&pod(), &"main".into(), &"id1".into(), &log).await;
        let links = node.folder.path().join("containers");
        std::fs::write(links.join("notes"), "somebody's").unwrap();
        let other = node.logs.pods().join("default_web_u-10/main/0.log");
        std::os::unix::fs::symlink(&other, links.join("web_default_main-id2.log")).unwrap();

        node.logs.remove_pod(&pod()).await;
        let mut left: Vec<_> = std::fs::read_dir(&links).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["notes", "web_default_main-id2.log"]);
    }

    #[tokio::test]
    async fn a_log_is_linked_and_goes_with_its_container_and_its_link() {
        let node = Node::new(false);
        let (log, rotated, next) =
            (node.write("main/0.log"), node.write("main/0.log.20260101"), node.write("main/1.log"));
        let (main, id) = (ContainerName::from("main"), ContainerId::from("id1"));
        node.logs.link(&pod(), &main, &id, &log).await;
        node.logs.link(&pod(), &main, &id, &log).await;
        assert_eq!(std::fs::read_to_string(node.link()).unwrap(), "main/0.log");

        node.logs.remove_container(&pod(), &main, &id, Some(&log)).await;
        assert!(node.link().symlink_metadata().is_err());
        assert_eq!(
            (Path::new(&log).exists(), Path::new(&rotated).exists(), Path::new(&next).exists()),
            (false, false, true)
        );
        node.logs.remove_pod(&pod()).await;
        assert!(!log_directory(&node.logs.pods, &pod()).exists());
        node.logs.remove_pod(&pod()).await;
    }

    #[tokio::test]
    async fn nothing_beside_the_logs_is_touched() {
        let node = Node::new(false);
        let log = node.write("main/0.log");
        let other = node.folder.path().join("other");
        std::fs::write(&other, "x").unwrap();
        let (main, id) = (ContainerName::from("main"), ContainerId::from("id1"));
        let winding = format!("{}/../../../other", Path::new(&log).parent().unwrap().display());
        for path in [other.to_str().unwrap(), &winding, "", "/"] {
            node.logs.link(&pod(), &main, &id, path).await;
            node.logs.remove_container(&pod(), &main, &id, Some(path)).await;
        }
        node.logs.remove_pod(&PodIdentity { namespace: "..".into(), name: "/..".into(), uid: "/other".into() }).await;
        assert!(other.exists() && Path::new(&log).exists() && node.link().symlink_metadata().is_err());
    }

    #[tokio::test]
    async fn whoever_keeps_logs_keeps_them() {
        let node = Node::new(true);
        let log = node.write("main/0.log");
        node.logs.remove_container(&pod(), &"main".into(), &"id1".into(), Some(&log)).await;
        node.logs.remove_pod(&pod()).await;
        assert!(Path::new(&log).exists());
    }

    #[test]
    fn links_are_for_the_default_directory_and_never_too_long() {
        assert!(LogFiles::new("/var/log/pods".into(), false).links.is_some());
        assert!(LogFiles::new("/tmp/logs".into(), false).links.is_none());
        let long = PodIdentity { name: "p".repeat(253), ..pod() };
        assert_eq!(link_name(&long, &"main".into(), &"id1".into()).len(), LONGEST_NAME);
    }
}
