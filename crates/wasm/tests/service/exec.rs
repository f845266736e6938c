//! Commands in containers: programs, exported functions, and what they may use.

use std::time::Duration;

use cri::{ExecError, v1};

use crate::bed::{Node, Pod, eventually, free_port, reference, serves_on};

/// Far more than any of these commands needs.
const LIMIT: Duration = Duration::from_secs(30);

async fn exec(node: &Node, id: &str, words: &[&str], limit: Duration) -> Result<v1::ExecSyncResponse, ExecError> {
    let words: Vec<_> = words.iter().copied().map(str::to_owned).collect();
    node.client().exec_sync(id, &words, limit).await
}

/// The exit code and what was written to either stream.
async fn run(node: &Node, id: &str, words: &[&str]) -> (i32, String, String) {
    let answer = exec(node, id, words, LIMIT).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (answer.exit_code, text(answer.stdout), text(answer.stderr))
}

fn says(code: i32, stdout: &str, stderr: &str) -> (i32, String, String) {
    (code, stdout.to_owned(), stderr.to_owned())
}

async fn parked(pod: &Pod<'_>) -> String {
    pod.start("main", "commands", |config| config.command = vec!["park".into()]).await
}

fn limited(cpu_quota: i64, memory_limit_in_bytes: i64) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources { cpu_period: 100_000, cpu_quota, memory_limit_in_bytes, ..Default::default() }
}

#[tokio::test]
async fn a_modules_functions_are_called_by_name() {
    let node = Node::new().await;
    let pod = node.pod("module").await;
    let id = parked(&pod).await;
    assert_eq!(run(&node, &id, &["#add", "40", "2"]).await, says(0, "42\n", ""));
    let (code, stdout, stderr) = run(&node, &id, &["#unlucky"]).await;
    assert_eq!((code, stdout.as_str()), (134, ""));
    assert!(stderr.contains("unreachable") && stderr.contains("!unlucky"), "{stderr}");
    let (code, _, stderr) = run(&node, &id, &["#add", "40"]).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("func(s32, s32) -> s32") && stderr.contains("it takes 2 arguments"), "{stderr}");
    let (code, _, stderr) = run(&node, &id, &["#subtract"]).await;
    assert_eq!(code, 127);
    assert!(stderr.contains("\"subtract\"") && stderr.contains("_start, add, unlucky"), "{stderr}");
}

#[tokio::test]
async fn a_librarys_functions_are_called_beside_it_each_after_its_own_beginning() {
    let node = Node::new().await;
    let pod = node.pod("library").await;
    let id = pod.start("main", "reactor", |_| {}).await;
    assert_eq!(run(&node, &id, &["#add", "40", "2"]).await, says(0, "43\n", ""));
    let (code, _, stderr) = run(&node, &id, &["add", "40", "2"]).await;
    assert_eq!(code, 126);
    assert!(stderr.contains("no command that could be run") && stderr.contains("add"), "{stderr}");
}

#[tokio::test]
async fn a_components_functions_are_called_by_interface_and_with_types() {
    let node = Node::new().await;
    let pod = node.pod("component").await;
    let command = pod.start("command", "health", |_| {}).await;
    let port = free_port().await;
    let http = pod.start("http", "http-health", |config| config.annotations = serves_on(port)).await;
    for id in [&command, &http] {
        for name in ["#liveness", "#health/liveness", "#wasklet:probe/health.liveness"] {
            assert_eq!(run(&node, id, &[name]).await, says(0, "ok\n", ""), "{name}");
        }
        assert_eq!(run(&node, id, &["#wasklet:probe/health@0.1.0#readiness"]).await, says(1, "", "still warming up\n"));
        let (code, _, stderr) = run(&node, id, &["#startup"]).await;
        assert_eq!(code, 134, "{stderr}");
        assert_eq!(run(&node, id, &["#add", "1", "2"]).await, says(0, "3\n", ""));
        for name in ["wasm", "\"wasm\""] {
            assert_eq!(run(&node, id, &["#greet", name]).await, says(0, "\"hello, wasm\"\n", ""));
        }
        let (code, _, stderr) = run(&node, id, &["#add", "1", "-2"]).await;
        assert_eq!(code, 2);
        assert!(stderr.contains("argument 2, \"-2\", is no u32"), "{stderr}");
        let (code, _, stderr) = run(&node, id, &["#health.liveliness"]).await;
        assert_eq!(code, 127);
        assert!(stderr.contains("wasklet:probe/health@0.1.0#liveness"), "{stderr}");
    }
}

#[tokio::test]
async fn functions_of_a_waiting_program_of_wasi_03_are_called_in_it_and_a_busy_one_is_given_up() {
    let node = Node::new().await;
    let pod = node.pod("live").await;
    let id = pod.start("main", "live", |_| {}).await;
    assert_eq!(run(&node, &id, &["#count"]).await, says(0, "42\n", ""));
    assert_eq!(run(&node, &id, &["#liveness"]).await, says(0, "ok\n", ""));
    assert_eq!(run(&node, &id, &["#count"]).await, says(0, "43\n", ""));
    for name in ["#spin", "#count"] {
        let error = exec(&node, &id, &[name], Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(error, ExecError::TimedOut { .. }), "{name}: {error:?}");
    }
    let status = node.client().container_status(&id).await.unwrap();
    assert_eq!(status.state(), v1::ContainerState::ContainerRunning, "{status:?}");
}

#[tokio::test]
async fn a_guest_without_a_command_says_so() {
    let node = Node::new().await;
    let pod = node.pod("http").await;
    let port = free_port().await;
    let id = pod.start("main", "http-health", |config| config.annotations = serves_on(port)).await;
    let (code, _, stderr) = run(&node, &id, &["cat", "/etc/hostname"]).await;
    assert_eq!(code, 126);
    assert!(stderr.contains("no command") && stderr.contains("#liveness"), "{stderr}");
}

#[tokio::test]
async fn a_function_can_be_a_containers_whole_program() {
    let node = Node::new().await;
    let pod = node.pod("function").await;
    let greets =
        pod.start("greets", "http-health", |config| config.command = vec!["#greet".into(), "node".into()]).await;
    let status = pod.exit_of(&greets).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"), "{status:?}");
    assert_eq!(pod.log("greets"), ["stdout F \"hello, node\""]);
    let nothing = pod.create("nothing", "health", |config| config.command = vec!["#nothing".into()]).await;
    let error = node.client().start_container(&nothing).await.unwrap_err();
    assert!(error.message().contains("does not export the function \"nothing\""), "{}", error.message());
    let status = pod.exit_of(&nothing).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{status:?}");
}

#[tokio::test]
async fn a_command_is_charged_to_its_container_and_held_to_its_limits() {
    let node = Node::new().await;
    let pod = node.pod("limits").await;
    let id = pod
        .start("main", "commands", |config| {
            config.command = vec!["park".into()];
            config.linux =
                Some(v1::LinuxContainerConfig { resources: Some(limited(10_000, 0)), security_context: None });
        })
        .await;
    let used = async || {
        let stats = node.client().container_stats(&id).await.unwrap();
        Duration::from_nanos(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value)
    };
    let before = used().await;
    let error = exec(&node, &id, &["spin"], Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, ExecError::TimedOut { .. }), "{error:?}");
    let spent = used().await - before;
    // A tenth of a core for a second; a busy machine gives less.
    assert!(spent > Duration::from_millis(5) && spent < Duration::from_millis(400), "{spent:?}");
    // It has really stopped: nothing is spent any more.
    let after = used().await;
    assert!(run(&node, &id, &["#add", "1", "1"]).await.0 == 0 && used().await - after < Duration::from_millis(100));
}

#[tokio::test]
async fn a_command_out_of_memory_ends_alone() {
    let node = Node::new().await;
    let pod = node.pod("memory").await;
    // A page each for the program and the command beside it are too much.
    let id = pod
        .start("main", "commands", |config| {
            config.command = vec!["park".into()];
            config.linux =
                Some(v1::LinuxContainerConfig { resources: Some(limited(0, 100_000)), security_context: None });
        })
        .await;
    let stats = async || {
        let stats = node.client().container_stats(&id).await.unwrap();
        (stats.memory.unwrap().usage_bytes.unwrap().value >= 65_536).then_some(())
    };
    eventually("the program has its memory", stats).await;
    let (code, _, stderr) = run(&node, &id, &["show"]).await;
    assert_eq!(code, 137);
    assert!(stderr.contains("out of memory"), "{stderr}");
    let status = node.client().container_status(&id).await.unwrap();
    assert_eq!(status.state(), v1::ContainerState::ContainerRunning, "{status:?}");
    node.client().update_container_resources(&id, limited(0, 1 << 20)).await.unwrap();
    assert_eq!(run(&node, &id, &["#add", "1", "1"]).await.0, 0);
    let refused = node.client().update_container_resources(&id, limited(0, 4096)).await.unwrap_err();
    assert!(refused.message().contains("below current usage (65536)"), "{}", refused.message());
    let linux = node.client().container_status(&id).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!(linux.memory_limit_in_bytes, 1 << 20, "the limits stay as they were");
}

#[tokio::test]
async fn removing_a_container_ends_its_commands() {
    let node = Node::new().await;
    let pod = node.pod("removed").await;
    let id = parked(&pod).await;
    let spins = exec(&node, &id, &["flood"], Duration::ZERO);
    let remove = async {
        let used = async || {
            let stats = node.client().container_stats(&id).await.unwrap();
            (stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 20_000_000).then_some(())
        };
        eventually("the command runs", used).await;
        node.client().remove_container(&id).await.unwrap();
    };
    let (ended, ()) = tokio::time::timeout(LIMIT, async { tokio::join!(spins, remove) }).await.unwrap();
    let ended = ended.unwrap();
    assert_eq!(ended.exit_code, 137);
    assert!(ended.stdout.starts_with(b"this command fails\n") && ended.stdout.len() <= cri::MAX_EXEC_OUTPUT_BYTES);
}

#[tokio::test]
async fn limits_survive_a_restart_of_the_runtime() {
    let mut node = Node::new().await;
    let id = {
        let pod = node.pod("restart").await;
        let id = parked(&pod).await;
        node.client().update_container_resources(&id, limited(20_000, 0)).await.unwrap();
        id
    };
    node.kill_and_reopen().await;
    let status = node.client().container_status(&id).await.unwrap();
    assert_eq!(status.image.unwrap().image, reference("commands"));
    assert_eq!(status.resources.unwrap().linux.unwrap().cpu_quota, 20_000);
}
