//! Effects: the actions of a plan, carried out.
//!
//! Comes in: one [`Action`] of one pod. Goes out: its [`Outcome`], always exactly one. Never here: a decision; what fails
//! is told, and the plan says what comes of it. Effects never call back into the worker.

mod hook;
mod image;
mod log_files;
pub mod messages;
mod pull_secrets;
mod termination;
pub mod view;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cri::Client;
use cri::client::CallError;
use decide::event::{Failure, Outcome, ProbeResult};
use decide::hosts::{self, PodNames};
use decide::names::{ContainerId, ContainerName, ImageId, SandboxId};
use decide::observed::{Exit, Instance, InstanceState, Sandbox};
use decide::plan::Action;
use decide::pod::{Container, Pod, Resources};
use decide::report::Report;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::dns::{DnsSettings, dns_config};
use crate::environment::{Addresses, container_environment};
use crate::objects::Objects;
use crate::prober::{Asked, Prober};
use crate::pulls::Pulls;
use crate::volumes::{Hosts, Volumes};

pub use log_files::LogFiles;

/// What effects work with, shared by all pods.
pub struct Effects {
    /// The runtime.
    pub runtime: Client,
    /// The pods' volumes.
    pub volumes: Arc<Volumes>,
    /// ConfigMaps, Secrets and Services.
    pub objects: Objects,
    /// Who asks containers how they are.
    pub prober: Prober,
    /// How names are resolved.
    pub dns: DnsSettings,
    /// Where container logs go, and when.
    pub logs: LogFiles,
    /// What a container without limits may use, for its environment.
    pub allocatable: watch::Receiver<Resources>,
    /// What the pulls of all pods share.
    pub pulls: Arc<Pulls>,
    /// The time.
    pub clock: Clock,
}

/// What an effect needs to know of its pod beside the action.
#[derive(Clone)]
pub struct Subject {
    /// The pod as it was when the action was planned.
    pub pod: Arc<Pod>,
    /// The addresses of its sandbox.
    pub pod_ips: Vec<IpAddr>,
    /// The addresses of the node.
    pub host_ips: Vec<IpAddr>,
    /// The newest sandbox's number.
    pub sandbox_attempt: u32,
}

/// Takes the reports that an effect makes on its way.
pub type Say<'a> = &'a (dyn Fn(Report) + Send + Sync);

impl Effects {
    /// Carries out one action.
    pub async fn perform(&self, subject: &Subject, action: Action, say: Say<'_>) -> Outcome {
        let pod = &subject.pod;
        match action {
            Action::PrepareVolumes => Outcome::VolumesPrepared(self.prepare_volumes(pod).await),
            Action::ReleaseVolumes => Outcome::VolumesReleased(self.release_volumes(pod).await),
            Action::RunSandbox { attempt } => Outcome::SandboxRun(self.run_sandbox(pod, attempt, say).await),
            Action::StopSandbox { id } => {
                let result = self.runtime.stop_pod_sandbox(id.as_str()).await;
                Outcome::SandboxStopped { id, result: gone_is_done(result, "KillPodSandboxError") }
            }
            Action::RemoveSandbox { id } => {
                let result = self.runtime.remove_pod_sandbox(id.as_str()).await;
                Outcome::SandboxRemoved { id, result: gone_is_done(result, "RemovePodSandboxError") }
            }
            Action::PullImage { container, .. } => {
                let result = match pod.container(&container) {
                    Some(spec) => self.ensure_images(pod, spec, say).await,
                    None => Err(unknown_container(&container)),
                };
                Outcome::ImagePulled { container, result }
            }
            Action::CreateContainer { container, sandbox, attempt, image } => {
                let result = match pod.container(&container) {
                    Some(spec) => self.create_container(subject, spec, &sandbox, attempt, &image).await,
                    None => Err(unknown_container(&container)),
                };
                Outcome::ContainerCreated { container, attempt, result: result.map(Box::new) }
            }
            Action::StartContainer { container, id } => {
                let result = self.start_container(pod, &container, &id).await;
                Outcome::ContainerStarted { container, id, result }
            }
            Action::RunPostStart { container, id } => {
                let result = self.post_start(subject, &container, &id, say).await;
                Outcome::PostStartRun { container, id, result }
            }
            Action::RunPreStop { container, id, grace, .. } => {
                let result = self.pre_stop(subject, &container, &id, grace, say).await;
                Outcome::PreStopRun { container, id, result }
            }
            Action::UpdateResources { container, id, resources } => {
                let updated =
                    self.runtime.update_container_resources(id.as_str(), messages::resources(&resources)).await;
                let result = updated.map_err(|error| Failure::new("ResizeError", error.message().to_owned()));
                Outcome::ResourcesUpdated { container, id, resources, result }
            }
            Action::StopContainer { container, id, grace, .. } => {
                let result = self.stop_container(&id, grace).await;
                Outcome::ContainerStopped { container, id, result }
            }
            Action::Probe { container, id, kind, .. } => {
                let result = match pod.container(&container) {
                    Some(spec) => {
                        let pod_ip = subject.pod_ips.first().copied();
                        self.prober.probe(Asked { pod, pod_ip, container: spec, id: &id }, kind).await
                    }
                    None => ProbeResult::Errored { state: "unknown", message: unknown_container(&container).message },
                };
                Outcome::Probed { container, id, kind, result }
            }
            Action::RemoveContainer { container, id, keep_log } => {
                let result = self.remove_container(pod, &container, &id, keep_log).await;
                Outcome::ContainerRemoved { container, id, result }
            }
        }
    }

    async fn prepare_volumes(&self, pod: &Pod) -> Result<(), Failure> {
        self.objects.register(pod);
        self.volumes.prepare(pod).await
    }

    async fn release_volumes(&self, pod: &Pod) -> Result<(), Failure> {
        self.volumes.release(&pod.uid).await?;
        self.objects.unregister(&pod.uid);
        Ok(())
    }

    fn sandbox_message(&self, pod: &Pod, attempt: u32) -> Result<(cri::v1::PodSandboxConfig, Vec<Report>), Failure> {
        let (dns, reports) = dns_config(pod, &self.dns);
        let hostname = hosts::sandbox_hostname(pod, &self.names(pod))
            .map_err(|error| Failure::new("CreatePodSandboxError", error.to_string()))?;
        Ok((messages::sandbox(pod, attempt, self.logs.pods(), hostname, dns), reports))
    }

    fn names(&self, pod: &Pod) -> PodNames {
        PodNames::of(pod, &self.dns.cluster_domain)
    }

    async fn run_sandbox(&self, pod: &Pod, attempt: u32, say: Say<'_>) -> Result<Sandbox, Failure> {
        let (config, reports) = self.sandbox_message(pod, attempt)?;
        reports.into_iter().for_each(say);
        let no_logs = |message| Failure::new("CreatePodSandboxError", message);
        self.logs.prepare(&messages::identity(pod), None).await.map_err(no_logs)?;
        let handler = match &pod.runtime_class {
            Some(class) => self.objects.runtime_handler(class).await,
            None => Ok(String::new()),
        };
        let handler = handler.map_err(|error| Failure::new("CreatePodSandboxError", error.message()))?;
        let failed = |error: CallError| Failure::new("CreatePodSandboxError", error.message().to_owned());
        let id = self.runtime.run_pod_sandbox(config, &handler).await.map_err(failed)?;
        let status = self.runtime.pod_sandbox_status(&id).await.map_err(failed)?.status;
        let status =
            status.ok_or_else(|| Failure::new("CreatePodSandboxError", format!("sandbox {id} has no status")))?;
        Ok(view::sandbox(&status))
    }

    async fn create_container(
        &self,
        subject: &Subject,
        container: &Container,
        sandbox: &SandboxId,
        attempt: u32,
        image: &ImageId,
    ) -> Result<Instance, Failure> {
        let pod = &subject.pod;
        let addresses = Addresses { pod_ips: subject.pod_ips.clone(), host_ips: subject.host_ips.clone() };
        let allocatable = *self.allocatable.borrow();
        let environment = container_environment(&self.objects, pod, container, &addresses, &allocatable).await?;
        let mounts = self.mounts(subject, container, attempt, &environment.env).await?;
        let config = messages::container(pod, container, attempt, image, environment, mounts)?;
        let no_logs = |message| Failure::new("CreateContainerConfigError", message);
        self.logs.prepare(&messages::identity(pod), Some(&container.name)).await.map_err(no_logs)?;
        let (sandbox_config, _) = self.sandbox_message(pod, subject.sandbox_attempt)?;
        let failed = |error: CallError| Failure::new("CreateContainerError", error.message().to_owned());
        let created = self.runtime.create_container(sandbox.as_str(), config, sandbox_config).await;
        let id =
            created.map_err(|error| image::untrusted(&container.image, &error).unwrap_or_else(|| failed(error)))?;
        let status = self.runtime.container_status(&id).await.map_err(failed)?;
        Ok(view::instance(&status, sandbox.as_str()).await)
    }

    /// The volumes, and the files that every container gets.
    async fn mounts(
        &self,
        subject: &Subject,
        container: &Container,
        attempt: u32,
        env: &[(String, String)],
    ) -> Result<Vec<cri::v1::Mount>, Failure> {
        let pod = &subject.pod;
        let mut mounts = self.volumes.mounts(pod, container, env).await?;
        let guest = &container.termination_message_path;
        mounts.push(self.volumes.termination_message(&pod.uid, &container.name, attempt, guest).await?);
        let content = match subject.pod_ips.as_slice() {
            _ if pod.network.host_network => Some(Hosts::OfNode(Arc::clone(pod))),
            [] => None,
            pod_ips => Some(Hosts::OfPod(hosts::file(pod, &self.names(pod), pod_ips))),
        };
        if let Some(content) = content.filter(|_| hosts::is_wanted(container)) {
            mounts.push(self.volumes.hosts_file(&pod.uid, content).await?);
        }
        Ok(mounts)
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<Exit, Failure> {
        let failed = |error: CallError| Failure::new("KillContainerError", format!("{error}: {}", error.message()));
        let status = match self.runtime.stop_container(id.as_str(), grace).await {
            Ok(()) => self.runtime.container_status(id.as_str()).await,
            Err(error) => Err(error),
        };
        let status = match status {
            Ok(status) => status,
            Err(error) if error.is_not_found() => return Ok(Exit::lost(None, self.clock.now())),
            Err(error) => return Err(failed(error)),
        };
        match view::instance(&status, "").await.state {
            InstanceState::Exited(exit) => Ok(exit),
            _ => Err(Failure::new("KillContainerError", format!("container {id} still runs after its stop"))),
        }
    }

    async fn start_container(
        &self,
        pod: &Pod,
        container: &ContainerName,
        id: &ContainerId,
    ) -> Result<Timestamp, Failure> {
        let failed = |error: CallError| Failure::new("RunContainerError", error.message().to_owned());
        self.runtime.start_container(id.as_str()).await.map_err(failed)?;
        let status = self.runtime.container_status(id.as_str()).await.map_err(failed)?;
        self.logs.link(&messages::identity(pod), container, id, &status.log_path).await;
        match view::instance(&status, "").await.state {
            InstanceState::Running { started_at } => Ok(started_at),
            // It may have run and ended by now: it did start.
            InstanceState::Exited(exit) => Ok(exit.started_at.unwrap_or(exit.finished_at)),
            InstanceState::Created | InstanceState::Unknown => {
                let message = format!("container {id} is not running after its start");
                Err(Failure::new("RunContainerError", message))
            }
        }
    }

    async fn remove_container(
        &self,
        pod: &Pod,
        container: &ContainerName,
        id: &ContainerId,
        keep_log: bool,
    ) -> Result<(), Failure> {
        // Only the runtime can say where the log is, and only while it has the container.
        let status = self.runtime.container_status(id.as_str()).await;
        let removed = self.runtime.remove_container(id.as_str()).await;
        gone_is_done(removed, "RemoveContainerError")?;
        let log = status.as_ref().ok().map(|status| status.log_path.as_str()).filter(|_| !keep_log);
        self.logs.remove_container(&messages::identity(pod), container, id, log).await;
        if let Ok(status) = &status {
            termination::remove(status).await;
        }
        Ok(())
    }
}

fn unknown_container(container: &ContainerName) -> Failure {
    Failure::new("CreateContainerConfigError", format!("the pod has no container {container}"))
}

/// What is not there any more needs no stopping or removing.
fn gone_is_done(result: Result<(), CallError>, reason: &'static str) -> Result<(), Failure> {
    match result {
        Err(error) if !error.is_not_found() => Err(Failure::new(reason, format!("{error}: {}", error.message()))),
        _ => Ok(()),
    }
}
