//! Tests of `volume`.

use super::{Payload, VolumeError, clean, payload};
use crate::env::Configs;
use crate::env::field::Facts;
use crate::parse::parse;
use crate::pod::{FileVolume, Pod, Resources, VolumeSource};
use k8s_openapi::api::core::v1 as api;
use proptest::prelude::*;
use std::sync::Arc;

fn read<T: serde::de::DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).unwrap()
}

fn pod(volume: &str) -> Pod {
    let volume: serde_json::Value = read(volume);
    let mut api: api::Pod = read(
        "metadata: {name: p, namespace: ns, uid: u-1, labels: {app: web, tier: front}}\n\
         spec: {containers: [{name: c, image: i, resources: {limits: {memory: 64Mi}}}]}",
    );
    let mut whole = serde_json::json!({"name": "v"});
    whole.as_object_mut().unwrap().extend(volume.as_object().unwrap().clone());
    api.spec.as_mut().unwrap().volumes = Some(vec![serde_json::from_value(whole).unwrap()]);
    parse(Arc::new(api)).unwrap()
}

fn files(pod: &Pod) -> &FileVolume {
    match &pod.volumes[0].source {
        VolumeSource::Files(files) => files,
        other => panic!("{other:?} is not made of files"),
    }
}

fn make(volume: &str) -> Result<Payload, VolumeError> {
    let pod = pod(volume);
    let map = read("{metadata: {name: m}, data: {a: text, b: other}, binaryData: {bin: AAEC}}");
    let secret = read("{metadata: {name: s}, data: {key: c2VjcmV0}}");
    let configs = Configs {
        config_maps: [("m".to_owned(), Arc::new(map))].into(),
        secrets: [("s".to_owned(), Arc::new(secret))].into(),
    };
    let allocatable = Resources { cpu_millis: Some(2000), ..Resources::default() };
    let facts = Facts { pod_ips: &[], host_ips: &[], allocatable: &allocatable };
    payload(files(&pod), &pod, &facts, &configs, &[(0, "t0".to_owned())].into())
}

fn check(volume: &str, expected: &[(&str, &[u8], u32)]) {
    let made = make(volume).unwrap();
    let made: Vec<_> = made.iter().map(|(path, file)| (path.as_str(), file.bytes.as_slice(), file.mode)).collect();
    assert_eq!(made, expected, "{volume}");
}

fn check_error(volume: &str, expected: &str) {
    assert_eq!(make(volume).unwrap_err().to_string(), expected, "{volume}");
}

#[test]
fn a_config_map_gives_all_its_keys_or_those_named() {
    let all: [(&str, &[u8], u32); 3] = [("a", b"text", 0o644), ("b", b"other", 0o644), ("bin", &[0, 1, 2], 0o644)];
    check("configMap: {name: m}", &all);
    let items =
        "configMap: {name: m, defaultMode: 0o400, items: [{key: a, path: x/./y}, {key: bin, path: z, mode: 0o755}]}";
    check(items, &[("x/y", b"text", 0o400), ("z", &[0, 1, 2], 0o755)]);
}

#[test]
fn what_is_missing_is_named_unless_it_is_optional() {
    check_error("configMap: {name: none}", "configmap \"none\" not found");
    check_error("secret: {secretName: none}", "secret \"none\" not found");
    let missing_key = "configMap: {name: m, items: [{key: gone, path: x}]}";
    check_error(missing_key, "configmap references non-existent config key: gone");
    check_error("secret: {secretName: s, items: [{key: gone, path: x}]}", "references non-existent secret key: gone");
    check("configMap: {name: none, optional: true}", &[]);
    check("secret: {secretName: none, optional: true}", &[]);
    check("secret: {secretName: s, optional: true, items: [{key: gone, path: x}]}", &[]);
}

#[test]
fn downward_files_show_fields_and_resources() {
    let volume = "downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}, \
                  {path: d/n, mode: 0o600, fieldRef: {fieldPath: metadata.name}}, \
                  {path: mem, resourceFieldRef: {containerName: c, resource: limits.memory, divisor: 1Mi}}, \
                  {path: cpu, resourceFieldRef: {containerName: c, resource: limits.cpu}}]}";
    let labels = b"app=\"web\"\ntier=\"front\"";
    check(volume, &[("cpu", b"2", 0o644), ("d/n", b"p", 0o600), ("l", labels, 0o644), ("mem", b"64", 0o644)]);
    let unknown = "downwardAPI: {items: [{path: f, resourceFieldRef: {containerName: nobody, resource: limits.cpu}}]}";
    check_error(unknown, "downward API file f: container nobody not found");
}

#[test]
fn a_projection_joins_its_sources_and_the_later_wins() {
    let volume = "projected: {sources: [{serviceAccountToken: {path: token}}, {configMap: {name: m}}, \
                  {secret: {name: s, items: [{key: key, path: a}]}}]}";
    let expected: [(&str, &[u8], u32); 4] =
        [("a", b"secret", 0o644), ("b", b"other", 0o644), ("bin", &[0, 1, 2], 0o644), ("token", b"t0", 0o644)];
    check(volume, &expected);
    let second = "projected: {sources: [{configMap: {name: m}}, {serviceAccountToken: {path: token}}]}";
    check_error(second, "the service account token for token is missing");
}

#[test]
fn a_file_cannot_be_a_directory_too() {
    let volume = "configMap: {name: m, items: [{key: a, path: x}, {key: b, path: x/y/z}]}";
    check_error(volume, "\"x\" cannot be both a file and the directory of \"x/y/z\"");
}

#[test]
fn content_is_not_shown_by_debug() {
    assert!(!format!("{:?}", make("secret: {secretName: s}").unwrap()).contains("secret"));
}

#[test]
fn paths_stay_inside_and_off_the_writers_own_names() {
    for path in ["/a", "..", "a/../b", "../a", "..data", "..2026/x", "./..data", "", ".", "a\0", &"x".repeat(256)] {
        assert!(matches!(clean(path), Err(VolumeError::Path { .. })), "{path:?}");
    }
    for (path, cleaned) in [("a", "a"), ("a/..b", "a/..b"), ("./a//b/", "a/b"), (".hidden", ".hidden")] {
        assert_eq!(clean(path).as_deref(), Ok(cleaned));
    }
}

proptest! {
    #[test]
    fn a_clean_path_leads_nowhere_else(path in "[a./]{1,12}") {
        if let Ok(cleaned) = clean(&path) {
            prop_assert!(cleaned.split('/').all(|part| !matches!(part, "" | "." | "..")));
            prop_assert!(!cleaned.starts_with(".."));
            prop_assert_eq!(clean(&cleaned), Ok(cleaned.clone()));
        }
    }
}
