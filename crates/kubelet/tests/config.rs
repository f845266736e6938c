//! Configuration files and flags against what they come to: each folder of `cases/config` is a case.
//!
//! `config.yaml` is `--config`, a folder `conf.d` is `--config-dir`, `flags` holds more flags. Of `/configz` and the
//! resolved configuration, `expect.yaml` says what must be there (`configz`, `warnings`); or `error.txt` says what the
//! refusal must read.

use std::{error::Error, fs, path::Path};

use clap::Parser;
use kubelet::{
    config::{Config, Host},
    flags::KubeletFlags,
};
use serde_json::Value;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    flags: KubeletFlags,
}

fn host() -> Host {
    Host { hostname: "Host-1".to_owned(), is_root: true, user_state: None, home: None }
}

fn resolve(case: &Path) -> Result<Config, String> {
    let mut words = vec!["kubelet".to_owned()];
    let path = |name: &str| case.join(name).display().to_string();
    if case.join("config.yaml").exists() {
        words.extend(["--config".to_owned(), path("config.yaml")]);
    }
    if case.join("conf.d").exists() {
        words.extend(["--config-dir".to_owned(), path("conf.d")]);
    }
    if let Ok(flags) = fs::read_to_string(case.join("flags")) {
        words.extend(flags.split_whitespace().map(str::to_owned));
    }
    let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
    Config::resolve(&command.flags, &host()).map_err(|error| {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}").replace(&format!("{}/", case.display()), "")
    })
}

/// Everything `part` says is said by `whole`, too.
fn assert_holds(case: &str, path: &str, part: &Value, whole: &Value) {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            for (name, value) in part {
                assert_holds(case, &format!("{path}.{name}"), value, whole.get(name).unwrap_or(&Value::Null));
            }
        }
        _ => assert_eq!(part, whole, "{case}: {path}"),
    }
}

#[test]
fn every_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/config");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let case = entry.unwrap().path();
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let outcome = resolve(&case);
        if let Ok(wanted) = fs::read_to_string(case.join("error.txt")) {
            let message = outcome.map(|config| config.configz()).unwrap_err();
            assert_eq!(message.trim(), wanted.trim(), "{name}");
        } else {
            let config = outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
            let text = fs::read_to_string(case.join("expect.yaml")).unwrap();
            let expect: Value = serde_saphyr::from_str(&text).unwrap();
            assert_holds(&name, "configz", &expect["configz"], &config.configz()["kubeletconfig"]);
            let warnings: Vec<_> =
                config.warnings.iter().map(|warning| warning.replace(&format!("{}/", case.display()), "")).collect();
            let wanted: Vec<String> = serde_json::from_value(expect["warnings"].clone()).unwrap_or_default();
            assert_eq!(warnings, wanted, "{name}");
        }
        seen += 1;
    }
    assert!(seen > 10, "{seen} cases in {}", folder.display());
}

#[test]
fn what_configz_shows_can_be_read_again() {
    let first = Config::resolve(&KubeletFlags::default(), &host()).unwrap().configz();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubelet.json");
    fs::write(&file, first["kubeletconfig"].to_string()).unwrap();
    let flags = KubeletFlags { config: Some(file), ..KubeletFlags::default() };
    assert_eq!(Config::resolve(&flags, &host()).unwrap().configz(), first);
}

#[test]
fn state_lives_where_its_user_may_write() {
    let resolve = |host: &Host| Config::resolve(&KubeletFlags::default(), host).unwrap();
    let root = resolve(&host());
    assert_eq!(root.root_dir, Path::new("/var/lib/wasklet"));
    assert_eq!(root.cert_dir, Path::new("/var/lib/wasklet/pki"));
    assert_eq!(root.pod_logs_dir, Path::new("/var/log/pods"));
    assert_eq!(root.node_name, "host-1");
    let user = resolve(&Host { is_root: false, user_state: Some("/home/u/.local/state".into()), ..host() });
    assert_eq!(user.root_dir, Path::new("/home/u/.local/state/wasklet"));
    assert_eq!(user.pod_logs_dir, Path::new("/home/u/.local/state/wasklet/logs"));
    let nowhere = Host { is_root: false, user_state: None, ..host() };
    let refusal = Config::resolve(&KubeletFlags::default(), &nowhere).unwrap_err().to_string();
    assert!(refusal.contains("--root-dir"), "{refusal}");
}
