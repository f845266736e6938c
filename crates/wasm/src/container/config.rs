//! What a container is, once CRI's message for it has been understood.
//!
//! In comes a `ContainerConfig`, out go a [`ContainerSpec`] that outlives the process and a [`Request`] to make it from,
//! neither of which anything later has to doubt; or the field that asks for what a guest cannot have.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use cri::names::{ContainerAnnotations, HTTP_REQUESTS_PER_INSTANCE, PortProtocol};
use cri::v1;
use serde::{Deserialize, Serialize};

use crate::container::mounts::MountRequest;
use crate::guest::Http;
use crate::limits::Limits;
use crate::sandbox::spec::{SandboxSpec, privileged};
use crate::service::error::ServiceError;

/// The kernel's default of `cpu.cfs_period_us`, in microseconds.
const DEFAULT_CPU_PERIOD: i64 = 100_000;

/// A container as the kubelet wants to see it again. It outlives the process in the container's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    pub(crate) name: String,
    pub(crate) attempt: u32,
    /// The image as it was asked for, and as the pod's author wrote it.
    pub(crate) image: String,
    pub(crate) user_specified_image: String,
    /// The image's id.
    pub(crate) image_id: String,
    /// The digest reference it was pulled by, or its id.
    pub(crate) image_ref: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) mounts: Vec<MountRequest>,
    /// The whole path; without one the output is dropped.
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) resources: Resources,
}

/// What was asked for in the words of Linux' cgroups, as far as it is honoured; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resources {
    /// In microseconds.
    pub(crate) cpu_period: i64,
    /// CPU time per period, in microseconds.
    pub(crate) cpu_quota: i64,
    /// Kept to be shown; guests are not weighed against one another.
    pub(crate) cpu_shares: i64,
    pub(crate) memory_limit_in_bytes: i64,
}

/// What it takes to make a container, besides its image.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: Option<String>,
    pub(crate) read_only_root: bool,
    pub(crate) stdin: StdinMode,
    pub(crate) tty: bool,
    pub(crate) http: Http,
    /// The file whose content the kubelet reads once the container has ended.
    pub(crate) termination_message_path: Option<String>,
}

/// Whether a container has standard input, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StdinMode {
    /// It is at its end from the beginning.
    None,
    /// It ends when an attached client says so.
    Open,
    /// It also ends when the first client that attaches goes away.
    Once,
}

/// Understands CRI's message. The image is looked up afterwards: its id and reference are still empty.
pub(crate) fn parse(
    config: v1::ContainerConfig,
    sandbox: &SandboxSpec,
) -> Result<(ContainerSpec, Request), ServiceError> {
    refuse_what_guests_cannot_have(&config)?;
    let metadata = config.metadata.ok_or_else(|| ServiceError::invalid("metadata", "missing"))?;
    if metadata.name.is_empty() {
        return Err(ServiceError::invalid("metadata", "name must be given"));
    }
    let image = config.image.unwrap_or_default();
    if image.image.is_empty() {
        return Err(ServiceError::invalid("image", "missing"));
    }
    let annotations = ContainerAnnotations::of(&config.annotations)
        .map_err(|error| ServiceError::invalid("annotations", crate::service::error::chain(&error)))?;
    let linux = config.linux.unwrap_or_default();
    let read_only_root = linux.security_context.is_some_and(|security| security.readonly_rootfs);
    let mounts = config.mounts.iter().map(MountRequest::parse).collect::<Result<Vec<_>, _>>()?;

    let request = Request {
        command: config.command,
        args: config.args,
        env: config.envs.into_iter().map(environment).collect::<Result<_, _>>()?,
        working_dir: (!config.working_dir.is_empty()).then_some(config.working_dir),
        read_only_root,
        stdin: match (config.stdin, config.stdin_once) {
            (false, _) => StdinMode::None,
            (true, false) => StdinMode::Open,
            (true, true) => StdinMode::Once,
        },
        tty: config.tty,
        http: http(&annotations, sandbox)?,
        termination_message_path: Some(annotations.termination_message_path).filter(|path| !path.is_empty()),
    };
    let spec = ContainerSpec {
        name: metadata.name,
        attempt: metadata.attempt,
        image: image.image,
        user_specified_image: image.user_specified_image,
        image_id: String::new(),
        image_ref: String::new(),
        labels: config.labels,
        annotations: config.annotations,
        mounts,
        log_path: log_path(sandbox.log_directory.as_deref(), &config.log_path)?,
        resources: linux.resources.map(Resources::from).unwrap_or_default(),
    };
    Ok((spec, request))
}

fn refuse_what_guests_cannot_have(config: &v1::ContainerConfig) -> Result<(), ServiceError> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    if security.is_some_and(|security| security.privileged) {
        return Err(privileged("linux.security_context.privileged"));
    }
    if let Some(device) = config.devices.first() {
        let problem = format!("{}: a guest cannot be given devices", device.host_path);
        return Err(ServiceError::unsupported("devices", problem));
    }
    if let Some(device) = config.cdi_devices.first() {
        return Err(ServiceError::unsupported(
            "CDI_devices",
            format!("{}: a guest cannot be given devices", device.name),
        ));
    }
    Ok(())
}

fn environment(entry: v1::KeyValue) -> Result<(String, String), ServiceError> {
    if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
        return Err(ServiceError::invalid("envs", format!("{:?} cannot be a name", entry.key)));
    }
    match String::from_utf8(entry.value) {
        Ok(value) if !value.contains('\0') => Ok((entry.key, value)),
        _ => Err(ServiceError::invalid("envs", format!("the value of {} is not text", entry.key))),
    }
}

/// The first TCP port that the container declares, and what the pod says of its instances.
fn http(annotations: &ContainerAnnotations, sandbox: &SandboxSpec) -> Result<Http, ServiceError> {
    let mut http = Http::default();
    let mut tcp = annotations.ports.iter().filter(|port| port.protocol == PortProtocol::Tcp);
    if let Some(port) = tcp.next() {
        http.port = port.container_port;
    }
    if let Some(wanted) = sandbox.annotations.get(HTTP_REQUESTS_PER_INSTANCE) {
        let wanted = wanted.parse().map_err(|_| {
            let problem = format!("{HTTP_REQUESTS_PER_INSTANCE}: {wanted:?} is no number from 1 to {}", u32::MAX);
            ServiceError::invalid("annotations", problem)
        })?;
        http.requests_per_instance = Some(wanted);
    }
    Ok(http)
}

fn log_path(directory: Option<&Path>, file: &str) -> Result<Option<PathBuf>, ServiceError> {
    let (Some(directory), false) = (directory, file.is_empty()) else { return Ok(None) };
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(file).components().all(plain) {
        return Err(ServiceError::invalid("log_path", format!("{file:?} leads out of the sandbox's log directory")));
    }
    Ok(Some(directory.join(file)))
}

impl Resources {
    /// With `change` over them: what is 0 there stays as it is here.
    pub(crate) fn changed(self, change: Self) -> Self {
        let or = |new, old| if new == 0 { old } else { new };
        Self {
            cpu_period: or(change.cpu_period, self.cpu_period),
            cpu_quota: or(change.cpu_quota, self.cpu_quota),
            cpu_shares: or(change.cpu_shares, self.cpu_shares),
            memory_limit_in_bytes: or(change.memory_limit_in_bytes, self.memory_limit_in_bytes),
        }
    }

    /// As the guest's limits.
    pub(crate) fn limits(self) -> Limits {
        let period = if self.cpu_period > 0 { self.cpu_period } else { DEFAULT_CPU_PERIOD };
        let millis = u32::try_from(self.cpu_quota.saturating_mul(1000) / period).unwrap_or(u32::MAX);
        Limits {
            memory_bytes: u64::try_from(self.memory_limit_in_bytes).ok().filter(|&bytes| bytes > 0),
            cpu_millis: (self.cpu_quota > 0).then_some(millis.max(1)),
            cpu_shares: u32::try_from(self.cpu_shares).ok().filter(|&shares| shares > 0),
        }
    }
}

impl From<v1::LinuxContainerResources> for Resources {
    fn from(linux: v1::LinuxContainerResources) -> Self {
        Self {
            cpu_period: linux.cpu_period,
            cpu_quota: linux.cpu_quota,
            cpu_shares: linux.cpu_shares,
            memory_limit_in_bytes: linux.memory_limit_in_bytes,
        }
    }
}

impl From<Resources> for v1::ContainerResources {
    fn from(resources: Resources) -> Self {
        let linux = v1::LinuxContainerResources {
            cpu_period: resources.cpu_period,
            cpu_quota: resources.cpu_quota,
            cpu_shares: resources.cpu_shares,
            memory_limit_in_bytes: resources.memory_limit_in_bytes,
            ..Default::default()
        };
        Self { linux: Some(linux), windows: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> SandboxSpec {
        let metadata = v1::PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 };
        let config = v1::PodSandboxConfig {
            metadata: Some(metadata),
            log_directory: "/var/log/pods/n_p_u".into(),
            ..Default::default()
        };
        SandboxSpec::parse(config, String::new()).unwrap()
    }

    fn config() -> v1::ContainerConfig {
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 2 }),
            image: Some(v1::ImageSpec { image: "img:1".into(), ..Default::default() }),
            log_path: "c/2.log".into(),
            ..Default::default()
        }
    }

    fn refusal(config: v1::ContainerConfig) -> String {
        parse(config, &sandbox()).unwrap_err().to_string()
    }

    #[test]
    fn what_a_guest_cannot_have_is_refused_by_name() {
        let device = v1::Device { host_path: "/dev/fuse".into(), ..Default::default() };
        assert!(refusal(v1::ContainerConfig { devices: vec![device], ..config() }).contains("/dev/fuse"));
        let device = v1::CdiDevice { name: "vendor.com/gpu=0".into() };
        assert!(refusal(v1::ContainerConfig { cdi_devices: vec![device], ..config() }).contains("vendor.com/gpu=0"));
        let security = v1::LinuxContainerSecurityContext { privileged: true, ..Default::default() };
        let linux = v1::LinuxContainerConfig { security_context: Some(security), resources: None };
        assert!(refusal(v1::ContainerConfig { linux: Some(linux), ..config() }).contains("privileged"));
    }

    #[test]
    fn a_log_stays_in_its_directory() {
        let (spec, _) = parse(config(), &sandbox()).unwrap();
        assert_eq!(spec.log_path.as_deref(), Some(Path::new("/var/log/pods/n_p_u/c/2.log")));
        for path in ["../x", "/etc/passwd", "c/../../x"] {
            assert!(refusal(v1::ContainerConfig { log_path: path.into(), ..config() }).contains("log_path"), "{path}");
        }
    }

    #[test]
    fn an_http_guest_is_served_on_its_first_tcp_port() {
        let ports = r#"[{"containerPort":53,"protocol":"UDP"},{"name":"web","containerPort":8080,"protocol":"TCP"}]"#;
        let annotations: BTreeMap<_, _> = [(cri::names::CONTAINER_PORTS.to_owned(), ports.to_owned())].into();
        let (_, request) = parse(v1::ContainerConfig { annotations, ..config() }, &sandbox()).unwrap();
        assert_eq!(request.http.port, 8080);
        assert_eq!(parse(config(), &sandbox()).unwrap().1.http.port, 80);
    }

    #[test]
    fn a_pod_says_how_many_requests_its_instances_answer() {
        let wants = |value: &str| SandboxSpec {
            annotations: [(HTTP_REQUESTS_PER_INSTANCE.to_owned(), value.to_owned())].into(),
            ..sandbox()
        };
        let requests = |sandbox| parse(config(), &sandbox).map(|(_, request)| request.http.requests_per_instance);
        assert_eq!(requests(sandbox()).unwrap(), None, "it is left to the kind of guest");
        assert_eq!(requests(wants("1000")).unwrap().map(std::num::NonZeroU32::get), Some(1000));
        for wrong in ["0", "-1", "many", ""] {
            let refusal = requests(wants(wrong)).unwrap_err().to_string();
            assert!(refusal.contains(HTTP_REQUESTS_PER_INSTANCE), "{wrong:?}: {refusal}");
        }
    }

    #[test]
    fn cgroup_words_become_limits() {
        let limits = |cpu_quota, cpu_period, memory_limit_in_bytes| {
            Resources { cpu_quota, cpu_period, memory_limit_in_bytes, cpu_shares: 0 }.limits()
        };
        assert_eq!(limits(0, 0, 0), Limits::default());
        assert_eq!(limits(-1, 100_000, -1), Limits::default());
        let quarter = Limits { cpu_millis: Some(250), memory_bytes: Some(64 << 20), cpu_shares: None };
        assert_eq!(limits(25_000, 100_000, 64 << 20), quarter);
        assert_eq!(limits(1, 100_000, 0).cpu_millis, Some(1));
        assert_eq!(limits(i64::MAX, 1, 0).cpu_millis, Some(u32::MAX));
    }

    #[test]
    fn a_change_of_resources_leaves_what_it_does_not_name() {
        let now = Resources { cpu_period: 100_000, cpu_quota: 50_000, cpu_shares: 2, memory_limit_in_bytes: 1 << 20 };
        assert_eq!(now.changed(Resources::default()), now);
        let changed = now.changed(Resources { cpu_quota: -1, memory_limit_in_bytes: 2 << 20, ..Resources::default() });
        assert_eq!(changed.limits(), Limits { cpu_millis: None, memory_bytes: Some(2 << 20), cpu_shares: Some(2) });
        assert_eq!((changed.cpu_period, changed.cpu_shares), (100_000, 2));
    }

    #[test]
    fn environments_are_text() {
        let entry = |key: &str, value: &[u8]| v1::KeyValue { key: key.into(), value: value.to_vec() };
        assert!(environment(entry("A", b"b")).is_ok());
        for bad in [entry("", b"x"), entry("A=B", b"x"), entry("A", b"\xff"), entry("A", b"\0")] {
            assert!(environment(bad).is_err());
        }
    }
}
