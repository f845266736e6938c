//! `wasklet run FILE.wasm` and `wasklet run IMAGE`: what stands on the command line reaches the guest, and its output and
//! exit code come back.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result};
use testbed::guests::test_reference;

use crate::bed::guests::wat;
use crate::bed::place::Place;
use crate::bed::process::Process;
use crate::bed::{http, ports};

#[tokio::test]
async fn arguments_and_environment_reach_the_guest() -> Result<()> {
    let place = Place::new().await?;
    let arguments = place.put("arguments.wasm", wat::prints_arguments())?;
    let ended = place.run(&[&arguments, "--", "one", "--two", "", "three words here"]).await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    let text = ended.text();
    let (_own_name, given) = text.split_once('\n').context("the guest's own name comes first")?;
    assert_eq!(given, "one\n--two\n\nthree words here\n");

    let environment = place.put("environment.wasm", wat::prints_environment())?;
    let mut command = place.command(&[&environment, "--env", "GREETING=hello, $(PASSED)", "--env", "PASSED"]);
    command.env("PASSED", "from outside").env("KEPT_BACK", "secret");
    let ended = Process::start(command).await?.ended().await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<String> = ended.text().lines().map(str::to_owned).collect();
    assert!(lines.contains(&"PASSED=from outside".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("GREETING=hello, ")), "{lines:?}");
    assert!(!ended.text().contains("KEPT_BACK"), "our own environment leaked: {lines:?}");
    Ok(())
}

#[tokio::test]
async fn a_volume_is_there_and_read_only_where_it_says_so() -> Result<()> {
    let place = Place::with_all_guests().await?;
    let data = place.directory("data")?;
    place.put("data/greeting", "hello from the host")?;
    let files = test_reference("files");
    let (writable, read_only) = (format!("{data}:/data"), format!("{data}:/data:ro"));

    let read = place.run(&["--volume", &read_only, &files, "--", "cat", "/data/greeting"]).await?;
    assert_eq!((read.code, read.text().as_str()), (0, "hello from the host"), "{read:?}");

    let refused = place.run(&["--volume", &read_only, &files, "--", "write", "/data/new", "text"]).await?;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("files write /data/new text: "), "{refused:?}");
    assert!(!place.path("data/new").exists(), "a read-only volume was written to");

    let written = place.run(&["--volume", &writable, &files, "--", "write", "/data/new", "text"]).await?;
    assert_eq!(written.code, 0, "{written:?}");
    assert_eq!(std::fs::read_to_string(place.path("data/new"))?, "text");
    Ok(())
}

#[tokio::test]
async fn standard_input_passes_through_byte_for_byte_and_its_end_too() -> Result<()> {
    let place = Place::new().await?;
    let cat = place.put("cat.wasm", wat::cat())?;
    // Every byte, in lines short and long, and no end of line at the end.
    let mut input: Vec<u8> =
        (0..200_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    input.extend([0, 255, 254, b'\r', b'\n', b'\n', 128, b'x']);

    let mut command = place.command(&[&cat]);
    command.stdin(Stdio::piped());
    let mut wasklet = Process::start(command).await?;
    let mut stdin = wasklet.stdin()?;
    let fed = input.clone();
    std::thread::spawn(move || stdin.write_all(&fed));
    let ended = wasklet.ended().await?;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let same = ended.stdout.iter().zip(&input).position(|(out, given)| out != given);
    assert_eq!((ended.stdout.len(), same), (input.len(), None), "length, and the first byte that differs");
    Ok(())
}

#[tokio::test]
async fn a_conversation_does_not_wait_for_the_end_of_the_input() -> Result<()> {
    let place = Place::new().await?;
    let mut command = place.command(&[place.put("cat.wasm", wat::cat())?]);
    command.stdin(Stdio::piped());
    let mut wasklet = Process::start(command).await?;
    let mut stdin = wasklet.stdin()?;
    for line in ["first\n", "second\n"] {
        stdin.write_all(line.as_bytes())?;
        wasklet.await_stdout("the line to come back", |said| said.ends_with(line)).await?;
    }
    drop(stdin);
    let ended = wasklet.ended().await?;
    assert_eq!((ended.code, ended.text().as_str()), (0, "first\nsecond\n"), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn the_guests_exit_code_and_streams_are_ours() -> Result<()> {
    let place = Place::new().await?;
    let seven = place.run(&[place.put("seven.wasm", wat::prints_and_exits("to stdout\n", 7))?]).await?;
    assert_eq!((seven.code, seven.text().as_str()), (7, "to stdout\n"), "{seven:?}");

    let complains = place.run(&[place.put("complains.wasm", wat::complains_and_exits("to stderr\n", 255))?]).await?;
    assert_eq!((complains.code, complains.text().as_str()), (255, ""), "{complains:?}");
    assert!(complains.stderr.contains("to stderr\n"), "{complains:?}");

    let command = wat::prints_and_exits("a component\n", 0);
    let component = place.run(&[place.put("component.wasm", wat::component_of(&command))?]).await?;
    assert_eq!((component.code, component.text().as_str()), (0, "a component\n"), "{component:?}");

    let from_image = place.run(&[test_reference("prints")]).await?;
    assert_eq!((from_image.code, from_image.text().as_str()), (0, "hello from wasm\n"), "{from_image:?}");
    Ok(())
}

#[tokio::test]
async fn a_trap_is_told_and_gives_134() -> Result<()> {
    let place = Place::new().await?;
    let ended = place.run(&[place.put("traps.wasm", wat::traps())?]).await?;
    assert_eq!(ended.code, 134, "{ended:?}");
    assert!(ended.stderr.contains("wasm `unreachable` instruction executed"), "{ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_published_port_leads_to_the_guest_and_a_taken_one_is_told() -> Result<()> {
    let place = Place::new().await?;
    let guest = place.put("web.wasm", wat::http_answers(200, "served\n"))?;
    let port = ports::free()?;
    let publish = format!("127.0.0.1:{port}:80");
    let first = place.start(&["--publish", &publish, &guest]).await?;
    assert_eq!(http::await_answer(([127, 0, 0, 1], port), "/").await?, "served\n");

    let second = place.run(&["--publish", &publish, &guest]).await?;
    assert_eq!(second.code, 125, "{second:?}");
    assert!(second.stderr.contains(&port.to_string()), "{second:?}");
    assert!(second.stderr.contains("in use"), "{second:?}");

    assert!(first.runs());
    assert_eq!(http::get(([127, 0, 0, 1], port), "/").await?.body, "served\n");
    Ok(())
}
