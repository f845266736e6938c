//! Calls of exported functions: a name and arguments as text come in, the result as text goes out.
//!
//! Text is WAVE, the value encoding of the component model; a plain word serves for a `string` too. A function is named
//! by itself where only one has the name, or after its interface: `health/liveness`, `wasklet:probe/health.liveness`,
//! `wasklet:probe/health@0.1.0#liveness`. Never here: whether a new instance or a live one is called, and what the call may
//! use.

use thiserror::Error;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::wasm_wave::parser::ParserError;
use wasmtime::component::wasm_wave::wasm::{DisplayFunc, DisplayType};
use wasmtime::component::wasm_wave::{self};
use wasmtime::component::{self, Accessor, Component, ComponentExportIndex, Instance, Type};
use wasmtime::{AsContextMut, Engine, ExternType, FuncType, InstancePre, Module, Store, Val};

use crate::code::Prepared;
use crate::wasi::Host;

/// Functions that an error lists; a module may export thousands.
const LISTED: usize = 50;
/// Separate an interface from its function.
const SEPARATORS: [char; 3] = ['#', '.', '/'];

/// The name of an exported function, if that is what arguments ask for.
pub(crate) fn named(args: &[String]) -> Option<&str> {
    args.first()?.strip_prefix('#')
}

/// Why what the arguments name cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It has no entry point for a command: it answers HTTP, or is called function by function.
    #[error("this guest has no command that could be run; #NAME calls an exported function: {exports}")]
    NoCommand {
        /// What can be called.
        exports: String,
    },
    /// There is no such function.
    #[error("this guest does not export the function {name:?}; it exports {exports}")]
    NotExported {
        /// What was asked for.
        name: String,
        /// What can be called.
        exports: String,
    },
    /// Several interfaces have such a function.
    #[error("the function {name:?} is exported more than once; say which one of {exports}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Which have the name.
        exports: String,
    },
    /// The arguments are not the function's.
    #[error("{function} is {signature}: {problem}")]
    Arguments {
        /// The function.
        function: String,
        /// Its type.
        signature: String,
        /// What is wrong.
        problem: String,
    },
}

impl Refusal {
    /// The exit code that a shell would give: 127 for what is not there, 126 for what cannot be run, 2 for wrong usage.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NoCommand { .. } => 126,
            Self::NotExported { .. } | Self::Ambiguous { .. } => 127,
            Self::Arguments { .. } => 2,
        }
    }

    pub(super) fn no_command(code: &Prepared) -> Self {
        Self::NoCommand { exports: listed(exports(code).iter()) }
    }
}

/// A function to be called once, with its arguments.
pub(super) enum Function {
    Core { module: InstancePre<Host>, name: String, arguments: Vec<Val>, results: usize },
    Component { component: component::InstancePre<Host>, call: Call },
}

/// A call of a component's function.
pub(super) struct Call {
    index: ComponentExportIndex,
    arguments: Vec<component::Val>,
    results: usize,
}

/// What a function returned, as lines.
pub(super) struct Returned {
    /// The result, unless the function has none.
    pub(super) output: Option<String>,
    /// The error, if the result is one.
    pub(super) error: Option<String>,
}

impl Function {
    /// The function that `name` means in `code`, called with `words`.
    pub(super) fn find(code: &Prepared, name: &str, words: &[String]) -> Result<Self, Refusal> {
        let exports = exports(code);
        let export = select(&exports, name)?;
        match (&export.signature, code) {
            (Signature::Core(signature), Prepared::CommandP1(module) | Prepared::ReactorP1(module)) => Ok(Self::Core {
                module: module.clone(),
                name: export.function.clone(),
                arguments: export.arguments(words, signature.params(), wasm_wave::from_str)?,
                results: signature.results().len(),
            }),
            (Signature::Component(signature, index), _) => Ok(Self::Component {
                component: linked(code).ok_or_else(|| not_exported(name, &exports))?.clone(),
                call: Call {
                    index: *index,
                    arguments: export.arguments(words, signature.params().map(|(_, ty)| ty), argument)?,
                    results: signature.results().len(),
                },
            }),
            (Signature::Core(_), _) => Err(not_exported(name, &exports)),
        }
    }

    pub(super) fn engine(&self) -> &Engine {
        match self {
            Self::Core { module, .. } => module.module().engine(),
            Self::Component { component, .. } => component.engine(),
        }
    }

    /// Calls it in a new instance.
    pub(super) async fn call(self, store: &mut Store<Host>) -> wasmtime::Result<Returned> {
        match self {
            Self::Core { module, name, arguments, results } => {
                let instance = module.instantiate_async(&mut *store).await?;
                // A library's own beginning. A command's exports have it in them.
                if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, "_initialize") {
                    initialize.call_async(&mut *store, ()).await?;
                }
                let missing = || wasmtime::format_err!("the function {name} is gone");
                let function = instance.get_func(&mut *store, &name).ok_or_else(missing)?;
                let mut returned = vec![Val::I32(0); results];
                function.call_async(&mut *store, &arguments, &mut returned).await?;
                let texts: Result<Vec<_>, _> = returned.iter().map(wasm_wave::to_string).collect();
                let output = match texts?.as_slice() {
                    [] => None,
                    [one] => Some(one.clone()),
                    several => Some(format!("({})", several.join(", "))),
                };
                Ok(Returned { output, error: None })
            }
            Self::Component { component, call } => {
                let instance = component.instantiate_async(&mut *store).await?;
                let (function, mut returned) = call.prepared(&mut *store, instance)?;
                function.call_async(&mut *store, &call.arguments, &mut returned).await?;
                last(returned)
            }
        }
    }
}

impl Call {
    /// Makes it in an instance that is running.
    pub(super) async fn live(self, store: &Accessor<Host>, instance: Instance) -> wasmtime::Result<Returned> {
        let (function, mut returned) = store.with(|mut store| self.prepared(&mut store, instance))?;
        function.call_concurrent(store, &self.arguments, &mut returned).await?;
        last(returned)
    }

    /// The function, and room for what it returns.
    fn prepared(
        &self,
        store: impl AsContextMut,
        instance: Instance,
    ) -> wasmtime::Result<(component::Func, Vec<component::Val>)> {
        let missing = || wasmtime::format_err!("the function is gone");
        let function = instance.get_func(store, self.index).ok_or_else(missing)?;
        Ok((function, vec![component::Val::Bool(false); self.results]))
    }
}

fn last(mut returned: Vec<component::Val>) -> wasmtime::Result<Returned> {
    returned.pop().map_or(Ok(Returned { output: None, error: None }), |value| told(&value))
}

/// A function that can be called.
struct Export {
    /// With its package and version; none for a function of the world, and in core modules.
    interface: Option<String>,
    function: String,
    signature: Signature,
}

enum Signature {
    Core(FuncType),
    Component(ComponentFunc, ComponentExportIndex),
}

impl Export {
    fn name(&self) -> String {
        match &self.interface {
            Some(interface) => format!("{interface}#{}", self.function),
            None => self.function.clone(),
        }
    }

    fn arguments<T, V>(
        &self,
        words: &[String],
        types: impl ExactSizeIterator<Item = T>,
        read: impl Fn(&T, &str) -> Result<V, ParserError>,
    ) -> Result<Vec<V>, Refusal>
    where
        T: wasm_wave::wasm::WasmType,
    {
        let wrong = |problem| Refusal::Arguments {
            function: self.name(),
            signature: match &self.signature {
                Signature::Core(signature) => DisplayFunc(signature.clone()).to_string(),
                Signature::Component(signature, _) => DisplayFunc(signature.clone()).to_string(),
            },
            problem,
        };
        if words.len() != types.len() {
            let wanted = types.len();
            return Err(wrong(format!("it takes {wanted} arguments, {} were given", words.len())));
        }
        let read = |(number, (word, ty)): (usize, (&String, T))| {
            read(&ty, word).map_err(|error| {
                wrong(format!("argument {}, {word:?}, is no {}: {error}", number + 1, DisplayType(&ty)))
            })
        };
        words.iter().zip(types).enumerate().map(read).collect()
    }
}

/// On a command line, what begins with no quotation mark is a string as it stands.
fn argument(ty: &Type, word: &str) -> Result<component::Val, ParserError> {
    match ty {
        Type::String if !word.starts_with('"') => Ok(component::Val::String(word.to_owned())),
        _ => wasm_wave::from_str(ty, word),
    }
}

/// An error is told without its wrapping, and without quotation marks if it is a string: it is for people.
fn told(value: &component::Val) -> wasmtime::Result<Returned> {
    let component::Val::Result(Err(error)) = value else {
        return Ok(Returned { output: Some(value.to_wave()?), error: None });
    };
    let error = match error.as_deref() {
        None => "the function returned an error".to_owned(),
        Some(component::Val::String(text)) => text.clone(),
        Some(error) => error.to_wave()?,
    };
    Ok(Returned { output: None, error: Some(error) })
}

fn linked(code: &Prepared) -> Option<&component::InstancePre<Host>> {
    match code {
        Prepared::CommandP1(_) | Prepared::ReactorP1(_) => None,
        Prepared::CommandP2(command) => Some(command.instance_pre()),
        Prepared::CommandP3(command) => Some(command.instance_pre()),
        Prepared::HttpP2(proxy) => Some(proxy.instance_pre()),
        Prepared::HttpP3(service) => Some(service.instance_pre()),
    }
}

/// What can be called, in the order of the binary.
fn exports(code: &Prepared) -> Vec<Export> {
    match code {
        Prepared::CommandP1(module) | Prepared::ReactorP1(module) => of_module(module.module()),
        _ => linked(code).map(|linked| of_component(linked.component())).unwrap_or_default(),
    }
}

fn of_module(module: &Module) -> Vec<Export> {
    let functions = module.exports().filter_map(|export| match export.ty() {
        ExternType::Func(signature) => Some((export.name().to_owned(), signature)),
        _ => None,
    });
    functions
        .map(|(function, signature)| Export { interface: None, function, signature: Signature::Core(signature) })
        .collect()
}

/// Functions of the world and of its interfaces. Methods of resources need a resource, which no text can name.
fn of_component(component: &Component) -> Vec<Export> {
    let engine = component.engine();
    let mut found = Vec::new();
    for (name, export) in component.component_type().exports(engine) {
        let Some(index) = component.get_export_index(None, name) else { continue };
        match export.ty {
            ComponentItem::ComponentFunc(signature) => found.push(Export {
                interface: None,
                function: name.to_owned(),
                signature: Signature::Component(signature, index),
            }),
            ComponentItem::ComponentInstance(instance) => {
                for (function, export) in instance.exports(engine) {
                    let ComponentItem::ComponentFunc(signature) = export.ty else { continue };
                    let Some(index) = component.get_export_index(Some(&index), function) else { continue };
                    if !function.starts_with('[') {
                        found.push(Export {
                            interface: Some(name.to_owned()),
                            function: function.to_owned(),
                            signature: Signature::Component(signature, index),
                        });
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn select<'a>(exports: &'a [Export], name: &str) -> Result<&'a Export, Refusal> {
    if let Some(of_world) = exports.iter().find(|export| export.interface.is_none() && export.function == name) {
        return Ok(of_world);
    }
    let fitting: Vec<_> =
        exports.iter().filter(|export| fits(export.interface.as_deref(), &export.function, name)).collect();
    match fitting.as_slice() {
        [] => Err(not_exported(name, exports)),
        [one] => Ok(one),
        several => Err(Refusal::Ambiguous { name: name.to_owned(), exports: listed(several.iter().copied()) }),
    }
}

/// Whether a function of `interface` is one that `wanted` can mean: its name alone, or after its interface's name with
/// or without version, with or without package.
fn fits(interface: Option<&str>, function: &str, wanted: &str) -> bool {
    if function == wanted {
        return true;
    }
    let (Some(interface), Some((of, name))) = (interface, wanted.rsplit_once(SEPARATORS)) else { return false };
    let unversioned = interface.split_once('@').map_or(interface, |(name, _)| name);
    let bare = unversioned.rsplit_once('/').map_or(unversioned, |(_, name)| name);
    name == function && [interface, unversioned, bare].contains(&of)
}

fn not_exported(name: &str, exports: &[Export]) -> Refusal {
    Refusal::NotExported { name: name.to_owned(), exports: listed(exports.iter()) }
}

fn listed<'a>(exports: impl ExactSizeIterator<Item = &'a Export>) -> String {
    let more = exports.len().saturating_sub(LISTED);
    let mut names: Vec<_> = exports.take(LISTED).map(Export::name).collect();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_has_as_many_names_as_its_interface() {
        let interface = Some("wasklet:probe/health@0.1.0");
        for name in [
            "liveness",
            "health/liveness",
            "health.liveness",
            "wasklet:probe/health.liveness",
            "wasklet:probe/health#liveness",
            "wasklet:probe/health@0.1.0#liveness",
            "wasklet:probe/health@0.1.0.liveness",
        ] {
            assert!(fits(interface, "liveness", name), "{name}");
        }
        for name in
            ["", "health", "readiness", "probe/liveness", "other:probe/health.liveness", "health@0.2.0.liveness"]
        {
            assert!(!fits(interface, "liveness", name), "{name}");
        }
        assert!(fits(None, "add", "add"));
        assert!(!fits(None, "add", "math/add"));
    }

    #[test]
    fn only_a_first_word_with_its_sign_names_a_function() {
        let args = |first: &str| vec![first.to_owned(), "#other".to_owned()];
        assert_eq!(named(&args("#add")), Some("add"));
        assert_eq!(named(&args("add")), None);
        assert_eq!(named(&[]), None);
    }

    #[test]
    fn errors_are_told_for_people() {
        let error = |payload| told(&component::Val::Result(Err(payload))).unwrap().error.unwrap();
        assert_eq!(error(Some(Box::new(component::Val::String("no database".into())))), "no database");
        assert_eq!(error(Some(Box::new(component::Val::U32(7)))), "7");
        assert_eq!(error(None), "the function returned an error");
        let fine = told(&component::Val::Result(Ok(Some(Box::new(component::Val::U32(7)))))).unwrap();
        assert_eq!((fine.output.as_deref(), fine.error), (Some("ok(7)"), None));
    }
}
