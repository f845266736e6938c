//! Tests of `client`.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, timeout};

use super::*;
use crate::channel;
use crate::fake::{Exec, Fake, Outcome};
use crate::v1;
use crate::wasklet::attach_response::Output;

fn sandbox() -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: "pod".into(),
            namespace: "default".into(),
            uid: "1".into(),
            attempt: 0,
        }),
        ..v1::PodSandboxConfig::default()
    }
}

/// A running container of `image`, which is on the node.
async fn running(fake: &Fake, client: &Client, image: &str) -> String {
    fake.script().image_on_node(image);
    let pod = client.run_pod_sandbox(sandbox(), "").await.unwrap();
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: image.into(), ..v1::ImageSpec::default() }),
        ..v1::ContainerConfig::default()
    };
    let id = client.create_container(&pod, config, sandbox()).await.unwrap();
    client.start_container(&id).await.unwrap();
    id
}

#[tokio::test]
async fn an_error_names_the_call_and_the_object_and_says_the_rest_once() {
    let fake = Fake::new();
    let error = fake.client().container_status("c1").await.unwrap_err();
    assert_eq!(error.to_string(), "ContainerStatus c1 failed");
    assert!(error.is_not_found());
    assert!(!error.is_unavailable());
    assert_eq!(error.message(), "no container \"c1\"");
    assert!(error.source().unwrap().to_string().contains("no container"));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends() {
    let fake = Fake::new();
    fake.script().delay("Version", Duration::from_secs(3600));
    let began = Instant::now();
    let error = fake.client().version().await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(began.elapsed().as_secs(), REQUEST_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_stop_may_take_its_grace_beyond_the_timeout() {
    let fake = Fake::new();
    fake.script().on_start("deaf", Outcome::IgnoreStop);
    let client = Client::with_request_timeout(channel::in_memory(fake.routes()), Duration::from_secs(10));
    let id = running(&fake, &client, "deaf").await;
    let began = Instant::now();
    client.stop_container(&id, Duration::from_millis(59_500)).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 60, "the grace, in whole seconds");
    assert_eq!(client.container_status(&id).await.unwrap().exit_code, 137);
}

#[tokio::test(start_paused = true)]
async fn a_pull_may_take_its_time() {
    let fake = Fake::new();
    fake.script().image("big").delay("PullImage", Duration::from_secs(3600));
    let spec = v1::ImageSpec { image: "big".into(), ..v1::ImageSpec::default() };
    let image_ref = fake.client().pull_image(spec, None, None).await.unwrap();
    assert!(image_ref.starts_with("sha256:"));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_runs_too_long_is_told_from_a_call_that_failed() {
    let fake = Fake::new();
    fake.script().on_exec("web", &["probe"], Exec::Hang);
    let client = fake.client();
    let id = running(&fake, &client, "web").await;
    let command = ["probe".to_owned()];
    let began = Instant::now();
    let error = client.exec_sync(&id, &command, Duration::from_millis(1500)).await.unwrap_err();
    assert_eq!(error.to_string(), "command \"probe\" timed out");
    assert!(matches!(error, ExecError::TimedOut { limit, .. } if limit == Duration::from_secs(2)), "{error:?}");
    assert_eq!(began.elapsed().as_secs(), 2, "the limit, in whole seconds");

    let error = client.exec_sync("c1", &command, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&error, ExecError::Call(call) if call.is_not_found()), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_without_an_answer_ends_unless_it_has_no_limit() {
    let fake = Fake::new();
    fake.script().on_exec("web", &["probe"], Exec::exit(0)).delay("ExecSync", 10 * REQUEST_TIMEOUT);
    let client = fake.client();
    let id = running(&fake, &client, "web").await;
    let began = Instant::now();
    let error = client.exec_sync(&id, &["probe".to_owned()], Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, ExecError::TimedOut { .. }), "{error:?}");
    assert_eq!(began.elapsed(), REQUEST_TIMEOUT + Duration::from_secs(5));
    let answer = client.exec_sync(&id, &["probe".to_owned()], Duration::ZERO).await.unwrap();
    assert_eq!(answer.exit_code, 0);
}

#[tokio::test]
async fn attach_carries_both_ways_and_ends_with_the_container() {
    let fake = Fake::new();
    let client = fake.client();
    let id = running(&fake, &client, "cat").await;
    let (mut stdin, input) = mpsc::channel::<Bytes>(1);
    let mut output = client.attach(&id, input).await.unwrap();
    stdin.try_send(Bytes::from_static(b"meow")).unwrap();
    let Output::Stdout(echoed) = output.next().await.unwrap().unwrap() else { panic!("the fake echoes to stdout") };
    assert_eq!(echoed, "meow");
    // The end of the input is not the end of the container.
    stdin.close_channel();
    assert_eq!(client.container_status(&id).await.unwrap().state(), v1::ContainerState::ContainerRunning);
    fake.exit(&id, 0);
    assert!(timeout(REQUEST_TIMEOUT, output.next()).await.unwrap().is_none());
    let error = client.attach(&id, stream::pending()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn the_end_of_an_attach_lets_go_of_its_input() {
    let fake = Fake::new();
    let client = fake.client();
    let id = running(&fake, &client, "cat").await;
    let (mut stdin, input) = mpsc::channel::<Bytes>(1);
    let output = client.attach(&id, input).await.unwrap();
    drop(output);
    let closed = futures::future::poll_fn(|cx| match stdin.poll_ready(cx) {
        std::task::Poll::Ready(Err(_)) => std::task::Poll::Ready(()),
        _ => {
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        }
    });
    timeout(Duration::from_secs(10), closed).await.unwrap();
}

#[test]
fn credentials_do_not_show() {
    let auth = v1::AuthConfig {
        username: "me".into(),
        password: "hunter2".into(),
        registry_token: "t0ken".into(),
        ..v1::AuthConfig::default()
    };
    let request = v1::PullImageRequest { auth: Some(auth), ..v1::PullImageRequest::default() };
    let shown = format!("{request:?}");
    assert!(shown.contains("me") && !shown.contains("hunter2") && !shown.contains("t0ken"), "{shown}");
}
