//! The server over real TLS, with certificates made here and an API server that answers reviews.

mod bed;

use std::time::Duration;

use serde_json::{Value, json};

use self::bed::{Bed, Identity, Setting};
use super::*;

#[tokio::test]
async fn nobody_is_served_without_proof() {
    let bed = Bed::start(Setting::default()).await;
    for path in ["/pods", "/healthz", "/metrics", "/configz", "/nowhere", "/containerLogs/ns/web/app"] {
        let answer = bed.get(&Identity::None, path).await;
        assert_eq!((answer.code, answer.text.as_str()), (401, "Unauthorized"), "{path}");
    }
    assert_eq!(bed.get(&Identity::Token("wrong"), "/pods").await.code, 401);
    assert!(
        bed.try_get(&Identity::Stranger, "/pods").await.is_err(),
        "a certificate of another CA ends the connection"
    );
}

#[tokio::test]
async fn a_certificate_or_a_token_is_proof_and_the_api_server_judges() {
    let bed = Bed::start(Setting::default()).await;
    assert_eq!(bed.get(&Identity::Admin, "/pods").await.code, 200);
    assert_eq!(bed.get(&Identity::Token("right"), "/pods").await.code, 200);
    let refused = bed.get(&Identity::Reader, "/pods").await;
    assert_eq!(refused.code, 403);
    assert_eq!(refused.text, "Forbidden (user=reader, verb=get, resource=nodes, subresource(s)=[pods proxy])\n");
    assert_eq!(bed.get(&Identity::Reader, "/metrics").await.code, 200, "the reader may read metrics");
    let reviews = bed.api.reviews();
    let of_admin = reviews.iter().find(|review| review["spec"]["user"] == "admin").unwrap();
    assert_eq!(of_admin["spec"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(
        of_admin["spec"]["resourceAttributes"],
        json!({ "verb": "get", "version": "v1", "resource": "nodes", "subresource": "pods", "name": "wasm-1" })
    );
}

#[tokio::test]
async fn what_the_api_server_said_holds_for_a_while() {
    let bed = Bed::start(Setting::default()).await;
    for _ in 0..3 {
        assert_eq!(bed.get(&Identity::Token("right"), "/pods").await.code, 200);
        assert_eq!(bed.get(&Identity::Token("wrong"), "/pods").await.code, 401);
        assert_eq!(bed.get(&Identity::Reader, "/pods").await.code, 403);
    }
    assert_eq!(bed.api.token_reviews(), 2, "one for each token");
    assert_eq!(bed.api.reviews().len(), 3, "one for the token's user, two subresources for the reader");
}

#[tokio::test]
async fn an_api_server_that_is_away_lets_nobody_in() {
    let bed = Bed::start(Setting::default()).await;
    bed.api.break_down();
    assert_eq!(bed.get(&Identity::Token("right"), "/pods").await.code, 401);
    let answer = bed.get(&Identity::Admin, "/pods").await;
    assert_eq!(answer.code, 500);
    assert!(answer.text.starts_with("Authorization error (user=admin, verb=get, resource=nodes"), "{}", answer.text);
}

#[tokio::test]
async fn the_port_stays_closed_where_nobody_could_be_known() {
    let closed = |setting: Setting| async move { Bed::try_start(setting).await.err().unwrap() };
    let nobody = closed(Setting { client_ca: false, api: false, ..Setting::default() }).await;
    assert!(matches!(nobody, ServerError::NoAuthentication { .. }), "{nobody}");
    let unjudged = closed(Setting { api: false, ..Setting::default() }).await;
    assert!(matches!(unjudged, ServerError::NoAuthorization { .. }), "{unjudged}");
    let open = Bed::start(Setting { api: false, always_allow: true, ..Setting::default() }).await;
    assert_eq!(open.get(&Identity::Reader, "/pods").await.code, 200);
    assert_eq!(open.get(&Identity::None, "/pods").await.code, 401, "everything is allowed, but not to nobody");
    assert_eq!(open.get(&Identity::Token("right"), "/pods").await.code, 401, "there is nobody to ask about tokens");
}

#[tokio::test]
async fn the_kubelets_paths_answer() {
    let bed = Bed::start(Setting::default()).await;
    let get = |path: &'static str| bed.get(&Identity::Admin, path);
    assert_eq!(get("/healthz").await.text, "ok");
    assert_eq!(get("/healthz/ping").await.text, "ok");
    let pods: Value = serde_json::from_str(&get("/pods").await.text).unwrap();
    assert_eq!((&pods["kind"], &pods["apiVersion"]), (&json!("PodList"), &json!("v1")));
    assert_eq!(pods["items"][0]["metadata"]["name"], "web");
    let running: Value = serde_json::from_str(&get("/runningpods/").await.text).unwrap();
    assert_eq!(running["items"].as_array().unwrap().len(), 1);
    let configz: Value = serde_json::from_str(&get("/configz").await.text).unwrap();
    assert_eq!(configz["kubeletconfig"]["kind"], "KubeletConfiguration");
    let metrics = get("/metrics").await;
    assert!(metrics.text.contains("kubelet_node_name{node=\"wasm-1\"} 1"));
    assert!(metrics.text.contains("kubelet_http_requests_total{long_running=\"false\",method=\"GET\",path=\"pods\""));
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(get("/nowhere").await.code, 404);
    let exec = get("/exec/ns/web/app?command=ls").await;
    assert_eq!((exec.code, exec.text.as_str()), (501, "exec is not supported by wasklet yet\n"));
    let wrong = bed.request(&Identity::Admin, "DELETE", "/pods").await;
    assert_eq!((wrong.code, wrong.header("allow")), (405, "GET,HEAD"));
}

#[tokio::test]
async fn a_kubelet_that_stands_still_says_so() {
    let bed = Bed::start(Setting::default()).await;
    let plain = serve_healthz("127.0.0.1:0".parse().unwrap(), bed.pods.clone()).await.unwrap();
    assert_eq!(bed::plain_get(plain, "/healthz").await.text, "ok");
    bed.pods.set_alive(false);
    let answer = bed.get(&Identity::Admin, "/healthz").await;
    assert_eq!(answer.code, 500);
    assert!(answer.text.contains("[-]syncloop failed"), "{}", answer.text);
    assert_eq!(bed.get(&Identity::Admin, "/healthz/syncloop").await.code, 500);
    assert_eq!(bed.get(&Identity::Admin, "/healthz/ping").await.code, 200);
    assert_eq!(bed::plain_get(plain, "/healthz").await.code, 500);
    assert_eq!(bed::plain_get(plain, "/pods").await.code, 404, "the plain port shows nothing else");
}

#[tokio::test]
async fn logs_are_served_in_the_kubelets_words() {
    let bed = Bed::start(Setting::default()).await;
    bed.pods.write("one", &["stdout F first", "stderr P sec", "stderr F ond", "stdout F third"]);
    let get = |path: &'static str| bed.get(&Identity::Admin, path);
    let all = get("/containerLogs/ns/web/app").await;
    assert_eq!((all.code, all.text.as_str()), (200, "first\nsecond\nthird\n"));
    assert_eq!(get("/containerLogs/ns/web/app?tailLines=1").await.text, "third\n");
    assert_eq!(get("/containerLogs/ns/web/app?limitBytes=8").await.text, "first\nse");
    assert_eq!(get("/containerLogs/ns/web/app?stream=Stderr").await.text, "second\n");
    let stamped = get("/containerLogs/ns/web/app?timestamps=true&tailLines=1").await.text;
    assert_eq!(stamped, "2026-01-01T00:00:00.000000001Z third\n");
    let refusals = [
        ("/containerLogs/ns/none/app", 404, "pod \"none\" does not exist"),
        ("/containerLogs/other/web/app", 404, "pod \"web\" does not exist"),
        ("/containerLogs/ns/web/none", 404, "container \"none\" not found in pod \"web\""),
        (
            "/containerLogs/ns/web/app?previous=true",
            400,
            "previous terminated container \"app\" in pod \"web\" not found",
        ),
        ("/containerLogs/ns/web/late", 400, "container \"late\" in pod \"web\" is waiting to start: ContainerCreating"),
        ("/containerLogs/ns/web/app?tailLines=x", 400, "{\"message\": \"Unable to decode query.\"}"),
        ("/containerLogs/ns/web/app?tailLines=-1", 422, "{\"message\": \"Invalid request.\"}"),
    ];
    for (path, code, text) in refusals {
        let answer = get(path).await;
        assert_eq!((answer.code, answer.text.as_str()), (code, text), "{path}");
    }
}

#[tokio::test]
async fn a_followed_log_goes_on_until_the_container_ends() {
    let bed = Bed::start(Setting::default()).await;
    bed.pods.write("one", &["stdout F first"]);
    let mut stream = bed.stream(&Identity::Admin, "/containerLogs/ns/web/app?follow=true").await;
    assert_eq!(stream.next().await.as_deref(), Some("first\n"));
    bed.pods.write("one", &["stdout F second"]);
    assert_eq!(stream.next().await.as_deref(), Some("second\n"));
    bed.pods.write("one", &["stdout F last"]);
    bed.pods.end("one");
    assert_eq!(stream.next().await.as_deref(), Some("last\n"));
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_new_client_ca_is_believed_without_a_restart() {
    let bed = Bed::start(Setting { reload_every: Duration::from_millis(10), ..Setting::default() }).await;
    assert!(bed.try_get(&Identity::Stranger, "/pods").await.is_err());
    bed.trust_the_strangers_ca();
    let known = async {
        // Each try is a new connection; the file is looked at between two.
        while bed.try_get(&Identity::Stranger, "/pods").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await.unwrap();
    assert!(bed.try_get(&Identity::Admin, "/pods").await.is_err(), "the old CA is not believed any more");
}

#[tokio::test]
async fn debugging_can_be_closed() {
    let bed = Bed::start(Setting { debugging: false, ..Setting::default() }).await;
    for path in ["/containerLogs/ns/web/app", "/runningpods/", "/exec/ns/web/app"] {
        let answer = bed.get(&Identity::Admin, path).await;
        assert_eq!((answer.code, answer.text.as_str()), (405, "Debug endpoints are disabled.\n"), "{path}");
    }
    assert_eq!(bed.get(&Identity::Admin, "/pods").await.code, 200);
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_follower_for_ever() {
    let bed = Bed::start(Setting::default()).await;
    bed.pods.write("one", &["stdout F first"]);
    let mut stream = bed.stream(&Identity::Admin, "/containerLogs/ns/web/app?follow=true").await;
    assert_eq!(stream.next().await.as_deref(), Some("first\n"));
    tokio::time::timeout(Duration::from_secs(20), bed.stop()).await.unwrap();
}
