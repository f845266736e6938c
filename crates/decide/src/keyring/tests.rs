//! Which login is tried first, and which not at all.

use super::*;

fn check(config: &str, image: &str, wanted: &[&str]) {
    let mut keyring = Keyring::default();
    keyring.add(DockerConfig::parse(config.as_bytes()).unwrap(), &Source::Node);
    let found = keyring.fitting(image);
    let found: Vec<&str> = found.iter().map(|one| one.login.username.as_str()).collect();
    assert_eq!(found, wanted, "{image}");
}

#[test]
fn the_most_specific_login_comes_first() {
    let config = r#"{"auths": {
        "https://registry.example": {"username": "any", "password": "p"},
        "registry.example/team": {"auth": "dGVhbTpw"},
        "*.example": {"username": "glob", "password": "p"},
        "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
        "empty.example": {}}}"#;
    check(config, "registry.example/team/app:v1", &["team", "any", "glob"]);
    check(config, "registry.example/app@sha256:00", &["any", "glob"]);
    check(config, "other.example/app", &["glob"]);
    check(config, "empty.example/app", &["glob"]);
    check(config, "registry.example.evil/app", &[]);
    check(config, "registry.example:5000/app", &[]);
    for image in ["app", "library/app:v1", "docker.io/app", "index.docker.io/library/app"] {
        check(config, image, &["hub"]);
    }
}

#[test]
fn a_login_for_docker_io_is_better_than_the_old_name() {
    let config = r#"{"auths": {"index.docker.io": {"auth": "b2xkOnA="}, "docker.io/library": {"auth": "bmV3OnA="}}}"#;
    check(config, "nginx", &["new"]);
    check(config, "user/nginx", &["old"]);
}

#[test]
fn several_logins_of_one_place_are_tried_in_their_order() {
    let mut keyring = Keyring::default();
    let login = |name: &str| Login { username: name.into(), password: "p".into(), ..Login::default() };
    let secret = |name: &str| Source::Secret(SecretProof { name: name.into(), ..SecretProof::default() });
    for (name, source) in [("b", secret("1")), ("a", secret("2")), ("b", secret("1")), ("b", Source::Node)] {
        keyring.add(DockerConfig::of([("r.example".to_owned(), login(name))]), &source);
    }
    let found = keyring.fitting("r.example/app");
    let found: Vec<_> = found.iter().map(|one| (one.login.username.as_str(), one.source == Source::Node)).collect();
    assert_eq!(found, [("b", false), ("a", false), ("b", true)]);
}

#[test]
fn both_kinds_of_configuration_are_read() {
    let legacy = br#"{"r.example": {"auth": "dXNlcjpwYTpzcw", "email": "x@y"}}"#;
    let modern =
        br#"{"auths": {"r.example": {"auth": "dXNlcjpwYTpzcw==\n", "identitytoken": "t"}}, "HttpHeaders": {}}"#;
    let expected = Login { username: "user".into(), password: "pa:ss".into(), ..Login::default() };
    assert_eq!(DockerConfig::parse_legacy(legacy).unwrap().logins["r.example"], expected);
    let with_token = Login { identity_token: "t".into(), ..expected };
    assert_eq!(DockerConfig::parse(modern).unwrap().logins["r.example"], with_token);
    assert_eq!(DockerConfig::parse(b"not json").err(), Some(ConfigError::Json));
    let bad = br#"{"auths": {"r": {"auth": "s3cret"}}}"#;
    assert_eq!(DockerConfig::parse(bad).err(), Some(ConfigError::Auth));
}

#[test]
fn a_helper_is_asked_about_the_registry_of_the_image() {
    let helped = br#"{"credHelpers": {"r.example": "pass", "https://index.docker.io/v1/": "hub", "none.example": ""},
        "credsStore": "desktop", "auths": {"r.example": {"username": "old", "password": "p"}}}"#;
    let config = DockerConfig::parse(helped).unwrap();
    let helper = |image: &str| config.helper(image).map(|helper| (helper.name, helper.server));
    let pair = |name: &str, server: &str| Some((name.to_owned(), server.to_owned()));
    assert_eq!(helper("r.example/a/b:v1"), pair("pass", "r.example"));
    assert_eq!(helper("r.example:5000/a"), pair("desktop", "r.example:5000"));
    assert_eq!(helper("nginx"), pair("hub", "https://index.docker.io/v1/"));
    assert_eq!(helper("none.example/a"), None);
    assert_eq!(DockerConfig::parse(b"{}").unwrap().helper("r.example/a"), None);

    let new = Login { username: "new".into(), password: "p".into(), ..Login::default() };
    let mut keyring = Keyring::default();
    keyring.add(config.with_login("r.example/a/b:v1", new), &Source::Node);
    let names: Vec<String> = keyring.fitting("r.example/a/b").into_iter().map(|one| one.login.username).collect();
    assert_eq!(names, ["new"]);
}

#[test]
fn no_secret_is_printed() {
    let config = br#"{"auths": {"r.example": {"username": "u", "password": "s3cret", "identitytoken": "s3cret"}}}"#;
    let mut keyring = Keyring::default();
    keyring.add(DockerConfig::parse(config).unwrap(), &Source::Node);
    let found = keyring.fitting("r.example/app");
    assert!(!format!("{found:?}").contains("s3cret"));
}

#[test]
fn names_are_full_and_without_tag_or_digest() {
    for (image, wanted) in [
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1@sha256:00", "docker.io/library/nginx"),
        ("user/app", "docker.io/user/app"),
        ("localhost/app:v1", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app"),
        ("index.docker.io/app", "docker.io/library/app"),
    ] {
        assert_eq!(repository_of(image), wanted);
    }
}
