//! What a wasm file is: its bytes come in, its [`Kind`] or the reason we cannot run it goes out. Looks at the outer
//! structure only and never at code, so that a file that cannot run is refused before the cost of compiling it.

use wasmparser::{Encoding, ExternalKind, Import, Parser, Payload, TypeRef};

use super::{Kind, Unfit};

const MAGIC: &[u8] = b"\0asm";
const RUN: &str = "wasi:cli/run@";
const INCOMING_HANDLER: &str = "wasi:http/incoming-handler@";
/// How WASI 0.3 answers HTTP.
const HANDLER: &str = "wasi:http/handler@";

/// A refusal names this many exports at most.
const NAMES_TOLD: usize = 12;

pub(super) fn kind(bytes: &[u8]) -> Result<Kind, Unfit> {
    if !bytes.starts_with(MAGIC) {
        return Err(Unfit::NotWasm);
    }
    let outline = Outline::read(bytes)?;
    match outline.encoding {
        Encoding::Module => outline.module_kind(),
        Encoding::Component => outline.component_kind(),
    }
}

/// The outermost module's or component's exports.
struct Outline {
    encoding: Encoding,
    exports: Vec<String>,
}

impl Outline {
    fn read(bytes: &[u8]) -> Result<Self, Unfit> {
        let malformed = |error: wasmparser::BinaryReaderError| Unfit::Malformed { detail: error.to_string() };
        let mut outline = Self { encoding: Encoding::Module, exports: Vec::new() };
        // Modules and components nest; only what is outermost is the file's own.
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(malformed)? {
                Payload::Version { encoding, .. } if depth == 0 => outline.encoding = encoding,
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::MemorySection(memories) => {
                    for memory in memories {
                        refuse_shared(memory.map_err(malformed)?.shared, || "a shared memory".to_owned())?;
                    }
                }
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        refuse_threads(&import.map_err(malformed)?)?;
                    }
                }
                Payload::ExportSection(exports) if depth == 0 => {
                    for export in exports {
                        let export = export.map_err(malformed)?;
                        if export.kind == ExternalKind::Func {
                            outline.exports.push(export.name.to_owned());
                        }
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        outline.exports.push(export.map_err(malformed)?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    fn module_kind(&self) -> Result<Kind, Unfit> {
        let exports = |name: &str| self.exports.iter().any(|export| export == name);
        if exports("_start") {
            return Ok(Kind::CommandP1);
        }
        if exports("_initialize") {
            return Ok(Kind::ReactorP1);
        }
        let detail = "a module must export the function _start, or _initialize if its functions are called one by one";
        Err(Unfit::NoEntryPoint { detail: detail.to_owned() })
    }

    fn component_kind(&self) -> Result<Kind, Unfit> {
        let with_prefix = |prefix: &str| self.exports.iter().find(|export| export.starts_with(prefix));
        let kinds = [
            (INCOMING_HANDLER, "0.2", Kind::HttpP2),
            (HANDLER, "0.3", Kind::HttpP3),
            (RUN, "0.2", Kind::CommandP2),
            (RUN, "0.3", Kind::CommandP3),
        ];
        if let Some(kind) = kinds
            .into_iter()
            .find_map(|(prefix, version, kind)| with_prefix(&format!("{prefix}{version}")).map(|_| kind))
        {
            return Ok(kind);
        }
        let found = match self.exports.as_slice() {
            [] => "nothing".to_owned(),
            exports if exports.len() > NAMES_TOLD => format!(
                "{} and {} more",
                exports.iter().take(NAMES_TOLD).cloned().collect::<Vec<_>>().join(", "),
                exports.len() - NAMES_TOLD
            ),
            exports => exports.join(", "),
        };
        let detail = format!(
            "a component must export {RUN}0.2, {RUN}0.3, {INCOMING_HANDLER}0.2 or {HANDLER}0.3, this one exports {found}"
        );
        Err(Unfit::NoEntryPoint { detail })
    }
}

fn refuse_threads(import: &Import<'_>) -> Result<(), Unfit> {
    let name = || format!("the import {:?} from module {:?}", import.name, import.module);
    if import.module == "wasi" && import.name == "thread-spawn" {
        return Err(Unfit::Threads { what: name() });
    }
    let shared = matches!(import.ty, TypeRef::Memory(memory) if memory.shared);
    refuse_shared(shared, name)
}

fn refuse_shared(shared: bool, what: impl FnOnce() -> String) -> Result<(), Unfit> {
    if shared { Err(Unfit::Threads { what: what() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<Kind, Unfit> {
        kind(&wat::parse_str(text).unwrap())
    }

    fn refusal(text: &str) -> String {
        of(text).unwrap_err().to_string()
    }

    #[test]
    fn the_binary_decides_the_kind() {
        assert_eq!(of(r#"(module (func (export "_start")))"#).unwrap(), Kind::CommandP1);
        assert_eq!(
            of(r#"(component (instance) (export "wasi:cli/run@0.2.6" (instance 0)))"#).unwrap(),
            Kind::CommandP2
        );
        let p3 = r#"(component (instance) (export "wasi:cli/run@0.3.0" (instance 0)))"#;
        assert_eq!(of(p3).unwrap(), Kind::CommandP3);
        let http = r#"(component (instance) (export "wasi:http/incoming-handler@0.2.0" (instance 0)))"#;
        assert_eq!(of(http).unwrap(), Kind::HttpP2);
        let http = r#"(component (instance) (export "wasi:http/handler@0.3.0" (instance 0)))"#;
        assert_eq!(of(http).unwrap(), Kind::HttpP3);
        assert_eq!(of(r#"(module (func (export "_initialize")))"#).unwrap(), Kind::ReactorP1);
    }

    proptest! {
        /// Whatever stands behind a good beginning, and however a good file is damaged.
        #[test]
        fn no_bytes_are_too_strange_to_be_told_apart(
            component: bool, rest: Vec<u8>, at: prop::sample::Index, byte: u8,
        ) {
            let beginning: &[u8] = if component { b"\0asm\x0d\0\x01\0" } else { b"\0asm\x01\0\0\0" };
            let _: Result<Kind, Unfit> = kind(&[beginning, &rest].concat());
            let mut damaged = wat::parse_str(r#"(component (core module (memory 1) (func (export "_start")))
                (component (instance) (export "wasi:cli/run@0.2.6" (instance 0))))"#).unwrap();
            *at.get_mut(&mut damaged) = byte;
            let _: Result<Kind, Unfit> = kind(&damaged);
        }
    }

    #[test]
    fn exports_of_what_is_nested_do_not_count() {
        let nested = r#"(component (core module (func (export "_start")))
            (component (instance) (export "wasi:cli/run@0.2.6" (instance 0))))"#;
        assert!(refusal(nested).contains("exports nothing"), "{}", refusal(nested));
    }

    #[test]
    fn refusals_say_what_is_missing() {
        assert!(refusal("(module)").contains("_start"));
        assert!(refusal("(component)").contains("wasi:http/handler@0.3"));
    }

    #[test]
    fn threads_are_refused_by_name() {
        assert!(refusal("(module (memory 1 1 shared))").contains("shared memory"));
        assert!(refusal(r#"(module (import "env" "mem" (memory 1 1 shared)))"#).contains(r#""mem" from module "env""#));
        let spawn = r#"(module (import "wasi" "thread-spawn" (func)))"#;
        assert!(refusal(spawn).contains("thread-spawn"));
    }

    #[test]
    fn what_is_no_wasm_and_what_is_cut_short_are_told_apart() {
        assert!(matches!(kind(b"\x7fELF"), Err(Unfit::NotWasm)));
        assert!(matches!(kind(b""), Err(Unfit::NotWasm)));
        let whole = wat::parse_str(r#"(module (func (export "_start") nop nop nop))"#).unwrap();
        for length in MAGIC.len()..whole.len() {
            match kind(&whole[..length]) {
                Err(Unfit::Malformed { .. }) => {}
                // Cut between two sections it is a shorter file, and lacks its entry point or is refused later.
                Err(Unfit::NoEntryPoint { .. }) | Ok(_) => {}
                other => panic!("{length}: {other:?}"),
            }
        }
        assert!(matches!(kind(&whole[..whole.len() - 1]), Err(Unfit::Malformed { .. })));
    }
}
