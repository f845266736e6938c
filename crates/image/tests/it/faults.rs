//! Pulls from registries that lie, break off, stall, refuse or fail: how often they are asked, what a user reads, and
//! that nothing wrong stays in the store.

use crate::bench::{Bench, bench, bench_with, module, packed};
use crate::registry::{ALWAYS, Fault, PASSWORD, Registry, Route, TOKEN, USER};
use image::{Credentials, PullError, PullErrorKind};

/// Pulls an image from a registry with one fault. The registry, the store and the result are for the test to judge;
/// what must hold in every case is judged here.
async fn pull_with(route: Route, fault: Fault, count: usize) -> (Registry, Bench, Result<(), PullError>) {
    let (registry, bench) = (Registry::start().await, bench());
    registry.artifact("v1", &packed(&module(&"x".repeat(100_000))));
    registry.fail(route, fault, count);
    let result = bench.pull(&registry.reference("app:v1")).await.map(|_| ());
    assert_eq!(bench.unfinished(), 0, "unfinished files stay behind");
    match &result {
        Ok(()) => assert_eq!(bench.store.list().unwrap().len(), 1),
        Err(error) => {
            assert_eq!(bench.store.list().unwrap(), []);
            assert!(error.message().starts_with(&format!("{}/test/app:v1: ", registry.host())), "{error}");
            for secret in [USER, PASSWORD, TOKEN, "http://"] {
                assert!(!format!("{error:?} {}", error.message()).contains(secret), "{error:?}");
            }
        }
    }
    (registry, bench, result)
}

async fn fails(route: Route, fault: Fault, kind: PullErrorKind, asked: usize, words: &str) {
    let (registry, _bench, result) = pull_with(route, fault, ALWAYS).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.message().contains(words), "{words}: {}", error.message());
    assert_eq!(registry.asked(route), asked, "{error}");
}

#[tokio::test]
async fn answers_that_will_not_change_are_taken_at_the_first_try() {
    use PullErrorKind::{NotFound, Unauthorized, Unavailable};
    let manifests = Route::Manifests;
    fails(manifests, Fault::Status(404, Some("MANIFEST_UNKNOWN")), NotFound, 1, ": not found in registry 127.0.0.1")
        .await;
    fails(manifests, Fault::Status(404, None), NotFound, 1, "not found").await;
    fails(manifests, Fault::Status(404, Some("NAME_UNKNOWN")), NotFound, 1, "not found").await;
    fails(manifests, Fault::Status(401, None), Unauthorized, 1, "denies access").await;
    fails(manifests, Fault::Status(403, None), Unauthorized, 1, "denies access").await;
    fails(manifests, Fault::Status(403, Some("DENIED")), Unauthorized, 1, "denies access").await;
    fails(manifests, Fault::Status(400, Some("NAME_INVALID")), Unavailable, 1, "NAME_INVALID").await;
    fails(manifests, Fault::Status(418, None), Unavailable, 1, "HTTP 418").await;
    fails(Route::Blobs, Fault::Status(404, Some("BLOB_UNKNOWN")), Unavailable, 1, "named by the image and not there")
        .await;
}

#[tokio::test]
async fn failures_that_may_pass_are_tried_three_times() {
    use PullErrorKind::Unavailable;
    fails(Route::Manifests, Fault::Status(500, None), Unavailable, 3, "it answered HTTP 500 (tried 3 times)").await;
    fails(Route::Manifests, Fault::Status(429, None), Unavailable, 3, "it answered HTTP 429 (tried 3 times)").await;
    fails(Route::Manifests, Fault::Status(429, Some("TOOMANYREQUESTS")), Unavailable, 3, "TOOMANYREQUESTS").await;
    fails(Route::Blobs, Fault::Status(503, None), Unavailable, 3, "configuration sha256:").await;
    fails(Route::Blobs, Fault::BreakOff, Unavailable, 3, "(tried 3 times)").await;
    fails(Route::Manifests, Fault::BreakOff, Unavailable, 3, "cannot get the manifest from registry").await;
}

#[tokio::test]
async fn a_registry_that_recovers_serves_the_image() {
    for (route, fault) in [
        (Route::Manifests, Fault::Status(429, None)),
        (Route::Manifests, Fault::Status(502, None)),
        (Route::Blobs, Fault::Status(500, None)),
        (Route::Blobs, Fault::BreakOff),
        (Route::Blobs, Fault::Stall),
    ] {
        let (registry, _bench, result) = pull_with(route, fault, 2).await;
        result.unwrap();
        assert!(registry.asked(route) >= 3);
    }
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_is_given_up() {
    fails(Route::Blobs, Fault::Stall, PullErrorKind::Unavailable, 3, "timed out").await;
}

#[tokio::test]
async fn a_registry_that_drips_is_given_up() {
    let registry = Registry::start().await;
    let bench = bench_with(|options| options.limits.layer_timeout = std::time::Duration::from_secs(1));
    registry.artifact("v1", &packed(&module("a")));
    registry.fail(Route::Blobs, Fault::Drip, ALWAYS);
    let error = bench.pull(&registry.reference("app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unavailable);
    assert!(error.message().contains("it took longer than 1 s"), "{error}");
    assert_eq!((registry.asked(Route::Blobs), bench.unfinished()), (1, 0));
}

#[tokio::test]
async fn content_that_does_not_match_its_digest_is_not_stored() {
    let (_registry, bench, result) = pull_with(Route::Blobs, Fault::Lie, ALWAYS).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Corrupt);
    assert!(error.message().contains("is corrupt: its content has the digest sha256:"), "{error}");
    assert_eq!(bench.blobs(), 1, "only the manifest is in the store");

    let (_registry, bench, result) = pull_with(Route::Blobs, Fault::GoOn, ALWAYS).await;
    assert_eq!(result.unwrap_err().kind(), PullErrorKind::Corrupt);
    assert_eq!(bench.blobs(), 1);
}

#[tokio::test]
async fn a_manifest_must_have_the_digest_asked_for() {
    let (registry, bench) = (Registry::start().await, bench());
    let digest = registry.artifact("v1", &packed(&module("a")));
    registry.fail(Route::Manifests, Fault::Lie, ALWAYS);
    let error = bench.pull(&registry.reference("app").at(digest)).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Corrupt);
    assert_eq!(bench.blobs(), 0);
    // By its tag alone, only its grammar tells.
    let error = bench.pull(&registry.reference("app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Corrupt);
}

#[tokio::test]
async fn sizes_that_lie_are_found_out() {
    let (registry, bench) = (Registry::start().await, bench());
    let config = registry.blob("any/config", "{}");
    let mut layer = registry.blob("application/wasm", module("a"));
    let true_size = layer["size"].as_u64().unwrap();
    for (tag, size) in [("short", true_size - 1), ("long", true_size + 1)] {
        layer["size"] = size.into();
        registry.image(tag, &config, std::slice::from_ref(&layer));
        let error = bench.pull(&registry.reference(&format!("app:{tag}"))).await.unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::Corrupt, "{error}");
        assert!(error.message().contains(&format!("where {size} were announced")), "{error}");
    }
}

#[tokio::test]
async fn nobody_listening_is_said_as_the_system_says_it() {
    let bench = bench();
    let free_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference = image::Reference::parse(&format!("{free_port}/test/app:v1")).unwrap();
    let error = bench.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unavailable);
    let message = error.message();
    assert!(message.contains("Connection refused") && message.contains("tried 3 times"), "{message}");
    assert!(message.contains("nor is it in the image layout") && message.contains("/layout)"), "{message}");
}

#[tokio::test]
async fn a_token_service_that_misbehaves_does_no_harm() {
    let alice = || Some(Credentials::Basic { username: USER.into(), password: PASSWORD.into() });
    // A token that would not fit into a header.
    let (registry, bench) = (Registry::start().await, bench());
    registry.artifact("v1", &packed(&module("a")));
    registry.require_login("line\nbreak");
    let error = bench.puller.pull(&registry.reference("app:v1"), alice()).await.unwrap_err();
    assert!(error.message().contains("the bearer token is not usable"), "{error}");

    for fault in [Fault::Status(403, None), Fault::Status(200, None), Fault::BreakOff] {
        let (registry, bench) = (Registry::start().await, bench_with(|options| options.limits.tries = 1));
        registry.artifact("v1", &packed(&module("a")));
        registry.require_login(TOKEN);
        registry.fail(Route::Token, fault, ALWAYS);
        let error = bench.puller.pull(&registry.reference("app:v1"), alice()).await.unwrap_err();
        assert_eq!(bench.store.list().unwrap(), []);
        for secret in [USER, PASSWORD, TOKEN] {
            assert!(!format!("{error:?} {}", error.message()).contains(secret), "{error:?}");
        }
    }
}

#[tokio::test]
async fn malformed_manifests_are_refused() {
    let (registry, bench) = (Registry::start().await, bench());
    for (tag, document) in [
        ("text", "not json"),
        ("array", "[]"),
        ("neither", r#"{"schemaVersion":2}"#),
        ("both", r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#),
        ("types", r#"{"schemaVersion":2,"config":{},"layers":[]}"#),
        ("path", r#"{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:../../x","size":1},"layers":[]}"#),
        (
            "negative",
            r#"{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":-1},"layers":[]}"#,
        ),
    ] {
        registry.manifest(tag, crate::registry::OCI_MANIFEST, document.as_bytes());
        let error = bench.pull(&registry.reference(&format!("app:{tag}"))).await.unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::Corrupt, "{tag}: {error}");
        assert!(error.message().contains("the manifest is corrupt: it is"), "{tag}: {error}");
    }
}
