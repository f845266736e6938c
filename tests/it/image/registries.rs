//! Debian's `docker-registry`, in each way it lets people in: plain, TLS, names and passwords, tokens.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::registry::{Access, Options, PASSWORD, Registry, USER};

use crate::bed::guests::wat;
use crate::bed::place::Place;
use crate::bed::process::{Ended, Process};
use crate::bed::tokens::Tokens;

async fn place() -> Result<Place> {
    let place = Place::new().await?;
    place.put("hello.wasm", wat::component_of(&wat::prints_and_exits("hello\n", 0)))?;
    Ok(place)
}

/// Pushes, pulls and runs an image, with further flags of `wasklet image` and of `wasklet run`.
async fn goes_round(place: &Place, registry: &Registry, flags: &[&str], run_flags: &[&str]) -> Result<()> {
    let image = registry.reference("team/hello:v1");
    let pushed = place.image_json("push", &[flags, &["hello.wasm", &image]].concat()).await?;
    let pulled = place.image_json("pull", &[flags, &[&image]].concat()).await?;
    let digest = pushed["digest"].as_str().context("no digest")?;
    assert_eq!(pulled["digests"], json!([format!("{}@{digest}", image.trim_end_matches(":v1"))]));

    let inspected = place.image_json("inspect", &[&image]).await?;
    assert_eq!(inspected["configMediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(inspected["layers"][0]["annotations"]["org.opencontainers.image.title"], "hello.wasm");
    assert_eq!(inspected["wasm"]["world"], "wasi:cli/command@0.2.12", "{inspected}");

    let mut run = place.command(&[run_flags, &[&image]].concat());
    // The login of this place's user, not of whoever runs the tests.
    run.env("HOME", place.path(""));
    let ended = Process::start(run).await?.ended().await?;
    assert_eq!((ended.code, ended.text().as_str()), (0, "hello\n"), "{ended:?}");
    Ok(())
}

/// A login on standard input.
async fn with_password(place: &Place, subcommand: &str, password: &str, arguments: &[&str]) -> Result<Ended> {
    let login = ["--username", USER, "--password-stdin"];
    let mut command = place.image_command(subcommand, &[&login, arguments].concat());
    command.stdin(std::process::Stdio::piped());
    let mut process = Process::start(command).await?;
    let mut stdin = process.stdin()?;
    std::io::Write::write_all(&mut stdin, format!("{password}\n").as_bytes())?;
    drop(stdin);
    process.ended().await
}

/// Writes `~/.docker/config.json` with this login.
fn log_in(place: &Place, registry: &Registry, password: &str) -> Result<()> {
    let login = json!({ "username": USER, "password": password });
    place.directory(".docker")?;
    place.put(".docker/config.json", json!({ "auths": { registry.host(): login } }).to_string())?;
    Ok(())
}

#[tokio::test]
async fn an_open_registry_on_loopback_needs_no_flag() -> Result<()> {
    let (place, registry) = (place().await?, Registry::start(&Options::default()).await?);
    goes_round(&place, &registry, &[], &[]).await?;

    // What is there is not sent or fetched again.
    let image = registry.reference("team/hello:v1");
    let given = registry.blobs_given()?.len();
    let again = place.image("push", &["hello.wasm", &image]).await?;
    assert!(again.code == 0 && again.text().starts_with("pushed "), "{again:?}");
    assert_eq!(place.image("pull", &[&image]).await?.code, 0);
    assert_eq!(registry.blobs_given()?.len(), given);

    // Its compiled code goes with it, though no runtime is there.
    let code = || -> Result<usize> { Ok(std::fs::read_dir(place.state_dir().join("code"))?.count()) };
    let before = code()?;
    assert_eq!(place.image("rm", &[&image]).await?.code, 0);
    assert!(before > code()?, "{before} files of code stay");

    let missing = place.image("pull", &[&registry.reference("team/hello:v2")]).await?;
    assert!(missing.code == 1 && missing.stderr.contains("not found"), "{missing:?}");
    Ok(())
}

#[tokio::test]
async fn a_registry_with_an_authority_of_its_own_is_trusted_by_hosts_toml() -> Result<()> {
    let place = place().await?;
    let registry = Registry::start(&Options { tls: true, ..Options::default() }).await?;
    // On loopback plain HTTP is the custom; hosts.toml says otherwise.
    let directory = place.directory(&format!("hosts/{}", registry.host()))?;
    let server = format!("https://{}", registry.host());
    let write =
        |more: &str| std::fs::write(format!("{directory}/hosts.toml"), format!("server = \"{server}\"\n{more}"));
    let hosts = place.path("hosts").display().to_string();
    let flags = ["--registry-hosts-dir", &hosts];
    let image = registry.reference("team/hello:v1");

    write("")?;
    let distrusted = place.image("push", &[&flags[..], &["hello.wasm", &image]].concat()).await?;
    assert!(distrusted.code == 1 && distrusted.stderr.contains("certificate"), "{distrusted:?}");
    write(&format!("ca = \"{}\"\n", registry.authority().display()))?;
    goes_round(&place, &registry, &flags, &flags).await
}

#[tokio::test]
async fn names_and_passwords_are_taken_from_standard_input_and_from_dockers_file() -> Result<()> {
    let place = place().await?;
    let registry = Registry::start(&Options { access: Access::Basic, ..Options::default() }).await?;
    let image = registry.reference("team/hello:v1");

    let nobody = place.image("push", &["hello.wasm", &image]).await?;
    assert!(nobody.code == 1 && nobody.stderr.contains("no credentials were given"), "{nobody:?}");
    let wrong = with_password(&place, "push", "guessed", &["hello.wasm", &image]).await?;
    assert!(wrong.code == 1 && wrong.stderr.contains("not accepted"), "{wrong:?}");
    assert!(!format!("{wrong:?}").contains("guessed"), "{wrong:?}");
    let pushed = with_password(&place, "push", PASSWORD, &["hello.wasm", &image]).await?;
    assert_eq!(pushed.code, 0, "{pushed:?}");

    let nobody = place.image("pull", &[&image]).await?;
    assert!(nobody.code == 1 && nobody.stderr.contains("denies access"), "{nobody:?}");
    log_in(&place, &registry, "guessed")?;
    assert_eq!(place.image("pull", &[&image]).await?.code, 1);
    log_in(&place, &registry, PASSWORD)?;
    goes_round(&place, &registry, &[], &[]).await
}

#[tokio::test]
async fn a_credential_helper_is_asked_for_the_login() -> Result<()> {
    let place = place().await?;
    let registry = Registry::start(&Options { access: Access::Basic, ..Options::default() }).await?;
    let image = registry.reference("team/hello:v1");
    let helper = format!(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = \"get {}\" ] || exit 1\necho '{{\"Username\": \"{USER}\", \"Secret\": \"{PASSWORD}\"}}'\n",
        registry.host()
    );
    place.directory(".docker")?;
    let program = place.put("docker-credential-ours", helper)?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let run = async |subcommand: &str, arguments: &[&str]| -> Result<Ended> {
        let mut command = place.image_command(subcommand, arguments);
        let path = format!("{}:{}", place.path("").display(), std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path);
        Process::start(command).await?.ended().await
    };
    let config = |helper: &str| json!({ "credHelpers": { registry.host(): helper } }).to_string();
    place.put(".docker/config.json", config("theirs"))?;
    let missing = run("push", &["hello.wasm", &image]).await?;
    assert!(missing.code == 1 && missing.stderr.contains("docker-credential-theirs"), "{missing:?}");
    place.put(".docker/config.json", config("ours"))?;
    let pushed = run("push", &["hello.wasm", &image]).await?;
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let pulled = run("pull", &["-vv", &image]).await?;
    assert!(pulled.code == 0 && !pulled.stderr.contains(PASSWORD), "{pulled:?}");
    Ok(())
}

#[tokio::test]
async fn tokens_are_fetched_with_a_name_and_a_password() -> Result<()> {
    let place = place().await?;
    let tokens = Tokens::start().await?;
    let registry = Registry::start(&Options { access: tokens.access(), ..Options::default() }).await?;
    let image = registry.reference("team/hello:v1");

    let nobody = place.image("push", &["hello.wasm", &image]).await?;
    assert_eq!(nobody.code, 1, "{nobody:?}");
    log_in(&place, &registry, PASSWORD)?;
    goes_round(&place, &registry, &[], &[]).await?;
    // To push is one permission, to pull another.
    let asked = tokens.scopes();
    assert!(asked.iter().any(|scope| scope == "repository:team/hello:pull"), "{asked:?}");
    let pushes = |scope: &&String| scope.starts_with("repository:team/hello:") && scope.contains("push");
    assert!(asked.iter().any(|scope| pushes(&scope)), "{asked:?}");
    Ok(())
}

#[tokio::test]
async fn a_built_image_is_pushed_and_runs_with_its_files() -> Result<()> {
    let (place, registry) = (place().await?, Registry::start(&Options::default()).await?);
    place.put("reads.wasm", wat::reads())?;
    place.put("greeting.txt", "hello from a file\n")?;
    let image = registry.reference("team/reads:v1");
    let add = ["--add", "greeting.txt:/srv/greeting.txt"];
    let build = [&["reads.wasm", &image, "--push"], &add[..], &["--", "/srv/greeting.txt"]].concat();
    let built: Value = place.image_json("build", &build).await?;
    assert_eq!(built["pushed"], true, "{built}");
    let ended = place.run(&[&image]).await?;
    assert_eq!((ended.code, ended.text().as_str()), (0, "hello from a file\n"), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn signatures_are_shown_and_an_image_without_one_does_not_run_though_it_is_here() -> Result<()> {
    let (place, registry) = (place().await?, Registry::start(&Options::default()).await?);
    let image = registry.reference("team/hello:v1");
    let pushed = place.image_json("push", &["hello.wasm", &image]).await?;
    place.image_json("pull", &[&image]).await?;
    let key = rcgen::KeyPair::generate().context("making a key")?;
    place.put("team.pub", key.public_key_pem())?;
    let policy = place.put("trust.yaml", "images: [{pattern: '**', keys: [team.pub]}]")?;
    let trusting = ["--image-trust-policy", policy.as_str()];

    let inspected = place.image("inspect", &[&image]).await?;
    assert!(inspected.text().contains("not verified"), "{inspected:?}");
    let remote = place.image("inspect", &["--remote", &image]).await?;
    assert!(remote.text().lines().any(|line| line.split_whitespace().eq(["Signatures", "none"])), "{remote:?}");
    let refused = place.run(&[&trusting[..], &[&image]].concat()).await?;
    assert!(refused.stderr.contains("SignatureValidationFailed"), "{refused:?}");

    // What `cosign sign --new-bundle-format=false` puts beside an image, pushed by another tool.
    let digest = pushed["digest"].as_str().context("no digest")?;
    let payload = json!({"critical": {"identity": {"docker-reference": ""}, "type": "cosign container image signature",
        "image": {"docker-manifest-digest": digest}}})
    .to_string();
    let signature = rcgen::SigningKey::sign(&key, payload.as_bytes()).context("signing")?;
    let signature = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature);
    place.put("payload.json", payload)?;
    place.put(
        "annotations.json",
        json!({"payload.json": {"dev.cosignproject.cosign/signature": signature}}).to_string(),
    )?;
    let oras = tokio::task::spawn_blocking(testbed::tools::oras).await.context("building oras")??;
    let tag = registry.reference(&format!("team/hello:{}.sig", digest.replace(':', "-")));
    let typed = "payload.json:application/vnd.dev.cosign.simplesigning.v1+json";
    let push = ["push", "--plain-http", "--annotation-file", "annotations.json", &tag, typed];
    place.tool(&oras, &push).await?;

    let remote = place.image_json("inspect", &[&["--remote"], &trusting[..], &[&image]].concat()).await?;
    assert_eq!(remote["signatures"][0]["status"], "verified", "{remote}");
    assert_eq!(remote["signatures"][0]["signer"]["key"], "team.pub", "{remote}");
    let ended = place.run(&[&trusting[..], &[&image]].concat()).await?;
    assert_eq!((ended.code, ended.text().as_str()), (0, "hello\n"), "{ended:?}");
    let inspected = place.image("inspect", &[&image]).await?;
    assert!(inspected.text().contains("signed by the key team.pub"), "{inspected:?}");
    Ok(())
}
