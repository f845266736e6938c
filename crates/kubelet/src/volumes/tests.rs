//! Tests of `volumes`.

mod keeping;
mod mounts;
mod pod_files;

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use decide::event::Failure;
use decide::names::PodUid;
use decide::pod::{Pod, Resources};
use k8s_openapi::api::core::v1 as api;
use tempfile::TempDir;
use tokio::sync::watch;

use super::{VolumeOptions, Volumes, tmpfs};
use crate::objects::Objects;

/// What is mounted beneath is unmounted before the directory is removed, however the test ends.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap()
    }

    fn pod(&self, uid: &str) -> PathBuf {
        self.path().join("pods").join(uid)
    }

    /// A volume of pod `u`.
    fn volume(&self, plugin: &str, name: &str) -> PathBuf {
        self.pod("u").join(format!("volumes/kubernetes.io~{plugin}/{name}"))
    }

    fn mounted(&self) -> Vec<PathBuf> {
        tmpfs::beneath(&self.path()).unwrap().into_iter().map(|mount| mount.path).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for path in self.mounted() {
            tmpfs::unmount(&path).unwrap();
        }
    }
}

/// Whether this machine lets the tests mount.
fn may_mount() -> bool {
    let place = tempfile::tempdir().unwrap();
    let may = tmpfs::mount(place.path(), 0o755, None).unwrap() == tmpfs::Mounted::Yes;
    if may {
        tmpfs::unmount(place.path()).unwrap();
    }
    may
}

fn fixed<T>(value: T) -> watch::Receiver<T> {
    watch::channel(value).1
}

fn volumes_of(root: &Root, objects: Objects) -> Volumes {
    let options = VolumeOptions {
        sync_frequency: Duration::from_secs(60),
        host_ips: fixed(vec![IpAddr::from([192, 0, 2, 1])]),
        allocatable: fixed(Resources { cpu_millis: Some(2000), memory_bytes: Some(1 << 30), ..Resources::default() }),
    };
    Volumes::new(root.path(), objects, options)
}

fn volumes(root: &Root) -> Volumes {
    let map = serde_saphyr::from_str("{metadata: {name: m, namespace: ns}, data: {k: text}}").unwrap();
    let secret = serde_saphyr::from_str("{metadata: {name: s, namespace: ns}, stringData: {key: hidden}}").unwrap();
    volumes_of(root, Objects::of_manifest(vec![map], vec![secret]))
}

fn pod_of(uid: &str, labels: &str, volumes: &str, mounts: &str) -> Pod {
    let yaml = format!(
        "{{metadata: {{name: p, namespace: ns, uid: {uid}, labels: {labels}}}, spec: {{volumes: {volumes}, \
         containers: [{{name: c, image: i, volumeMounts: {mounts}}}]}}}}"
    );
    let api: api::Pod = serde_saphyr::from_str(&yaml).unwrap();
    decide::parse::parse(Arc::new(api)).unwrap()
}

fn pod(volumes: &str) -> Pod {
    pod_of("u", "{}", volumes, "[]")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn failed_mount(message: &str) -> Failure {
    Failure::new("FailedMount", message)
}

const ALL_KINDS: &str = "[{name: conf, configMap: {name: m}}, {name: cred, secret: {secretName: s, defaultMode: 0o400}}, \
     {name: info, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}, \
     {name: both, projected: {sources: [{configMap: {name: m}}, {secret: {name: s}}]}}, {name: room, emptyDir: {}}]";

#[tokio::test]
async fn every_kind_has_its_place_and_content() {
    let root = Root::new();
    let volumes = volumes(&root);
    volumes.prepare(&pod(ALL_KINDS)).await.unwrap();
    let text = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(text(root.volume("configmap", "conf").join("k")), "text");
    assert_eq!(text(root.volume("secret", "cred").join("key")), "hidden");
    assert_eq!(mode(&root.volume("secret", "cred").join("key")), 0o400);
    assert_eq!(text(root.volume("downward-api", "info").join("name")), "p");
    assert_eq!(text(root.volume("projected", "both").join("k")), "text");
    assert_eq!(mode(&root.volume("projected", "both").join("key")), 0o644);
    assert_eq!(mode(&root.volume("empty-dir", "room")), 0o777);
    for private in [root.path().join("pods"), root.pod("u"), root.pod("u").join("volumes")] {
        assert_eq!(mode(&private), 0o700, "{}", private.display());
    }
}

#[tokio::test]
async fn preparing_again_changes_nothing_and_keeps_what_guests_wrote() {
    let root = Root::new();
    let pod = pod(ALL_KINDS);
    volumes(&root).prepare(&pod).await.unwrap();
    fs::write(root.volume("empty-dir", "room").join("theirs"), "data").unwrap();
    let inode =
        |plugin: &str, name: &str, file: &str| fs::metadata(root.volume(plugin, name).join(file)).unwrap().ino();
    let files = [("configmap", "conf", "k"), ("secret", "cred", "key"), ("projected", "both", "k")];
    let before = files.map(|(plugin, name, file)| inode(plugin, name, file));
    // Another process takes over.
    volumes(&root).prepare(&pod).await.unwrap();
    assert_eq!(files.map(|(plugin, name, file)| inode(plugin, name, file)), before);
    assert_eq!(fs::read(root.volume("empty-dir", "room").join("theirs")).unwrap(), b"data");
    let mounted = root.mounted();
    assert_eq!(mounted.iter().collect::<HashSet<_>>().len(), mounted.len(), "nothing is mounted twice");
}

#[tokio::test]
async fn what_a_death_left_half_done_is_done_and_cleaned_up() {
    let root = Root::new();
    let pod = pod("[{name: conf, configMap: {name: m}}]");
    let volume = root.volume("configmap", "conf");
    fs::create_dir_all(volume.join("..2026_01_01_00_00_00.1")).unwrap();
    fs::write(volume.join("..2026_01_01_00_00_00.1/k"), "old").unwrap();
    fs::create_dir(volume.join("..2026_01_01_00_00_01.2")).unwrap();
    symlink("..2026_01_01_00_00_00.1", volume.join("..data")).unwrap();
    symlink("..2026_01_01_00_00_01.2", volume.join("..data_tmp")).unwrap();
    symlink("..data/gone", volume.join("gone")).unwrap();
    volumes(&root).prepare(&pod).await.unwrap();
    assert_eq!(fs::read(volume.join("k")).unwrap(), b"text");
    let names = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("..2")).collect();
    names.sort();
    assert_eq!(names, ["..data", "k"]);
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 3, "one version is left");
}

#[tokio::test]
async fn what_is_missing_is_said_in_the_kubelets_words() {
    let cases = [
        ("{name: v, configMap: {name: none}}", "configmap \"none\" not found"),
        ("{name: v, secret: {secretName: none}}", "secret \"none\" not found"),
        (
            "{name: v, configMap: {name: m, items: [{key: absent, path: x}]}}",
            "configmap references non-existent config key: absent",
        ),
        (
            "{name: v, projected: {sources: [{serviceAccountToken: {path: token}}]}}",
            "a token for ServiceAccount ns/default needs an API server; this pod runs without a cluster",
        ),
    ];
    for (volume, problem) in cases {
        let root = Root::new();
        let failure = volumes(&root).prepare(&pod(&format!("[{volume}]"))).await.unwrap_err();
        assert_eq!(failure, failed_mount(&format!("MountVolume.SetUp failed for volume \"v\" : {problem}")));
    }
    let root = Root::new();
    let optional =
        "[{name: v, configMap: {name: none, optional: true}}, {name: w, secret: {secretName: none, optional: true}}]";
    volumes(&root).prepare(&pod(optional)).await.unwrap();
    assert!(root.volume("configmap", "v").join("..data").is_dir());
}

#[tokio::test]
async fn host_paths_are_checked_or_made() {
    let root = Root::new();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "").unwrap();
    fs::create_dir(host.path().join("there")).unwrap();
    symlink(host.path().join("there"), host.path().join("link")).unwrap();
    let cases = [
        ("there", "Directory", Ok(())),
        ("link", "Directory", Ok(())),
        ("absent", "Directory", Err("hostPath type check failed: {} is not a directory")),
        ("file", "Directory", Err("hostPath type check failed: {} is not a directory")),
        ("file", "DirectoryOrCreate", Err("hostPath type check failed: {} is not a directory")),
        ("made/deep", "DirectoryOrCreate", Ok(())),
        ("there", "", Ok(())),
        ("unchecked", "", Ok(())),
        ("file", "", Err("hostPath {} is a file: only directories can be mounted into a wasm guest")),
    ];
    for (name, kind, expected) in cases {
        let path = host.path().join(name);
        let volume = format!("[{{name: v, hostPath: {{path: {:?}, type: {kind:?}}}}}]", path.to_str().unwrap());
        let made = volumes(&root).prepare(&pod(&volume)).await;
        let expected = expected.map_err(|problem: &str| {
            let problem = problem.replace("{}", path.to_str().unwrap());
            failed_mount(&format!("MountVolume.SetUp failed for volume \"v\" : {problem}"))
        });
        assert_eq!(made, expected, "{name} as {kind:?}");
        assert_eq!(path.is_dir(), made.is_ok(), "{name} as {kind:?}");
    }
    assert_eq!(mode(&host.path().join("made")) & 0o700, 0o700);
}

#[tokio::test]
async fn memory_is_a_tmpfs_of_the_size_asked_for_or_is_refused() {
    let root = Root::new();
    let volumes = volumes(&root);
    let prepared = volumes.prepare(&pod("[{name: v, emptyDir: {medium: Memory, sizeLimit: 4Mi}}]")).await;
    if may_mount() {
        assert_eq!(prepared, Ok(()));
        let volume = root.volume("empty-dir", "v");
        assert_eq!((root.mounted(), mode(&volume)), (vec![volume.clone()], 0o777));
        let room = rustix::fs::statvfs(&volume).unwrap();
        assert_eq!(room.f_blocks * room.f_frsize, 4 << 20);
        volumes.release(&PodUid::from("u")).await.unwrap();
        assert_eq!(root.mounted(), Vec::<PathBuf>::new());
    } else {
        let problem =
            "emptyDir with medium Memory needs a kubelet that may mount a tmpfs (CAP_SYS_ADMIN); this one may not";
        assert_eq!(prepared, Err(failed_mount(&format!("MountVolume.SetUp failed for volume \"v\" : {problem}"))));
    }
}

#[tokio::test]
async fn secrets_are_in_memory_where_that_can_be() {
    let root = Root::new();
    volumes(&root).prepare(&pod(ALL_KINDS)).await.unwrap();
    let mut expected = Vec::new();
    if may_mount() {
        expected = [("downward-api", "info"), ("projected", "both"), ("secret", "cred")]
            .map(|(plugin, name)| root.volume(plugin, name))
            .to_vec();
    }
    let mut mounted = root.mounted();
    mounted.sort();
    assert_eq!(mounted, expected);
}

#[tokio::test]
async fn releasing_removes_everything_and_follows_nothing() {
    let root = Root::new();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("theirs"), "data").unwrap();
    let volumes = volumes(&root);
    let host_path = format!("{{name: h, hostPath: {{path: {:?}}}}}", host.path().to_str().unwrap());
    let with_host_path = ALL_KINDS.replacen('[', &format!("[{host_path}, "), 1);
    volumes.prepare(&pod(&with_host_path)).await.unwrap();
    symlink(host.path(), root.volume("empty-dir", "room").join("out")).unwrap();
    symlink("/", root.volume("empty-dir", "room").join("root")).unwrap();
    for _ in 0..2 {
        volumes.release(&PodUid::from("u")).await.unwrap();
        assert!(!root.pod("u").exists());
    }
    assert_eq!(root.mounted(), Vec::<PathBuf>::new());
    assert_eq!(fs::read(host.path().join("theirs")).unwrap(), b"data");
}

#[tokio::test]
async fn a_pod_directory_that_is_a_link_is_removed_and_not_followed() {
    let root = Root::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("theirs"), "data").unwrap();
    fs::create_dir(root.path().join("pods")).unwrap();
    symlink(outside.path(), root.pod("u")).unwrap();
    volumes(&root).release(&PodUid::from("u")).await.unwrap();
    assert!(fs::symlink_metadata(root.pod("u")).is_err());
    assert_eq!(fs::read(outside.path().join("theirs")).unwrap(), b"data");
    for uid in ["", "..", ".", "a/b", "../../etc"] {
        let failure = volumes(&root).release(&PodUid::from(uid)).await.unwrap_err();
        assert_eq!(failure.reason, "FailedUnMount", "{uid:?}");
        assert!(failure.message.ends_with("cannot be the name of a directory"), "{}", failure.message);
    }
}

#[tokio::test]
async fn what_others_mounted_is_left_alone_and_told() {
    if !may_mount() {
        println!("skipped: this process may not mount");
        return;
    }
    let root = Root::new();
    let foreign = root.volume("empty-dir", "room").join("inner");
    fs::create_dir_all(&foreign).unwrap();
    tmpfs::mount(&foreign, 0o755, None).unwrap();
    fs::write(foreign.join("theirs"), "data").unwrap();
    let failure = volumes(&root).release(&PodUid::from("u")).await.unwrap_err();
    assert_eq!(failure.reason, "FailedUnMount");
    assert!(failure.message.contains("is a tmpfs mount that is not the kubelet's"), "{}", failure.message);
    assert_eq!(fs::read(foreign.join("theirs")).unwrap(), b"data");
}

#[tokio::test]
async fn a_sweep_removes_pods_that_nobody_knows() {
    let root = Root::new();
    let volumes = volumes(&root);
    volumes.sweep(&HashSet::new()).await;
    volumes.prepare(&pod_of("kept", "{}", ALL_KINDS, "[]")).await.unwrap();
    // Of a process before this one.
    for uid in ["known", "unknown"] {
        fs::create_dir_all(root.pod(uid).join("volumes/kubernetes.io~empty-dir/v")).unwrap();
    }
    fs::write(root.path().join("pods/note"), "").unwrap();
    volumes.sweep(&[PodUid::from("known")].into()).await;
    assert!(root.pod("known").exists() && root.pod("kept").exists() && root.pod("note").exists());
    assert!(!root.pod("unknown").exists());
}
