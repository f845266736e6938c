//! Images between us and other tools: what they push we read, what we push they read.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::registry::{Options, Registry};
use testbed::tools;

use crate::bed::guests::wat;
use crate::bed::place::Place;

const ARTIFACT: &str = "application/vnd.wasm.config.v0+json";

async fn place() -> Result<(Place, Registry)> {
    let place = Place::new().await?;
    place.put("hello.wasm", wat::prints_and_exits("hello\n", 0))?;
    Ok((place, Registry::start(&Options::default()).await?))
}

async fn runs(place: &Place, image: &str) -> Result<()> {
    let ended = place.run(&[image]).await?;
    assert_eq!((ended.code, ended.text().as_str()), (0, "hello\n"), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn oras_reads_what_we_push_and_we_run_what_it_pushes() -> Result<()> {
    let (place, registry) = place().await?;
    let oras = tokio::task::spawn_blocking(tools::oras).await.context("building oras")??;
    let image = registry.reference("ours:v1");
    place.image_json("push", &["hello.wasm", &image]).await?;

    let manifest = place.tool(&oras, &["manifest", "fetch", "--plain-http", &image]).await?;
    let manifest: Value = serde_json::from_str(&manifest).context("oras wrote no JSON")?;
    assert_eq!(manifest["config"]["mediaType"], ARTIFACT);
    let config = place.tool(&oras, &["manifest", "fetch-config", "--plain-http", &image]).await?;
    let config: Value = serde_json::from_str(&config).context("oras wrote no JSON")?;
    assert_eq!((&config["architecture"], &config["os"]), (&json!("wasm"), &json!("wasip1")));
    assert_eq!(config["layerDigests"], json!([manifest["layers"][0]["digest"]]));
    place.tool(&oras, &["pull", "--plain-http", "--output", "pulled", &image]).await?;
    assert_eq!(std::fs::read(place.path("pulled/hello.wasm"))?, std::fs::read(place.path("hello.wasm"))?);

    // As the CNCF's guide has it, with the configuration of another tool.
    place.put("config.json", config.to_string())?;
    let theirs = registry.reference("theirs:v1");
    let typed = format!("config.json:{ARTIFACT}");
    let push = ["push", "--plain-http", "--config", &typed, &theirs, "hello.wasm:application/wasm"];
    place.tool(&oras, &push).await?;
    runs(&place, &theirs).await?;

    // With nothing but an artifact type, whose configuration says nothing.
    let bare = registry.reference("bare:v1");
    let push = ["push", "--plain-http", "--artifact-type", ARTIFACT, &bare, "hello.wasm:application/wasm"];
    place.tool(&oras, &push).await?;
    runs(&place, &bare).await
}

#[tokio::test]
async fn skopeo_copies_what_we_push_and_we_read_its_layouts() -> Result<()> {
    let (place, registry) = place().await?;
    let skopeo = tools::find("skopeo")?;
    let image = registry.reference("ours:v1");
    let pushed = place.image_json("push", &["hello.wasm", &image]).await?;

    let remote = format!("docker://{image}");
    let raw = place.tool(&skopeo, &["inspect", "--raw", "--tls-verify=false", &remote]).await?;
    let raw: Value = serde_json::from_str(&raw).context("skopeo wrote no JSON")?;
    assert_eq!(raw["layers"][0]["mediaType"], "application/wasm");
    let copied = registry.reference("copied:v1");
    let copy = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &remote, &format!("docker://{copied}")];
    place.tool(&skopeo, &copy).await?;
    let pulled = place.image_json("pull", &[&copied]).await?;
    let digest = pushed["digest"].as_str().context("no digest")?;
    assert_eq!(pulled["digests"], json!([format!("{}@{digest}", copied.trim_end_matches(":v1"))]), "the digest stays");
    runs(&place, &copied).await?;

    let to_layout = ["copy", "--src-tls-verify=false", &remote, "oci:layout:team/hello:v1"];
    place.tool(&skopeo, &to_layout).await?;
    place.image_json("pull", &["--image-layout", "layout", "team/hello:v1"]).await?;
    runs(&place, "team/hello:v1").await
}

#[tokio::test]
async fn skopeo_takes_what_we_build_and_we_run_what_it_made_of_it() -> Result<()> {
    let (place, registry) = place().await?;
    let skopeo = tools::find("skopeo")?;
    place.put("extra.txt", "extra")?;
    let build = ["hello.wasm", "team/hello:v1", "--add", "extra.txt:/srv/extra.txt", "--label", "team=web"];
    place.image_json("build", &[&build[..], &["--archive", "hello.tar"]].concat()).await?;

    let config = place.tool(&skopeo, &["inspect", "--config", "oci-archive:hello.tar"]).await?;
    let config: Value = serde_json::from_str(&config).context("skopeo wrote no JSON")?;
    assert_eq!(config["config"]["Entrypoint"], json!(["/hello.wasm"]));
    assert_eq!(config["config"]["Labels"], json!({ "team": "web" }));

    // Both manifest formats, and layers compressed anew.
    for (format, name) in [("oci", "as-oci:v1"), ("v2s2", "as-docker:v1")] {
        let image = registry.reference(name);
        let to = format!("docker://{image}");
        let copy = ["copy", "--dest-tls-verify=false", "--format", format, "oci-archive:hello.tar", &to];
        place.tool(&skopeo, &copy).await?;
        runs(&place, &image).await?;
    }
    Ok(())
}

#[tokio::test]
async fn wkg_reads_what_we_push_and_we_run_what_it_pushes() -> Result<()> {
    let (place, registry) = place().await?;
    let wkg = tokio::task::spawn_blocking(tools::wkg).await.context("building wkg")??;
    place.put("component.wasm", wat::component_of(&wat::prints_and_exits("hello\n", 0)))?;
    let (theirs, ours) = (registry.reference("theirs:v1"), registry.reference("ours:v1"));
    let insecure = registry.host();
    place.tool(&wkg, &["oci", "push", "--insecure", insecure, &theirs, "component.wasm"]).await?;
    runs(&place, &theirs).await?;
    // Both make the same of one component.
    place.image_json("push", &["component.wasm", &ours]).await?;
    let theirs = place.image_json("inspect", &["--remote", &theirs]).await?;
    let ours = place.image_json("inspect", &["--remote", &ours]).await?;
    assert_eq!(theirs["configMediaType"], ARTIFACT);
    assert_eq!(theirs["configMediaType"], ours["configMediaType"]);
    let layer = |image: &Value| (image["layers"][0]["mediaType"].clone(), image["layers"][0]["digest"].clone());
    assert_eq!(layer(&theirs), layer(&ours));

    place
        .tool(&wkg, &["oci", "pull", "--insecure", insecure, &registry.reference("ours:v1"), "--output", "out.wasm"])
        .await?;
    assert_eq!(std::fs::read(place.path("out.wasm"))?, std::fs::read(place.path("component.wasm"))?);
    Ok(())
}
