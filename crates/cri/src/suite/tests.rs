//! Tests of `suite`.

use super::*;
use crate::channel;
use crate::fake::{Exec, Fake, Outcome};
use crate::socket::UnixSocket;

/// A fake with one image for each thing the suite asks for.
fn fake() -> (Fake, SuiteImages) {
    let images = SuiteImages {
        exits_zero: "suite/exits-zero:1".to_owned(),
        exits_seven: "suite/exits-seven:1".to_owned(),
        parked: "suite/parked:1".to_owned(),
        spins: "suite/spins:1".to_owned(),
        shows_itself: Some("suite/shows-itself:1".to_owned()),
        executes: Some("suite/executes:1".to_owned()),
        missing: "suite/missing:1".to_owned(),
    };
    let fake = Fake::new();
    fake.script()
        .on_start(&images.exits_zero, Outcome::exit(0))
        .prints(&images.exits_zero, "hello")
        .on_start(&images.exits_seven, Outcome::exit(7))
        .on_start(&images.parked, Outcome::RunForever)
        .on_start(&images.spins, Outcome::IgnoreStop)
        .on_start("suite/shows-itself:1", Outcome::exit(0))
        .shows_arguments_and_environment("suite/shows-itself:1")
        .on_start("suite/executes:1", Outcome::RunForever)
        .on_exec("suite/executes:1", &["show"], Exec::exit(0))
        .on_exec(
            "suite/executes:1",
            &["show", "--greeting", "hello world"],
            Exec::says(0, "show\n--greeting\nhello world\nSUITE_WORD=a=b c\n"),
        )
        .on_exec(
            "suite/executes:1",
            &["fail"],
            Exec::Exit { code: 7, stdout: String::new(), stderr: "it failed\n".to_owned() },
        )
        .on_exec("suite/executes:1", &["spin"], Exec::Hang);
    (fake, images)
}

#[tokio::test]
async fn the_fake_passes_in_memory() {
    let (fake, images) = fake();
    let report = run_all(async || Seam { client: fake.client(), images: images.clone() }).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.held.len(), CHECKS.len());
}

#[tokio::test]
async fn the_fake_passes_over_a_socket() {
    let (fake, images) = fake();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cri.sock");
    let socket = UnixSocket::bind(&path).await.unwrap();
    let serving = tokio::spawn(socket.serve(fake.routes(), std::future::pending()));
    let client = Client::new(channel::unix(path.to_str().unwrap()).unwrap());
    let report = run_all(async || Seam { client: client.clone(), images: images.clone() }).await;
    assert!(report.is_clean(), "{report}");
    serving.abort();
}

/// What makes a good runtime wrong.
type Spoil = fn(&Fake, &SuiteImages);

/// A suite that nothing fails would say nothing: each of these runtimes is wrong in one way.
#[tokio::test]
async fn a_wrong_runtime_is_found_out() {
    let wrong: [(&str, &str, Spoil); 8] = [
        ("container::it_runs_to_its_end_and_leaves_a_log", "exit code 1", |fake, images| {
            fake.script().on_start(&images.exits_zero, Outcome::exit(1));
        }),
        ("container::its_exit_code_is_told", "exit code 1", |fake, images| {
            fake.script().on_start(&images.exits_seven, Outcome::exit(1));
        }),
        ("container::a_parked_guest_stops", "a call that must succeed", |fake, images| {
            fake.script().on_start(&images.parked, Outcome::FailStart("no entry".to_owned()));
        }),
        ("exec::a_command_gives_its_output_and_its_exit_code", "exit code 1", |fake, _| {
            fake.script().on_exec("suite/executes:1", &["fail"], Exec::exit(1));
        }),
        ("exec::a_command_past_its_limit_is_stopped", "a spinning command gave", |fake, _| {
            fake.script().on_exec("suite/executes:1", &["spin"], Exec::exit(0));
        }),
        ("image::a_pull_of_a_missing_image_names_it", "succeeded", |fake, images| {
            fake.script().image(&images.missing);
        }),
        ("event::a_whole_life_is_told", "a call that must succeed", |fake, _| {
            fake.script().fail_next("GetContainerEvents", crate::Status::unimplemented("none"));
        }),
        ("sandbox::stop_and_remove_may_be_repeated", "a call that must succeed", |fake, _| {
            fake.script().fail_next("RemovePodSandbox", crate::Status::not_found("gone"));
        }),
    ];
    for (name, seen, spoil) in wrong {
        let (fake, images) = fake();
        spoil(&fake, &images);
        let seam = Seam { client: fake.client(), images };
        let check = CHECKS.iter().find(|check| check.name == name).unwrap();
        let failure = (check.run)(&seam).await.unwrap_err().to_string();
        assert!(failure.contains(seen), "{name}: {failure}");
    }
}

#[test]
fn a_report_says_what_failed_and_why() {
    let source = crate::Status::internal("boom");
    let error = CallError { call: "Version", object: "of the runtime".into(), source };
    let report = Report { held: vec!["a::b"], failed: vec![("c::d", Failure::Call(error))] };
    let text = report.to_string();
    assert!(text.starts_with("1 checks hold, 1 do not\nc::d: a call that must succeed did not"));
    assert!(text.contains("Version of the runtime failed") && text.contains("boom"), "{text}");
}
