//! What the store holds after commits, removals, several handles, crashes and damage.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::manifest::Descriptor;

struct Bench {
    root: tempfile::TempDir,
    store: Store,
}

fn bench() -> Bench {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    Bench { root, store }
}

async fn put(store: &Store, content: &[u8]) -> Digest {
    let mut ingest = store.ingest().unwrap();
    ingest.write(content).await.unwrap();
    ingest.finish(&Descriptor::of("", content)).await.unwrap();
    Digest::of(content)
}

/// An image of two blobs: `config`, and `wasm`, whose names are their contents.
async fn record(store: &Store, name: &str, config: &str, wasm: &str) -> Record {
    let reference = Reference::parse(name).unwrap();
    let (id, layer) = (put(store, config.as_bytes()).await, put(store, wasm.as_bytes()).await);
    Record {
        id: ImageId(id),
        made: Made::Wasm { digest: layer, media_type: "application/wasm".into() },
        blobs: BTreeMap::from([(id, config.len() as u64), (layer, wasm.len() as u64)]),
        digests: BTreeSet::from([reference.at(id)]),
        tags: BTreeSet::from([reference]),
        config: ImageConfig::default(),
        verified: Vec::new(),
        pulled_at: 1_000_000_000,
    }
}

async fn commit(store: &Store, name: &str, config: &str, wasm: &str) -> Image {
    store.commit(record(store, name, config, wasm).await).unwrap()
}

fn wasm(image: &Image) -> &Wasm {
    image.content.wasm().unwrap()
}

fn make_old(path: &Path) {
    let old = SystemTime::now() - sweep::LEFTOVER_AGE - Duration::from_secs(60);
    File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
}

fn named(name: &str) -> Reference {
    Reference::parse(name).unwrap()
}

#[tokio::test]
async fn an_image_is_found_by_tag_digest_and_id() {
    let Bench { store, .. } = &bench();
    let image = commit(store, "a/b:1", "config", "wasm bytes").await;
    assert_eq!(image.references, [named("docker.io/a/b:1")]);
    assert_eq!(image.digests, [named("a/b").at(image.id.0)]);
    assert_eq!(image.size_bytes, 16);
    assert_eq!(image.pulled_at, UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    assert_eq!(fs::read(&wasm(&image).path).unwrap(), b"wasm bytes");
    assert_eq!(wasm(&image).digest, Digest::of(b"wasm bytes"));

    let digest = image.id.0;
    for name in
        ["a/b:1".to_owned(), format!("a/b@{digest}"), format!("a/b:other@{digest}"), digest.to_string(), digest.hex()]
    {
        assert_eq!(store.resolve(&name).unwrap().as_ref(), Some(&image), "{name}");
    }
    // The same content in another repository is another image: who may read the one may not read the other.
    for name in ["a/b", "b/b:1", &format!("b/b@{digest}"), &Digest::of(b"").to_string()] {
        assert_eq!(store.resolve(name).unwrap(), None, "{name}");
    }
    assert!(matches!(store.resolve("A B"), Err(StoreError::Name(_))));
    assert_eq!(store.list().unwrap(), [image]);
}

#[tokio::test]
async fn a_tag_moves_to_the_image_pulled_last() {
    let Bench { store, .. } = &bench();
    let old = commit(store, "a", "config 1", "wasm 1").await;
    let new = commit(store, "a", "config 2", "wasm 2").await;
    assert_eq!(store.find(&named("a")).unwrap().unwrap().id, new.id);
    let old = store.find_by_id(old.id).unwrap().unwrap();
    assert_eq!((old.references.len(), old.digests.len()), (0, 1));
}

#[tokio::test]
async fn names_of_one_image_gather_on_it() {
    let Bench { store, .. } = &bench();
    commit(store, "b", "config", "wasm").await;
    let image = commit(store, "a", "config", "wasm").await;
    assert_eq!(image.references, [named("a"), named("b")]);
    assert_eq!(store.list().unwrap().len(), 1);
}

#[tokio::test]
async fn removal_keeps_the_blobs_of_other_images() {
    let Bench { store, .. } = &bench();
    let first = commit(store, "a", "config 1", "shared").await;
    let second = commit(store, "b", "config 2", "shared").await;
    assert!(store.remove(first.id).unwrap());
    assert!(!store.remove(first.id).unwrap());
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&second));
    assert!(wasm(&second).path.exists());
    assert!(!store.blob_path(&first.id.0).exists());
    assert!(store.remove(second.id).unwrap());
    assert_eq!(fs::read_dir(store.blobs()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_blob_removed_during_a_pull_is_noticed_at_the_commit() {
    let Bench { store, .. } = &bench();
    let image = commit(store, "a", "config 1", "shared").await;
    let pulling = record(store, "b", "config 2", "shared").await;
    store.remove(image.id).unwrap();
    assert!(matches!(store.commit(pulling), Err(StoreError::BlobGone(gone)) if gone == wasm(&image).digest));

    let pulling = record(store, "b", "config 2", "wasm").await;
    fs::remove_file(store.blob_path(&pulling.id.0)).unwrap();
    assert!(matches!(store.commit(pulling), Err(StoreError::BlobGone(_))));
    assert_eq!(store.list().unwrap(), []);
}

#[tokio::test]
async fn handles_of_one_directory_see_and_lose_nothing() {
    let Bench { root, store } = &bench();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let other = Store::open(root.path()).unwrap();
        tasks.spawn(async move {
            let name = number.to_string();
            let record = record(&other, &name, &name, "wasm").await;
            tokio::task::spawn_blocking(move || other.commit(record).unwrap()).await.unwrap()
        });
    }
    let committed = tasks.join_all().await;
    assert_eq!(store.list().unwrap().len(), committed.len());
    Store::open(root.path()).unwrap().remove(committed[0].id).unwrap();
    assert_eq!(store.list().unwrap().len(), committed.len() - 1);
}

#[tokio::test]
async fn content_that_is_not_what_it_should_be_never_gets_a_name() {
    let Bench { store, .. } = &bench();
    let expected = Descriptor::of("", b"expected");
    for (content, what) in [("tampered", "digest"), ("short", "5 bytes"), ("expected and more", "17 bytes")] {
        let mut ingest = store.ingest().unwrap();
        ingest.write(content.as_bytes()).await.unwrap();
        let error = ingest.finish(&expected).await.unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    assert!(!store.contains(&expected.digest, expected.size));
    assert_eq!(fs::read_dir(store.blobs()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.ingest_directory()).unwrap().count(), 0);
}

#[tokio::test]
async fn leftovers_of_a_crash_go_after_a_day_and_the_rest_stays() {
    let Bench { root, store } = &bench();
    let image = commit(store, "a", "config", "wasm").await;
    let orphan = store.blob_path(&put(store, b"orphan").await);
    let old_part = store.ingest_directory().join(".unfinished-old");
    let young_part = store.ingest_directory().join(".unfinished-young");
    let old_table = root.path().join(".unfinished-table");
    for part in [&old_part, &young_part, &old_table] {
        fs::write(part, "half").unwrap();
    }
    for path in [&old_part, &old_table, &orphan, &wasm(&image).path] {
        make_old(path);
    }
    let young_orphan = store.blob_path(&put(store, b"young orphan").await);

    let store = Store::open(root.path()).unwrap();
    for gone in [&old_part, &old_table, &orphan] {
        assert!(!gone.exists(), "{}", gone.display());
    }
    for kept in [&young_part, &young_orphan, &wasm(&image).path] {
        assert!(kept.exists(), "{}", kept.display());
    }
    assert_eq!(store.list().unwrap(), [image]);
}

#[tokio::test]
async fn an_image_without_its_wasm_is_none_and_comes_back_with_it() {
    let Bench { store, .. } = &bench();
    let image = commit(store, "a", "config", "wasm").await;
    fs::write(&wasm(&image).path, "was").unwrap();
    assert_eq!(store.find(&named("a")).unwrap(), None);
    fs::remove_file(&wasm(&image).path).unwrap();
    assert_eq!((store.find_by_id(image.id).unwrap(), store.list().unwrap()), (None, vec![]));
    assert_eq!(commit(store, "a", "config", "wasm").await, image);
}

#[tokio::test]
async fn a_damaged_or_foreign_table_is_refused_with_its_name() {
    let Bench { root, store } = &bench();
    commit(store, "a", "config", "wasm").await;
    let path = root.path().join("images.json");
    fs::write(&path, "{\"version\":1,").unwrap();
    assert!(matches!(store.list(), Err(StoreError::Table { .. })));
    fs::write(&path, "{\"version\":3,\"future\":true}").unwrap();
    let error = Store::open(root.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("images.json") && error.contains("version 3"), "{error}");
    // An earlier version's images are pulled again; nothing stands in the way of that.
    fs::write(&path, "{\"version\":1,\"images\":[{}]}").unwrap();
    let store = Store::open(root.path()).unwrap();
    assert_eq!(store.list().unwrap(), []);
    commit(&store, "a", "config", "wasm").await;
}

#[tokio::test]
async fn everything_is_the_owners_alone() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path().join("store")).unwrap();
    let image = commit(&store, "a", "config", "wasm").await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for directory in [store.root(), &store.blobs(), &store.ingest_directory()] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    for file in [&wasm(&image).path, &store.table_path(), &store.root().join("lock")] {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn usage_counts_files_directories_and_blocks() {
    let Bench { store, .. } = &bench();
    let before = store.usage().unwrap();
    let blob = put(store, &[1; 100_000]).await;
    let after = store.usage().unwrap();
    assert_eq!(after.inodes, before.inodes + 1);
    assert!(after.bytes >= before.bytes + 100_000 && after.bytes < before.bytes + 1_000_000, "{before:?} {after:?}");
    fs::remove_file(store.blob_path(&blob)).unwrap();
    assert_eq!(store.usage().unwrap().inodes, before.inodes);
}

mod never_what_is_used {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Pull(usize),
        Lease(usize),
        Release(usize),
        Remove(usize),
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_usize).prop_map(Step::Pull),
            (0..4_usize).prop_map(Step::Lease),
            (0..4_usize).prop_map(Step::Release),
            (0..4_usize).prop_map(Step::Remove),
            Just(Step::Reopen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Four images, two by two of the same wasm.
        #[test]
        fn removals_and_sweeps_leave_alone_what_somebody_holds(steps in proptest::collection::vec(step(), 1..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let Bench { root, mut store } = bench();
            let mut images: [Option<Image>; 4] = Default::default();
            let mut leases: [Vec<Lease>; 4] = Default::default();
            for step in steps {
                match step {
                    Step::Pull(at) => {
                        let (name, config, wasm) = (format!("image{at}"), format!("config {at}"), format!("wasm {}", at % 2));
                        let pull = commit(&store, &name, &config, &wasm);
                        images[at] = Some(runtime.block_on(pull));
                    }
                    Step::Lease(at) => {
                        let lease = images[at].as_ref().map(|image| store.lease(image).unwrap());
                        leases[at].extend(lease.flatten());
                    }
                    Step::Release(at) => drop(leases[at].pop()),
                    Step::Remove(at) => {
                        let Some(image) = &images[at] else { continue };
                        match store.remove(image.id) {
                            Ok(_) => {
                                prop_assert!(leases[at].is_empty());
                                images[at] = None;
                            }
                            Err(StoreError::InUse(id)) => prop_assert!(id == image.id && !leases[at].is_empty()),
                            Err(error) => panic!("{error}"),
                        }
                    }
                    Step::Reopen => store = Store::open(root.path()).unwrap(),
                }
                for (at, image) in images.iter().enumerate() {
                    let Some(image) = image else { continue };
                    let found = store.find_by_id(image.id).unwrap();
                    prop_assert_eq!(found.as_ref().map(|found| &found.content), Some(&image.content));
                    prop_assert_eq!(fs::read(&wasm(image).path).unwrap(), format!("wasm {}", at % 2).into_bytes());
                }
            }
        }
    }
}
