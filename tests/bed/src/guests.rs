//! Every guest of the examples and the tests, built from source and packed as OCI images.
//!
//! Comes in: `examples/`, `tests/guests/` and a Rust that compiles for wasm. Goes out: one OCI image layout whose index
//! names each image by its full reference. Never here: a binary from the repository, or a registry.

mod command;
pub mod component;
mod rust;
pub mod spin;
pub mod toolchain;
pub mod wat;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{Digest, Reference, pack};

use self::rust::Shape;
use self::toolchain::Toolchain;

/// The examples written in Rust; their images are what the manifests in `examples/` name.
const EXAMPLES: [(&str, Shape); 2] = [("hello", Shape::Command), ("hello-http", Shape::Handler)];

/// The tests' guests written in Rust.
const RUST_GUESTS: [(&str, Shape); 2] = [("files", Shape::Command), ("sockets", Shape::Run)];

/// An image that [`build_all`] made.
#[derive(Debug)]
pub struct Built {
    /// The name it has in the layout, `test.invalid/guests/sleeps:v1` for instance.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The size of its wasm.
    pub bytes: usize,
}

/// Where `cargo xtask guests` puts the layout, and where `wasklet` started by cargo looks for it.
#[must_use]
pub fn layout() -> PathBuf {
    repository().join("target/guests/oci")
}

/// The reference of a test guest.
#[must_use]
pub fn test_reference(name: &str) -> String {
    format!("test.invalid/guests/{name}:v1")
}

/// Builds every guest and writes it into the OCI layout directory `out`. Only what has changed is compiled again, and
/// an image that is the same stays as it is.
///
/// # Errors
/// When there is no Rust for wasm, or a guest does not compile; the error names the guest.
pub fn build_all(out: &Path) -> Result<Vec<Built>> {
    let toolchain = Toolchain::find()?;
    say(&format!("guests: compiled by {}", toolchain.describe()));
    let compiled = repository().join("target/guests/rust");
    let mut built = Vec::new();
    for (name, shape) in EXAMPLES {
        let wasm = rust::build(&toolchain, &repository().join("examples").join(name), &compiled, shape)?;
        built.push(packed(out, &format!("ghcr.io/wasklet/examples/{name}:v1"), &wasm)?);
    }
    for (name, shape) in RUST_GUESTS {
        let wasm = rust::build(&toolchain, &repository().join("tests/guests").join(name), &compiled, shape)?;
        built.push(packed(out, &test_reference(name), &wasm)?);
    }
    built.extend(build_wat(out)?);
    Ok(built)
}

/// One of the examples, as a component.
///
/// # Errors
/// When there is no Rust for wasm, or it does not compile.
pub fn example(name: &str) -> Result<Vec<u8>> {
    let (_, shape) = EXAMPLES.iter().find(|(known, _)| *known == name).with_context(|| format!("no example {name}"))?;
    let compiled = repository().join("target/guests/rust");
    rust::build(&Toolchain::find()?, &repository().join("examples").join(name), &compiled, *shape)
}

/// Writes only the guests that need no compiler into `out`: a layout for a test of its own, in milliseconds.
///
/// # Errors
/// When the layout cannot be written.
pub fn build_wat(out: &Path) -> Result<Vec<Built>> {
    let guests = [
        ("prints", wat::prints_and_exits("hello from wasm\n", 0)),
        ("fails", wat::complains_and_exits("this guest fails\n", 3)),
        ("loops", wat::loops()),
        ("sleeps", wat::sleeps()),
        ("ticks", wat::ticks()),
        ("traps", wat::traps()),
        ("grows", wat::grows()),
        ("cat", wat::cat()),
        ("reads", wat::reads()),
        ("environment", wat::prints_environment()),
        ("arguments", wat::prints_arguments()),
        ("commands", wat::commands()),
        ("health", wat::health()),
        ("http-health", wat::http_health()),
        ("terminates", wat::terminates()),
        ("stays", wat::stays()),
        ("handles-stop", wat::handles_stop()),
        ("stores", wat::stores()),
        ("run-03", wat::concurrent(false)),
        ("run-03-sleeps", wat::concurrent_sleeps()),
        ("unknown-import", wat::unknown_import()),
        ("run", wat::component_of(&wat::prints_and_exits("hello from a component\n", 0))),
        ("run-sleeps", wat::component_of(&wat::sleeps())),
        ("http-answers", wat::http_answers(200, "hello over http\n")),
        ("http-fails", wat::http_answers(500, "this guest fails\n")),
        ("http-echoes", wat::http_echoes()),
        ("http-is-silent", wat::http_is_silent()),
        ("http-traps", wat::http_traps()),
        ("http-03-answers", wat::http_03_answers(200, "hello over WASI 0.3\n")),
        ("http-03-echoes", wat::http_03_echoes()),
        ("reactor", wat::reactor(false)),
    ];
    let mut built =
        guests.iter().map(|(name, wasm)| packed(out, &test_reference(name), wasm)).collect::<Result<Vec<_>>>()?;
    let (shop, reference) = (spin::shop(), test_reference("spin-shop"));
    let bytes = shop.layers.iter().map(|(_, content)| content.len()).sum();
    let digest = spin::add_to_layout(out, &reference, &shop)?;
    built.push(Built { reference, digest, bytes });
    Ok(built)
}

/// Writes one guest into `out`, as the image `reference`.
///
/// # Errors
/// When it is no wasm, or the layout cannot be written.
pub fn packed(out: &Path, reference: &str, wasm: &[u8]) -> Result<Built> {
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let name = Reference::parse(reference).with_context(|| format!("read the reference {reference}"))?;
    let artifact = pack::artifact(wasm).with_context(|| format!("pack {reference}"))?;
    let digest = pack::add_to_layout(out, &name, &artifact).with_context(|| format!("store {reference}"))?;
    Ok(Built { reference: reference.to_owned(), digest, bytes: wasm.len() })
}

fn repository() -> PathBuf {
    // tests/bed stands two levels below.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

#[expect(clippy::print_stderr, reason = "progress of minutes of work, for the person who waits for it")]
fn say(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_names_each_guest_once_however_often_it_is_written() {
        let out = tempfile::tempdir().expect("a temporary directory");
        let first = build_wat(out.path()).expect("the guests are written");
        build_wat(out.path()).expect("the guests are written again");
        let index = fs::read(out.path().join("index.json")).expect("the layout has an index");
        let index: serde_json::Value = serde_json::from_slice(&index).expect("the index is JSON");
        let names: Vec<&str> = index["manifests"]
            .as_array()
            .expect("the index lists manifests")
            .iter()
            .filter_map(|entry| entry["annotations"]["org.opencontainers.image.ref.name"].as_str())
            .collect();
        let expected: Vec<&str> = first.iter().map(|built| built.reference.as_str()).collect();
        assert_eq!(names, expected);
    }
}
