//! What the runtime holds for one pod.
//!
//! Comes in: lists and statuses of CRI. Goes out: a [`RuntimeView`], whole, or an error; never half a view, since what a
//! view lacks is taken to be gone.

use std::net::IpAddr;

use cri::client::CallError;
use cri::{Client, names, v1};
use decide::event::RuntimeView;
use decide::names::{ContainerId, ContainerName, PodUid, SandboxId};
use decide::observed::{Exit, Instance, InstanceState, PostStart, PreStop, Sandbox, SandboxState};
use jiff::Timestamp;

use super::{messages, termination};

/// Lists the pod's sandboxes and containers. `as_of` is the present.
pub async fn runtime_view(runtime: &Client, uid: &PodUid, as_of: Timestamp) -> Result<RuntimeView, CallError> {
    let of_pod = || [(names::POD_UID.to_owned(), uid.as_str().to_owned())].into_iter().collect();
    let filter = v1::PodSandboxFilter { label_selector: of_pod(), ..Default::default() };
    let mut sandboxes = Vec::new();
    for listed in runtime.list_pod_sandboxes(Some(filter)).await? {
        match runtime.pod_sandbox_status(&listed.id).await {
            Ok(answer) => sandboxes.extend(answer.status.as_ref().map(sandbox)),
            // Removed between the two calls.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let filter = v1::ContainerFilter { label_selector: of_pod(), ..Default::default() };
    let mut containers = Vec::new();
    for listed in runtime.list_containers(Some(filter)).await? {
        let Some(name) = names_container(&listed) else { continue };
        match runtime.container_status(&listed.id).await {
            Ok(status) => containers.push((name, instance(&status, &listed.pod_sandbox_id).await)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    sandboxes.sort_by_key(|sandbox| (sandbox.attempt, sandbox.created_at));
    containers.sort_by(|(a_name, a), (b_name, b)| (a_name, a.attempt).cmp(&(b_name, b.attempt)));
    Ok(RuntimeView { as_of, sandboxes, containers })
}

fn names_container(listed: &v1::Container) -> Option<ContainerName> {
    let labels = listed.labels.clone().into_iter().collect();
    names::container_name(&labels).map(ContainerName::from)
}

/// One sandbox, from its status.
pub fn sandbox(status: &v1::PodSandboxStatus) -> Sandbox {
    let network = status.network.as_ref();
    let additional = network.into_iter().flat_map(|network| &network.additional_ips).map(|ip| ip.ip.as_str());
    let ips = network.map(|network| network.ip.as_str()).into_iter().chain(additional);
    Sandbox {
        id: SandboxId::from(status.id.as_str()),
        attempt: status.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        state: match status.state() {
            v1::PodSandboxState::SandboxReady => SandboxState::Ready,
            v1::PodSandboxState::SandboxNotready => SandboxState::NotReady,
        },
        ips: ips.filter_map(|ip| ip.parse::<IpAddr>().ok()).collect(),
        created_at: timestamp(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

/// One instance of a container, from its status. Of one that has ended the last word is read, too.
pub async fn instance(status: &v1::ContainerStatus, sandbox: &str) -> Instance {
    let started_at = timestamp(status.started_at);
    let state = match status.state() {
        v1::ContainerState::ContainerCreated => InstanceState::Created,
        v1::ContainerState::ContainerRunning => {
            InstanceState::Running { started_at: started_at.unwrap_or(Timestamp::UNIX_EPOCH) }
        }
        v1::ContainerState::ContainerExited => InstanceState::Exited(Exit {
            started_at,
            finished_at: timestamp(status.finished_at).or(started_at).unwrap_or(Timestamp::UNIX_EPOCH),
            code: status.exit_code,
            reason: status.reason.clone(),
            message: termination::message(status).await,
        }),
        v1::ContainerState::ContainerUnknown => InstanceState::Unknown,
    };
    let image = status.image.as_ref();
    let named = image.map(|image| match image.user_specified_image.as_str() {
        "" => image.image.clone(),
        user_specified => user_specified.to_owned(),
    });
    Instance {
        id: ContainerId::from(status.id.as_str()),
        attempt: status.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        sandbox: SandboxId::from(sandbox),
        image: named.unwrap_or_default(),
        image_reference: status.image_ref.clone(),
        post_start: if matches!(state, InstanceState::Created) { PostStart::Owed } else { PostStart::Done },
        pre_stop: PreStop::Owed,
        enforced: status.resources.as_ref().and_then(|resources| resources.linux.as_ref()).map(messages::enforced),
        held: true,
        state,
    }
}

/// CRI counts nanoseconds since 1970, and 0 means never.
fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
}
