//! What a container that has ended left behind to say why: its termination message.
//!
//! Comes in: CRI's status of an exited container. Goes out: the message, out of the file that was mounted for it, or out of
//! the log where the pod wants that. Everything is found in the status itself, so a kubelet that was restarted finds it
//! again. Nothing is read for a container that has not ended.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::names::{
    CONTAINER_TERMINATION_MESSAGE_PATH, CONTAINER_TERMINATION_MESSAGE_POLICY, PodIdentity, container_name,
};
use cri::v1;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::timeout;

use crate::logs::{LogOptions, LogReader};
use crate::volumes::is_termination_message;

/// What of a file is read at the most, in bytes (the kubelet's `MaxContainerTerminationMessageLength`).
const LONGEST: u64 = 4096;
/// What of a log is shown at the most, in bytes (`MaxContainerTerminationMessageLogLength`)…
const LONGEST_LOG: usize = 2048;
/// …and in lines (`MaxContainerTerminationMessageLogLines`).
const MOST_LINES: u64 = 80;
/// How long the disk may take. The next look at the container tries again.
const DISK: Duration = Duration::from_secs(5);

/// The runtime's word on an exited container and the container's own, as the kubelet joins them.
pub(super) async fn message(status: &v1::ContainerStatus) -> String {
    match last_word(status).await {
        word if word.is_empty() => status.message.clone(),
        // What the runtime says of a trap stands in the log, too.
        word if word.contains(&status.message) => word,
        word => format!("{}: {word}", status.message),
    }
}

/// The container is removed: the file goes. One that cannot be removed goes with the pod's directory.
pub(super) async fn remove(status: &v1::ContainerStatus) {
    let Some(path) = file(status) else { return };
    match in_time(async { fs::remove_file(&path).await.map(|()| Vec::new()) }).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!("removing {}: {error}", path.display()),
        _ => {}
    }
}

/// The file that the container's termination message is in, if the kubelet has mounted one.
fn file(status: &v1::ContainerStatus) -> Option<PathBuf> {
    let guest = status.annotations.get(CONTAINER_TERMINATION_MESSAGE_PATH).filter(|path| !path.is_empty())?;
    let (uid, container) = (PodIdentity::of(&status.labels)?.uid, container_name(&status.labels)?);
    let mounted = status.mounts.iter().filter(|mount| mount.container_path == *guest);
    let mut hosts = mounted.map(|mount| Path::new(&mount.host_path));
    // The kubelet's own comes after the user's, which may look like it.
    hosts.rfind(|host| is_termination_message(host, &uid, container)).map(Path::to_owned)
}

async fn last_word(status: &v1::ContainerStatus) -> String {
    if let Some(path) = file(status) {
        match in_time(end_of_file(&path)).await {
            Ok(message) if !message.is_empty() => return text(&message),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return format!("Error on reading termination log {}: {error}", path.display()),
        }
    }
    let policy = status.annotations.get(CONTAINER_TERMINATION_MESSAGE_POLICY).map(String::as_str);
    // What never started has written no log.
    if policy != Some("FallbackToLogsOnError") || status.exit_code == 0 || status.started_at == 0 {
        return String::new();
    }
    match in_time(end_of_log(Path::new(&status.log_path))).await {
        Ok(lines) => text(&lines),
        Err(error) => format!("Error on reading termination message from logs: {error}"),
    }
}

async fn end_of_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path).await?;
    let length = file.metadata().await?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST))).await?;
    let mut message = Vec::new();
    file.take(LONGEST).read_to_end(&mut message).await?;
    Ok(message)
}

async fn end_of_log(path: &Path) -> io::Result<Vec<u8>> {
    let options = LogOptions { tail_lines: Some(MOST_LINES), ..LogOptions::default() };
    let mut log = LogReader::open(path, options).await?;
    let mut end = Vec::new();
    while let Some(piece) = log.next_text(|| true).await? {
        end.extend_from_slice(&piece);
        end.drain(..end.len().saturating_sub(LONGEST_LOG));
    }
    Ok(end)
}

/// The first character may have been cut in two: what is left of it goes.
fn text(bytes: &[u8]) -> String {
    let is_rest = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
    let rest = bytes.iter().take(3).take_while(is_rest).count();
    String::from_utf8_lossy(&bytes[rest..]).into_owned()
}

async fn in_time(work: impl Future<Output = io::Result<Vec<u8>>>) -> io::Result<Vec<u8>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("the disk took longer than {DISK:?}"));
    timeout(DISK, work).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:00Z stdout F first\n2026-01-01T00:00:01Z stderr F second\n";

    /// A container that has ended with `code`, its file with `file` in it, if any, and a log.
    struct Ended {
        folder: tempfile::TempDir,
        status: v1::ContainerStatus,
    }

    impl Ended {
        fn new(policy: &str, code: i32, file: Option<&[u8]>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let directory = folder.path().join("pods/u-1/containers/main");
            std::fs::create_dir_all(&directory).unwrap();
            let (host, log) = (directory.join("00000003"), folder.path().join("3.log"));
            if let Some(content) = file {
                std::fs::write(&host, content).unwrap();
            }
            std::fs::write(&log, LOG).unwrap();
            let pod = PodIdentity { name: "web".into(), namespace: "default".into(), uid: "u-1".into() };
            let annotations =
                [(CONTAINER_TERMINATION_MESSAGE_PATH, "/dev/out"), (CONTAINER_TERMINATION_MESSAGE_POLICY, policy)];
            let mount = |host: &Path, guest: &str| v1::Mount {
                host_path: host.to_str().unwrap().to_owned(),
                container_path: guest.to_owned(),
                ..v1::Mount::default()
            };
            let status = v1::ContainerStatus {
                state: v1::ContainerState::ContainerExited.into(),
                started_at: 1,
                finished_at: 2,
                exit_code: code,
                labels: pod.container_labels("main"),
                annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                // A volume that the user mounts at the same place is not what is read.
                mounts: vec![mount(folder.path(), "/data"), mount(&log, "/dev/out"), mount(&host, "/dev/out")],
                log_path: log.to_str().unwrap().to_owned(),
                ..v1::ContainerStatus::default()
            };
            Self { folder, status }
        }
    }

    async fn check(policy: &str, code: i32, file: Option<&str>, of_runtime: &str, wanted: &str) {
        let mut ended = Ended::new(policy, code, file.map(str::as_bytes));
        ended.status.message = of_runtime.to_owned();
        let found = message(&ended.status).await;
        assert_eq!(found, wanted, "{policy}, code {code}, file {file:?}, runtime {of_runtime:?}");
    }

    #[tokio::test]
    async fn the_file_speaks_first_then_the_log_where_that_is_wanted_and_it_failed() {
        const LOGS: &str = "FallbackToLogsOnError";
        check("File", 0, Some("DONE"), "", "DONE").await;
        check("File", 1, Some("why"), "wasm trap", "wasm trap: why").await;
        check("File", 1, Some(""), "wasm trap", "wasm trap").await;
        check("File", 1, None, "", "").await;
        check(LOGS, 1, Some("DONE"), "", "DONE").await;
        check(LOGS, 1, Some(""), "", "first\nsecond\n").await;
        check(LOGS, 1, None, "OOM", "OOM: first\nsecond\n").await;
        check(LOGS, 1, None, "second", "first\nsecond\n").await;
        check(LOGS, 0, Some(""), "", "").await;
    }

    #[tokio::test]
    async fn what_never_started_has_no_log() {
        let mut ended = Ended::new("FallbackToLogsOnError", 128, Some(b""));
        ended.status.started_at = 0;
        ended.status.message = "no such function".into();
        assert_eq!(message(&ended.status).await, "no such function");
    }

    #[tokio::test]
    async fn only_the_end_of_what_is_long_is_shown() {
        let long = format!("é{}", "x".repeat(4095));
        let ended = Ended::new("File", 1, Some(long.as_bytes()));
        assert_eq!(message(&ended.status).await, "x".repeat(4095));

        let ended = Ended::new("FallbackToLogsOnError", 1, None);
        let lines: String = (0..90).map(|line| format!("2026-01-01T00:00:00Z stdout F {line}\n")).collect();
        std::fs::write(&ended.status.log_path, lines).unwrap();
        assert_eq!(message(&ended.status).await, (10..90).map(|line| format!("{line}\n")).collect::<String>());
        let line = format!("2026-01-01T00:00:00Z stdout F {}\n", "y".repeat(5000));
        std::fs::write(&ended.status.log_path, line).unwrap();
        assert_eq!(message(&ended.status).await, format!("{}\n", "y".repeat(2047)));
    }

    #[tokio::test]
    async fn the_file_goes_with_its_container() {
        let ended = Ended::new("File", 1, Some(b"DONE"));
        let path = file(&ended.status).unwrap();
        remove(&ended.status).await;
        assert!(!path.exists() && path.parent().unwrap().exists());
        remove(&ended.status).await;
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told() {
        let ended = Ended::new("FallbackToLogsOnError", 1, Some(b""));
        std::fs::remove_file(&ended.status.log_path).unwrap();
        let said = message(&ended.status).await;
        assert!(said.starts_with("Error on reading termination message from logs: "), "{said}");
    }

    #[tokio::test]
    async fn a_users_file_that_looks_like_it_is_not_read() {
        let mut ended = Ended::new("File", 1, Some(b"DONE"));
        let alike = ended.folder.path().join("pods/u-1/volumes/kubernetes.io~empty-dir/v/pods/u-1/containers/main");
        std::fs::create_dir_all(&alike).unwrap();
        std::fs::write(alike.join("00000003"), "of the user").unwrap();
        ended.status.mounts[1].host_path = alike.join("00000003").to_str().unwrap().to_owned();
        assert_eq!(message(&ended.status).await, "DONE");
    }

    #[tokio::test]
    async fn a_file_that_is_not_this_containers_is_not_read() {
        let mut ended = Ended::new("File", 1, Some(b"DONE"));
        ended.status.labels.insert(cri::names::CONTAINER_NAME.to_owned(), "other".to_owned());
        assert_eq!((message(&ended.status).await.as_str(), file(&ended.status)), ("", None));
        remove(&ended.status).await;
        assert!(ended.folder.path().join("pods/u-1/containers/main/00000003").exists());
        let secret = ended.folder.path().join("secret");
        std::fs::write(&secret, "hidden").unwrap();
        let mut ended = Ended::new("File", 1, None);
        ended.status.mounts[2].host_path = secret.to_str().unwrap().to_owned();
        assert_eq!(message(&ended.status).await, "");
    }
}
