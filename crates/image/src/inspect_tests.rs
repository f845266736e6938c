//! What binaries are taken for, and what they are said to reach.

use super::*;

fn of(text: &str) -> Inspection {
    inspect(&wat::parse_str(text).unwrap()).unwrap()
}

fn reach(inspection: &Inspection) -> String {
    let access = |it: &Access| format!("{}: {}", it.what.name(), it.how.join(", "));
    inspection.reach.iter().map(access).collect::<Vec<_>>().join("; ")
}

#[test]
fn the_entry_point_decides_the_kind() {
    let check = |text: &str, kind: Kind, wasi: Option<Wasi>| {
        let found = of(text);
        assert_eq!((found.kind, found.wasi), (kind, wasi), "{text}");
    };
    let exports = |name: &str| format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#);
    check(r#"(module (func (export "_start")))"#, Kind::Command, Some(Wasi::P1));
    check(r#"(module (func (export "_initialize")))"#, Kind::Reactor, None);
    check("(module)", Kind::Library, None);
    check(
        r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))))"#,
        Kind::Library,
        Some(Wasi::P1),
    );
    check(&exports("wasi:cli/run@0.2.6"), Kind::Command, Some(Wasi::P2));
    check(&exports("wasi:http/incoming-handler@0.2.0"), Kind::Http, Some(Wasi::P2));
    check(&exports("wasi:cli/run@0.3.0"), Kind::Command, Some(Wasi::P3));
    check(&exports("wasi:http/handler@0.3.0"), Kind::Http, Some(Wasi::P3));
    check(&exports("wasi:http/handler@0.9.0"), Kind::Library, None);
    check("(component)", Kind::Library, None);
    check(r#"(component (component $c) (type $t (component)) (export "t" (type $t)))"#, Kind::Wit, None);
}

#[test]
fn nested_modules_are_not_the_files_own() {
    let found = of(r#"(component
        (core module (import "core" "f" (func)) (func (export "_start")))
        (component (import "inner" (func)) (export "inner-too" (func 0))))"#);
    assert_eq!((found.kind, found.imports, found.exports), (Kind::Library, vec![], vec![]));
}

const COMMAND: &str = r#"(component
    (import "wasi:cli/environment@0.2.6" (instance
        (export "get-arguments" (func (result (list string))))))
    (import "wasi:clocks/wall-clock@0.2.6" (instance
        (type $datetime (record (field "seconds" u64)))
        (export "datetime" (type (eq $datetime)))))
    (import "wasi:sockets/tcp@0.2.6" (instance
        (export "tcp-socket" (type $socket (sub resource)))
        (export "[method]tcp-socket.start-connect" (func (param "self" (borrow $socket))))))
    (instance $run)
    (export "wasi:cli/run@0.2.6" (instance $run)))"#;

#[test]
fn only_functions_that_are_imported_reach_anything() {
    let found = of(COMMAND);
    assert_eq!(found.imports[0].functions, Some(vec!["get-arguments".to_owned()]));
    assert_eq!(found.imports[1].functions, Some(vec![]), "a type alone");
    assert_eq!(reach(&found), "network out: TCP connections; environment: arguments");
    assert_eq!(found.world.as_deref(), Some("wasi:cli/command@0.2.6"));
}

#[test]
fn where_types_do_not_validate_the_whole_interface_is_taken_to_be_imported() {
    // The second import refers to a type that is not there.
    let broken = r#"(component
        (import "wasi:sockets/tcp@0.2.6" (instance))
        (import "wasi:cli/environment@0.2.6" (instance (type 99))))"#;
    let found = of(broken);
    assert_eq!(found.imports[0].functions, None);
    assert_eq!(
        reach(&found),
        "network out: TCP connections; network in: listens on TCP; environment: variables, arguments"
    );
}

#[test]
fn a_core_modules_functions_are_told_by_what_they_reach() {
    let imports = |functions: &[&str]| {
        let import = |name: &&str| format!(r#"(import "wasi_snapshot_preview1" "{name}" (func))"#);
        let imports: String = functions.iter().map(import).collect();
        of(&format!(r#"(module {imports} (func (export "_start")))"#))
    };
    assert_eq!(reach(&imports(&["proc_exit"])), "");
    assert_eq!(
        reach(&imports(&["fd_write", "random_get"])),
        "random: random numbers; stdio: standard input, output and error"
    );
    let files = imports(&["path_open", "fd_prestat_get", "clock_time_get"]);
    assert_eq!(
        reach(&files),
        "files: reads the directories it is given, changes what is in them; clocks: the time of day, measures time and waits"
    );
    assert_eq!(files.imports.len(), 1);
    let foreign = of(r#"(module (import "env" "launch" (func)) (func (export "_start")))"#);
    assert_eq!(reach(&foreign), "other: env");
}

#[test]
fn what_is_no_part_of_wasi_is_named() {
    let found = of(r#"(component
        (import "acme:rockets/engine@1.0.0" (instance (export "start" (func))))
        (import "wasi:keyvalue/store@0.2.0-draft2" (instance (export "open" (func))))
        (import "wasi:http/outgoing-handler@0.2.6" (instance (export "handle" (func))))
        (import "wasi:io/poll@0.2.6" (instance (export "poll" (func))))
        (instance $h)
        (export "wasi:http/incoming-handler@0.2.6" (instance $h)))"#);
    assert_eq!(
        reach(&found),
        "http out: sends requests; http in: answers the requests that the node hands to it; \
         key-value: reads and writes key-value stores; other: acme:rockets/engine@1.0.0"
    );
    assert_eq!(found.world, None, "no world of WASI has rockets");
}

#[test]
fn a_world_is_named_only_where_everything_fits() {
    let world = |imports: &[&str], export: &str| {
        let import = |name: &&str| format!(r#"(import "{name}" (instance))"#);
        let imports: String = imports.iter().map(import).collect();
        of(&format!(r#"(component {imports} (instance $i) (export "{export}" (instance $i)))"#)).world
    };
    let proxy = world(&["wasi:http/types@0.2.0", "wasi:io/streams@0.2.6"], "wasi:http/incoming-handler@0.2.3");
    assert_eq!(proxy.as_deref(), Some("wasi:http/proxy@0.2.3"));
    assert_eq!(world(&["wasi:filesystem/types@0.2.0"], "wasi:http/incoming-handler@0.2.3"), None);
    assert_eq!(
        world(&["wasi:http/client@0.3.0"], "wasi:http/handler@0.3.0").as_deref(),
        Some("wasi:http/service@0.3.0")
    );
    assert_eq!(world(&["wasi:cli/stdout@0.2.6"], "wasi:http/handler@0.3.0"), None, "two releases at once");
    assert_eq!(world(&["wasi:cli/stdout@0.2.6"], "run"), None);
}

#[test]
fn custom_sections_speak_for_the_file() {
    let found = of(r#"(component
        (@custom "description" "says hello") (@custom "version" "1.2.3") (@custom "secret" "x")
        (core module (@custom "description" "inner")))"#);
    let about: Vec<_> = found.about.iter().map(|(name, text)| format!("{name}={text}")).collect();
    assert_eq!(about, ["description=says hello", "version=1.2.3"]);
}

#[test]
fn what_is_no_wasm_is_refused_with_the_way_out() {
    for other in [&b""[..], b"\x7fELF", b"(module)"] {
        assert!(inspect(other).unwrap_err().to_string().contains("give the compiled .wasm file"));
    }
    let whole = wat::parse_str(COMMAND).unwrap();
    assert!(matches!(inspect(&whole[..whole.len() - 3]), Err(InspectError::Malformed(_))));
}
