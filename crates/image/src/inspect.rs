//! A wasm binary comes in; what it is, what it imports and exports, and what that lets it reach goes out.
//!
//! Pure, and nothing is run: the outermost imports and exports are read, and no code. What a binary may reach follows
//! from its imports alone, as a guest has no other way out. Whether it can run on this node is not decided here.

mod outline;
mod reach;
mod world;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::outline::{InspectError, Interface};
pub use self::reach::{Access, Reach};

/// What one wasm file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The two binary formats.
    pub format: Format,
    /// What can be done with it.
    pub kind: Kind,
    /// The WASI release its entry point is of: `0.1`, `0.2` or `0.3`.
    pub wasi: Option<Wasi>,
    /// The well-known world that its imports and exports are of: `wasi:cli/command@0.2.6`.
    pub world: Option<String>,
    /// What it asks of its host, in the binary's order.
    pub imports: Vec<Interface>,
    /// What it offers, in the binary's order.
    pub exports: Vec<Interface>,
    /// What it may reach through its imports.
    pub reach: Vec<Access>,
    /// What its makers say of it in custom sections: `description`, `version`, `licenses` and such.
    pub about: BTreeMap<String, String>,
}

/// The two binary formats of WebAssembly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// A core module.
    Module,
    /// A component.
    Component,
}

/// What can be done with a binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// It is run: `_start`, or `wasi:cli/run`.
    Command,
    /// It is served: `wasi:http/incoming-handler`, or `wasi:http/handler`.
    Http,
    /// A core module that is initialised and then called (`_initialize`).
    Reactor,
    /// It has no entry point that a runtime knows by itself.
    Library,
    /// Definitions of interfaces, with no code.
    Wit,
}

/// A release of WASI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Wasi {
    /// `wasi_snapshot_preview1`.
    #[serde(rename = "0.1")]
    P1,
    /// WASI 0.2.
    #[serde(rename = "0.2")]
    P2,
    /// WASI 0.3.
    #[serde(rename = "0.3")]
    P3,
}

impl Wasi {
    /// The release's number.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::P1 => "0.1",
            Self::P2 => "0.2",
            Self::P3 => "0.3",
        }
    }
}

/// Reads what a wasm file says of itself.
///
/// # Errors
/// When the bytes are not a whole WebAssembly module or component.
pub fn inspect(wasm: &[u8]) -> Result<Inspection, InspectError> {
    let outline = outline::read(wasm)?;
    let (kind, wasi) = outline.kind();
    let world =
        if outline.format == Format::Component { world::known(&outline.imports, &outline.exports) } else { None };
    let reach = reach::of(outline.format, &outline.imports, &outline.exports);
    let outline::Outline { format, imports, exports, about, .. } = outline;
    Ok(Inspection { format, kind, wasi, world, imports, exports, reach, about })
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
