//! Wrong input: each time a message that names the object and the way out, and no panic.

use anyhow::Result;

use crate::bed::guests::wat;
use crate::bed::place::Place;
use crate::bed::ports;

const FAILED: i32 = 1;
/// What clap gives for a wrong command line.
const WRONG_USAGE: i32 = 2;

#[tokio::test]
async fn what_is_not_there_is_named_with_the_way_out() -> Result<()> {
    let place = Place::new().await?;
    let nowhere = place.image("inspect", &["team/app:v1"]).await?;
    nowhere.complains(FAILED, &["team/app:v1", "wasklet image pull team/app:v1"]);
    place.image("rm", &["team/app:v1"]).await?.complains(FAILED, &["team/app:v1", "wasklet image ls"]);
    assert!(!place.state_dir().exists(), "looking made a directory");

    for subcommand in ["push", "build"] {
        let missing = place.image(subcommand, &["missing.wasm", "localhost:1/team/app"]).await?;
        missing.complains(FAILED, &["missing.wasm", "No such file"]);
    }
    Ok(())
}

#[tokio::test]
async fn names_that_are_none_are_refused() -> Result<()> {
    let place = Place::new().await?;
    place.put("hello.wasm", wat::sleeps())?;
    place.image("pull", &["Not An Image"]).await?.complains(FAILED, &["Not An Image"]);
    place.image("push", &["hello.wasm", "UPPER/case:v1"]).await?.complains(FAILED, &["UPPER"]);
    place.image("build", &["hello.wasm", "team//app"]).await?.complains(FAILED, &["team//app"]);
    Ok(())
}

#[tokio::test]
async fn files_that_are_no_wasm_are_refused() -> Result<()> {
    let place = Place::new().await?;
    place.put("notes.wasm", "these are notes")?;
    place.put("half.wasm", wat::truncated())?;
    for subcommand in ["push", "build"] {
        let notes = place.image(subcommand, &["notes.wasm", "localhost:1/team/app"]).await?;
        notes.complains(FAILED, &["notes.wasm", "not a WebAssembly file"]);
        let half = place.image(subcommand, &["half.wasm", "localhost:1/team/app"]).await?;
        half.complains(FAILED, &["half.wasm", "not a complete WebAssembly file"]);
    }
    place.image("inspect", &["notes.wasm"]).await?.complains(FAILED, &["notes.wasm", "not a WebAssembly file"]);
    Ok(())
}

#[tokio::test]
async fn command_lines_that_make_no_sense_are_refused() -> Result<()> {
    let place = Place::new().await?;
    place.put("hello.wasm", wat::sleeps())?;
    let build = |more: &'static [&'static str]| [&["hello.wasm", "team/app"], more].concat();
    place.image("build", &build(&["--add", "site"])).await?.complains(WRONG_USAGE, &["HOST:PATH"]);
    place.image("build", &build(&["--add", "site:srv"])).await?.complains(WRONG_USAGE, &["absolute"]);
    place.image("build", &build(&["--env", "=x"])).await?.complains(WRONG_USAGE, &["name before ="]);
    place.image("build", &build(&["--at", "app.wasm"])).await?.complains(FAILED, &["app.wasm", "must be absolute"]);
    place.image("build", &build(&["--add", "/no/such:/x"])).await?.complains(FAILED, &["/no/such"]);
    place.image("pull", &["a", "--username", "me"]).await?.complains(WRONG_USAGE, &["--password-stdin"]);
    place.image("pull", &["a", "--password", "secret"]).await?.complains(WRONG_USAGE, &["--password"]);
    let empty = place.image("pull", &["a", "--username", "me", "--password-stdin"]).await?;
    empty.complains(FAILED, &["--password-stdin", "holds no password"]);
    Ok(())
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() -> Result<()> {
    let place = Place::new().await?;
    place.put("hello.wasm", wat::sleeps())?;
    // Nobody listens there.
    let image = format!("127.0.0.1:{}/team/app:v1", ports::free()?);
    place.image("pull", &[&image]).await?.complains(FAILED, &[&image, "Connection refused"]);
    place.image("push", &["hello.wasm", &image]).await?.complains(FAILED, &[&image, "Connection refused"]);
    Ok(())
}
