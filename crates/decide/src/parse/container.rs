//! The containers of a spec, whichever list they stand in, into [`Container`]s.

use super::restart::{List, role_and_restart};
use super::{field, hook, invalid, path_part, probe, resources, unsupported_value};
use crate::names::{ContainerName, VolumeName};
use crate::pod::{
    ConfigKind, Container, EnvFrom, EnvValue, EnvVar, KeyRef, Mount, Port, Protocol, PullPolicy, Rejection,
    ResizePolicy, Resources, RestartPolicy, SubPath, TerminationMessagePolicy, Volume,
};
use k8s_openapi::api::core::v1 as api;
use std::net::IpAddr;

/// Where the termination message is, unless the spec says otherwise.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// What a pod says of all its containers.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfPod {
    pub(super) host_network: bool,
    pub(super) restart_policy: RestartPolicy,
}

pub(super) fn containers(api: &[api::Container], list: List, of_pod: OfPod) -> Result<Vec<Container>, Rejection> {
    let place = |index: usize| format!("{}[{index}]", list.place());
    api.iter().enumerate().map(|(index, one)| container(one, list, of_pod, &place(index))).collect()
}

pub(super) fn container(api: &api::Container, list: List, of_pod: OfPod, place: &str) -> Result<Container, Rejection> {
    path_part(&format!("{place}.name"), &api.name)?;
    let image = api.image.clone().unwrap_or_default();
    if image.is_empty() {
        return Err(invalid(format!("{place}.image is missing")));
    }
    let amounts = api.resources.clone().unwrap_or_default();
    let (limits, extended_limits) = resources(amounts.limits.as_ref(), &format!("{place}.resources.limits"))?;
    let (requests, extended) = resources(amounts.requests.as_ref(), &format!("{place}.resources.requests"))?;
    let security = api.security_context.as_ref();
    let (role, restart) = role_and_restart(api, list, of_pod.restart_policy, place)?;
    let read_port = |one: &_, place: &str| port(one, place, of_pod.host_network);
    Ok(Container {
        name: ContainerName::from(api.name.as_str()),
        role,
        restart,
        pull_policy: pull_policy(api.image_pull_policy.as_deref(), &image, &format!("{place}.imagePullPolicy"))?,
        image,
        command: api.command.clone().unwrap_or_default(),
        args: api.args.clone().unwrap_or_default(),
        working_dir: api.working_dir.clone().filter(|dir| !dir.is_empty()),
        env: each(api.env.as_ref(), &format!("{place}.env"), env_var)?,
        env_from: each(api.env_from.as_ref(), &format!("{place}.envFrom"), env_from)?,
        ports: each(api.ports.as_ref(), &format!("{place}.ports"), read_port)?,
        requests: defaulted(requests, limits),
        extended: extended_limits.into_iter().chain(extended).collect(),
        limits,
        resize_policy: resize_policy(api, place)?,
        hooks: hook::hooks(api.lifecycle.as_ref(), &format!("{place}.lifecycle"))?,
        mounts: each(api.volume_mounts.as_ref(), &format!("{place}.volumeMounts"), mount)?,
        probes: probe::probes(api, role, place)?,
        stdin: api.stdin.unwrap_or(false),
        stdin_once: api.stdin_once.unwrap_or(false),
        tty: api.tty.unwrap_or(false),
        read_only_root: security.and_then(|security| security.read_only_root_filesystem).unwrap_or(false),
        termination_message_path: termination_message_path(api, place)?,
        termination_message_policy: match api.termination_message_policy.as_deref() {
            None | Some("" | "File") => TerminationMessagePolicy::File,
            Some("FallbackToLogsOnError") => TerminationMessagePolicy::FallbackToLogsOnError,
            Some(other) => {
                let place = format!("{place}.terminationMessagePolicy");
                return Err(unsupported_value(&place, other, "File or FallbackToLogsOnError"));
            }
        },
    })
}

/// The plain form of the path, as the runtime compares it; a relative one begins at the root, as for the kubelet.
fn termination_message_path(api: &api::Container, place: &str) -> Result<String, Rejection> {
    let path = api.termination_message_path.as_deref().filter(|path| !path.is_empty());
    let path = path.unwrap_or(TERMINATION_MESSAGE_PATH);
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() || parts.contains(&"..") || path.contains('\0') {
        return Err(invalid(format!(
            "{place}.terminationMessagePath: {path:?} is not the path of a file without \"..\""
        )));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Every mount must name a volume of the pod.
pub(super) fn mounts_have_volumes<'a>(
    containers: impl Iterator<Item = &'a Container>,
    volumes: &[Volume],
) -> Result<(), Rejection> {
    for container in containers {
        for mount in &container.mounts {
            if !volumes.iter().any(|volume| volume.name == mount.volume) {
                let Container { name, .. } = container;
                let message =
                    format!("container {name} mounts {:?}, and the pod has no such volume", mount.volume.as_str());
                return Err(invalid(message));
            }
        }
    }
    Ok(())
}

/// Reads every element of a list, each with its place.
pub(super) fn each<A, T>(
    list: Option<&Vec<A>>,
    place: &str,
    read: impl Fn(&A, &str) -> Result<T, Rejection>,
) -> Result<Vec<T>, Rejection> {
    let elements = list.into_iter().flatten().enumerate();
    elements.map(|(index, element)| read(element, &format!("{place}[{index}]"))).collect()
}

/// As the API server defaults it: a moving tag is asked for each time.
pub(super) fn pull_policy(policy: Option<&str>, image: &str, place: &str) -> Result<PullPolicy, Rejection> {
    match policy {
        Some("Always") => Ok(PullPolicy::Always),
        Some("IfNotPresent") => Ok(PullPolicy::IfNotPresent),
        Some("Never") => Ok(PullPolicy::Never),
        None | Some("") => {
            let last = image.rsplit('/').next().unwrap_or(image);
            let moving = !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
            Ok(if moving { PullPolicy::Always } else { PullPolicy::IfNotPresent })
        }
        Some(other) => Err(unsupported_value(place, other, "Always, IfNotPresent or Never")),
    }
}

/// A limit without a request is a request too.
fn defaulted(requests: Resources, limits: Resources) -> Resources {
    Resources {
        cpu_millis: requests.cpu_millis.or(limits.cpu_millis),
        memory_bytes: requests.memory_bytes.or(limits.memory_bytes),
        ephemeral_storage_bytes: requests.ephemeral_storage_bytes.or(limits.ephemeral_storage_bytes),
    }
}

fn resize_policy(api: &api::Container, place: &str) -> Result<ResizePolicy, Rejection> {
    let mut policy = ResizePolicy::default();
    for (index, one) in api.resize_policy.iter().flatten().enumerate() {
        let place = |field| format!("{place}.resizePolicy[{index}].{field}");
        let restart = match one.restart_policy.as_str() {
            "NotRequired" => false,
            "RestartContainer" => true,
            other => return Err(unsupported_value(&place("restartPolicy"), other, "NotRequired or RestartContainer")),
        };
        match one.resource_name.as_str() {
            "cpu" => policy.restart_for_cpu = restart,
            "memory" => policy.restart_for_memory = restart,
            other => return Err(unsupported_value(&place("resourceName"), other, "cpu or memory")),
        }
    }
    Ok(policy)
}

fn env_var(api: &api::EnvVar, place: &str) -> Result<EnvVar, Rejection> {
    if api.name.is_empty() || api.name.contains(['=', '\0']) {
        return Err(invalid(format!("{place}.name: {:?} is not the name of a variable", api.name)));
    }
    let value = match &api.value_from {
        None => EnvValue::Literal(api.value.clone().unwrap_or_default()),
        Some(source) => env_value(source, &format!("{place}.valueFrom"))?,
    };
    Ok(EnvVar { name: api.name.clone(), value })
}

fn env_value(source: &api::EnvVarSource, place: &str) -> Result<EnvValue, Rejection> {
    if let Some(api) = &source.field_ref {
        return Ok(EnvValue::Field(field::for_env(api, &format!("{place}.fieldRef"))?));
    }
    if let Some(api) = &source.resource_field_ref {
        return Ok(EnvValue::Resource(field::resource(api, &format!("{place}.resourceFieldRef"))?));
    }
    let key = |name: &str, key: &str, optional| KeyRef { name: name.into(), key: key.into(), optional };
    if let Some(api) = &source.config_map_key_ref {
        return Ok(EnvValue::ConfigMapKey(key(&api.name, &api.key, api.optional.unwrap_or(false))));
    }
    if let Some(api) = &source.secret_key_ref {
        return Ok(EnvValue::SecretKey(key(&api.name, &api.key, api.optional.unwrap_or(false))));
    }
    Err(invalid(format!("{place} names no source")))
}

fn env_from(api: &api::EnvFromSource, place: &str) -> Result<EnvFrom, Rejection> {
    let prefix = api.prefix.clone().unwrap_or_default();
    let from = |kind, name: &str, optional: Option<bool>| EnvFrom {
        prefix: prefix.clone(),
        kind,
        name: name.to_owned(),
        optional: optional.unwrap_or(false),
    };
    match (&api.config_map_ref, &api.secret_ref) {
        (Some(api), None) => Ok(from(ConfigKind::ConfigMap, &api.name, api.optional)),
        (None, Some(api)) => Ok(from(ConfigKind::Secret, &api.name, api.optional)),
        _ => Err(invalid(format!("{place} must name either a ConfigMap or a Secret"))),
    }
}

fn port(api: &api::ContainerPort, place: &str, host_network: bool) -> Result<Port, Rejection> {
    let number = |value: i32, field: &str| {
        let number = u16::try_from(value).ok().filter(|number| *number > 0);
        number.ok_or_else(|| invalid(format!("{place}.{field}: {value} is not a port")))
    };
    let container_port = number(api.container_port, "containerPort")?;
    let host_port = match api.host_port.filter(|port| *port != 0) {
        Some(port) => Some(number(port, "hostPort")?),
        None => host_network.then_some(container_port),
    };
    let host_ip = match api.host_ip.as_deref().unwrap_or_default() {
        "" => None,
        text => {
            let ip: Result<IpAddr, _> = text.parse();
            Some(ip.map_err(|_| invalid(format!("{place}.hostIP: {text:?} is not an address")))?)
        }
    };
    let protocol = match api.protocol.as_deref() {
        None | Some("" | "TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(other) => return Err(unsupported_value(&format!("{place}.protocol"), other, "TCP or UDP")),
    };
    Ok(Port { name: api.name.clone(), container_port, protocol, host_port, host_ip })
}

fn mount(api: &api::VolumeMount, place: &str) -> Result<Mount, Rejection> {
    let path = api.mount_path.as_str();
    if path.is_empty() || path.contains([':', '\0']) || path.split('/').any(|part| part == "..") {
        return Err(invalid(format!("{place}.mountPath: {path:?} is not a path without \"..\" and \":\"")));
    }
    Ok(Mount {
        sub_path: sub_path(api, place)?,
        volume: VolumeName::from(api.name.as_str()),
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        read_only: api.read_only.unwrap_or(false),
    })
}

fn sub_path(api: &api::VolumeMount, place: &str) -> Result<SubPath, Rejection> {
    let inside = |field: &str, text: &Option<String>| {
        let text = text.clone().unwrap_or_default();
        if text.starts_with('/') || text.contains('\0') || text.split('/').any(|part| part == "..") {
            return Err(invalid(format!("{place}.{field}: {text:?} is not a relative path without \"..\"")));
        }
        Ok(text)
    };
    let (plain, expression) = (inside("subPath", &api.sub_path)?, inside("subPathExpr", &api.sub_path_expr)?);
    match (plain.is_empty(), expression.is_empty()) {
        (false, false) => Err(invalid(format!("{place}.subPathExpr and subPath are mutually exclusive"))),
        (true, false) => Ok(SubPath::Expression(expression)),
        (_, true) => Ok(SubPath::Plain(plain)),
    }
}
