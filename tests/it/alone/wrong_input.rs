//! Wrong input: each time a message that names the object and the step, an exit code of our own, and no panic.

use anyhow::Result;

use crate::bed::guests::wat;
use crate::bed::place::Place;
use crate::bed::ports;
use crate::bed::process::{Process, WASKLET, command};

/// What docker and podman give for a failure of their own.
const OUR_FAILURE: i32 = 125;
/// What clap gives for a wrong command line.
const WRONG_USAGE: i32 = 2;

#[tokio::test]
async fn a_file_that_is_no_guest_is_refused_by_name() -> Result<()> {
    let place = Place::new().await?;
    let missing = place.run(&["./missing.wasm"]).await?;
    missing.complains(OUR_FAILURE, &["./missing.wasm", "no such file"]);

    let text = place.run(&[place.put("notes.wasm", "these are notes")?]).await?;
    text.complains(OUR_FAILURE, &["notes.wasm", "neither a manifest", "nor WebAssembly"]);

    let empty = place.run(&[place.put("empty.wasm", "")?]).await?;
    empty.complains(OUR_FAILURE, &["empty.wasm", "nor WebAssembly"]);

    let truncated = place.run(&[place.put("half.wasm", wat::truncated())?]).await?;
    truncated.complains(OUR_FAILURE, &["half"]);

    let foreign = place.run(&[place.put("foreign.wasm", wat::unknown_import())?]).await?;
    let import = unknown_import();
    foreign.complains(OUR_FAILURE, &["foreign", &import.0, &import.1]);
    Ok(())
}

/// The module and the name that the guest imports and no host has.
fn unknown_import() -> (String, String) {
    let text = include_str!("../../guests/wat/unknown-import.wat");
    let mut quoted =
        text.lines().find(|line| line.contains("(import ")).unwrap_or_default().split('"').skip(1).step_by(2);
    (quoted.next().unwrap_or_default().to_owned(), quoted.next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_wrong_command_line_is_refused_with_the_way_out() -> Result<()> {
    let place = Place::new().await?;
    let guest = place.put("guest.wasm", wat::prints_and_exits("never\n", 0))?;
    place.run(&[&guest, "--no-such-flag"]).await?.complains(WRONG_USAGE, &["--no-such-flag", "Usage"]);
    place
        .run(&[&guest, "--volume", "/nowhere/at/all:/x"])
        .await?
        .complains(WRONG_USAGE, &["--volume", "/nowhere/at/all"]);
    place.run(&[&guest, "--publish", "eighty:80"]).await?.complains(WRONG_USAGE, &["--publish", "eighty"]);
    place.run(&[&guest, "--env", "NOT_SET_ANYWHERE"]).await?.complains(WRONG_USAGE, &["--env", "NOT_SET_ANYWHERE"]);

    let mut no_command = command(WASKLET);
    no_command.arg("jump").stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    Process::start(no_command).await?.ended().await?.complains(WRONG_USAGE, &["jump"]);
    Ok(())
}

#[tokio::test]
async fn a_manifest_that_is_no_pod_is_refused_by_document() -> Result<()> {
    let place = Place::new().await?;
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: many}\n";
    let ended = place.run(&[place.put("deployment.yaml", deployment)?]).await?;
    ended.complains(OUR_FAILURE, &["deployment.yaml", "document 1", "Deployment"]);

    let ended = place.run(&[place.put("broken.yaml", "kind: Pod\nmetadata: [\n")?]).await?;
    ended.complains(OUR_FAILURE, &["broken.yaml"]);

    let misspelt = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: 3}]}\n";
    let ended = place.run(&[place.put("misspelt.yaml", misspelt)?]).await?;
    ended.complains(OUR_FAILURE, &["misspelt.yaml", "document 1", "Pod"]);

    let ended = place.run(&[place.path("missing.yaml")]).await?;
    ended.complains(OUR_FAILURE, &["missing.yaml"]);
    Ok(())
}

#[tokio::test]
async fn a_field_that_is_not_supported_is_refused_with_its_reason() -> Result<()> {
    let place = Place::new().await?;
    let manifest = r"
apiVersion: v1
kind: Pod
metadata: {name: partly}
spec:
  containers:
  - name: main
    image: test.invalid/guests/sleeps:v1
    securityContext: {privileged: true}
";
    let ended = place.run(&[place.put("pod.yaml", manifest)?]).await?;
    ended.complains(OUR_FAILURE, &["partly", "PodFeatureUnsupported", "spec.containers[0].securityContext.privileged"]);
    Ok(())
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_named() -> Result<()> {
    let place = Place::new().await?;
    // Nobody listens there, so no registry's time-out is waited for.
    let registry = format!("127.0.0.1:{}", ports::free()?);
    let image = format!("{registry}/nobody/nothing:v1");
    let ended = place.run(&["--insecure-registry", &registry, &image]).await?;
    ended.complains(OUR_FAILURE, &["RegistryUnavailable", &image, "Connection refused"]);

    let ended = place.run(&["Not An Image"]).await?;
    ended.complains(OUR_FAILURE, &["Not An Image"]);
    Ok(())
}
