//! A container runtime of a few lists: what it is told to do, it does at once; containers live as scripted.

use decide::event::{Failure, Image, ImageOrigin, Outcome, ProbeResult, RuntimeView};
use decide::names::{ContainerId, ContainerName, ImageId, SandboxId};
use decide::observed::{Exit, Instance, InstanceState, PostStart, PreStop, Sandbox, SandboxState};
use decide::plan::Action;
use decide::pod::{Pod, ProbeKind};
use decide::time::{Timestamp, after};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How one instance of a container lives.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Life {
    /// Its exit code, if it ends by itself.
    #[serde(default)]
    pub(crate) exits: Option<i32>,
    /// After how many seconds.
    #[serde(default)]
    pub(crate) after: u64,
    /// How many seconds it takes to stop when asked to.
    #[serde(default)]
    pub(crate) stops_in: u64,
    /// The exit code when it stops as asked.
    #[serde(default = "terminated")]
    pub(crate) stops_with: i32,
    /// Its last words.
    #[serde(default)]
    pub(crate) says: String,
    /// How its `postStart` goes.
    #[serde(default)]
    pub(crate) post_start: Run,
    /// How its `preStop` goes.
    #[serde(default)]
    pub(crate) pre_stop: Run,
}

fn terminated() -> i32 {
    143
}

/// What the probes of a container tell; what is absent succeeds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Health {
    #[serde(default)]
    pub(crate) startup: Told,
    #[serde(default)]
    pub(crate) liveness: Told,
    #[serde(default)]
    pub(crate) readiness: Told,
}

/// What one probe tells.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Told {
    #[default]
    Succeeds,
    Warns(String),
    Fails(String),
    Errs(String),
}

impl Health {
    fn result(&self, kind: ProbeKind) -> ProbeResult {
        let told = match kind {
            ProbeKind::Startup => &self.startup,
            ProbeKind::Liveness => &self.liveness,
            ProbeKind::Readiness => &self.readiness,
        };
        match told.clone() {
            Told::Succeeds => ProbeResult::Success,
            Told::Warns(why) => ProbeResult::Warning(why),
            Told::Fails(why) => ProbeResult::Failure(why),
            Told::Errs(message) => ProbeResult::Errored { state: "unknown", message },
        }
    }
}

/// How one run of a hook goes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Run {
    /// How many seconds it takes.
    #[serde(default)]
    pub(crate) takes: u64,
    /// What it fails with, if it fails.
    #[serde(default)]
    pub(crate) fails: Option<String>,
}

/// The runtime.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime {
    pub(crate) sandboxes: Vec<Sandbox>,
    pub(crate) containers: Vec<(ContainerName, Instance)>,
    /// Images on the node.
    pub(crate) images: BTreeSet<String>,
    /// Lives of successive instances; the last one goes for all that follow.
    pub(crate) lives: BTreeMap<String, Vec<Life>>,
    /// The instances whose `preStop` ran to its end, in order.
    pub(crate) pre_stops: Vec<ContainerId>,
    /// What each instance holds, in bytes: no limit can be less.
    pub(crate) memory_used: u64,
    /// What probes tell, by container.
    pub(crate) health: BTreeMap<String, Health>,
    /// Successful starts, by container.
    pub(crate) starts: BTreeMap<ContainerName, u32>,
    /// When instances will exit, and how.
    exits: BTreeMap<ContainerId, (Timestamp, i32)>,
    used_ids: BTreeSet<String>,
}

impl Runtime {
    pub(crate) fn view(&self, as_of: Timestamp) -> RuntimeView {
        RuntimeView { as_of, sandboxes: self.sandboxes.clone(), containers: self.containers.clone() }
    }

    pub(crate) fn next_exit(&self) -> Option<Timestamp> {
        self.exits.values().map(|(at, _)| *at).min()
    }

    /// Containers whose time has come end.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        let due: Vec<_> =
            self.exits.iter().filter(|(_, (at, _))| *at <= now).map(|(id, exit)| (id.clone(), *exit)).collect();
        for (id, (at, code)) in due {
            self.end(&id, code, at);
        }
    }

    pub(crate) fn stop_time(&self, id: &ContainerId) -> Duration {
        self.life_of(id).map_or(Duration::ZERO, |life| Duration::from_secs(life.stops_in))
    }

    fn stop_code(&self, id: &ContainerId) -> i32 {
        self.life_of(id).map_or_else(terminated, |life| life.stops_with)
    }

    fn life_of(&self, id: &ContainerId) -> Option<&Life> {
        let instance = self.containers.iter().find(|(_, instance)| instance.id == *id);
        instance.and_then(|(name, instance)| self.life(name, instance.attempt))
    }

    /// How the hook that `action` runs goes.
    pub(crate) fn hook(&self, action: &Action) -> Run {
        let (container, id, post_start) = match action {
            Action::RunPostStart { container, id } => (container, id, true),
            Action::RunPreStop { container, id, .. } => (container, id, false),
            _ => return Run::default(),
        };
        let instance = self.containers.iter().find(|(_, instance)| instance.id == *id);
        let life = instance.and_then(|(_, instance)| self.life(container, instance.attempt)).cloned();
        life.map(|life| if post_start { life.post_start } else { life.pre_stop }).unwrap_or_default()
    }

    fn life(&self, name: &ContainerName, attempt: u32) -> Option<&Life> {
        let lives = self.lives.get(name.as_str())?;
        lives.get(usize::try_from(attempt).unwrap()).or(lives.last())
    }

    /// An instance ends; does nothing if it does not run.
    pub(crate) fn end(&mut self, id: &ContainerId, code: i32, at: Timestamp) {
        self.exits.remove(id);
        let message = self.life_of(id).map_or_else(String::new, |life| life.says.clone());
        for (_, instance) in self.containers.iter_mut().filter(|(_, instance)| instance.id == *id) {
            if let InstanceState::Running { started_at } = instance.state {
                let reason = if code == 0 { "Completed" } else { "Error" };
                instance.state = InstanceState::Exited(Exit {
                    started_at: Some(started_at),
                    finished_at: at,
                    code,
                    reason: reason.into(),
                    message: message.clone(),
                });
            }
        }
    }

    /// The newest sandbox dies with everything in it.
    pub(crate) fn sandbox_dies(&mut self, now: Timestamp) {
        let Some(sandbox) = self.sandboxes.last_mut() else {
            return;
        };
        sandbox.state = SandboxState::NotReady;
        let id = sandbox.id.clone();
        self.end_all_in(&id, now);
    }

    fn end_all_in(&mut self, sandbox: &SandboxId, now: Timestamp) {
        let inside: Vec<_> = self.containers.iter().filter(|(_, instance)| instance.sandbox == *sandbox).collect();
        let inside: Vec<_> = inside.into_iter().map(|(_, instance)| instance.id.clone()).collect();
        for id in inside {
            self.end(&id, 137, now);
        }
    }

    /// The runtime loses every trace of a container.
    pub(crate) fn forget(&mut self, container: &str) {
        let lost = |name: &ContainerName| name.as_str() == container;
        for (_, instance) in self.containers.iter().filter(|(name, _)| lost(name)) {
            self.exits.remove(&instance.id);
        }
        self.containers.retain(|(name, _)| !lost(name));
    }

    fn fresh_id(&mut self, wanted: String) -> String {
        let mut id = wanted;
        while !self.used_ids.insert(id.clone()) {
            id.push('x');
        }
        id
    }

    pub(crate) fn perform(&mut self, action: Action, pod: &Pod, now: Timestamp) -> Outcome {
        let hook_fails = self.hook(&action).fails;
        let ran = |reason| hook_fails.map_or(Ok(()), |message| Err(Failure::new(reason, message)));
        match action {
            Action::RunPostStart { container, id } => {
                Outcome::PostStartRun { container, id, result: ran("PostStartHookError") }
            }
            Action::RunPreStop { container, id, .. } => {
                self.pre_stops.push(id.clone());
                Outcome::PreStopRun { container, id, result: ran("PreStopHookError") }
            }
            Action::PrepareVolumes => Outcome::VolumesPrepared(Ok(())),
            Action::ReleaseVolumes => Outcome::VolumesReleased(Ok(())),
            Action::RunSandbox { attempt } => {
                let id = SandboxId::from(self.fresh_id(format!("sandbox-{attempt}")));
                let ips = vec![IpAddr::from([10, 0, 0, u8::try_from(attempt + 1).unwrap_or(255)])];
                let sandbox = Sandbox { id, attempt, state: SandboxState::Ready, ips, created_at: now };
                self.sandboxes.push(sandbox.clone());
                Outcome::SandboxRun(Ok(sandbox))
            }
            Action::StopSandbox { id } => {
                for sandbox in self.sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
                    sandbox.state = SandboxState::NotReady;
                }
                self.end_all_in(&id, now);
                Outcome::SandboxStopped { id, result: Ok(()) }
            }
            Action::RemoveSandbox { id } => {
                self.end_all_in(&id, now);
                self.sandboxes.retain(|sandbox| sandbox.id != id);
                self.containers.retain(|(_, instance)| instance.sandbox != id);
                Outcome::SandboxRemoved { id, result: Ok(()) }
            }
            Action::PullImage { container, image } => {
                let took = Duration::from_millis(1500);
                let origin = match self.images.insert(image.clone()) {
                    true => ImageOrigin::Pulled { took, waited: took, bytes: 65_536 },
                    false => ImageOrigin::Present,
                };
                let id = ImageId::from(format!("sha256:{image}"));
                let reference = format!("{image}@sha256:0123");
                Outcome::ImagePulled { container, result: Ok(Image { name: image, id, reference, origin }) }
            }
            Action::CreateContainer { container, sandbox, attempt, image } => {
                let spec = pod.container(&container).unwrap();
                let instance = Instance {
                    id: ContainerId::from(self.fresh_id(format!("{container}-{attempt}"))),
                    attempt,
                    sandbox,
                    image: spec.image.clone(),
                    image_reference: image.to_string(),
                    post_start: PostStart::Owed,
                    pre_stop: PreStop::Owed,
                    enforced: Some(spec.enforced()),
                    held: true,
                    state: InstanceState::Created,
                };
                self.containers.push((container.clone(), instance.clone()));
                Outcome::ContainerCreated { container, attempt, result: Ok(Box::new(instance)) }
            }
            Action::StartContainer { container, id } => {
                let life = self.containers.iter().find(|(_, instance)| instance.id == id);
                let life = life.and_then(|(name, instance)| self.life(name, instance.attempt));
                if let Some((Some(code), after_seconds)) = life.map(|life| (life.exits, life.after)) {
                    self.exits.insert(id.clone(), (after(now, Duration::from_secs(after_seconds)), code));
                }
                for (_, instance) in self.containers.iter_mut().filter(|(_, instance)| instance.id == id) {
                    if instance.state == InstanceState::Created {
                        instance.state = InstanceState::Running { started_at: now };
                        *self.starts.entry(container.clone()).or_default() += 1;
                    }
                }
                Outcome::ContainerStarted { container, id, result: Ok(now) }
            }
            Action::UpdateResources { container, id, resources } => {
                let refused = resources.memory_limit_bytes.is_some_and(|limit| limit < self.memory_used);
                let result = match refused {
                    true => Err(Failure::new("ResizeError", "memory limit below current usage")),
                    false => Ok(()),
                };
                if !refused {
                    for (_, instance) in self.containers.iter_mut().filter(|(_, instance)| instance.id == id) {
                        instance.enforced = Some(resources);
                    }
                }
                Outcome::ResourcesUpdated { container, id, resources, result }
            }
            Action::StopContainer { container, id, grace, .. } => {
                let too_slow = self.stop_time(&id) >= grace.max(Duration::from_millis(1));
                let code = if too_slow { 137 } else { self.stop_code(&id) };
                self.end(&id, code, now);
                let held = self.containers.iter().find(|(_, instance)| instance.id == id);
                let exit = held.and_then(|(_, instance)| instance.exit().cloned());
                Outcome::ContainerStopped { container, id, result: Ok(exit.unwrap_or_else(|| Exit::lost(None, now))) }
            }
            Action::Probe { container, id, kind, .. } => {
                let told = self.health.get(container.as_str()).cloned().unwrap_or_default().result(kind);
                let result = if self.runs(&id) { told } else { ProbeResult::Failure("connection refused".into()) };
                Outcome::Probed { container, id, kind, result }
            }
            Action::RemoveContainer { container, id, .. } => {
                self.exits.remove(&id);
                self.containers.retain(|(_, instance)| instance.id != id);
                Outcome::ContainerRemoved { container, id, result: Ok(()) }
            }
        }
    }

    pub(crate) fn runs(&self, id: &ContainerId) -> bool {
        let running = |instance: &Instance| matches!(instance.state, InstanceState::Running { .. });
        self.containers.iter().any(|(_, instance)| instance.id == *id && running(instance))
    }

    /// The largest number of instances of one container that execute now.
    pub(crate) fn most_alive(&self) -> usize {
        let mut alive: BTreeMap<&ContainerName, usize> = BTreeMap::new();
        for (name, instance) in &self.containers {
            *alive.entry(name).or_default() += usize::from(matches!(instance.state, InstanceState::Running { .. }));
        }
        alive.values().copied().max().unwrap_or(0)
    }
}
