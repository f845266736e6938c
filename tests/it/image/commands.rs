//! Building, listing, inspecting and removing, with no registry.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::bed::guests::wat;
use crate::bed::place::Place;

/// A place with a .wasm file and a directory.
async fn place() -> Result<Place> {
    let place = Place::new().await?;
    place.put("hello.wasm", wat::prints_and_exits("hello\n", 0))?;
    place.directory("site")?;
    place.put("site/index.html", "<p>")?;
    Ok(place)
}

#[tokio::test]
async fn a_file_is_inspected_in_plain_words_and_in_json() -> Result<()> {
    let place = place().await?;
    place.put("http.wasm", wat::http_answers(200, "hello\n"))?;
    let ended = place.image("inspect", &["http.wasm"]).await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    for words in
        ["HTTP handler", "wasi:http/incoming-handler@0.2.12", "wasi:http/proxy@0.2.12", "http in: ", "no files"]
    {
        assert!(ended.text().contains(words), "{words:?} is not in {}", ended.text());
    }

    let inspected = place.image_json("inspect", &["hello.wasm"]).await?;
    let wasm = &inspected["wasm"];
    assert_eq!((&wasm["format"], &wasm["kind"], &wasm["wasi"]), (&json!("module"), &json!("command"), &json!("0.1")));
    let reach = wasm["reach"].as_array().context("no reach")?;
    let what: Vec<&Value> = reach.iter().map(|access| &access["what"]).collect();
    assert_eq!(what, [&json!("stdio")], "{inspected}");
    assert!(wasm["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{inspected}");
    Ok(())
}

#[tokio::test]
async fn an_image_in_a_layout_is_pulled_listed_inspected_and_removed() -> Result<()> {
    let place = place().await?;
    let layout = place.guests().display().to_string();
    let image = "test.invalid/guests/prints:v1";
    let pulled = place.image_json("pull", &["--image-layout", &layout, image]).await?;
    assert_eq!(pulled["references"], json!([image]));

    let listed = place.image_json("ls", &[]).await?;
    assert_eq!(listed, json!([pulled]));
    let ended = place.image("ls", &[] as &[&str]).await?;
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("IMAGE") && lines[1].starts_with(image), "{ended:?}");
    let ids = place.image("ls", &["--quiet"]).await?;
    assert_eq!(json!(ids.text().trim()), pulled["id"]);

    let inspected = place.image_json("inspect", &[image]).await?;
    assert_eq!(inspected["id"], pulled["id"]);
    assert_eq!(inspected["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(inspected["layers"][0]["digest"], inspected["wasm"]["digest"]);

    let removed = place.image_json("rm", &[ids.text().trim()]).await?;
    assert_eq!(removed[0]["references"], json!([image]));
    assert_eq!(place.image_json("ls", &[]).await?, json!([]));
    Ok(())
}

#[tokio::test]
async fn a_spin_application_is_inspected_component_by_component() -> Result<()> {
    let place = place().await?;
    let layout = place.guests().display().to_string();
    let image = "test.invalid/guests/spin-shop:v1";
    place.image_json("pull", &["--image-layout", &layout, image]).await?;
    let inspected = place.image_json("inspect", &[image]).await?;
    let application = &inspected["application"];
    assert_eq!(application["routes"][0], json!({ "route": "/api/...", "component": "api" }), "{inspected}");
    assert_eq!(application["components"][0]["keyValueStores"], json!(["default"]));
    assert_eq!(application["components"][1]["files"], json!(["static/logo.svg", "small.txt"]));
    let reach = application["components"][0]["wasm"]["reach"].as_array().context("what it may reach")?;
    assert!(reach.iter().any(|access| access["what"] == "key-value"), "{inspected}");
    let text = place.image("inspect", &[image]).await?.text();
    for words in ["shop 1.0.0 (Spin)", "/old: an answer that is always the same", "reads and writes key-value stores"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_built_image_is_the_same_each_time() -> Result<()> {
    let place = place().await?;
    let arguments = ["hello.wasm", "team/app:v1", "--add", "site:/srv/site", "--env", "A=b", "--label", "team=web"];
    let once = [&arguments[..], &["--archive", "one.tar", "--layout", "layout"]].concat();
    let built = place.image_json("build", &once).await?;
    assert_eq!(built["reference"], "docker.io/team/app:v1");
    let again = [&arguments[..], &["--archive", "two.tar"]].concat();
    assert_eq!(place.image_json("build", &again).await?["digest"], built["digest"]);
    assert_eq!(std::fs::read(place.path("one.tar"))?, std::fs::read(place.path("two.tar"))?);
    place.put("site/index.html", "<b>")?;
    assert_ne!(place.image_json("build", &again).await?["digest"], built["digest"]);
    Ok(())
}

#[tokio::test]
async fn help_has_examples() -> Result<()> {
    let place = Place::new().await?;
    for subcommand in ["push", "pull", "ls", "rm", "inspect", "build"] {
        let ended = place.image(subcommand, &["--help"]).await?;
        assert_eq!(ended.code, 0, "{ended:?}");
        let example = format!("wasklet image {subcommand} ");
        assert!(ended.text().contains(&example), "{subcommand}: {}", ended.text());
    }
    Ok(())
}
