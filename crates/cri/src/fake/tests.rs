//! Tests of `fake`.

use futures::StreamExt as _;
use tonic::Code;

use super::*;
use crate::v1::{self, ContainerState, PodSandboxState};

fn sandbox(attempt: u32) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: "pod".into(),
            namespace: "default".into(),
            uid: "1".into(),
            attempt,
        }),
        ..v1::PodSandboxConfig::default()
    }
}

fn container(image: &str, attempt: u32) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt }),
        image: Some(v1::ImageSpec { image: image.into(), ..v1::ImageSpec::default() }),
        ..v1::ContainerConfig::default()
    }
}

/// A sandbox, and a created container of `image` in it.
async fn created(fake: &Fake, client: &Client, image: &str) -> (String, String) {
    fake.script().image_on_node(image);
    let pod = client.run_pod_sandbox(sandbox(0), "").await.unwrap();
    let id = client.create_container(&pod, container(image, 0), sandbox(0)).await.unwrap();
    (pod, id)
}

#[tokio::test(start_paused = true)]
async fn a_container_ends_when_its_script_says() {
    let fake = Fake::new();
    fake.script().on_start("job", Outcome::ExitAfter { code: 3, delay: Duration::from_secs(90) });
    let client = fake.client();
    let (_, id) = created(&fake, &client, "job").await;
    client.start_container(&id).await.unwrap();
    time::sleep(Duration::from_secs(89)).await;
    assert_eq!(client.container_status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
    time::sleep(Duration::from_secs(2)).await;
    let status = client.container_status(&id).await.unwrap();
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 3));
    assert_eq!((status.finished_at - status.started_at) / 1_000_000_000, 90);
}

#[tokio::test]
async fn outcomes_come_in_turn_and_then_stay() {
    let fake = Fake::new();
    fake.script()
        .on_start("web", Outcome::RunForever)
        .on_next_start("web", Outcome::FailStart("no such export".into()))
        .on_next_start("web", Outcome::OutOfMemoryAfter { delay: Duration::ZERO });
    let client = fake.client();
    let (pod, first) = created(&fake, &client, "web").await;
    let error = client.start_container(&first).await.unwrap_err();
    assert_eq!(error.message(), "no such export");
    let status = client.container_status(&first).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));

    let second = client.create_container(&pod, container("web", 1), sandbox(0)).await.unwrap();
    client.start_container(&second).await.unwrap();
    fake.until(|state| !state.containers[&second].is_running()).await;
    let status = client.container_status(&second).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));

    let third = client.create_container(&pod, container("web", 2), sandbox(0)).await.unwrap();
    client.start_container(&third).await.unwrap();
    assert_eq!(client.container_status(&third).await.unwrap().state(), ContainerState::ContainerRunning);
}

#[tokio::test]
async fn commands_come_in_turn_and_then_stay() {
    let fake = Fake::new();
    fake.script().on_exec("web", &["cat", "/ready"], Exec::says(0, "yes")).on_next_exec(
        "web",
        &["cat", "/ready"],
        Exec::Fail(Status::internal("no fork")),
    );
    let client = fake.client();
    let (_, id) = created(&fake, &client, "web").await;
    client.start_container(&id).await.unwrap();
    let ready = ["cat".to_owned(), "/ready".to_owned()];
    let limit = Duration::from_secs(1);
    assert!(client.exec_sync(&id, &ready, limit).await.unwrap_err().to_string().contains("ExecSync"));
    assert_eq!(client.exec_sync(&id, &ready, limit).await.unwrap().stdout, b"yes");
    let unsaid = client.exec_sync(&id, &["ls".to_owned()], limit).await;
    assert!(matches!(unsaid, Err(crate::ExecError::Call(error)) if error.message().contains("no command \"ls\"")));
    assert_eq!(fake.changes().last().unwrap(), "ExecSync main ls");
}

#[tokio::test]
async fn a_fault_strikes_once() {
    let fake = Fake::new();
    fake.script().image("web").fail_next("PullImage", Status::unavailable("registry is down"));
    let client = fake.client();
    let spec = v1::ImageSpec { image: "web".into(), ..v1::ImageSpec::default() };
    let error = client.pull_image(spec.clone(), None, None).await.unwrap_err();
    assert_eq!(error.message(), "registry is down");
    client.pull_image(spec, None, None).await.unwrap();
}

#[tokio::test]
#[should_panic(expected = "StartContianer is no call")]
async fn a_fault_of_a_call_that_is_none_is_refused() {
    Fake::new().script().fail_next("StartContianer", Status::internal("never"));
}

#[tokio::test]
async fn calls_are_recorded_in_their_order() {
    let fake = Fake::new();
    let client = fake.client();
    let (pod, id) = created(&fake, &client, "web").await;
    client.start_container(&id).await.unwrap();
    client.container_status(&id).await.unwrap();
    client.remove_pod_sandbox(&pod).await.unwrap();
    assert_eq!(
        fake.changes(),
        ["RunPodSandbox pod", "CreateContainer main", "StartContainer main", "RemovePodSandbox pod"]
    );
    assert!(fake.calls().iter().any(|call| call.to_string() == "ContainerStatus main"));
}

#[tokio::test]
async fn a_call_is_seen_while_it_is_held_up() {
    let fake = Fake::new();
    fake.script().image("web").delay("PullImage", Duration::from_secs(3600));
    let client = fake.client();
    let spec = v1::ImageSpec { image: "web".into(), ..v1::ImageSpec::default() };
    let pull = tokio::spawn(async move { client.pull_image(spec, None, None).await });
    fake.until_calls(|calls| calls.iter().any(|call| call.call == "PullImage")).await;
    assert!(!pull.is_finished());
    pull.abort();
}

#[tokio::test]
async fn a_crash_ends_all_and_breaks_the_event_streams() {
    let fake = Fake::new();
    let client = fake.client();
    let (pod, id) = created(&fake, &client, "web").await;
    client.start_container(&id).await.unwrap();
    let mut events = client.container_events().await.unwrap();
    fake.crash();
    let error = events.next().await.unwrap().unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(events.next().await.is_none());
    let status = client.container_status(&id).await.unwrap();
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 255));
    let pod = client.pod_sandbox_status(&pod).await.unwrap().status.unwrap();
    assert_eq!(pod.state(), PodSandboxState::SandboxNotready);
    // It answers again, and the same pod may have its next sandbox.
    client.run_pod_sandbox(sandbox(1), "").await.unwrap();
}

#[tokio::test]
async fn what_a_runtime_refuses_the_fake_refuses() {
    let fake = Fake::new();
    let client = fake.client();
    let (pod, _) = created(&fake, &client, "web").await;
    let again = client.run_pod_sandbox(sandbox(0), "").await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let again = client.create_container(&pod, container("web", 0), sandbox(0)).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    client.stop_pod_sandbox(&pod).await.unwrap();
    let late = client.create_container(&pod, container("web", 1), sandbox(0)).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn addresses_come_from_the_range_and_are_not_shared() {
    let fake = Fake::new();
    let client = fake.client();
    client.update_runtime_config("10.200.3.0/24").await.unwrap();
    assert_eq!(fake.pod_cidr().as_deref(), Some("10.200.3.0/24"));
    let mut addresses = Vec::new();
    for attempt in 0..3 {
        let id = client.run_pod_sandbox(sandbox(attempt), "").await.unwrap();
        let status = client.pod_sandbox_status(&id).await.unwrap().status.unwrap();
        addresses.push(status.network.unwrap().ip);
    }
    assert_eq!(addresses, ["10.200.3.1", "10.200.3.2", "10.200.3.3"]);
}

#[tokio::test]
async fn without_a_network_a_sandbox_has_no_address() {
    let fake = Fake::new();
    fake.script().network_ready(false);
    let client = fake.client();
    let id = client.run_pod_sandbox(sandbox(0), "").await.unwrap();
    let status = client.pod_sandbox_status(&id).await.unwrap().status.unwrap();
    assert_eq!(status.network.unwrap().ip, "");
}
