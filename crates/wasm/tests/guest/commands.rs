//! Commands: arguments, environment, standard streams, and every way to end.

use std::time::Duration;

use bytes::Bytes;
use testbed::guests::wat;
use tokio::sync::mpsc;
use wasm::code::Kind;
use wasm::guest::{Exit, Stdin};

use crate::node::{PATIENCE, Setup, compile, until};

#[tokio::test]
async fn a_p1_command_prints_and_ends_with_its_exact_code() {
    for code in [0, 1, 42, 200, 255] {
        let ended = Setup::of(&wat::prints_and_exits("hello from wasm\n", code)).await.run().await;
        assert_eq!(ended.exit, Exit::Code(i32::try_from(code).unwrap()));
        assert_eq!(ended.stdout, "hello from wasm\n");
        assert_eq!(ended.stderr, "");
    }
}

#[tokio::test]
async fn a_p2_command_ends_with_success_or_failure() {
    let good = Setup::of(&wat::component_of(&wat::prints_and_exits("good\n", 0))).await.run().await;
    assert_eq!((good.exit, good.stdout.as_str()), (Exit::Code(0), "good\n"));
    let bad = Setup::of(&wat::component_of(&wat::complains_and_exits("bad\n", 3))).await.run().await;
    assert_eq!((bad.exit, bad.stderr.as_str()), (Exit::Code(1), "bad\n"));
}

#[tokio::test]
async fn arguments_and_environment_arrive_in_order_with_the_host_name_and_directory_added() {
    let arguments = Setup::of(&wat::prints_arguments()).await;
    let ended = arguments.with(|spec| spec.args.extend(["-v".to_owned(), "a b".to_owned()])).run().await;
    assert_eq!(ended.stdout, "guest.wasm\n-v\na b\n");

    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let environment = Setup::of(&wat::component_of(&wat::prints_environment())).await.with(|spec| {
        spec.env = vec![set("B", "2"), set("A", "1"), set("PWD", "/set")];
        spec.working_dir = Some("/ignored".to_owned());
    });
    assert_eq!(environment.run().await.stdout, "B=2\nA=1\nPWD=/set\nHOSTNAME=web-0\n");
}

#[tokio::test]
async fn standard_input_is_read_to_its_end() {
    for wasm in [wat::cat(), wat::component_of(&wat::cat())] {
        let (sender, receiver) = mpsc::channel(1);
        let running = Setup::of(&wasm).await.with(|spec| spec.stdin = Stdin::Pipe(receiver)).start();
        sender.send(Bytes::from_static(b"one\n")).await.unwrap();
        sender.send(Bytes::from_static(b"two\n")).await.unwrap();
        drop(sender);
        let ended = running.finish().await;
        assert_eq!((ended.exit, ended.stdout.as_str()), (Exit::Code(0), "one\ntwo\n"));
        assert_eq!(Setup::of(&wasm).await.run().await.stdout, "", "no input is the end of input");
    }
}

#[tokio::test]
async fn a_library_begins_and_stays_until_it_is_asked_to_end_and_one_that_cannot_begin_traps() {
    let wasm = wat::reactor(false);
    assert_eq!(compile(&wasm).await.unwrap().kind(), Kind::ReactorP1);
    let running = Setup::of(&wasm).await.start();
    until("it has begun", || running.guest.usage().cpu > Duration::ZERO).await;
    assert_eq!(running.guest.exit(), None);
    running.guest.request_stop(PATIENCE);
    assert_eq!(running.exited().await, Exit::Stopped);

    let bad = Setup::of(&wat::reactor(true)).await.run().await;
    assert!(matches!(bad.exit, Exit::Trap { .. }), "{bad:?}");
    let words = ["#add", "1", "2"].map(str::to_owned).to_vec();
    let called = Setup::of(&wasm).await.with(|spec| spec.args = words).run().await;
    assert_eq!((called.exit, called.stdout.as_str()), (Exit::Code(0), "4\n"));
}

#[tokio::test]
async fn a_trap_says_where_in_the_exit_and_on_stderr() {
    for wasm in [wat::traps(), wat::component_of(&wat::traps())] {
        let ended = Setup::of(&wasm).await.run().await;
        let Exit::Trap { message } = ended.exit else { panic!("{ended:?}") };
        assert!(message.contains("unreachable") && message.contains("wasm backtrace"), "{message}");
        assert_eq!(ended.stderr, format!("{message}\n"));
    }
}

#[tokio::test]
async fn an_unread_log_holds_the_guest_and_not_our_memory() {
    let mut running = Setup::of(&wat::ticks()).await.start();
    crate::node::until("the sink is full", || running.stdout.len() == 16).await;
    assert_eq!(running.guest.exit(), None);
    assert_eq!(running.stdout.recv().await.unwrap(), "tick\n");
    crate::node::until("the sink is full again", || running.stdout.len() == 16).await;
}

#[tokio::test]
async fn a_command_has_no_signal_to_take_and_stops_at_once() {
    let running = Setup::of(&wat::sleeps()).await.start();
    running.guest.request_stop(PATIENCE);
    assert_eq!(running.exited().await, Exit::Stopped);
    assert_eq!(Exit::Stopped.code(), 143);
}

#[tokio::test]
async fn a_dropped_handle_takes_its_guest_along() {
    let running = Setup::of(&wat::loops()).await.start();
    let exited = running.guest.exited();
    drop(running);
    assert_eq!(tokio::time::timeout(PATIENCE, exited).await.unwrap(), Exit::Killed);
}

#[tokio::test]
async fn what_is_not_there_to_import_is_named() {
    let refused = compile(&wat::unknown_import()).await.err().expect("the import is unknown").to_string();
    let module = wat::unknown_import();
    let import = wasm_import(&module);
    assert!(refused.contains(&import.0) && refused.contains(&import.1), "{refused} lacks {import:?}");

    let component = r#"(component (import "acme:db/store@1.2.3" (instance (export "get" (func))))
        (instance) (export "wasi:cli/run@0.2.0" (instance 1)))"#;
    let refused = compile(&::wat::parse_str(component).unwrap()).await.err().expect("the import is unknown");
    assert!(refused.to_string().contains("acme:db/store@1.2.3"), "{refused:?}");
}

/// Module and name of the first import that WASI does not have.
fn wasm_import(module: &[u8]) -> (String, String) {
    use wasmparser::{Parser, Payload};
    Parser::new(0)
        .parse_all(module)
        .filter_map(|payload| match payload.unwrap() {
            Payload::ImportSection(imports) => Some(imports.into_imports()),
            _ => None,
        })
        .flatten()
        .map(Result::unwrap)
        .find(|import| import.module != "wasi_snapshot_preview1")
        .map(|import| (import.module.to_owned(), import.name.to_owned()))
        .expect("the guest imports something unknown")
}
