//! What a built image holds, and that nothing of the machine is in it.

use std::io::Read;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::*;

fn module() -> Vec<u8> {
    wat::parse_str(r#"(module (func (export "_start")))"#).unwrap()
}

fn rootfs(directory: &Path) -> Rootfs {
    let mut files = Files::default();
    files.add_file(Path::new("app.wasm"), "/app.wasm", module()).unwrap();
    files.add(directory, "/srv/site").unwrap();
    Rootfs { files, entrypoint: vec!["/app.wasm".into()], ..Rootfs::default() }
}

/// A directory with a file, an executable, a link and an empty directory.
fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("index.html"), "<p>").unwrap();
    fs::write(tree.path().join("tool"), "#!").unwrap();
    fs::set_permissions(tree.path().join("tool"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::create_dir(tree.path().join("empty")).unwrap();
    symlink("index.html", tree.path().join("start.html")).unwrap();
    tree
}

fn unzipped(artifact: &Artifact) -> Vec<u8> {
    let mut archive = Vec::new();
    flate2::read::GzDecoder::new(artifact.layer()).read_to_end(&mut archive).unwrap();
    archive
}

#[test]
fn an_image_holds_its_files_sorted_and_says_how_to_run() {
    let tree = tree();
    let rootfs = Rootfs {
        cmd: vec!["--fast".into()],
        env: vec!["A=b".into()],
        working_dir: Some("/srv".into()),
        labels: BTreeMap::from([("team".into(), "web".into())]),
        ..rootfs(tree.path())
    };
    let artifact = image(&rootfs, &Annotations::default()).unwrap();
    let archive = unzipped(&artifact);
    let config: Value = serde_json::from_slice(artifact.config()).unwrap();
    assert_eq!(
        config["config"],
        json!({"Entrypoint": ["/app.wasm"], "Cmd": ["--fast"], "Env": ["A=b"], "WorkingDir": "/srv", "Labels": {"team": "web"}})
    );
    assert_eq!(config["rootfs"], json!({"type": "layers", "diff_ids": [Digest::of(&archive)]}));
    assert_eq!((&config["os"], &config["architecture"]), (&json!("wasi"), &json!("wasm")));

    let mut entries = Vec::new();
    for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        entries.push(format!("{:o} {}", header.mode().unwrap(), entry.path().unwrap().display()));
    }
    assert_eq!(
        entries,
        [
            "644 app.wasm",
            "755 srv/",
            "755 srv/site/",
            "755 srv/site/empty/",
            "644 srv/site/index.html",
            "777 srv/site/start.html",
            "755 srv/site/tool"
        ]
    );
}

#[test]
fn equal_files_make_equal_images() {
    let (one, other) = (tree(), tree());
    let image = |directory: &Path| image(&rootfs(directory), &Annotations::default()).unwrap();
    assert_eq!(image(one.path()), image(other.path()));
    fs::write(other.path().join("index.html"), "<b>").unwrap();
    assert_ne!(image(one.path()), image(other.path()));
}

#[test]
fn the_entrypoint_is_wasm_and_among_the_files() {
    let with = |entrypoint: &[&str]| {
        let mut rootfs = rootfs(tree().path());
        rootfs.entrypoint = entrypoint.iter().map(|word| (*word).to_owned()).collect();
        image(&rootfs, &Annotations::default()).unwrap_err()
    };
    assert!(matches!(with(&[]), PackError::Entrypoint(_)));
    assert!(with(&["/other.wasm"]).to_string().contains("/other.wasm"));
    assert!(matches!(with(&["/srv/site/index.html"]), PackError::Wasm(_)));
}

#[test]
fn paths_that_lead_out_or_collide_are_refused() {
    let tree = tree();
    let file = tree.path().join("index.html");
    let mut files = Files::default();
    for bad in ["index.html", "", "/../x", "/a/../b"] {
        assert!(matches!(files.add(&file, bad), Err(FilesError::Path(_))), "{bad}");
    }
    files.add(&file, "/a").unwrap();
    files.add(&file, "/a").unwrap();
    assert!(matches!(files.add(&file, "/a/b"), Err(FilesError::Taken { .. })));
    assert!(matches!(files.add(&file, "/"), Err(FilesError::Taken { .. })));
    let missing = files.add(Path::new("/no/such/file"), "/x").unwrap_err();
    assert!(missing.to_string().contains("/no/such/file"));
    let socket = std::os::unix::net::UnixListener::bind(tree.path().join("socket")).unwrap();
    assert!(matches!(files.add(tree.path(), "/srv"), Err(FilesError::Special(_))));
    drop(socket);
}
