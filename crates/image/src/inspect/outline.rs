//! The outermost imports, exports and custom sections of a wasm file.
//!
//! Names are read from any binary that parses. Which functions of an interface a component imports is known only where
//! its types validate; where they do not, the interface stands alone, and the engine will say what is wrong.

use std::collections::BTreeMap;

use serde::Serialize;
use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::Types;
use wasmparser::{
    BinaryReaderError, ComponentExternalKind, Encoding, ExternalKind, Parser, Payload, ValidPayload, Validator,
    WasmFeatures,
};

use super::{Format, Kind, Wasi};

/// Custom sections with text for people; the names are those of the annotations of OCI images.
const ABOUT: [&str; 7] = ["authors", "description", "homepage", "licenses", "revision", "source", "version"];
/// Bytes; a longer text is not for people.
const ABOUT_BYTES_MAX: usize = 4096;

/// The entry points that make a component more than a library, with what they make of it.
const ENTRY_POINTS: [(&str, Kind, Wasi); 4] = [
    ("wasi:http/incoming-handler@0.2", Kind::Http, Wasi::P2),
    ("wasi:cli/run@0.2", Kind::Command, Wasi::P2),
    ("wasi:http/handler@0.3", Kind::Http, Wasi::P3),
    ("wasi:cli/run@0.3", Kind::Command, Wasi::P3),
];

/// Why a file could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InspectError {
    /// It does not begin as WebAssembly does.
    #[error("not a WebAssembly file: it does not begin with \\0asm; give the compiled .wasm file")]
    NotWasm,
    /// It is cut short or damaged.
    #[error("not a complete WebAssembly file")]
    Malformed(#[from] BinaryReaderError),
}

/// One import or export: a WIT interface, the module of core functions, or a single function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// `wasi:cli/environment@0.2.6`, `wasi_snapshot_preview1`, or a function's own name.
    pub name: String,
    /// The functions of it that are imported or exported: none for a single function or for types alone, `None` where
    /// they are not known.
    pub functions: Option<Vec<String>>,
}

/// What is read of a file.
pub(super) struct Outline {
    pub(super) format: Format,
    pub(super) imports: Vec<Interface>,
    pub(super) exports: Vec<Interface>,
    pub(super) about: BTreeMap<String, String>,
    /// Every export is a type: there is no code to call.
    only_types: bool,
}

pub(super) fn read(wasm: &[u8]) -> Result<Outline, InspectError> {
    if !wasm.starts_with(b"\0asm") {
        return Err(InspectError::NotWasm);
    }
    let (mut format, mut imports, mut exports) = (Format::Module, Vec::new(), Vec::new());
    let (mut about, mut only_types) = (BTreeMap::new(), true);
    // Modules and components nest; only what is outermost is the file's own.
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::Version { encoding: Encoding::Component, .. } if depth == 0 => format = Format::Component,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ImportSection(section) if depth == 0 => {
                for import in section.into_imports() {
                    let import = import?;
                    add_function(&mut imports, import.module, import.name);
                }
            }
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        exports.push(Interface { name: export.name.to_owned(), functions: Some(Vec::new()) });
                    }
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(Interface { name: import?.name.name.to_owned(), functions: None });
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export?;
                    only_types &= export.kind == ComponentExternalKind::Type;
                    exports.push(Interface { name: export.name.name.to_owned(), functions: None });
                }
            }
            Payload::CustomSection(section) if depth == 0 => {
                if ABOUT.contains(&section.name())
                    && section.data().len() <= ABOUT_BYTES_MAX
                    && let Ok(text) = std::str::from_utf8(section.data())
                {
                    about.insert(section.name().to_owned(), text.to_owned());
                }
            }
            _ => {}
        }
    }
    if format == Format::Component
        && let Some(types) = types(wasm)
    {
        add_functions(&types, &mut imports, &mut exports);
    }
    Ok(Outline { format, imports, exports, about, only_types })
}

impl Outline {
    /// What can be done with it, and by which release of WASI.
    pub(super) fn kind(&self) -> (Kind, Option<Wasi>) {
        let exports = |name: &str| self.exports.iter().any(|export| export.name == name);
        if self.format == Format::Component {
            let exported = |prefix: &str| self.exports.iter().any(|export| export.name.starts_with(prefix));
            return match ENTRY_POINTS.iter().find(|(prefix, ..)| exported(prefix)) {
                Some((_, kind, wasi)) => (*kind, Some(*wasi)),
                None if self.only_types && !self.exports.is_empty() => (Kind::Wit, None),
                None => (Kind::Library, None),
            };
        }
        let wasi = self.imports.iter().any(|import| import.name == super::reach::PREVIEW1).then_some(Wasi::P1);
        if exports("_start") {
            (Kind::Command, Some(Wasi::P1))
        } else if exports("_initialize") {
            (Kind::Reactor, wasi)
        } else {
            (Kind::Library, wasi)
        }
    }
}

/// Core imports come one by one; those of a module stand together.
fn add_function(imports: &mut Vec<Interface>, module: &str, function: &str) {
    match imports.iter_mut().find(|import| import.name == module) {
        Some(import) => import.functions.get_or_insert_default().push(function.to_owned()),
        None => imports.push(Interface { name: module.to_owned(), functions: Some(vec![function.to_owned()]) }),
    }
}

/// The types of a component; nothing where they do not validate. Code is not looked at.
fn types(wasm: &[u8]) -> Option<Types> {
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut outermost = None;
    for payload in Parser::new(0).parse_all(wasm) {
        if let ValidPayload::End(types) = validator.payload(&payload.ok()?).ok()? {
            outermost = Some(types);
        }
    }
    outermost
}

fn add_functions(types: &Types, imports: &mut [Interface], exports: &mut [Interface]) {
    let types = types.as_ref();
    let functions = |entity: &ComponentEntityType| match entity {
        ComponentEntityType::Instance(instance) => {
            let exports = types[*instance].exports.iter();
            let functions = exports.filter(|(_, item)| matches!(item.ty, ComponentEntityType::Func(_)));
            functions.map(|(name, _)| name.clone()).collect()
        }
        _ => Vec::new(),
    };
    for import in imports {
        if let Some(item) = types.component_item_for_import(&import.name) {
            import.functions = Some(functions(&item.ty));
        }
    }
    for export in exports {
        if let Some(item) = types.component_item_for_export(&export.name) {
            export.functions = Some(functions(&item.ty));
        }
    }
}
