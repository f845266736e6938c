//! Rules about who may depend on what.
//!
//! Comes in: `deny.toml`, and what `cargo metadata` says of every dependency, development ones included. Goes out:
//! faults. Never here: a second list of fences or licences.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use toml_edit::{DocumentMut, Item};

use super::{Fault, licence};
use crate::steps::repository;

/// All that the pure core may be built of: data, dates, errors; nothing that reaches a clock, a file or a network.
const PURE: [(&str, &[&str]); 1] =
    [("decide", &["base64", "jiff", "k8s-openapi", "proptest", "serde", "serde_json", "serde-saphyr", "thiserror"])];

/// The one member that sets lints of its own, because it alone may use unsafe code.
const OWN_LINTS: &str = "wasm";

/// The package of the binary and of the integration tests, which use what the binary must not: of this one alone the
/// development dependencies are nobody's concern.
const BINARY: &str = "wasklet";

/// A crate and who alone may name it.
#[derive(Debug)]
struct Fence {
    name: String,
    wrappers: BTreeSet<String>,
    reason: String,
}

/// A package of the dependency graph, with the names of those it depends on directly.
#[derive(Debug)]
struct Package {
    name: String,
    licence: Option<String>,
    /// Of this repository, not of a registry.
    is_ours: bool,
    manifest: String,
    dependencies: BTreeSet<String>,
}

/// Every fault of the dependency graph and the manifests.
///
/// # Errors
/// When cargo or `deny.toml` cannot be read.
pub(super) fn faults() -> Result<Vec<Fault>> {
    let text = fs::read_to_string(repository().join("deny.toml")).context("read deny.toml")?;
    let deny: DocumentMut = text.parse().context("read deny.toml")?;
    let packages = packages(&metadata()?)?;

    let mut faults = broken_fences(&packages, &fences(&deny)?);
    faults.extend(foreign_licences(&packages, &allowed_licences(&deny)?));
    faults.extend(impure(&packages));
    for package in packages.iter().filter(|package| package.is_ours && package.name != OWN_LINTS) {
        let manifest = fs::read_to_string(&package.manifest).with_context(|| format!("read {}", package.manifest))?;
        if !manifest.contains("[lints]\nworkspace = true") {
            faults.push(fault(&package.manifest, "take the workspace's lints".to_owned()));
        }
    }
    Ok(faults)
}

fn metadata() -> Result<Value> {
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &host])
        .current_dir(repository())
        .output()
        .context("start cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("read cargo metadata")
}

fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let by_id: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes = list(&metadata["resolve"]["nodes"]);
    ensure!(!nodes.is_empty(), "cargo metadata lists no packages");
    let name_of = |id: &Value| by_id.get(&text(id)).map(|package| text(&package["name"]));
    let is_for_tests = |edge: &Value| list(&edge["dep_kinds"]).iter().all(|kind| kind["kind"] == "dev");
    let packages = nodes.iter().filter_map(|node| {
        let package = by_id.get(&text(&node["id"]))?;
        let name = text(&package["name"]);
        let edges = list(&node["deps"]);
        let counted = edges.iter().filter(|edge| name != BINARY || !is_for_tests(edge));
        Some(Package {
            dependencies: counted.filter_map(|edge| name_of(&edge["pkg"])).collect(),
            name,
            licence: package["license"].as_str().map(str::to_owned),
            is_ours: package["source"].is_null(),
            manifest: text(&package["manifest_path"]),
        })
    });
    Ok(packages.collect())
}

fn fences(deny: &DocumentMut) -> Result<Vec<Fence>> {
    let entries = deny["bans"]["deny"].as_array().context("deny.toml has no bans.deny")?;
    entries
        .iter()
        .map(|entry| {
            let entry = entry.as_inline_table().context("an entry of bans.deny is no table")?;
            let text = |key: &str| entry.get(key).and_then(|value| value.as_str()).map(str::to_owned);
            let wrappers = entry.get("wrappers").and_then(|value| value.as_array());
            Ok(Fence {
                name: text("crate").context("an entry of bans.deny names no crate")?,
                wrappers: wrappers
                    .map(|names| names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
                    .unwrap_or_default(),
                reason: text("reason").unwrap_or_default(),
            })
        })
        .collect()
}

fn allowed_licences(deny: &DocumentMut) -> Result<Vec<String>> {
    let allow = deny.get("licenses").and_then(|licences| licences.get("allow")).and_then(Item::as_array);
    let allow = allow.context("deny.toml has no licenses.allow")?;
    Ok(allow.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

fn broken_fences(packages: &[Package], fences: &[Fence]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for fence in fences {
        let users = packages.iter().filter(|package| package.dependencies.contains(&fence.name));
        for user in users.filter(|user| !fence.wrappers.contains(&user.name)) {
            let what = format!("{} must not depend on {}: {}", user.name, fence.name, fence.reason);
            faults.push(fault(&user.manifest, what));
        }
    }
    faults
}

fn foreign_licences(packages: &[Package], allowed: &[String]) -> Vec<Fault> {
    let ask = |package: &&Package| {
        !package.licence.as_deref().is_some_and(|expression| licence::is_allowed(expression, allowed))
    };
    let what = |package: &Package| {
        format!("{} is under {}", package.name, package.licence.as_deref().unwrap_or("no named licence"))
    };
    packages.iter().filter(ask).map(|package| fault(&package.manifest, what(package))).collect()
}

fn impure(packages: &[Package]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (member, may_use) in PURE {
        for package in packages.iter().filter(|package| package.is_ours && package.name == member) {
            for name in package.dependencies.iter().filter(|name| !may_use.contains(&name.as_str())) {
                faults.push(fault(&package.manifest, format!("{member} is pure and may not depend on {name}")));
            }
        }
    }
    faults
}

fn fault(manifest: &str, what: String) -> Fault {
    let root = format!("{}/", repository().display());
    Fault { path: manifest.strip_prefix(&root).unwrap_or(manifest).to_owned(), line: 0, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            licence: Some("MIT".to_owned()),
            is_ours: true,
            manifest: format!("crates/{name}/Cargo.toml"),
            dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_fence_lets_only_its_wrappers_through() {
        let deny: DocumentMut = "[bans]\ndeny = [{ crate = \"big\", wrappers = [\"room\"], reason = \"why\" }]\n"
            .parse()
            .expect("the text is TOML");
        let fences = fences(&deny).expect("the fences are read");
        let packages = [package("room", &["big"]), package("other", &["small"]), package("thief", &["big"])];
        let faults = broken_fences(&packages, &fences);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].what, "thief must not depend on big: why");
    }

    #[test]
    fn the_pure_core_stays_pure() {
        assert!(impure(&[package("decide", &["serde"])]).is_empty());
        assert_eq!(impure(&[package("decide", &["serde", "tokio"])]).len(), 1);
        assert!(impure(&[package("kubelet", &["tokio"])]).is_empty());
    }

    #[test]
    fn a_licence_nobody_allowed_is_a_fault() {
        let allowed = ["MIT".to_owned()];
        let mut unnamed = package("unnamed", &[]);
        unnamed.licence = None;
        let faults = foreign_licences(&[package("good", &[]), unnamed], &allowed);
        assert_eq!(faults.len(), 1, "{faults:?}");
    }

    #[test]
    fn cargo_s_own_picture_is_understood() {
        let packages = packages(&metadata().expect("cargo answers")).expect("the packages are read");
        let xtask = packages.iter().find(|package| package.name == "xtask").expect("xtask is a package");
        assert!(xtask.is_ours);
        assert!(xtask.dependencies.contains("testbed"), "{xtask:?}");
        let binary = packages.iter().find(|package| package.name == BINARY).expect("the binary is a package");
        assert!(binary.dependencies.contains("kubelet"), "{binary:?}");
        assert!(!binary.dependencies.contains("testbed"), "its development dependencies do not count: {binary:?}");
    }
}
