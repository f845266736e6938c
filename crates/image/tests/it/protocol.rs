//! What a registry is told and asked: who asks, which part of a blob, which host, after which wait.

use std::fs;
use std::time::{Duration, Instant};

use axum::http::Method;
use image::{Credentials, Digest, PullErrorKind, Reference};

use crate::bench::{Bench, bench, bench_with, module, packed};
use crate::registry::{ALWAYS, Fault, IDENTITY, PASSWORD, Registry, Route, TOKEN, USER};

fn alice() -> Credentials {
    Credentials::Basic { username: USER.into(), password: PASSWORD.into() }
}

/// A puller that reads `hosts.toml` of one registry.
fn bench_with_hosts(registry: &str, hosts: &str) -> (Bench, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join(registry)).unwrap();
    fs::write(directory.path().join(registry).join("hosts.toml"), hosts).unwrap();
    let bench = bench_with(|options| options.hosts_directory = Some(directory.path().to_owned()));
    (bench, directory)
}

#[tokio::test]
async fn an_identity_token_is_changed_into_one_for_the_registry() {
    let (registry, bench) = (Registry::start().await, bench());
    registry.artifact("v1", &packed(&module("a")));
    registry.require_login(TOKEN);
    let reference = registry.reference("private:v1");
    let identity = Credentials::IdentityToken(IDENTITY.into());
    bench.puller.pull(&reference, Some(identity)).await.unwrap();
    let exchange = registry.log().into_iter().find(|asked| asked.route == Route::Token).unwrap();
    assert_eq!((exchange.method, exchange.authorization), (Method::POST, None));
    assert!(exchange.what.contains("scope=repository%3Atest%2Fprivate%3Apull"), "{}", exchange.what);

    let revoked = Credentials::IdentityToken("rev0ked".into());
    let error = bench.puller.pull(&reference, Some(revoked)).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unauthorized);
    assert!(!format!("{error:?} {}", error.message()).contains("rev0ked"));
}

#[tokio::test]
async fn a_registry_without_tokens_gets_name_and_password_and_only_when_it_asks() {
    let (registry, bench) = (Registry::start().await, bench());
    registry.artifact("v1", &packed(&module("a")));
    let reference = registry.reference("private:v1");
    bench.puller.pull(&reference, Some(alice())).await.unwrap();
    assert!(registry.log().iter().all(|asked| asked.authorization.is_none()), "it never asked who we are");
    registry.require_basic();
    bench.puller.pull(&reference, Some(alice())).await.unwrap();
    let wrong = Credentials::Basic { username: USER.into(), password: "wr0ng".into() };
    for refused in [None, Some(wrong)] {
        let error = bench.puller.pull(&reference, refused).await.unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::Unauthorized, "{error}");
    }
}

#[tokio::test]
async fn what_is_here_is_asked_for_by_its_name_alone() {
    let (registry, bench) = (Registry::start().await, bench());
    let digest = registry.artifact("v1", &packed(&module("a")));
    let reference = registry.reference("app:v1");
    bench.pull(&reference).await.unwrap();
    let before = registry.log().len();
    bench.pull(&reference).await.unwrap();
    bench.pull(&reference.at(digest)).await.unwrap();
    let log = registry.log();
    let asked: Vec<(&Method, &str)> = log[before..].iter().map(|asked| (&asked.method, asked.what.as_str())).collect();
    assert_eq!(asked, [(&Method::HEAD, "v1"), (&Method::HEAD, digest.to_string().as_str())]);
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    const SIZE: usize = 5 << 20;
    let (registry, bench) = (Registry::start().await, bench());
    let artifact = packed(&module(&"x".repeat(SIZE)));
    registry.artifact("v1", &artifact);
    registry.serve_ranges();
    // More often than there are tries, but each brought something.
    registry.fail(Route::Blobs, Fault::BreakOffAfter(1200 << 10), 5);
    let image = bench.pull(&registry.reference("app:v1")).await.unwrap();
    assert_eq!(fs::read(&crate::bench::wasm(&image).path).unwrap(), artifact.layer());
    let layer = Digest::of(artifact.layer()).to_string();
    let asked: Vec<_> = registry.log().into_iter().filter(|asked| asked.what == layer).collect();
    let ranges: Vec<Option<u64>> = asked
        .iter()
        .map(|asked| asked.range.as_ref()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .collect();
    assert_eq!(ranges[0], None);
    // What is sent twice is at most what was on the way when the connection broke.
    let begins: Vec<u64> = ranges.iter().map(|range| range.unwrap_or(0)).collect();
    assert!(begins.is_sorted() && begins.len() >= 4, "{begins:?}");
    assert!(begins[1] > 0 && begins[1] <= 1200 << 10, "{begins:?}");
    assert_eq!(bench.unfinished(), 0);
}

#[tokio::test]
async fn a_registry_without_ranges_sends_the_whole_again() {
    let (registry, bench) = (Registry::start().await, bench());
    let artifact = packed(&module(&"x".repeat(100_000)));
    registry.artifact("v1", &artifact);
    registry.fail(Route::Blobs, Fault::BreakOff, 2);
    let image = bench.pull(&registry.reference("app:v1")).await.unwrap();
    assert_eq!(fs::read(&crate::bench::wasm(&image).path).unwrap(), artifact.layer());
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept_and_a_long_one_is_not() {
    let (registry, bench) = (Registry::start().await, bench());
    registry.artifact("v1", &packed(&module("a")));
    registry.fail(Route::Manifests, Fault::Busy(429, 1), 1);
    let began = Instant::now();
    bench.pull(&registry.reference("app:v1")).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    registry.fail(Route::Manifests, Fault::Busy(503, 3600), ALWAYS);
    let error = bench.pull(&registry.reference("other:v1")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unavailable);
    assert!(error.message().contains(": it answered HTTP 503 and asks to wait 3600 s"), "{}", error.message());
}

#[tokio::test]
async fn manifests_and_tokens_are_read_up_to_a_bound() {
    let (registry, bench) = (Registry::start().await, bench());
    registry.manifest("v1", "application/vnd.oci.image.manifest.v1+json", &vec![b' '; 1 << 20]);
    registry.fail(Route::Manifests, Fault::GoOn, ALWAYS);
    let error = bench.pull(&registry.reference("app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::TooLarge, "{error}");
    registry.require_login(TOKEN);
    registry.fail(Route::Token, Fault::GoOn, ALWAYS);
    let error = bench.puller.pull(&registry.reference("app:v1"), Some(alice())).await.unwrap_err();
    assert!(error.message().contains("something else than a token"), "{error}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_gets_no_credentials() {
    let (mirror, registry) = (Registry::start().await, Registry::start().await);
    let artifact = packed(&module("a"));
    for each in [&mirror, &registry] {
        each.artifact("v1", &artifact);
    }
    let hosts =
        format!("[host.\"http://{}\"]\n[host.\"http://{}\".header]\nx-mirror = \"1\"", mirror.host(), mirror.host());
    let (bench, _directory) = bench_with_hosts(&registry.host(), &hosts);
    bench.puller.pull(&registry.reference("app:v1"), Some(alice())).await.unwrap();
    assert_eq!(registry.log().len(), 0);
    let ns = format!("ns={}", registry.host().replace(':', "%3A"));
    assert!(mirror.log().iter().all(|asked| asked.query == ns && asked.authorization.is_none()), "{:?}", mirror.log());

    // One that wants to know who asks is not told, and passed over.
    mirror.require_basic();
    registry.require_login(TOKEN);
    registry.artifact("v2", &packed(&module("b")));
    bench.puller.pull(&registry.reference("app:v2"), Some(alice())).await.unwrap();
    assert!(mirror.log().iter().all(|asked| asked.authorization.is_none()), "{:?}", mirror.log());
}

#[tokio::test]
async fn a_mirror_that_fails_lies_or_lacks_something_is_passed_over() {
    for fault in [Fault::Status(500, None), Fault::Status(404, None), Fault::BreakOff, Fault::Lie] {
        let (mirror, registry) = (Registry::start().await, Registry::start().await);
        let artifact = packed(&module("a"));
        let digest = registry.artifact("v1", &artifact);
        mirror.artifact("v1", &artifact);
        let hosts = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\"]", mirror.host());
        let (bench, _directory) = bench_with_hosts(&registry.host(), &hosts);
        mirror.fail(Route::Blobs, fault, ALWAYS);
        bench.pull(&registry.reference("app:v1")).await.unwrap();
        assert_eq!(mirror.asked(Route::Manifests), 0, "it must not resolve tags");
        assert_eq!((mirror.asked(Route::Blobs), registry.asked(Route::Blobs)), (2, 2));

        mirror.fail(Route::Manifests, fault, ALWAYS);
        let (bench, _directory) = bench_with_hosts(&registry.host(), &hosts);
        bench.pull(&registry.reference("app").at(digest)).await.unwrap();
        assert_eq!(mirror.asked(Route::Manifests), 1);
    }
    // When nobody is there, it is the registry's failure that is told, and the mirror's beside it.
    let (mirror, registry) = (Registry::start().await, Registry::start().await);
    let (bench, _directory) = bench_with_hosts(&registry.host(), &format!("[host.\"http://{}\"]", mirror.host()));
    mirror.fail(Route::Manifests, Fault::Status(502, None), ALWAYS);
    registry.fail(Route::Manifests, Fault::Status(418, None), ALWAYS);
    let error = bench.pull(&registry.reference("app:v1")).await.unwrap_err();
    let told = "it answered HTTP 418 (and before, from a mirror: it answered HTTP 502)";
    assert!(error.message().contains(told), "{}", error.message());
}

#[tokio::test]
async fn an_authority_of_the_registrys_own_is_believed_for_it_alone() {
    let (registry, certificate) = Registry::start_tls().await;
    registry.artifact("v1", &packed(&module("a")));
    let reference = registry.reference("app:v1");
    let server = format!("server = \"https://{}\"\n", registry.host());
    let (untold, _directory) = bench_with_hosts(&registry.host(), &server);
    let error = untold.pull(&reference).await.unwrap_err();
    assert!(error.message().contains("invalid peer certificate"), "{}", error.message());
    assert!(error.message().contains("`ca` in the host's hosts.toml"), "{}", error.message());

    let (bench, directory) = bench_with_hosts(&registry.host(), &format!("{server}ca = \"ca.pem\"\n"));
    fs::write(directory.path().join(registry.host()).join("ca.pem"), &certificate).unwrap();
    bench.pull(&reference).await.unwrap();
    let (careless, _directory) = bench_with_hosts(&registry.host(), &format!("{server}skip_verify = true\n"));
    careless.pull(&reference).await.unwrap();
    let (wrong, _directory) = bench_with_hosts(&registry.host(), &format!("{server}ca = \"missing.pem\"\n"));
    let error = wrong.pull(&reference).await.unwrap_err();
    assert!(error.message().contains("missing.pem"), "{}", error.message());
}

#[tokio::test]
async fn credentials_never_go_to_a_token_service_in_the_clear_for_a_registry_over_tls() {
    let (registry, certificate) = Registry::start_tls().await;
    let thief = Registry::start().await;
    registry.artifact("v1", &packed(&module("a")));
    registry.require_login(TOKEN);
    registry.name_realm(&format!("http://{}/token", thief.host()));
    let server = format!("server = \"https://{}\"\nca = \"ca.pem\"\n", registry.host());
    let (bench, directory) = bench_with_hosts(&registry.host(), &server);
    fs::write(directory.path().join(registry.host()).join("ca.pem"), &certificate).unwrap();
    let error = bench.puller.pull(&registry.reference("app:v1"), Some(alice())).await.unwrap_err();
    assert!(error.message().contains("a token service that is not at an https URL"), "{}", error.message());
    assert!(thief.log().is_empty());
}

#[tokio::test]
async fn a_hosts_file_that_cannot_be_read_is_told() {
    let reference = Reference::parse("registry.invalid/test/app:v1").unwrap();
    let (bench, directory) = bench_with_hosts("registry.invalid", "sever = \"https://mirror.example\"");
    let error = bench.pull(&reference).await.unwrap_err();
    let path = directory.path().join("registry.invalid/hosts.toml");
    let told = format!("{}: the field sever is not known", path.display());
    assert!(error.message().ends_with(&told), "{}", error.message());
}
