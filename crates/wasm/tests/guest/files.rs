//! Files: what is mounted and how, and that nothing else is there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;
use testbed::guests::wat;
use tokio::sync::mpsc;
use wasm::guest::{Exit, Mount, StartError, Stdin};

use crate::node::{Finished, Setup};

/// WASI's number for "no such file", as an exit code of the guest that reads.
const NO_SUCH_FILE: Exit = Exit::Code(44);
/// WASI's number for "operation not permitted".
const NOT_PERMITTED: Exit = Exit::Code(63);
/// WASI's number for "not beneath anything that is mounted".
const NOT_MOUNTED: Exit = Exit::Code(76);

fn mount(host: &Path, guest: &str) -> Mount {
    let host = host.canonicalize().unwrap_or_else(|_| host.to_owned());
    Mount { host, guest: guest.to_owned(), read_only: true }
}

async fn read(mounts: Vec<Mount>, path: &str) -> Finished {
    let setup = Setup::of(&wat::reads()).await.with(|spec| {
        spec.mounts = mounts;
        spec.args.push(path.to_owned());
    });
    setup.run().await
}

#[tokio::test]
async fn each_mount_is_found_at_its_path_and_nothing_above_it() {
    let (root, data, outside) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(root.path().join("etc"), "root\n").unwrap();
    fs::write(data.path().join("file"), "data\n").unwrap();
    fs::write(outside.path().join("secret"), "secret\n").unwrap();
    symlink(outside.path().join("secret"), root.path().join("link")).unwrap();
    let mounts = || vec![mount(root.path(), "/"), mount(data.path(), "/var/data")];

    assert_eq!(read(mounts(), "/etc").await.stdout, "root\n");
    assert_eq!(read(mounts(), "/var/data/file").await.stdout, "data\n");
    assert_eq!(read(mounts(), "/nothing").await.exit, NO_SUCH_FILE);
    let up = format!("/../{}/secret", outside.path().file_name().unwrap().to_str().unwrap());
    assert_eq!(read(mounts(), &up).await.exit, NOT_PERMITTED);
    assert_eq!(read(mounts(), "/link").await.exit, NOT_PERMITTED);
    assert_eq!(read(vec![mount(data.path(), "/var/data")], "/etc/passwd").await.exit, NOT_MOUNTED);
}

/// For every byte it reads, prints the file `key` in its first mount, as it is then.
const READS_AGAIN: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "key")
  (func $check (param i32) (if (local.get 0) (then (call $proc_exit (local.get 0)))))
  (func (export "_start")
    (loop $again
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 1))
      (call $check (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.eqz (i32.load (i32.const 8))) (then (return)))
      (call $check (call $path_open (i32.const 3) (i32.const 1) (i32.const 32) (i32.const 3)
        (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 16)))
      (i32.store (i32.const 4) (i32.const 1024))
      (call $check (call $fd_read (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (call $check (call $fd_close (i32.load (i32.const 16))))
      (br $again))))"#;

#[tokio::test]
async fn a_running_guest_sees_an_atomic_update_at_its_next_open() {
    let volume = tempfile::tempdir().unwrap();
    let version = |name: &str, value: &str| {
        fs::create_dir(volume.path().join(name)).unwrap();
        fs::write(volume.path().join(name).join("key"), value).unwrap();
        symlink(name, volume.path().join("..new")).unwrap();
        fs::rename(volume.path().join("..new"), volume.path().join("..data")).unwrap();
    };
    version("..2026_one", "one");
    symlink("..data/key", volume.path().join("key")).unwrap();

    let (input, stdin) = mpsc::channel(1);
    let guest = ::wat::parse_str(READS_AGAIN).unwrap();
    let setup = Setup::of(&guest).await.with(|spec| {
        spec.stdin = Stdin::Pipe(stdin);
        spec.mounts = vec![mount(volume.path(), "/etc/config")];
    });
    let mut running = setup.start();
    input.send(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(running.stdout.recv().await.unwrap(), "one");
    version("..2026_two", "two");
    fs::remove_dir_all(volume.path().join("..2026_one")).unwrap();
    input.send(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(running.stdout.recv().await.unwrap(), "two");
    drop(input);
    assert_eq!(running.finish().await.exit, Exit::Code(0));
}

/// Makes the file `new` in its first mount; the exit code says whether it could.
const CREATES: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "new")
  (func (export "_start")
    (call $proc_exit (call $path_open (i32.const 3) (i32.const 0) (i32.const 32) (i32.const 3)
      (i32.const 1) (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 16)))))"#;

#[tokio::test]
async fn only_a_writable_mount_is_written_to() {
    let guest = ::wat::parse_str(CREATES).unwrap();
    for (read_only, exit) in [(true, NOT_PERMITTED), (false, Exit::Code(0))] {
        let dir = tempfile::tempdir().unwrap();
        let mount = Mount { read_only, ..mount(dir.path(), "/data") };
        let ended = Setup::of(&guest).await.with(|spec| spec.mounts = vec![mount]).run().await;
        assert_eq!(ended.exit, exit);
        assert_eq!(dir.path().join("new").exists(), !read_only);
    }
}

#[tokio::test]
async fn a_mount_that_is_not_there_is_named() {
    for wasm in [wat::sleeps(), wat::http_traps()] {
        let setup = Setup::of(&wasm).await.with(|spec| spec.mounts = vec![mount(Path::new("/nowhere"), "/data")]);
        let error = setup.try_start().err().expect("the mount is not there");
        assert!(matches!(error, StartError::Mount { .. }));
        assert_eq!(error.to_string(), "mount /data: cannot open the host directory /nowhere");
    }
}

#[tokio::test]
async fn a_mount_that_became_a_link_leads_nowhere() {
    let (volume, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(outside.path().join("part")).unwrap();
    fs::write(outside.path().join("part/secret"), "secret\n").unwrap();
    let root = volume.path().canonicalize().unwrap();
    // The last part of the path, and one on the way there.
    symlink(outside.path().join("part"), root.join("last")).unwrap();
    symlink(outside.path(), root.join("way")).unwrap();
    for path in ["last", "way/part"] {
        let mount = Mount { host: root.join(path), guest: "/data".into(), read_only: true };
        let setup = Setup::of(&wat::reads()).await.with(|spec| {
            spec.mounts = vec![mount];
            spec.args.push("/data/secret".into());
        });
        let error = setup.try_start().err().expect("a guest got through the link");
        let StartError::Mount { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("is a symbolic link, and a mount follows none"), "{path}: {source}");
    }
}
