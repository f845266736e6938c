//! Tests of `mounts`.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct Case {
    directory: tempfile::TempDir,
    mounts: Vec<MountRequest>,
    read_only_root: bool,
}

impl Case {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), mounts: Vec::new(), read_only_root: false }
    }

    /// Without a link, as the kubelet names it.
    fn host(&self, name: &str) -> PathBuf {
        self.base().join("host").join(name)
    }

    fn base(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    fn volume(mut self, guest: &str, name: &str) -> Self {
        fs::create_dir_all(self.host(name)).unwrap();
        self.mount(guest, name);
        self
    }

    fn file(mut self, guest: &str, name: &str, content: &str) -> Self {
        fs::create_dir_all(self.host("")).unwrap();
        fs::write(self.host(name), content).unwrap();
        self.mount(guest, name);
        self
    }

    fn mount(&mut self, guest: &str, name: &str) {
        let host = self.host(name);
        self.mounts.push(MountRequest { guest: guest.into(), host, image: None, read_only: false, propagation: 0 });
    }

    fn prepare(&self) -> Result<Prepared, MountError> {
        let dns = Dns { servers: vec!["10.96.0.10".into()], searches: vec!["svc".into()], options: vec![] };
        prepare(&Wanted {
            directory: &self.base().join("containers/c"),
            image: None,
            mounts: &self.mounts,
            read_only_root: self.read_only_root,
            termination_message_path: Some("/dev/termination-log"),
            working_dir: Some("/srv/app"),
            hostname: "pod-0",
            dns: &dns,
        })
    }
}

#[test]
fn mount_points_show_in_the_private_root_and_not_in_volumes() {
    let case = Case::new().volume("/data", "data").volume("/data/deep", "deep").volume("/a/b/c", "c");
    let prepared = case.prepare().unwrap();
    let root = &prepared.mounts[0];
    assert_eq!(root.guest, "/");
    assert_eq!(fs::metadata(&root.host).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(root.host.join("data").is_dir() && root.host.join("a/b/c").is_dir());
    assert!(root.host.join("srv/app").is_dir());
    assert!(!case.host("data").join("deep").exists());
    assert_eq!(fs::read_to_string(root.host.join("etc/hostname")).unwrap(), "pod-0\n");
    let resolv_conf = fs::read_to_string(root.host.join("etc/resolv.conf")).unwrap();
    assert_eq!(resolv_conf, "nameserver 10.96.0.10\nsearch svc\n");
}

#[test]
fn a_volume_at_etc_is_left_as_it_is() {
    let case = Case::new().volume("/etc", "etc").file("/etc/hosts", "hosts", "127.0.0.1 localhost\n");
    case.prepare().unwrap();
    assert_eq!(fs::read_dir(case.host("etc")).unwrap().count(), 0);
}

#[test]
fn single_files_are_refused_but_for_the_kubelets_own() {
    let case = Case::new().file("/etc/hosts", "hosts", "10.0.0.2 pod-0\n").file("/dev/termination-log", "message", "");
    let prepared = case.prepare().unwrap();
    let root = &prepared.mounts[0].host;
    assert_eq!(fs::read_to_string(root.join("etc/hosts")).unwrap(), "10.0.0.2 pod-0\n");
    fs::write(root.join("dev/termination-log"), "done").unwrap();
    prepared.termination_message.unwrap().copy_out().unwrap();
    assert_eq!(fs::read_to_string(case.host("message")).unwrap(), "done");

    let refused = Case::new().file("/etc/app.conf", "conf", "").prepare().unwrap_err().to_string();
    assert!(refused.contains("mounting a single file") && refused.contains("/etc/app.conf"), "{refused}");
    let mut missing = Case::new();
    let host = missing.host("missing");
    missing.mounts.push(MountRequest { guest: "/data".into(), host, image: None, read_only: true, propagation: 0 });
    assert!(matches!(missing.prepare(), Err(MountError::HostPath { .. })));
}

#[test]
fn a_termination_message_can_be_written_beside_a_read_only_root() {
    let mut case = Case::new().file("/dev/termination-log", "message", "");
    case.read_only_root = true;
    let prepared = case.prepare().unwrap();
    assert!(prepared.mounts[0].read_only);
    let dev = prepared.mounts.iter().find(|mount| mount.guest == "/dev").unwrap();
    assert!(!dev.read_only);
    fs::write(dev.host.join("termination-log"), "x".repeat(20_000) + "end").unwrap();
    prepared.termination_message.unwrap().copy_out().unwrap();
    let message = fs::read_to_string(case.host("message")).unwrap();
    assert!(message.ends_with("xend") && message.len() == 16 * 1024);
}

#[test]
fn a_link_in_the_place_of_the_message_leads_nowhere() {
    let case = Case::new().file("/dev/termination-log", "message", "").file("/etc/hosts", "secret", "secret");
    let prepared = case.prepare().unwrap();
    let dev = prepared.mounts[0].host.join("dev");
    let message = prepared.termination_message.unwrap();
    fs::remove_file(dev.join("termination-log")).unwrap();
    symlink(case.host("secret"), dev.join("termination-log")).unwrap();
    message.copy_out().unwrap();
    fs::remove_file(dev.join("termination-log")).unwrap();
    fs::rename(&dev, dev.with_file_name("gone")).unwrap();
    symlink(case.host(""), &dev).unwrap();
    fs::rename(case.host("secret"), case.host("termination-log")).unwrap();
    message.copy_out().unwrap();
    assert_eq!(fs::read_to_string(case.host("message")).unwrap(), "");
}

#[test]
fn a_volume_that_became_a_link_is_not_mounted_and_not_read() {
    let case = Case::new().volume("/data", "shared/part").file("/etc/hosts", "shared/hosts", "10.0.0.2 pod-0\n");
    let elsewhere = case.host("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("hosts"), "secret").unwrap();
    case.prepare().unwrap();
    fs::remove_dir(case.host("shared/part")).unwrap();
    symlink(&elsewhere, case.host("shared/part")).unwrap();
    let refused = |case: &Case| match case.prepare().unwrap_err() {
        MountError::HostPath { guest, source, .. } => (guest, source.to_string()),
        other => panic!("{other}"),
    };
    let (guest, why) = refused(&case);
    assert!(guest == "/data" && why.contains("is a symbolic link, and a mount follows none"), "{guest}: {why}");

    fs::remove_file(case.host("shared/part")).unwrap();
    fs::create_dir(case.host("shared/part")).unwrap();
    fs::remove_file(case.host("shared/hosts")).unwrap();
    symlink(elsewhere.join("hosts"), case.host("shared/hosts")).unwrap();
    let (guest, why) = refused(&case);
    assert!(guest == "/etc/hosts" && why.contains("is a symbolic link"), "{guest}: {why}");
}

#[test]
fn a_message_is_not_taken_from_or_put_through_a_link() {
    let case = Case::new().volume("/dev", "shared/dev").file("/dev/termination-log", "message", "");
    let elsewhere = case.host("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("termination-log"), "secret").unwrap();
    let message = case.prepare().unwrap().termination_message.unwrap();
    // Another container of the pod has the directory above it.
    fs::remove_dir(case.host("shared/dev")).unwrap();
    symlink(&elsewhere, case.host("shared/dev")).unwrap();
    message.copy_out().unwrap_err();
    assert_eq!(fs::read_to_string(case.host("message")).unwrap(), "");

    fs::remove_file(case.host("shared/dev")).unwrap();
    fs::create_dir(case.host("shared/dev")).unwrap();
    fs::write(case.host("shared/dev/termination-log"), "done").unwrap();
    fs::remove_file(case.host("message")).unwrap();
    symlink(elsewhere.join("termination-log"), case.host("message")).unwrap();
    message.copy_out().unwrap_err();
    assert_eq!(fs::read_to_string(elsewhere.join("termination-log")).unwrap(), "secret");
}

#[test]
fn the_kubelets_own_message_comes_after_a_users_file() {
    let case = Case::new().file("/dev/termination-log", "users", "").file("/dev/termination-log", "message", "");
    let error = case.prepare().unwrap_err();
    assert!(matches!(&error, MountError::SingleFile { host, .. } if *host == case.host("users")), "{error}");
}

#[test]
fn guest_paths_are_absolute_and_never_go_up() {
    assert_eq!(normal_guest_path("/a//b/./c/").as_deref(), Some("/a/b/c"));
    assert_eq!(normal_guest_path("/").as_deref(), Some("/"));
    for bad in ["", "a", "../a", "/a/../b", "/.."] {
        assert_eq!(normal_guest_path(bad), None, "{bad}");
    }
}
