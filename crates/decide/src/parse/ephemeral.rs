//! `spec.ephemeralContainers[]`: containers that are added to a pod that runs. One that cannot be read or asks for what is
//! refused is left out and said, for the pod runs on.

use super::container::{OfPod, container, mounts_have_volumes};
use super::restart::List;
use crate::pod::{Container, Volume};
use crate::support::Remarks;
use k8s_openapi::api::core::v1 as api;

pub(super) fn containers(
    spec: &api::PodSpec,
    volumes: &[Volume],
    of_pod: OfPod,
    remarks: &mut Remarks,
) -> Vec<Container> {
    let mut containers: Vec<Container> = Vec::new();
    for (index, ephemeral) in spec.ephemeral_containers.iter().flatten().enumerate() {
        if remarks.declined.contains_key(&index) {
            continue;
        }
        let place = format!("{}[{index}]", List::Ephemeral.place());
        let read = container(&as_container(ephemeral), List::Ephemeral, of_pod, &place);
        let read = read.and_then(|one| mounts_have_volumes(std::iter::once(&one), volumes).map(|()| one));
        match read {
            Ok(container) => containers.push(container),
            Err(rejection) => {
                remarks.declined.insert(index, rejection);
            }
        }
    }
    containers
}

/// The same fields, but for the one that names whom it looks at.
fn as_container(ephemeral: &api::EphemeralContainer) -> api::Container {
    // Every field is named, so that one the API gains is not lost.
    let api::EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        target_container_name: _,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    } = ephemeral.clone();
    api::Container {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    }
}
