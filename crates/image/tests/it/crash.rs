//! A process that pulls and removes without pause is killed again and again; what it leaves must be whole each time.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bench::{module, packed};
use crate::ordinary::{config, tar};
use crate::registry::OCI_MANIFEST;
use image::pack::add_to_layout;
use image::{Content, Digest, Puller, PullerOptions, Reference, Rootfs, Store};
use serde_json::json;

const DIRECTORY: &str = "WASKLET_TEST_CRASH_DIRECTORY";
const KILLS: u32 = 12;

/// Runs in the process to be killed.
async fn pull_for_ever(directory: &Path) {
    let store = Store::open(directory.join("store")).unwrap();
    let mut options = PullerOptions::new(store.clone());
    options.layouts.extend([directory.join("layout"), directory.join("ordinary")]);
    let puller = Puller::new(options);
    for number in 0_u32.. {
        let reference = Reference::parse(&format!("app:{}", number % 5)).unwrap();
        let name = format!("{} {}", number % 7, "x".repeat(200_000));
        add_to_layout(&directory.join("layout"), &reference, &packed(&module(&name))).unwrap();
        let image = puller.pull(&reference, None).await.unwrap();
        let files = Reference::parse(&format!("files:{}", number % 3)).unwrap();
        add_files(&directory.join("ordinary"), &files, number % 4);
        let unpacked = puller.pull(&files, None).await.unwrap();
        if number % 2 == 0 {
            store.remove(unpacked.id).unwrap();
        }
        if number % 3 == 0 {
            store.remove(image.id).unwrap();
        }
    }
}

/// The files of an ordinary image: many, so that it takes a while to unpack them.
fn files_of(number: u32) -> Vec<(String, Vec<u8>)> {
    (0..40).map(|file| (format!("d{}/{file}", file % 5), vec![u8::try_from(number).unwrap(); 4000])).collect()
}

/// Makes the layout one of this image and no other.
fn add_files(layout: &Path, reference: &Reference, number: u32) {
    let files = files_of(number);
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    let layer = tar(&files);
    let config = config(&[&layer], "");
    let blob = |media_type: &str, content: &[u8]| {
        let directory = layout.join("blobs/sha256");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(Digest::of(content).hex()), content).unwrap();
        json!({"mediaType": media_type, "digest": Digest::of(content), "size": content.len()})
    };
    let config = blob("application/vnd.oci.image.config.v1+json", config.as_bytes());
    let layer = blob("application/vnd.oci.image.layer.v1.tar", &layer);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
    let mut entry = blob(OCI_MANIFEST, manifest.as_bytes());
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": reference.to_string()});
    std::fs::write(layout.join("index.json"), json!({"manifests": [entry]}).to_string()).unwrap();
}

/// Whether a root file system is what one of the images has, and all of it.
fn is_whole(rootfs: &Rootfs) -> bool {
    let read = |path: &String| std::fs::read(rootfs.path().join(path)).ok();
    (0..4).any(|number| files_of(number).iter().all(|(path, content)| read(path).as_ref() == Some(content)))
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
    let (mut images, mut unpacked) = (0, 0);
    for round in 0..KILLS {
        let before = table_version(directory.path());
        let mut child = spawn(directory.path());
        crate::bench::until("the child has pulled", || table_version(directory.path()) != before).await;
        if round % 3 == 2 {
            let table = directory.path().join("store/images.json");
            let has_files = || std::fs::read_to_string(&table).is_ok_and(|table| table.contains("\"rootfs\""));
            crate::bench::until("an image of files is in the table", has_files).await;
        }
        if round % 2 == 1 {
            let ingest = directory.path().join("store/ingest");
            let unfinished = || std::fs::read_dir(&ingest).is_ok_and(|mut files| files.next().is_some());
            crate::bench::until("the child is in the midst of a blob", unfinished).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(directory.path().join("store")).unwrap();
        for image in store.list().unwrap() {
            match &image.content {
                Content::Wasm(wasm) => assert_eq!(Digest::of(&std::fs::read(&wasm.path).unwrap()), wasm.digest),
                Content::Rootfs(rootfs) => {
                    assert!(is_whole(rootfs), "{image:?}");
                    unpacked += 1;
                }
                Content::Spin(_) => panic!("{image:?}"),
            }
            images += 1;
        }
        // What was being unpacked is gone at once, as nobody holds it any more.
        let left = std::fs::read_dir(directory.path().join("store/ingest")).unwrap();
        assert_eq!(left.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 0);
        for blob in std::fs::read_dir(store.root().join("blobs/sha256")).unwrap() {
            let path = blob.unwrap().path();
            let content = std::fs::read(&path).unwrap();
            assert_eq!(Digest::of(&content).hex(), path.file_name().unwrap().to_str().unwrap());
        }
    }
    assert!(images > 0 && unpacked > 0, "the child never had an image of each kind in its table");
}
