//! Tests of `atomic`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use decide::volume::{File, Payload};
use proptest::prelude::*;

use super::{DATA, Step, entries, plan, shown, write};

fn file(bytes: &str, mode: u32) -> File {
    File { bytes: bytes.as_bytes().to_vec(), mode }
}

fn payload(files: &[(&str, &str)]) -> Payload {
    files.iter().map(|(path, bytes)| ((*path).to_owned(), file(bytes, 0o644))).collect()
}

/// What stands beneath a directory, links not followed.
fn tree(directory: &Path, prefix: &str, found: &mut Payload) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o755, "{path}");
            tree(&entry.path(), &format!("{path}/"), found);
        } else {
            assert!(metadata.is_file(), "{path} is a link inside a version");
            let bytes = fs::read(entry.path()).unwrap();
            found.insert(path, File { bytes, mode: metadata.permissions().mode() & 0o7777 });
        }
    }
}

/// What a reader sees that opens the volume through `..data`; none before the first version.
fn visible(directory: &Path) -> Option<Payload> {
    let version = shown(directory)?;
    let mut found = Payload::new();
    tree(&directory.join(version), "", &mut found);
    Some(found)
}

/// The volume is exactly this, and nothing is left over.
fn check(directory: &Path, wanted: &Payload) {
    assert_eq!(visible(directory).as_ref(), Some(wanted));
    for (path, file) in wanted {
        assert_eq!(fs::read(directory.join(path)).unwrap(), file.bytes, "{path} as a guest opens it");
    }
    let mut names: BTreeSet<String> = wanted.keys().map(|path| super::first(path).to_owned()).collect();
    names.extend([DATA.to_owned(), shown(directory).unwrap()]);
    assert_eq!(entries(directory).unwrap(), names);
}

#[test]
fn a_volume_looks_as_the_kubelets_does() {
    let place = tempfile::tempdir().unwrap();
    let mut wanted = payload(&[("config.yaml", "a: 1"), ("certs/ca/one.pem", "pem")]);
    wanted.insert("private".to_owned(), file("key", 0o400));
    assert!(write(place.path(), &wanted).unwrap());
    check(place.path(), &wanted);
    let target = |name: &str| fs::read_link(place.path().join(name)).unwrap().to_str().unwrap().to_owned();
    assert_eq!((target("config.yaml"), target("certs")), ("..data/config.yaml".to_owned(), "..data/certs".to_owned()));
    // ..2026_11_23_15_04_05.2723118474
    let version = target(DATA);
    let digits = version.replace(|character: char| character.is_ascii_digit(), "d");
    assert!(digits.starts_with("..dddd_dd_dd_dd_dd_dd.d"), "{version}");
    assert_eq!(digits[22..].replace('d', ""), "", "{version}");
}

#[test]
fn what_did_not_change_is_not_written() {
    let place = tempfile::tempdir().unwrap();
    let wanted = payload(&[("a", "1"), ("d/b", "2")]);
    assert!(write(place.path(), &wanted).unwrap());
    let before = (shown(place.path()), fs::metadata(place.path()).unwrap().mtime_nsec());
    assert!(!write(place.path(), &wanted).unwrap());
    assert_eq!((shown(place.path()), fs::metadata(place.path()).unwrap().mtime_nsec()), before);
}

#[test]
fn bytes_modes_names_and_damage_are_changes() {
    let place = tempfile::tempdir().unwrap();
    let first = payload(&[("a", "1"), ("b", "2")]);
    write(place.path(), &first).unwrap();
    let mut other_mode = first.clone();
    other_mode.get_mut("a").unwrap().mode = 0o600;
    for wanted in
        [payload(&[("a", "1"), ("b", "3")]), other_mode, payload(&[("a", "1")]), Payload::new(), first.clone()]
    {
        assert!(write(place.path(), &wanted).unwrap(), "{wanted:?}");
        check(place.path(), &wanted);
    }
    let damages: [fn(&Path); 4] = [
        |volume| fs::write(volume.join("a"), "x").unwrap(),
        |volume| fs::remove_file(volume.join("..data/a")).unwrap(),
        |volume| fs::write(volume.join("..data/more"), "x").unwrap(),
        |volume| fs::remove_file(volume.join("a")).unwrap(),
    ];
    for damage in damages {
        damage(place.path());
        assert!(write(place.path(), &first).unwrap());
        check(place.path(), &first);
    }
}

#[test]
fn a_data_link_that_is_none_of_ours_is_replaced_and_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("a"), "theirs").unwrap();
    let wanted = payload(&[("a", "1")]);
    let states: [fn(&Path, &Path); 5] = [
        |volume, outside| symlink(outside, volume.join(DATA)).unwrap(),
        |volume, _| symlink("..", volume.join(DATA)).unwrap(),
        |volume, _| symlink("..gone", volume.join(DATA)).unwrap(),
        |volume, _| fs::create_dir(volume.join(DATA)).unwrap(),
        |volume, outside| symlink(outside, volume.join("a")).unwrap(),
    ];
    for state in states {
        let place = tempfile::tempdir().unwrap();
        state(place.path(), outside.path());
        write(place.path(), &wanted).unwrap();
        check(place.path(), &wanted);
        assert_eq!(fs::read(outside.path().join("a")).unwrap(), b"theirs");
    }
}

#[test]
fn readers_at_work_see_whole_versions_only() {
    const FILES: usize = 8;
    const VERSIONS: usize = 300;
    let place = tempfile::tempdir().unwrap();
    let version = |number: usize| -> Payload {
        (0..FILES).map(|file_number| (format!("f{file_number}"), file(&number.to_string(), 0o644))).collect()
    };
    write(place.path(), &version(0)).unwrap();
    let done = AtomicBool::new(false);
    // A version may be removed under a reader that is slower than two writes; it sees that `..data` has moved, and what
    // it read counts for nothing. The last look happens with no writer.
    let read = || loop {
        let name = shown(place.path());
        let texts = || -> std::io::Result<BTreeSet<String>> {
            let directory = place.path().join(name.as_ref().unwrap());
            (0..FILES).map(|number| fs::read_to_string(directory.join(format!("f{number}")))).collect()
        };
        if name.is_none() {
            continue;
        }
        let texts = texts();
        if shown(place.path()) == name {
            break texts.unwrap();
        }
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            loop {
                let ended = done.load(Ordering::SeqCst);
                let texts = read();
                assert_eq!(texts.len(), 1, "a mixture: {texts:?}");
                let number = texts.first().unwrap().parse().unwrap();
                assert!(number >= last, "back from {last} to {number}");
                last = number;
                if ended {
                    return last;
                }
            }
        });
        for number in 1..=VERSIONS {
            write(place.path(), &version(number)).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        assert_eq!(reader.join().unwrap(), VERSIONS);
    });
}

fn any_payload() -> impl Strategy<Value = Payload> {
    let name = prop::sample::select(vec!["a", "b", ".hidden", "d/x", "d/y", "e/f/g", "d", "e"]);
    let mode = prop::sample::select(vec![0o644, 0o400, 0o755]);
    let files = prop::collection::btree_map(name, ("[01]{0,2}", mode), 0..6);
    files.prop_map(|files| {
        let files: Payload =
            files.iter().map(|(path, (bytes, mode))| ((*path).to_owned(), file(bytes, *mode))).collect();
        // No file beneath a file, as the core promises.
        let is_directory = |path: &String| files.keys().any(|other| other.starts_with(&format!("{path}/")));
        files.iter().filter(|(path, _)| !is_directory(path)).map(|(path, file)| (path.clone(), file.clone())).collect()
    })
}

/// A payload and how many of the steps to it are taken before the process dies; beyond them all, it lives.
fn any_history() -> impl Strategy<Value = Vec<(Payload, usize)>> {
    prop::collection::vec((any_payload(), 0_usize..14), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_history_of_writes_and_deaths_shows_whole_versions_and_ends_exact(history in any_history()) {
        let place = tempfile::tempdir().unwrap();
        let volume = place.path();
        for (round, (wanted, life)) in history.iter().enumerate() {
            let before = visible(volume);
            let steps = plan(volume, wanted, &format!("..2026_11_23_15_04_05.{round}")).unwrap();
            let mut swapped = false;
            for step in steps.iter().take(*life) {
                step.take(volume).unwrap();
                swapped |= matches!(step, Step::Swap { .. });
                let now = visible(volume);
                prop_assert_eq!(now.as_ref(), if swapped { Some(wanted) } else { before.as_ref() }, "after {:?}", step);
            }
            if *life >= steps.len() {
                check(volume, wanted);
            }
        }
        let (last, _) = history.last().unwrap();
        write(volume, last).unwrap();
        check(volume, last);
        prop_assert!(!write(volume, last).unwrap());
    }
}
