//! Registries with no cluster: a proxy of the environment, the user's own logins, and a policy about signatures.

use anyhow::Result;

use crate::bed::guests::wat;
use crate::bed::place::Place;
use crate::bed::process::{Ended, Process};
use crate::bed::registry::Registry;

/// Runs an image with these variables beside the usual ones; `HOME` is the place itself.
async fn run(place: &Place, variables: &[(&str, &str)], arguments: &[&str]) -> Result<Ended> {
    let mut command = place.command(arguments);
    for name in
        ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"]
    {
        command.env_remove(name);
    }
    command.env("HOME", place.path("")).envs(variables.iter().copied());
    Process::start(command).await?.ended().await
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_used_unless_it_is_not_for_the_host() -> Result<()> {
    let place = Place::new().await?;
    // To a proxy a client says the whole URL; what serves it here looks at its path alone.
    let registry = Registry::start().await?;
    registry.push("v1", &wat::prints_and_exits("through the proxy\n", 0))?;
    let proxy = format!("http://{}", registry.host());
    let arguments = ["--insecure-registry", "registry.invalid", "registry.invalid/test/guest:v1"];
    let ended = run(&place, &[("HTTP_PROXY", &proxy)], &arguments).await?;
    assert_eq!((ended.code, ended.text().as_str()), (0, "through the proxy\n"), "{ended:?}");

    let other = Place::new().await?;
    let ended = run(&other, &[("HTTP_PROXY", &proxy), ("NO_PROXY", "registry.invalid")], &arguments).await?;
    assert_eq!(ended.code, 125, "{ended:?}");
    assert!(ended.stderr.contains("RegistryUnavailable"), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn the_users_own_login_serves_a_pod_and_is_never_shown() -> Result<()> {
    let place = Place::new().await?;
    let registry = Registry::start_private("alice", "p4ssw0rd").await?;
    registry.push("v1", &wat::prints_and_exits("let in\n", 0))?;
    let image = registry.reference("v1");
    let refused = run(&place, &[], &["-vv", &image]).await?;
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(refused.stderr.contains("no credentials were given"), "{refused:?}");

    place.directory(".docker")?;
    let config = |password: &str| {
        let auths = serde_json::json!({ registry.host(): { "username": "alice", "password": password } });
        place.put(".docker/config.json", serde_json::json!({ "auths": auths }).to_string())
    };
    config("wr0ng")?;
    let refused = run(&place, &[], &["-vv", &image]).await?;
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(refused.stderr.contains("are not accepted") && !refused.stderr.contains("wr0ng"), "{refused:?}");
    config("p4ssw0rd")?;
    let ended = run(&place, &[], &["-vv", &image]).await?;
    assert_eq!((ended.code, ended.text().as_str()), (0, "let in\n"), "{ended:?}");
    assert!(!ended.stderr.contains("p4ssw0rd"), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_policy_holds_for_a_run_too() -> Result<()> {
    let place = Place::new().await?;
    let registry = Registry::start().await?;
    registry.push("v1", &wat::prints_and_exits("", 0))?;
    let image = registry.reference("v1");
    let policy = place.put("trust.yaml", format!("images: [{{pattern: '{}/**', accept: false}}]", registry.host()))?;
    let ended = run(&place, &[], &["--image-trust-policy", &policy, &image]).await?;
    assert_eq!(ended.code, 125, "{ended:?}");
    for words in ["SignatureValidationFailed", "trust.yaml, images", "its entry rejects it"] {
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
    }
    let malformed = place.put("trust.yaml", "images: [{pattern: '**'}]")?;
    let ended = run(&place, &[], &["--image-trust-policy", &malformed, &image]).await?;
    assert_eq!(ended.code, 125, "{ended:?}");
    assert!(ended.stderr.contains("names neither keys nor identities nor accept"), "{ended:?}");
    Ok(())
}
