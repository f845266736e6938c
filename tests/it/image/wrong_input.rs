//! Wrong input: each time a message that names the object and the way out, and no panic.

use anyhow::Result;

use crate::bed::guests::wat;
use crate::bed::place::Place;
use crate::bed::ports;
use crate::bed::process::Ended;

const FAILED: i32 = 1;
/// What clap gives for a wrong command line.
const WRONG_USAGE: i32 = 2;

#[track_caller]
fn check(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, code, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is not in {}", ended.stderr);
    }
    assert!(ended.stdout.is_empty(), "a complaint on standard output: {}", ended.text());
    for noise in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
        assert!(!ended.stderr.contains(noise), "{noise:?} is in {}", ended.stderr);
    }
}

#[tokio::test]
async fn what_is_not_there_is_named_with_the_way_out() -> Result<()> {
    let place = Place::new().await?;
    let nowhere = place.image("inspect", &["team/app:v1"]).await?;
    check(&nowhere, FAILED, &["team/app:v1", "wasklet image pull team/app:v1"]);
    check(&place.image("rm", &["team/app:v1"]).await?, FAILED, &["team/app:v1", "wasklet image ls"]);
    assert!(!place.state_dir().exists(), "looking made a directory");

    for subcommand in ["push", "build"] {
        let missing = place.image(subcommand, &["missing.wasm", "localhost:1/team/app"]).await?;
        check(&missing, FAILED, &["missing.wasm", "No such file"]);
    }
    Ok(())
}

#[tokio::test]
async fn names_that_are_none_are_refused() -> Result<()> {
    let place = Place::new().await?;
    place.put("hello.wasm", wat::sleeps())?;
    check(&place.image("pull", &["Not An Image"]).await?, FAILED, &["Not An Image"]);
    check(&place.image("push", &["hello.wasm", "UPPER/case:v1"]).await?, FAILED, &["UPPER"]);
    check(&place.image("build", &["hello.wasm", "team//app"]).await?, FAILED, &["team//app"]);
    Ok(())
}

#[tokio::test]
async fn files_that_are_no_wasm_are_refused() -> Result<()> {
    let place = Place::new().await?;
    place.put("notes.wasm", "these are notes")?;
    place.put("half.wasm", wat::truncated())?;
    for subcommand in ["push", "build"] {
        let notes = place.image(subcommand, &["notes.wasm", "localhost:1/team/app"]).await?;
        check(&notes, FAILED, &["notes.wasm", "not a WebAssembly file"]);
        let half = place.image(subcommand, &["half.wasm", "localhost:1/team/app"]).await?;
        check(&half, FAILED, &["half.wasm", "not a complete WebAssembly file"]);
    }
    check(&place.image("inspect", &["notes.wasm"]).await?, FAILED, &["notes.wasm", "not a WebAssembly file"]);
    Ok(())
}

#[tokio::test]
async fn command_lines_that_make_no_sense_are_refused() -> Result<()> {
    let place = Place::new().await?;
    place.put("hello.wasm", wat::sleeps())?;
    let build = |more: &'static [&'static str]| [&["hello.wasm", "team/app"], more].concat();
    check(&place.image("build", &build(&["--add", "site"])).await?, WRONG_USAGE, &["HOST:PATH"]);
    check(&place.image("build", &build(&["--add", "site:srv"])).await?, WRONG_USAGE, &["absolute"]);
    check(&place.image("build", &build(&["--env", "=x"])).await?, WRONG_USAGE, &["name before ="]);
    check(&place.image("build", &build(&["--at", "app.wasm"])).await?, FAILED, &["app.wasm", "must be absolute"]);
    check(&place.image("build", &build(&["--add", "/no/such:/x"])).await?, FAILED, &["/no/such"]);
    check(&place.image("pull", &["a", "--username", "me"]).await?, WRONG_USAGE, &["--password-stdin"]);
    check(&place.image("pull", &["a", "--password", "secret"]).await?, WRONG_USAGE, &["--password"]);
    let empty = place.image("pull", &["a", "--username", "me", "--password-stdin"]).await?;
    check(&empty, FAILED, &["--password-stdin", "holds no password"]);
    Ok(())
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() -> Result<()> {
    let place = Place::new().await?;
    place.put("hello.wasm", wat::sleeps())?;
    // Nobody listens there.
    let image = format!("127.0.0.1:{}/team/app:v1", ports::free()?);
    check(&place.image("pull", &[&image]).await?, FAILED, &[&image, "Connection refused"]);
    check(&place.image("push", &["hello.wasm", &image]).await?, FAILED, &[&image, "Connection refused"]);
    Ok(())
}
