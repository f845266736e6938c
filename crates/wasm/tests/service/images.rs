//! Images of files around a `.wasm`, images as volumes, and what the runtime keeps of images and code.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cri::{Code, v1};
use image::pack;
use serde_json::json;
use testbed::guests::wat;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::bed::{Node, Pod, reference};
use crate::guests;
use crate::layout::{OCI_CONFIG, add, add_ordinary, layer};

/// Adds the image `files`: programs, data, and links between them, in two layers.
fn add_files(node: &Node) {
    let base = layer(&[
        ("app/read.wasm", &wat::reads()),
        ("usr/bin/show", &guests::shows_itself()),
        ("usr/bin/alias", b"-> /usr/bin/show"),
        ("bin/sh", b"\x7fELF"),
        ("bin/park", &wat::sleeps()),
        ("data/greeting", b"of the first layer\n"),
        ("data/gone", b"gone"),
        ("etc/hostname", b"-> /data/greeting"),
        ("run.sh", b"#!/usr/bin/show -e\n"),
    ]);
    let upper = layer(&[("data/greeting", b"of the image\n"), ("data/.wh.gone", b"")]);
    let run = json!({"Entrypoint": ["/app/read.wasm"], "Cmd": ["/data/greeting"], "Env": ["A=1", "B=1"],
        "WorkingDir": "/data", "User": "1000"});
    add_ordinary(&node.layout(), &reference("files"), &run, &[base, upper]);
}

async fn output_of(pod: &Pod<'_>, name: &str, change: impl FnOnce(&mut v1::ContainerConfig)) -> (i32, Vec<String>) {
    let id = pod.start(name, "files", change).await;
    let status = pod.exit_of(&id).await;
    (status.exit_code, pod.log(name).iter().map(|line| line.trim_start_matches("stdout F ").to_owned()).collect())
}

#[tokio::test]
async fn a_command_beside_a_guest_is_a_program_of_its_image() {
    let node = Node::new().await;
    add_files(&node);
    let pod = node.pod("commands").await;
    let id = pod.start("main", "files", |config| config.command = vec!["park".into()]).await;
    let exec = async |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let answer = node.client().exec_sync(&id, &words, std::time::Duration::from_secs(20)).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (answer.exit_code, text(answer.stdout), text(answer.stderr))
    };
    assert_eq!(exec(&["/app/read.wasm", "/data/greeting"]).await, (0, "of the image\n".into(), String::new()));
    let (code, output, _) = exec(&["alias", "x"]).await;
    assert!(code == 0 && output.starts_with("alias\nx\nA=1\n"), "{output}");
    let (code, output, _) = exec(&["/run.sh"]).await;
    assert!(code == 0 && output.starts_with("/usr/bin/show\n-e\n/run.sh\n"), "{output}");
    let (code, _, complaint) = exec(&["sh", "-c", "exit 0"]).await;
    assert!(code == 126 && complaint.contains("exec format error"), "{complaint}");
    let (code, _, complaint) = exec(&["nothing"]).await;
    assert!(code == 127 && complaint.contains("not found in $PATH"), "{complaint}");
}

fn is_mounted_below(directory: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.contains(&format!(" {}", directory.canonicalize().unwrap().display()))
}

#[tokio::test]
async fn an_ordinary_image_runs_and_sees_its_files() {
    let node = Node::new().await;
    add_files(&node);
    let pod = node.pod("files").await;
    assert_eq!(output_of(&pod, "default", |_| {}).await, (0, vec!["of the image".to_owned()]));
    let args = |args: &[&str]| args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>();
    let hidden = output_of(&pod, "hidden", |config| config.args = args(&["/data/gone"])).await;
    assert_eq!(hidden.0, 44);
    // What the node adds takes the place of the image's own, also of a link that would lead elsewhere.
    let hostname = output_of(&pod, "hostname", |config| config.args = args(&["/etc/hostname"])).await;
    assert_eq!(hostname, (0, vec!["files".to_owned()]));
    let after = output_of(&pod, "after", |_| {}).await;
    assert_eq!(after, (0, vec!["of the image".to_owned()]));

    let env = |config: &mut v1::ContainerConfig| {
        config.command = args(&["alias", "x"]);
        config.envs = vec![v1::KeyValue { key: "B".into(), value: b"2".to_vec() }];
    };
    let shown = output_of(&pod, "show", env).await;
    assert_eq!(shown, (0, args(&["alias", "x", "A=1", "B=2", "HOSTNAME=files", "PWD=/data"])));
    let script = output_of(&pod, "script", |config| config.command = args(&["/run.sh", "y"])).await;
    assert_eq!(script.1[..4], args(&["/usr/bin/show", "-e", "/run.sh", "y"]));
    pod.remove().await;
    assert!(!is_mounted_below(&node.state_dir()));
}

#[tokio::test]
async fn what_is_no_wasm_is_refused_by_what_it_is() {
    let node = Node::new().await;
    add_files(&node);
    let spin = "application/vnd.fermyon.spin.application.v1+config";
    let locked = br#"{"spin_lock_version":1,"metadata":{"name":"shop"},"triggers":[],"components":[]}"#;
    let component = ("application/vnd.wasm.content.layer.v1+wasm", &wat::sleeps()[..]);
    add(&node.layout(), &reference("spin"), (OCI_CONFIG, b"{}"), &[component, (spin, locked)]);
    add_ordinary(&node.layout(), &reference("silent"), &json!({}), &[layer(&[("a", b"a")])]);
    let pod = node.pod("refused").await;
    for (name, guest, command, words) in [
        ("elf", "files", &["sh"][..], "exec format error: /bin/sh is a Linux program (ELF)"),
        ("missing", "files", &["/nowhere.wasm"], "\"/nowhere.wasm\": no such file in the image"),
        ("silent", "silent", &[], "no command specified"),
        ("spin", "spin", &[], "the application has no component that a route leads to"),
    ] {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let error = pod.try_create(name, guest, |config| config.command = command).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{name}: {error:?}");
        assert!(error.message().contains(words) && error.message().contains(guest), "{}", error.message());
    }
    assert!(!is_mounted_below(&node.state_dir()));
}

#[tokio::test]
async fn an_image_is_a_volume_and_is_not_removed_while_it_is_one() {
    let node = Node::new().await;
    add_files(&node);
    let client = node.client();
    let spec = |guest: &str| v1::ImageSpec { image: reference(guest), ..Default::default() };
    client.pull_image(spec("files"), None, None).await.unwrap();
    let pod = node.pod("volume").await;
    let mount = |sub_path: &str| v1::Mount {
        container_path: "/vol".into(),
        image: Some(spec("files")),
        image_sub_path: sub_path.into(),
        readonly: true,
        ..Default::default()
    };
    let reads = pod
        .start("reads", "reads", |config| {
            config.mounts = vec![mount("data")];
            config.args = vec!["/vol/greeting".into()];
        })
        .await;
    let status = pod.exit_of(&reads).await;
    assert_eq!((status.exit_code, pod.log("reads")), (0, vec!["stdout F of the image".to_owned()]));
    assert_eq!(status.mounts[0].image.as_ref().unwrap().image, reference("files"));

    let parked = pod.start("parked", "parked", |config| config.mounts = vec![mount("")]).await;
    let error = client.remove_image(spec("files")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    client.stop_container(&parked, std::time::Duration::ZERO).await.unwrap();
    client.remove_image(spec("files")).await.unwrap();
    assert!(client.image_status(spec("files")).await.unwrap().is_none());

    for (mount, words) in [
        (mount("nowhere"), "not found"),
        (v1::Mount { image: Some(spec("reads")), ..mount("") }, "is made of wasm alone"),
        (v1::Mount { readonly: false, ..mount("") }, "mounted read-only"),
        (mount("../etc"), "without .."),
    ] {
        let error = pod.try_create("bad", "reads", |config| config.mounts = vec![mount]).await.unwrap_err();
        assert!(error.message().contains(words), "{words}: {}", error.message());
    }
}

/// How many compiled files are kept.
fn compiled(node: &Node) -> usize {
    let files = std::fs::read_dir(node.state_dir().join("code")).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|it| it == "cwasm")).count()
}

#[tokio::test]
async fn a_second_start_reads_nothing_of_the_image() {
    let mut node = Node::new().await;
    let pod = node.pod("first").await;
    let first = pod.start("main", "prints", |_| {}).await;
    assert_eq!(pod.exit_of(&first).await.exit_code, 0);
    // Of the same size and all zeros: whoever reads it does not get wasm.
    let blob = node
        .state_dir()
        .join("images/blobs/sha256")
        .join(image::Digest::of(&wat::prints_and_exits("hello from wasm\n", 0)).hex());
    let size = std::fs::metadata(&blob).unwrap().len();
    std::fs::write(&blob, vec![0; usize::try_from(size).unwrap()]).unwrap();
    let spec = v1::ImageSpec { image: reference("prints"), ..Default::default() };
    for name in ["second", "third"] {
        let pod = node.pod(name).await;
        let config = pod.container_config("main", "prints");
        let id = node.client().create_container(&pod.id, config, pod.config.clone()).await.unwrap();
        node.client().start_container(&id).await.unwrap();
        assert_eq!(pod.exit_of(&id).await.exit_code, 0);
        assert_eq!(pod.log("main"), ["stdout F hello from wasm"]);
        assert_eq!(node.runtime.as_ref().unwrap().compilations(), u64::from(name == "second"));
        node.kill_and_reopen().await;
    }
    // With the image goes its code, and what is said to be used becomes less.
    let used = async || node.client().image_fs_info().await.unwrap().image_filesystems[0].clone();
    let (before, files) = (used().await, compiled(&node));
    node.client().remove_image(spec).await.unwrap();
    let after = used().await;
    assert_eq!((files, compiled(&node)), (1, 0));
    let bytes = |usage: &v1::FilesystemUsage| usage.used_bytes.unwrap().value;
    assert!(bytes(&after) < bytes(&before), "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pods_of_a_new_image_are_one_download_and_one_compilation() {
    let node = Node::new().await;
    let wasm = wat::prints_and_exits("one of a hundred\n", 0);
    let (image, downloads) = serve_image(&wasm).await;
    let mut pods = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (client, image) = (node.client().clone(), v1::ImageSpec { image: image.clone(), ..Default::default() });
        let sandbox = node.sandbox_config(&format!("pod-{number}"), |_| {});
        pods.spawn(async move {
            let id = client.run_pod_sandbox(sandbox.clone(), "").await.unwrap();
            client.pull_image(image.clone(), None, None).await.unwrap();
            let config = v1::ContainerConfig {
                metadata: Some(v1::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
                image: Some(image),
                ..Default::default()
            };
            let container = client.create_container(&id, config, sandbox).await.unwrap();
            client.start_container(&container).await.unwrap();
            container
        });
    }
    for container in pods.join_all().await {
        assert_eq!(crate::bed::exit_of(&node, &container).await.exit_code, 0);
    }
    assert_eq!(downloads.load(Ordering::Relaxed), 1);
    assert_eq!(node.runtime.as_ref().unwrap().compilations(), 1);
}

/// A registry of one image. Says how often its wasm layer was asked for.
async fn serve_image(wasm: &[u8]) -> (String, Arc<AtomicUsize>) {
    let artifact = pack::artifact(wasm).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let image = format!("{}/hundred:v1", listener.local_addr().unwrap());
    let downloads = Arc::new(AtomicUsize::new(0));
    let (counted, wasm) = (Arc::clone(&downloads), wasm.to_vec());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let count = client.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let (media_type, content) = match path {
                "/v2/" => ("application/json", &b"{}"[..]),
                path if path.contains("/manifests/") => {
                    ("application/vnd.oci.image.manifest.v1+json", artifact.manifest())
                }
                path if path.ends_with(&image::Digest::of(&wasm).to_string()) => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    ("application/octet-stream", &wasm[..])
                }
                _ => ("application/octet-stream", artifact.config()),
            };
            let digest = image::Digest::of(content);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                content.len()
            );
            let body = if request.starts_with("HEAD") { &b""[..] } else { content };
            let _answered = client.write_all(&[head.as_bytes(), body].concat()).await;
        }
    });
    (image, downloads)
}
