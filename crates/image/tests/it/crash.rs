//! A process that pulls and removes without pause is killed again and again; what it leaves must be whole each time.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bench::{module, packed};
use image::pack::add_to_layout;
use image::{Digest, Puller, PullerOptions, Reference, Store};

const DIRECTORY: &str = "WASKLET_TEST_CRASH_DIRECTORY";
const KILLS: u32 = 12;

/// Runs in the process to be killed.
async fn pull_for_ever(directory: &Path) {
    let store = Store::open(directory.join("store")).unwrap();
    let mut options = PullerOptions::new(store.clone());
    options.layouts.push(directory.join("layout"));
    let puller = Puller::new(options);
    for number in 0_u32.. {
        let reference = Reference::parse(&format!("app:{}", number % 5)).unwrap();
        let name = format!("{} {}", number % 7, "x".repeat(200_000));
        add_to_layout(&directory.join("layout"), &reference, &packed(&module(&name))).unwrap();
        let image = puller.pull(&reference, None).await.unwrap();
        if number % 3 == 0 {
            store.remove(image.id).unwrap();
        }
    }
}

/// This same test in a process of its own, which takes the part above.
fn spawn(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::a_kill_at_any_moment_leaves_the_store_usable"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn table_version(directory: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(directory.join("store/images.json")).ok()?.modified().ok()
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_the_store_usable() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return pull_for_ever(Path::new(&directory)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut images = 0;
    for round in 0..KILLS {
        let before = table_version(directory.path());
        let mut child = spawn(directory.path());
        crate::bench::until("the child has pulled", || table_version(directory.path()) != before).await;
        if round % 2 == 1 {
            let ingest = directory.path().join("store/ingest");
            let unfinished = || std::fs::read_dir(&ingest).is_ok_and(|mut files| files.next().is_some());
            crate::bench::until("the child is in the midst of a blob", unfinished).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(directory.path().join("store")).unwrap();
        for image in store.list().unwrap() {
            assert_eq!(Digest::of(&std::fs::read(&image.wasm.path).unwrap()), image.wasm.digest);
            images += 1;
        }
        for blob in std::fs::read_dir(store.root().join("blobs/sha256")).unwrap() {
            let path = blob.unwrap().path();
            let content = std::fs::read(&path).unwrap();
            assert_eq!(Digest::of(&content).hex(), path.file_name().unwrap().to_str().unwrap());
        }
    }
    assert!(images > 0, "the child never had an image in its table");
}
