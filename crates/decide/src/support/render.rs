//! The table as the page `docs/support.md`.

use super::{Row, Said, Standing, TABLE};
use std::fmt::Write;

const HEAD: &str = "\
<!-- Written by `UPDATE_SUPPORT=1 cargo test -p decide --test support`; the table is crates/decide/src/support/table.rs. -->

# What wasklet does with each field of a pod's spec

Every field of the Kubernetes 1.37 `PodSpec` stands here. A test walks the API type and fails when one is missing.

- **honoured**: it does what the Kubernetes documentation says.
- **ignored by design**: it has no meaning for WebAssembly, another part of the cluster acts on it, or the pod runs
  without it for now. Where a pod might count on it, one Event of reason `FieldsIgnored` names the field.
- **refused**: a pod that sets it is not run. It is Failed with the given reason, and the message names the field.
- **as the other**: it and everything below it stand as the named field does.

The lists `initContainers` and `ephemeralContainers` have rows only for what differs from `containers`. A field that is
ignored or refused stands for everything below it. A field set to nothing (`false`, an empty string, list
or map) asks for nothing.

| field of `spec` | standing | |
|---|---|---|
";

/// The page, whole.
#[must_use]
pub fn render() -> String {
    let mut page = HEAD.to_owned();
    for Row { path, standing } in TABLE {
        let (word, text) = words(standing);
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{path}` | {word} | {text} |");
    }
    page
}

fn words(standing: &Standing) -> (&'static str, String) {
    match standing {
        Standing::Honoured { note } => ("honoured", (*note).to_owned()),
        Standing::Ignored { why, said: Said::Never } => ("ignored by design", (*why).to_owned()),
        Standing::Ignored { why, said: Said::Unless([]) } => ("ignored by design", format!("{why}; an Event says so")),
        Standing::Ignored { why, said: Said::Unless(values) } => {
            ("ignored by design", format!("{why}; an Event says so unless it is {}", list(values)))
        }
        Standing::Refused { reason, hint, unless: [] } => ("refused", format!("`{reason}`: {hint}")),
        Standing::Refused { reason, hint, unless } => {
            ("refused", format!("`{reason}`, unless it is {}: {hint}", list(unless)))
        }
        Standing::Like { other } => ("as the other", format!("like `{other}` and what is below it")),
    }
}

fn list(values: &[&str]) -> String {
    values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ")
}
