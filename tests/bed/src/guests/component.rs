//! Components from core modules, with no tool but the crates of this workspace.
//!
//! Comes in: a `wasm32-wasip1` core module. Goes out: a component for WASI 0.2. Never here: a compiler.

use anyhow::{Context, Result};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The definitions of WASI, each after those it uses.
const WASI: [(&str, &str); 7] = [
    ("io.wit", include_str!("../../../guests/wit/wasi-0.2.12/io.wit")),
    ("clocks.wit", include_str!("../../../guests/wit/wasi-0.2.12/clocks.wit")),
    ("random.wit", include_str!("../../../guests/wit/wasi-0.2.12/random.wit")),
    ("filesystem.wit", include_str!("../../../guests/wit/wasi-0.2.12/filesystem.wit")),
    ("sockets.wit", include_str!("../../../guests/wit/wasi-0.2.12/sockets.wit")),
    ("cli.wit", include_str!("../../../guests/wit/wasi-0.2.12/cli.wit")),
    ("http.wit", include_str!("../../../guests/wit/wasi-0.2.12/http.wit")),
];

/// The interfaces of this project that a guest may export or import.
const OURS: [(&str, &str); 2] = [
    ("wasklet-pod.wit", include_str!("../../../../wit/wasklet-pod.wit")),
    ("wasklet-probe.wit", include_str!("../../../../wit/wasklet-probe.wit")),
];

/// Proposals that guests written by hand use; several packages, each in braces, in one text.
const PROPOSALS: &str =
    concat!(include_str!("../../../guests/wit/stores.wit"), include_str!("../../../guests/wit/spin.wit"));

/// What guests written by hand use of WASI 0.3.
const WASI_03: [(&str, &str); 3] = [
    ("clocks-0.3.wit", include_str!("../../../guests/wit/clocks-0.3.wit")),
    ("run-0.3.wit", include_str!("../../../guests/wit/run-0.3.wit")),
    ("http-0.3.wit", include_str!("../../../guests/wit/http-0.3.wit")),
];

/// What guests written by hand may import, and what they export. Imports that one does not use are left out.
const GUESTS: &str = "
package test:guests;
world imports {
    import wasi:http/types@0.2.12;
    import wasi:io/streams@0.2.12;
    import wasi:clocks/monotonic-clock@0.2.12;
    import wasi:cli/stdout@0.2.12;
    import wasi:sockets/udp-create-socket@0.2.12;
    import wasklet:pod/lifecycle@0.1.0;
}
world command {
    include imports;
    export wasi:cli/run@0.2.12;
}
world concurrent {
    include imports;
    export wasi:cli/run@0.3.0;
    export add: func(a: u32, b: u32) -> u32;
}
world live {
    include imports;
    export wasi:cli/run@0.3.0;
    export wasklet:probe/health@0.1.0;
    export count: func() -> u32;
    export spin: func();
    export unlucky: func();
}
world spin {
    include http-guest;
    import wasi:filesystem/preopens@0.2.12;
    import wasi:filesystem/types@0.2.12;
    import fermyon:spin/variables@2.0.0;
    import fermyon:spin/key-value@2.0.0;
    import fermyon:spin/llm@2.0.0;
}
world http-03 {
    import wasi:clocks/monotonic-clock@0.3.0;
    import wasi:http/types@0.3.0;
    export wasi:http/handler@0.3.0;
}
world spin-03 {
    include http-03;
    import spin:variables/variables@3.0.0;
    import spin:key-value/key-value@3.0.0;
}
world stop-handler {
    include command;
    export wasklet:pod/stop-handler@0.1.0;
}
world stores {
    include command;
    import wasi:config/store@0.2.0-rc.1;
    import wasi:keyvalue/store@0.2.0-draft;
    import wasi:keyvalue/atomics@0.2.0-draft;
    import wasi:keyvalue/batch@0.2.0-draft;
    use wasi:keyvalue/store@0.2.0-draft.{error, key-response};
    export get: func(bucket: string, key: string) -> result<option<list<u8>>, error>;
    export set: func(bucket: string, key: string, value: list<u8>) -> result<_, error>;
    export delete: func(bucket: string, key: string) -> result<_, error>;
    export exists: func(bucket: string, key: string) -> result<bool, error>;
    export list-keys: func(bucket: string) -> result<key-response, error>;
    export increment: func(bucket: string, key: string, delta: u64) -> result<u64, error>;
    export get-many: func(bucket: string, keys: list<string>) -> result<list<option<tuple<string, list<u8>>>>, error>;
    export set-many: func(bucket: string, pairs: list<tuple<string, list<u8>>>) -> result<_, error>;
    export configured: func(key: string) -> option<string>;
}
world stores-2 {
    include command;
    import wasi:keyvalue/store@0.2.0-draft2;
    import wasi:keyvalue/atomics@0.2.0-draft2;
    import wasi:keyvalue/batch@0.2.0-draft2;
    use wasi:keyvalue/store@0.2.0-draft2.{error, key-response};
    export contend: func(bucket: string, key: string, value: list<u8>) -> result<u32, error>;
    export increment: func(bucket: string, key: string, delta: s64) -> result<s64, error>;
    export list-keys: func(bucket: string, cursor: option<string>) -> result<key-response, error>;
    export get-many: func(bucket: string, keys: list<string>) -> result<list<tuple<string, option<list<u8>>>>, error>;
}
world http-guest {
    include imports;
    export wasi:http/incoming-handler@0.2.12;
}
world health {
    include imports;
    export wasklet:probe/health@0.1.0;
    export add: func(a: u32, b: u32) -> u32;
    export greet: func(name: string) -> string;
}
world health-command {
    include health;
    export wasi:cli/run@0.2.12;
}
world health-http {
    include health;
    export wasi:http/incoming-handler@0.2.12;
}
";

/// A command (`_start`) becomes a component that exports `wasi:cli/run`.
///
/// # Errors
/// When the module is no `wasm32-wasip1` command.
pub fn command(core: &[u8]) -> Result<Vec<u8>> {
    adapted(core, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
}

/// A library whose bindings describe what it exports, `wasi:http/incoming-handler` for instance, becomes a component
/// that exports that. It may use the environment and files, so its host links all of `wasi:cli`.
///
/// # Errors
/// When the module carries no description of its exports, or does not keep to it.
pub fn reactor(core: &[u8]) -> Result<Vec<u8>> {
    adapted(core, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)
}

fn adapted(core: &[u8], adapter: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .module(core)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?
        .validate(true)
        .encode()
        .context("make a component of a core module")
}

/// A module written by hand becomes a component that exports what `world` of the test's guests does, against WASI 0.2.12.
///
/// # Errors
/// When the module's imports and exports are not those of the world.
pub(super) fn of_world(mut core: Vec<u8>, world: &str) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    for (name, text) in WASI.iter().chain(&OURS) {
        resolve.push_source(name, text).with_context(|| format!("read {name}"))?;
    }
    let nested = format!("package test:proposals;\n{PROPOSALS}");
    resolve.push_source("stores.wit", &nested).context("read stores.wit")?;
    for (name, text) in WASI_03 {
        resolve.push_source(name, text).with_context(|| format!("read {name}"))?;
    }
    let package = resolve.push_source("guests.wit", GUESTS).context("read the guests' worlds")?;
    let world = resolve.select_world(&[package], Some(world))?;
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&core)?.validate(true).encode().context("make a component of a module")
}
