//! Wasm files that are wrong, one way each: a clear reason on the container, and the neighbours go on.

use std::time::Duration;

use cri::v1;
use serde_json::json;
use testbed::guests::wat::{component_of, prints_and_exits};

use crate::bed::{Node, Pod, eventually, reference};
use crate::layout;

/// What comes of a container made of a file.
enum Outcome {
    /// It is not made, and these words say why.
    Refused(&'static [&'static str]),
    /// It ends with this code and reason, and with these words in its message.
    Ends(i32, &'static str, &'static str),
    /// It runs until it is killed.
    Killed,
}

use Outcome::{Ends, Killed, Refused};

struct Case {
    name: &'static str,
    wasm: Vec<u8>,
    outcome: Outcome,
}

fn text(source: &str) -> Vec<u8> {
    wat::parse_str(source).unwrap()
}

fn cases() -> Vec<Case> {
    let start = r#"(func (export "_start"))"#;
    let good = text(&format!("(module {start})"));
    let case = |name, wasm, outcome| Case { name, wasm, outcome };
    vec![
        case("empty", Vec::new(), Refused(&["not a WebAssembly binary"])),
        case("not-wasm", b"#!/bin/sh\necho no\n".to_vec(), Refused(&["not a WebAssembly binary"])),
        case("truncated", good[..good.len() - 3].to_vec(), Refused(&["not a complete WebAssembly file"])),
        case("wrong-version", [&b"\0asm\x07\0\0\0"[..], &good[8..]].concat(), Refused(&["version"])),
        case("no-entry-point", text("(module)"), Refused(&["no entry point", "_start"])),
        case("invalid", text(r#"(module (func (export "_start") i32.add drop))"#), Refused(&["cannot be compiled"])),
        case("import-less", good, Ends(0, "Completed", "")),
        case(
            "start-traps",
            text(&format!("(module (func $begin unreachable) (start $begin) {start})")),
            Ends(134, "Error", "begin"),
        ),
        case(
            "start-loops",
            text(&format!("(module (func $begin (loop $on (br $on))) (start $begin) {start})")),
            Killed,
        ),
        case("memory-too-large", text(&format!("(module (memory 1024) {start})")), Ends(137, "OOMKilled", "")),
        case("table-too-large", text(&format!("(module (table 8000000 funcref) {start})")), Ends(137, "OOMKilled", "")),
        // Ten times as many take a compiler built for debugging minutes on a machine that does other things.
        case("functions", text(&format!("(module {} {start})", "(func)".repeat(10_000))), Ends(0, "Completed", "")),
        case("components-in-components", nested(1_000), Ends(0, "Completed", "")),
        case(
            "names-of-a-book",
            text(&format!(r#"(module (import "env" "{}" (func)) {start})"#, "chapter ".repeat(10_000))),
            Refused(&["imports what this node does not provide", "chapter", "[cut]"]),
        ),
    ]
}

/// A command beside which `depth` components stand in one another.
fn nested(depth: usize) -> Vec<u8> {
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const SECTION: u8 = 4;
    let section = |content: &[u8]| {
        let mut section = vec![SECTION];
        let mut length = content.len();
        loop {
            let byte = u8::try_from(length & 0x7f).unwrap();
            length >>= 7;
            if length == 0 {
                section.push(byte);
                break;
            }
            section.push(byte | 0x80);
        }
        section.extend_from_slice(content);
        section
    };
    let inner = (0..depth).fold(COMPONENT.to_vec(), |inner, _| [COMPONENT, &section(&inner)].concat());
    let mut outer = component_of(&prints_and_exits("deep\n", 0));
    outer.extend(section(&inner));
    outer
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said_and_nothing_else_is_disturbed() {
    let node = Node::new().await;
    let neighbour = node.pod("neighbour").await;
    let stays = neighbour.start("stays", "parked", |_| {}).await;
    let pod = node.pod("bad").await;
    for Case { name, wasm, outcome } in cases() {
        let config = json!({"architecture": "wasm", "os": "wasip1", "layerDigests": []}).to_string();
        let config = ("application/vnd.wasm.config.v0+json", config.as_bytes());
        layout::add(&node.layout(), &reference(name), config, &[("application/wasm", &wasm)]);
        comes_true(&node, &pod, name, outcome).await;
        let greets = neighbour.start(&format!("greets-after-{name}"), "prints", |_| {}).await;
        assert_eq!(neighbour.exit_of(&greets).await.exit_code, 0, "{name}");
    }
    let status = node.client().container_status(&stays).await.unwrap();
    assert_eq!(status.state(), v1::ContainerState::ContainerRunning);
}

#[tokio::test]
async fn a_file_of_more_than_512_mib_is_refused_by_its_size_before_it_is_read() {
    const SIZE: u64 = (512 << 20) + 1;
    let node = Node::new().await;
    let pod = node.pod("oversized").await;
    let blobs = node.layout().join("blobs/sha256");
    let (config, wasm) = (image::Digest::of(b"{}"), image::Digest::of(b"a digest of something else"));
    std::fs::write(blobs.join(config.hex()), b"{}").unwrap();
    std::fs::File::create(blobs.join(wasm.hex())).unwrap().set_len(SIZE).unwrap();
    let manifest = json!({"schemaVersion": 2,
        "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/wasm", "digest": wasm, "size": SIZE}]});
    layout::publish(&node.layout(), &reference("oversized"), &manifest);
    let error = pod.try_create("oversized", "oversized", |_| {}).await.unwrap_err();
    let said = error.message();
    assert!([SIZE, 512 << 20].iter().all(|bytes| said.contains(&bytes.to_string())), "{said}");
}

async fn comes_true(node: &Node, pod: &Pod<'_>, name: &str, outcome: Outcome) {
    let limits = v1::LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() };
    let created = pod.try_create(name, name, |config| {
        config.linux = Some(v1::LinuxContainerConfig { resources: Some(limits), ..Default::default() });
    });
    match (created.await, outcome) {
        (Err(error), Refused(words)) => {
            assert!(words.iter().all(|word| error.message().contains(word)), "{name}: {}", error.message());
            assert!(error.message().len() < 8 << 10, "{name}: a reason is not a book");
        }
        (Ok(id), Ends(code, reason, message)) => {
            node.client().start_container(&id).await.unwrap();
            let status = pod.exit_of(&id).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{name}: {status:?}");
            assert!(status.message.contains(message), "{name}: {status:?}");
        }
        (Ok(id), Killed) => {
            node.client().start_container(&id).await.unwrap();
            eventually("it has used some time", async || {
                let used = node.client().container_stats(&id).await.unwrap().cpu.unwrap();
                used.usage_core_nano_seconds.filter(|nanoseconds| nanoseconds.value > 0)
            })
            .await;
            node.client().stop_container(&id, Duration::ZERO).await.unwrap();
            assert_eq!(pod.exit_of(&id).await.exit_code, 137, "{name}");
        }
        (Ok(_), Refused(_)) => panic!("{name} is made"),
        (Err(error), _) => panic!("{name} is not made: {}", error.message()),
    }
}
