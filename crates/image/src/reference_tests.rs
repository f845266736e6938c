//! What Docker and Kubernetes read from an image name, and that the full form says the same.

use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn names_are_completed_as_docker_does() {
    let cases = [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest"),
        ("a/b/c", "docker.io/a/b/c:latest"),
        ("test.com:5000", "docker.io/library/test.com:5000"),
        ("test:5000/repo", "test:5000/repo:latest"),
        ("localhost/repo:Tag_1", "localhost/repo:Tag_1"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
        ("[::1]:5000/a:b", "[::1]:5000/a:b"),
        ("[::1]/a", "[::1]/a:latest"),
        ("Uppercase/repo", "Uppercase/repo:latest"),
        ("registry.k8s.io/e2e-test-images/agnhost:2.66.1", "registry.k8s.io/e2e-test-images/agnhost:2.66.1"),
        ("ghcr.io/a/b__c---d.e", "ghcr.io/a/b__c---d.e:latest"),
    ];
    for (name, full) in cases {
        assert_eq!(Reference::parse(name).unwrap().to_string(), full, "{name}");
    }
}

#[test]
fn a_digest_takes_no_default_tag_and_may_stand_beside_one() {
    let bare = Reference::parse(&format!("ghcr.io/a/b@{DIGEST}")).unwrap();
    assert_eq!((bare.tag(), bare.digest()), (None, Some(Digest::of(b""))));
    let both = Reference::parse(&format!("ghcr.io/a/b:v1@{DIGEST}")).unwrap();
    assert_eq!((both.tag(), both.digest()), (Some("v1"), Some(Digest::of(b""))));
    assert_eq!(both.at(Digest::of(b"")), bare);
    assert_eq!(both.name(), "ghcr.io/a/b");
}

#[test]
fn what_breaks_the_grammar_is_named() {
    let check = |name: &str, part: &str| {
        let message = Reference::parse(name).unwrap_err().to_string();
        assert!(message.contains(part), "{name}: {message}");
    };
    check("", "is empty");
    check(":tag", "is empty");
    check("ghcr.io/", "is empty");
    check("nginx:", "\"\" is not a tag");
    check("nginx:-1", "\"-1\" is not a tag");
    check(&format!("nginx:{}", "t".repeat(129)), "is not a tag");
    check("Nginx", "\"Nginx\" must be lowercase");
    check("ghcr.io/a/B", "\"B\" must be lowercase");
    check("ghcr.io/a//b", "component \"\"");
    check("a/_b", "\"_b\"");
    check("a/b._c", "\"b._c\"");
    check("a b", "\"a b\"");
    check("-bad.io/x", "\"-bad.io\" is not a registry host");
    check("bad..io/x", "is not a registry host");
    check("host:port/x", "\"host:port\" is not a registry host");
    check("[::1/x", "is not a registry host");
    check(&"a".repeat(64), "image ID");
    check(&format!("ghcr.io/{}", "a".repeat(256)), "over 255 bytes");
    assert!(matches!(Reference::parse("nginx@sha256:00"), Err(ReferenceError::Digest { .. })));
    assert!(matches!(Reference::parse(&format!("nginx@{DIGEST}@{DIGEST}")), Err(ReferenceError::Digest { .. })));
}

#[test]
fn loopback_registries_are_known_by_name_and_address() {
    for name in ["localhost/a", "localhost:5000/a", "127.0.0.1:1/a", "127.9.9.9/a", "[::1]:5000/a"] {
        assert!(Reference::parse(name).unwrap().is_loopback(), "{name}");
    }
    for name in ["a", "localhost.example.com/a", "10.0.0.1:5000/a", "[2001:db8::1]/a", "127.0.0.1.nip.io/a"] {
        assert!(!Reference::parse(name).unwrap().is_loopback(), "{name}");
    }
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused_and_the_full_form_is_stable(name in "[ -~]{0,40}|([a-zA-Z0-9.:/@_\\[\\]-]{0,40})") {
        if let Ok(reference) = Reference::parse(&name) {
            prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
        }
    }

    /// An independent parser reads the same from names both grammars know (its own lacks IPv6 hosts, and takes an
    /// uppercase first component for a repository, and a host with an underscore for a host).
    #[test]
    fn ordinary_names_are_read_as_oci_client_reads_them(
        name in "(([a-z0-9]{1,8}\\.)?[a-z]{1,8}(:[0-9]{1,4})?/)?[a-z0-9]{1,6}([._-][a-z0-9]{1,6}){0,2}(/[a-z0-9]{1,6}){0,2}(:[a-zA-Z0-9_][a-z.-]{0,8})?",
        pinned in any::<bool>(),
    ) {
        let first = name.split('/').next().unwrap();
        prop_assume!(!(name.contains('/') && first.contains('_') && first.contains(['.', ':'])));
        let name = if pinned { format!("{name}@{DIGEST}") } else { name };
        let ours = Reference::parse(&name).map(|reference| reference.to_string()).ok();
        let theirs = name.parse::<oci_client::Reference>().map(|reference| reference.whole()).ok();
        prop_assert_eq!(ours, theirs);
    }
}
