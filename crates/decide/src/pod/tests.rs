//! Tests of what follows from a pod alone.

use super::{Container, ExitCodes, Pod, Resources, Restart, RestartAction, RestartPolicy, RestartRule, Role};
use crate::parse::parse;
use serde_json::json;
use std::sync::Arc;

fn pod() -> Pod {
    let object = json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u" },
        "spec": {
            "overhead": { "cpu": "7m" },
            "containers": [
                { "name": "a", "image": "i", "resources": { "limits": { "cpu": "100m", "memory": "64Mi" } } },
                { "name": "b", "image": "i", "resources": { "limits": { "cpu": "50m", "memory": "32Mi" } } },
            ],
        },
    });
    parse(Arc::new(serde_json::from_value(object).unwrap())).map_err(|refused| refused.rejection).unwrap()
}

fn asks(pod: &Pod, name: &str, role: Role, cpu_millis: u64) -> Container {
    let amounts = Resources { cpu_millis: Some(cpu_millis), memory_bytes: Some(1), ephemeral_storage_bytes: None };
    let like = pod.containers.iter().next().unwrap().clone();
    Container { name: name.into(), role, requests: amounts, limits: amounts, ..like }
}

#[test]
fn an_init_container_counts_where_it_asks_for_more_than_what_comes_after_it() {
    let mut pod = pod();
    assert_eq!(pod.requests().cpu_millis, Some(157));
    let of = |pod: &Pod, list: &[(Role, u64)]| -> Vec<Container> {
        list.iter().map(|(role, cpu)| asks(pod, "x", *role, *cpu)).collect()
    };
    let cases: [(&[(Role, u64)], u64); 5] = [
        (&[(Role::Init, 100)], 157),
        (&[(Role::Init, 200), (Role::Init, 180)], 207),
        (&[(Role::Sidecar, 10)], 167),
        // The sidecar began before the init container, or after it.
        (&[(Role::Sidecar, 10), (Role::Init, 200)], 217),
        (&[(Role::Init, 200), (Role::Sidecar, 10)], 207),
    ];
    for (list, expected) in cases {
        pod.init_containers = of(&pod, list);
        assert_eq!(pod.requests().cpu_millis, Some(expected), "{list:?}");
    }
}

#[test]
fn memory_is_limited_only_if_every_container_is() {
    let mut pod = pod();
    assert_eq!(pod.memory_limit(), Some(96 << 20));
    let unlimited = Container { limits: Resources::default(), ..asks(&pod, "x", Role::Init, 1) };
    pod.init_containers = vec![unlimited];
    assert_eq!(pod.memory_limit(), None);
}

#[test]
fn the_first_rule_that_knows_the_exit_code_counts() {
    let rule = |exit_codes, action| RestartRule { exit_codes, action };
    let restart = Restart {
        rules: vec![
            rule(ExitCodes::In(vec![3]), RestartAction::Restart),
            rule(ExitCodes::In(vec![3, 4]), RestartAction::RestartAllContainers),
            rule(ExitCodes::NotIn(vec![0, 1, 2]), RestartAction::Restart),
        ],
        policy: RestartPolicy::Never,
    };
    let restarts = |code| (restart.restarts_after(code), restart.restarts_all_after(code));
    assert_eq!([0, 1, 2].map(restarts), [(false, false); 3]);
    assert_eq!([3, 5].map(restarts), [(true, false); 2]);
    assert_eq!(restarts(4), (true, true));
    let policy = Restart { policy: RestartPolicy::OnFailure, ..restart };
    assert_eq!([0, 1].map(|code| policy.restarts_after(code)), [false, true]);
}
