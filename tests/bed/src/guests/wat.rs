//! Guests written as WebAssembly text: any kind of pod in milliseconds, with no toolchain.
//!
//! Comes in: texts and exit codes. Goes out: wasm binaries. Never here: a file, a process or a network.
//!
//! The text stands in `tests/guests/wat`; words between `@` signs in it are filled in here. Core modules are `wasip1`
//! commands, components are for WASI 0.2.

use super::component;

/// A command that writes `text` to standard output and exits with `code`.
#[must_use]
pub fn prints_and_exits(text: &str, code: u32) -> Vec<u8> {
    print(1, text, code)
}

/// A command that writes `text` to standard error and exits with `code`.
#[must_use]
pub fn complains_and_exits(text: &str, code: u32) -> Vec<u8> {
    print(2, text, code)
}

/// A command that uses all the processor it gets, for ever.
#[must_use]
pub fn loops() -> Vec<u8> {
    assemble(include_str!("../../../guests/wat/loop.wat"))
}

/// A command that sleeps for ever: the cheapest pod.
#[must_use]
pub fn sleeps() -> Vec<u8> {
    assemble(include_str!("../../../guests/wat/sleep.wat"))
}

/// A command that writes the line `tick` every 50 ms, for ever.
#[must_use]
pub fn ticks() -> Vec<u8> {
    assemble(include_str!("../../../guests/wat/tick.wat"))
}

/// A command that traps (`unreachable`).
#[must_use]
pub fn traps() -> Vec<u8> {
    assemble(include_str!("../../../guests/wat/trap.wat"))
}

/// A command that takes memory, 1 MiB at a time, until it is refused, and then exits with 3.
#[must_use]
pub fn grows() -> Vec<u8> {
    assemble(include_str!("../../../guests/wat/grow.wat"))
}

/// A command that copies standard input to standard output.
#[must_use]
pub fn cat() -> Vec<u8> {
    assemble(include_str!("../../../guests/wat/cat.wat"))
}

/// A command that prints the file named by its first argument; an error's WASI number is its exit code (44: no such
/// file, 76: under no preopened directory).
#[must_use]
pub fn reads() -> Vec<u8> {
    assemble(include_str!("../../../guests/wat/read.wat"))
}

/// A command that prints its environment, one `NAME=value` per line.
#[must_use]
pub fn prints_environment() -> Vec<u8> {
    strings("environ")
}

/// A command that prints its arguments, its own name first, one per line.
#[must_use]
pub fn prints_arguments() -> Vec<u8> {
    strings("args")
}

/// A command that imports what no host has.
#[must_use]
pub fn unknown_import() -> Vec<u8> {
    assemble(include_str!("../../../guests/wat/unknown-import.wat"))
}

/// The first half of a good module: the magic number is there, the end is not.
#[must_use]
pub fn truncated() -> Vec<u8> {
    let mut module = sleeps();
    module.truncate(module.len() / 2);
    module
}

/// A component (`wasi:cli/run`) made of a command. It can only end with 0 or 1: `wasi:cli/exit` knows no other code.
#[must_use]
#[expect(clippy::expect_used, reason = "every command of this file becomes a component; the tests below hold that")]
pub fn component_of(command: &[u8]) -> Vec<u8> {
    component::command(command).expect("a command becomes a component")
}

/// A command that is several, by its name: `show`, `fail`, `spin`, `boom`, `flood`, or else one that sleeps for ever. It
/// also exports the functions `add` (of two numbers) and `unlucky` (a trap).
#[must_use]
pub fn commands() -> Vec<u8> {
    assemble(include_str!("../../../guests/wat/commands.wat"))
}

/// A component (`wasi:cli/run`) that sleeps for ever and exports `wasklet:probe/health`: well, not ready (`still warming
/// up`), and a trap at startup. It also exports `add` (of two numbers) and `greet` (of a name).
#[must_use]
pub fn health() -> Vec<u8> {
    of_world(&health_of(r#"(export "wasi:cli/run@0.2.12#run") (result i32)"#), "health-command")
}

/// The same, but a `wasi:http/incoming-handler` that never answers.
#[must_use]
pub fn http_health() -> Vec<u8> {
    of_world(&health_of(r#"(export "wasi:http/incoming-handler@0.2.12#handle") (param i32 i32)"#), "health-http")
}

/// A component (`wasi:cli/run`) that writes `waiting`, waits until it is asked to end, writes `ending` and exits with 0.
#[must_use]
pub fn terminates() -> Vec<u8> {
    of_world(&include_str!("../../../guests/wat/terminates.wat").replace("@END@", ""), "command")
}

/// The same, but that it computes without end after `ending`.
#[must_use]
pub fn stays() -> Vec<u8> {
    of_world(&include_str!("../../../guests/wat/terminates.wat").replace("@END@", "(loop $spin (br $spin))"), "command")
}

/// A component (`wasi:cli/run`) that sleeps for ever and whose stop handler writes `asked to end`.
#[must_use]
pub fn handles_stop() -> Vec<u8> {
    of_world(include_str!("../../../guests/wat/stop-handler.wat"), "stop-handler")
}

/// A component (`wasi:cli/run`) that sleeps for ever and whose functions hand on `wasi:keyvalue` (`get`, `set`, `delete`,
/// `exists`, `list-keys`, `increment`, `get-many`, `set-many`, each of a bucket by name) and `wasi:config` (`configured`).
#[must_use]
pub fn stores() -> Vec<u8> {
    of_world(include_str!("../../../guests/wat/stores.wat"), "stores")
}

/// The same with the second draft of `wasi:keyvalue`: `list-keys`, `increment`, `get-many`, and `contend`, which exchanges
/// a value that was changed since it was seen and gives the number of tries.
#[must_use]
pub fn stores_2() -> Vec<u8> {
    of_world(include_str!("../../../guests/wat/stores-2.wat"), "stores-2")
}

/// A component of WASI 0.3 (`wasi:cli/run@0.3`) that writes `hello from WASI 0.3` and ends with 0 or 1. It exports `add`.
#[must_use]
pub fn concurrent(fails: bool) -> Vec<u8> {
    concurrent_of("0", if fails { "1" } else { "0" })
}

/// The same, but that it sleeps for ever.
#[must_use]
pub fn concurrent_sleeps() -> Vec<u8> {
    concurrent_of("1", "0")
}

/// A component of WASI 0.3 (`wasi:cli/run@0.3`) that counts to 41, writes `waiting` and waits for ever, but can be called
/// meanwhile: `count` counts on, `spin` computes without end, `unlucky` traps, and so does `startup` of its
/// `wasklet:probe/health`, whose liveness is well as soon as the program has begun.
#[must_use]
pub fn live() -> Vec<u8> {
    of_world(include_str!("../../../guests/wat/live.wat"), "live")
}

/// A component (`wasi:cli/run`) that opens 10,000 sockets, or as many as it gets, writes `all` or `refused` and sleeps.
#[must_use]
pub fn opens_sockets() -> Vec<u8> {
    of_world(include_str!("../../../guests/wat/sockets.wat"), "command")
}

/// A command that fills 512 MiB with one instruction, again and again.
#[must_use]
pub fn fills() -> Vec<u8> {
    assemble(include_str!("../../../guests/wat/fills.wat"))
}

/// A component (`wasi:http/incoming-handler`) that answers every request with `status` and `text`, of at most 4096
/// bytes.
#[must_use]
pub fn http_answers(status: u16, text: &str) -> Vec<u8> {
    http_with_status(&format!("(i32.const {status})"), text)
}

/// A component that answers with the status 200 and how many requests its instance has had, and traps at one more than
/// `last`.
#[must_use]
pub fn http_counts(last: u32) -> Vec<u8> {
    http_with_status(&counted(last), "counted")
}

/// A status that tells how many requests there were, up to the `last`.
fn counted(last: u32) -> String {
    format!(
        "(global.set $requests (i32.add (global.get $requests) (i32.const 1))) \
         (if (i32.gt_u (global.get $requests) (i32.const {last})) (then (unreachable))) \
         (i32.add (i32.const 200) (global.get $requests))"
    )
}

fn http_with_status(status: &str, text: &str) -> Vec<u8> {
    http(&filled(include_str!("../../../guests/wat/http-answer.wat"), text).replace("@STATUS@", status))
}

/// A component that answers every request with its own body, each piece as soon as it has come.
#[must_use]
pub fn http_echoes() -> Vec<u8> {
    http(include_str!("../../../guests/wat/http-echo.wat"))
}

/// [`http_answers`] as WASI 0.3 has it (`wasi:http/handler@0.3`); the text is written once the answer has begun.
#[must_use]
pub fn http_03_answers(status: u16, text: &str) -> Vec<u8> {
    http_03_with_status(&format!("(i32.const {status})"), text)
}

/// [`http_counts`] as WASI 0.3 has it.
#[must_use]
pub fn http_03_counts(last: u32) -> Vec<u8> {
    http_03_with_status(&counted(last), "counted")
}

fn http_03_with_status(status: &str, text: &str) -> Vec<u8> {
    let source = filled(include_str!("../../../guests/wat/http-03-answer.wat"), text);
    of_world(&source.replace("@STATUS@", status), "http-03")
}

/// A component of WASI 0.3 that answers a request once its instance has had `company` of them, with the status 200 and
/// how many those are by then.
#[must_use]
pub fn http_03_gathers(company: u32) -> Vec<u8> {
    let source = include_str!("../../../guests/wat/http-03-gathers.wat");
    of_world(&source.replace("@COMPANY@", &company.to_string()), "http-03")
}

/// [`http_echoes`] as WASI 0.3 has it.
#[must_use]
pub fn http_03_echoes() -> Vec<u8> {
    of_world(include_str!("../../../guests/wat/http-03-echo.wat"), "http-03")
}

/// A component of a Spin application that answers with its variable `greeting`, what follows its route, and what its
/// key-value store has of that, a line each.
#[must_use]
pub fn spin_api() -> Vec<u8> {
    of_world(include_str!("../../../guests/wat/spin-api.wat"), "spin")
}

/// A component of a Spin application that serves its files.
#[must_use]
pub fn spin_files() -> Vec<u8> {
    of_world(include_str!("../../../guests/wat/spin-files.wat"), "spin")
}

/// A component of a Spin application, of WASI 0.3: it answers with the request's body, and with status 200 and as many more as
/// its variable `greeting` has bytes.
#[must_use]
pub fn spin_03() -> Vec<u8> {
    of_world(include_str!("../../../guests/wat/spin-03.wat"), "spin-03")
}

/// A component (`wasi:http/incoming-handler`) that imports a language model of Spin's.
#[must_use]
pub fn spin_infers() -> Vec<u8> {
    let import = r#"(import "fermyon:spin/llm@2.0.0" "infer" (func (param i32 i32 i32 i32 i32)))"#;
    of_world(
        &include_str!("../../../guests/wat/http-echo.wat").replacen("(module", &format!("(module {import}"), 1),
        "spin",
    )
}

/// A core module that is a library (`_initialize`) and exports `add`, which gives 1 more than the sum of two numbers. One
/// that `fails` traps as it begins.
#[must_use]
pub fn reactor(fails: bool) -> Vec<u8> {
    let initialize = if fails { "(unreachable)" } else { "" };
    assemble(&include_str!("../../../guests/wat/reactor.wat").replace("@INITIALIZE@", initialize))
}

/// A component that takes every request and never answers, sleeping meanwhile.
#[must_use]
pub fn http_is_silent() -> Vec<u8> {
    http(include_str!("../../../guests/wat/http-silent.wat"))
}

/// A component that traps at every request before it has answered.
#[must_use]
pub fn http_traps() -> Vec<u8> {
    http(include_str!("../../../guests/wat/http-trap.wat"))
}

fn print(descriptor: u32, text: &str, code: u32) -> Vec<u8> {
    let source = filled(include_str!("../../../guests/wat/print.wat"), text)
        .replace("@DESCRIPTOR@", &descriptor.to_string())
        .replace("@CODE@", &code.to_string());
    assemble(&source)
}

fn strings(kind: &str) -> Vec<u8> {
    assemble(&include_str!("../../../guests/wat/strings.wat").replace("@KIND@", kind))
}

/// Fills in a text and its length in bytes.
fn filled(source: &str, text: &str) -> String {
    let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    source.replace("@TEXT@", &escaped).replace("@LENGTH@", &text.len().to_string())
}

#[expect(clippy::expect_used, reason = "the texts are this repository's own; the tests below assemble each of them")]
fn assemble(source: &str) -> Vec<u8> {
    wat::parse_str(source).expect("the guest's text assembles")
}

fn concurrent_of(sleeps: &str, result: &str) -> Vec<u8> {
    let source = include_str!("../../../guests/wat/concurrent.wat");
    of_world(&source.replace("@SLEEPS@", sleeps).replace("@RESULT@", result), "concurrent")
}

fn health_of(program: &str) -> String {
    include_str!("../../../guests/wat/health.wat").replace("@PROGRAM@", program)
}

fn http(source: &str) -> Vec<u8> {
    of_world(source, "http-guest")
}

#[expect(clippy::expect_used, reason = "the texts are this repository's own; the tests below assemble each of them")]
fn of_world(source: &str, world: &str) -> Vec<u8> {
    component::of_world(assemble(source), world).expect("the guest becomes a component")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes 4..8 of every wasm binary say which of the two kinds it is.
    const CORE: [u8; 4] = [1, 0, 0, 0];
    const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];

    #[track_caller]
    fn check(wasm: &[u8], kind: [u8; 4]) {
        assert_eq!(&wasm[..4], b"\0asm");
        assert_eq!(&wasm[4..8], kind);
        // The encoder has validated components; wat does not validate what it assembles.
        wasmparser::validate(wasm).expect("the guest is valid wasm");
    }

    #[track_caller]
    fn check_world(wasm: &[u8], wanted: &[&str]) {
        check(wasm, COMPONENT);
        let decoded = wit_component::decode(wasm).expect("the component has a world");
        let (resolve, package) = (decoded.resolve(), decoded.package());
        let world = resolve.select_world(&[package], None).expect("one world");
        let exports: Vec<String> =
            resolve.worlds[world].exports.keys().map(|key| resolve.name_world_key(key)).collect();
        assert_eq!(exports.len(), wanted.len(), "{exports:?}");
        assert!(exports.iter().zip(wanted).all(|(export, wanted)| export.starts_with(wanted)), "{exports:?}");
    }

    #[test]
    fn commands_are_core_modules_and_become_components() {
        for guest in [
            prints_and_exits("hello\n", 7),
            complains_and_exits("a \"quoted\" \\ text: ä\n", 0),
            loops(),
            sleeps(),
            ticks(),
            traps(),
            grows(),
            cat(),
            reads(),
            prints_environment(),
            prints_arguments(),
            commands(),
            fills(),
        ] {
            check(&guest, CORE);
            check_world(&component_of(&guest), &["wasi:cli/run@0.2"]);
        }
    }

    #[test]
    fn http_guests_are_components_that_export_the_handler() {
        for guest in [http_answers(200, "hello\n"), http_echoes(), http_is_silent(), http_traps()] {
            check_world(&guest, &["wasi:http/incoming-handler@0.2"]);
        }
        for guest in
            [http_03_answers(200, "hello\n"), http_03_echoes(), http_03_counts(1), http_03_gathers(2), spin_03()]
        {
            check_world(&guest, &["wasi:http/handler@0.3"]);
        }
    }

    #[test]
    fn components_written_by_hand_are_commands() {
        for guest in [terminates(), stays(), opens_sockets()] {
            check_world(&guest, &["wasi:cli/run@0.2"]);
        }
        check_world(&handles_stop(), &["wasklet:pod/stop-handler@0.1.0", "wasi:cli/run@0.2"]);
    }

    #[test]
    fn guests_with_checks_of_their_health_export_them_beside_their_program() {
        check_world(&health(), &["add", "greet", "wasi:cli/run@0.2", "wasklet:probe/health@0.1.0"]);
        check_world(&live(), &["count", "spin", "unlucky", "wasi:cli/run@0.3", "wasklet:probe/health@0.1.0"]);
        check_world(&http_health(), &["add", "greet", "wasi:http/incoming-handler@0.2", "wasklet:probe/health@0.1.0"]);
    }

    #[test]
    fn bad_guests_are_bad_in_the_way_they_say() {
        check(&unknown_import(), CORE);
        check(&reactor(true), CORE);
        let truncated = truncated();
        assert_eq!(&truncated[..8], b"\0asm\x01\0\0\0");
        assert!(wasmparser::validate(&truncated).is_err());
    }

    #[test]
    fn the_same_guest_has_the_same_bytes() {
        assert_eq!(http_answers(500, "no"), http_answers(500, "no"));
        assert_ne!(prints_and_exits("a", 0), prints_and_exits("a", 1));
    }
}
