//! Calls about containers: create, start, stop, remove, list, resize, reopen the log.

use std::sync::Arc;
use std::time::Duration;

use cri::v1;
use cri::v1::ContainerEventType;
use image::{Content, Image, Lease, Reference, Wasm};
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use crate::code::Code;
use crate::container::config::{self, ContainerSpec, Request, Resources};
use crate::container::mounts::{self, ImageMount, MountRequest, Prepared, Wanted};
use crate::container::stdio::Stdio;
use crate::container::task::{COMMANDS, Files, Launch, Task, record};
use crate::container::{Command, Container, State};
use crate::guest::{Application, Http, Mount};
use crate::id::{ContainerId, Nanoseconds};
use crate::images::{Held, Programs, exact_reference};
use crate::records::Records;
use crate::runtime::Core;
use crate::sandbox::Sandbox;
use crate::service::applications::{Assembled, Place, Planned, without_config};
use crate::service::error::ServiceError;
use crate::service::sandboxes::has_labels;

/// The container's directory, which is removed again unless the container is made.
struct Draft<'a> {
    records: &'a Records,
    id: Option<ContainerId>,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if let Some(error) = self.id.take().and_then(|id| self.records.remove(id.as_str()).err()) {
            tracing::warn!(%error, "files of a container that was not made are left");
        }
    }
}

impl Core {
    /// Makes a container; whatever cannot run is refused here already. A caller that stops waiting leaves nothing behind.
    pub(super) async fn create_container(
        self: &Arc<Self>,
        request: v1::CreateContainerRequest,
    ) -> Result<ContainerId, ServiceError> {
        if self.closing.is_cancelled() {
            return Err(ServiceError::ShuttingDown);
        }
        let sandbox = self.registry().sandbox(&request.pod_sandbox_id)?;
        let not_ready = || ServiceError::SandboxNotReady(sandbox.id.clone());
        let network = sandbox.network().ok_or_else(not_ready)?;
        let config = request.config.ok_or_else(|| ServiceError::invalid("config", "missing"))?;
        let (mut spec, request) = config::parse(config, &sandbox.spec)?;
        let Held { image, lease } = self.images.hold(&spec.image, asked_image(&spec)).await?;
        let env = environment(&request, &image);
        let working_dir = request.working_dir.clone().or_else(|| image.config.working_dir.clone());
        let programs = Programs {
            name: asked_image(&spec).to_owned(),
            image: image.clone(),
            path: env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone()),
            working_dir: working_dir.clone(),
        };
        let runs = self.what_runs(&programs, &spec, &request, &env).await?;
        let mut leases = vec![lease];
        leases.extend(self.mount_images(&mut spec.mounts).await?);
        name_image(&mut spec, &image);

        let id = ContainerId::random();
        let mut draft = Draft { records: &self.container_records, id: Some(id.clone()) };
        let prepared = self.prepare_files(&id, &sandbox, &spec, &request, &image).await?;
        let (root, message) = (prepared.root, prepared.termination_message);
        let program = match runs {
            Runs::Program { args, code } => {
                Launched { args, code, env, mounts: prepared.mounts, port: None, application: None }
            }
            Runs::Application(planned) => {
                let place = Place {
                    directory: self.container_records.directory_of(id.as_str()),
                    mounts: prepared.mounts,
                    pairs: sandbox.pairs.clone(),
                };
                assemble(planned, &programs, place).await?
            }
        };
        let (state, watched) = watch::channel(State::Created);
        let (resources, resources_now) = watch::channel(spec.resources);
        let (commands, asked) = mpsc::channel(COMMANDS);
        let container = Arc::new(Container {
            id: id.clone(),
            sandbox_id: sandbox.id.clone(),
            spec,
            programs: Some(programs),
            resources: resources_now,
            created_at: Nanoseconds::now(),
            stdio: Arc::new(Stdio::new(request.stdin)),
            state: watched,
            commands,
        });
        let (core, written) = (Arc::clone(self), record(&container, &State::Created));
        let written =
            tokio::task::spawn_blocking(move || core.container_records.write(written.id.as_str(), &written)).await;
        written.map_err(|_| ServiceError::ShuttingDown)??;
        self.registry().insert_container(Arc::clone(&container))?;
        draft.id = None;

        let launch = Launch {
            args: program.args,
            env: program.env,
            working_dir,
            mounts: program.mounts,
            files: Files { root, leases },
            tty: request.tty,
            http: Http { port: program.port.unwrap_or(request.http.port), ..request.http },
            hostname: sandbox.spec.hostname.clone(),
            termination_message: message,
            code: program.code,
            network,
            application: program.application,
        };
        let (core, of) = (Arc::clone(self), Arc::clone(&sandbox));
        let task = Task { core, sandbox: of, container, state, resources, commands: asked };
        self.emit(ContainerEventType::ContainerCreatedEvent, id.as_str(), &sandbox);
        tokio::spawn(task.run(launch).instrument(sandbox.span()));
        Ok(id)
    }

    /// What the image and the request name: a program, or an application.
    async fn what_runs(
        &self,
        programs: &Programs,
        spec: &ContainerSpec,
        request: &Request,
        env: &[(String, String)],
    ) -> Result<Runs, ServiceError> {
        let image = &programs.image;
        if let Content::Spin(spin) = &image.content {
            let (_, config) = without_config(&spec.mounts);
            return Ok(Runs::Application(self.plan(&programs.name, spin, env, config).await?));
        }
        let program = self.images.program(programs, arguments(request, image)).await?;
        let code = self.code(&programs.name, &program.wasm).await?;
        Ok(Runs::Program { args: program.args, code })
    }

    /// The code of a wasm file of the image with this name.
    pub(super) async fn code(&self, image: &str, wasm: &Wasm) -> Result<Arc<Code>, ServiceError> {
        let code = self.engines.code(&wasm.path, &wasm.digest.to_string()).await;
        code.map_err(|source| ServiceError::Code { image: image.to_owned(), source })
    }

    /// Finds the directories of the images that are mounted.
    async fn mount_images(&self, mounts: &mut [MountRequest]) -> Result<Vec<Lease>, ServiceError> {
        let mut leases = Vec::new();
        for mount in mounts {
            let Some(ImageMount { image: name, sub_path }) = &mount.image else { continue };
            let Held { image, lease } = self.images.hold(name, name).await?;
            mount.host = self.images.directory(name, &image, sub_path).await?;
            leases.push(lease);
        }
        Ok(leases)
    }

    async fn prepare_files(
        &self,
        id: &ContainerId,
        sandbox: &Arc<Sandbox>,
        spec: &ContainerSpec,
        request: &Request,
        image: &Image,
    ) -> Result<Prepared, ServiceError> {
        let directory = self.container_records.directory_of(id.as_str());
        let is_application = matches!(image.content, Content::Spin(_));
        let mounts = if is_application { without_config(&spec.mounts).0 } else { spec.mounts.clone() };
        let sandbox = Arc::clone(sandbox);
        // The files of a Spin application are nobody's to change.
        let read_only_root = request.read_only_root || is_application;
        let termination_message_path = request.termination_message_path.clone();
        let working_dir = request.working_dir.clone().or_else(|| image.config.working_dir.clone());
        let files = match &image.content {
            Content::Rootfs(rootfs) => Some(rootfs.path()),
            Content::Wasm(_) | Content::Spin(_) => None,
        };
        let prepared = tokio::task::spawn_blocking(move || {
            mounts::prepare(&Wanted {
                directory: &directory,
                image: files.as_deref(),
                mounts: &mounts,
                read_only_root,
                termination_message_path: termination_message_path.as_deref(),
                working_dir: working_dir.as_deref(),
                hostname: &sandbox.spec.hostname,
                dns: &sandbox.spec.dns,
            })
        });
        Ok(prepared.await.map_err(|_| ServiceError::ShuttingDown)??)
    }

    pub(super) async fn start_container(&self, id: &str) -> Result<(), ServiceError> {
        let container = self.registry().container(id)?;
        container.ask(Command::Start).await
    }

    /// Stops a container and waits for its end; one that has ended or is gone stays so. Below 0, `timeout` is 0.
    pub(super) async fn stop_container(&self, id: &str, timeout: i64) -> Result<(), ServiceError> {
        let grace = Duration::from_secs(u64::try_from(timeout).unwrap_or(0));
        let found = self.registry().container(id);
        match found {
            Ok(container) => container.stop(grace).await,
            Err(error) => gone_is_fine(Err(error)),
        }
    }

    /// Removes a container, also a running one; one that is gone stays so.
    pub(super) async fn remove_container(&self, id: &str) -> Result<(), ServiceError> {
        let found = self.registry().container(id);
        match found {
            Ok(container) => gone_is_fine(container.ask(Command::Remove).await),
            Err(error) => gone_is_fine(Err(error)),
        }
    }

    pub(super) async fn reopen_container_log(&self, id: &str) -> Result<(), ServiceError> {
        let container = self.registry().container(id)?;
        container.ask(Command::ReopenLog).await
    }

    /// Changes the limits of a container that has not ended: of its guest and of the commands that run beside it.
    pub(super) async fn update_container_resources(
        &self,
        request: v1::UpdateContainerResourcesRequest,
    ) -> Result<(), ServiceError> {
        let container = self.registry().container(&request.container_id)?;
        let resources = request.linux.map(Resources::from).unwrap_or_default();
        container.ask(|answer| Command::Resize { resources, answer }).await
    }

    pub(super) fn list_containers(&self, filter: &v1::ContainerFilter) -> Vec<v1::Container> {
        let containers = self.registry().containers_with(&filter.label_selector);
        let items = containers.iter().map(|container| container.item());
        items
            .filter(|item| {
                item.id.starts_with(&filter.id)
                    && item.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
                    && filter.state.is_none_or(|wanted| wanted.state == item.state)
                    && has_labels(&item.labels, &filter.label_selector)
            })
            .collect()
    }
}

/// What a container is to run.
enum Runs {
    Program { args: Vec<String>, code: Arc<Code> },
    Application(Planned),
}

/// The same, with its files.
struct Launched {
    args: Vec<String>,
    code: Arc<Code>,
    env: Vec<(String, String)>,
    mounts: Vec<Mount>,
    /// Where it says itself that it is served.
    port: Option<u16>,
    application: Option<Application>,
}

async fn assemble(planned: Planned, programs: &Programs, place: Place) -> Result<Launched, ServiceError> {
    let Content::Spin(spin) = programs.image.content.clone() else {
        return Err(ServiceError::invalid("image", "it is no Spin application"));
    };
    let (port, name) = (planned.plan.port, programs.name.clone());
    let assembled = tokio::task::spawn_blocking(move || planned.assemble(&name, &spin, &place)).await;
    let Assembled { code, id, env, mounts, application } = assembled.map_err(|_| ServiceError::ShuttingDown)??;
    Ok(Launched { args: vec![id], code, env, mounts, port, application: Some(application) })
}

/// The image as the pod's author wrote it, for messages.
fn asked_image(spec: &ContainerSpec) -> &str {
    if spec.user_specified_image.is_empty() { &spec.image } else { &spec.user_specified_image }
}

/// Says which image it is, by the name that was asked for if the image still has it, else by one of its others.
fn name_image(spec: &mut ContainerSpec, image: &Image) {
    spec.image_id = image.id.to_string();
    spec.image_ref = exact_reference(image);
    let asked = [&spec.user_specified_image, &spec.image].map(|name| Reference::parse(name).ok());
    let mut names = image.references.iter().chain(&image.digests);
    let known = names.clone().find(|name| asked.iter().flatten().any(|asked| asked == *name));
    if let Some(name) = known.or_else(|| names.next()) {
        spec.image = name.to_string();
    }
}

/// As Kubernetes has it: the pod's command replaces the image's entrypoint and its arguments too; the pod's arguments
/// replace the image's. An image that is one wasm file, which neither names, is started by its own name.
fn arguments(request: &Request, image: &Image) -> Vec<String> {
    let mut arguments =
        if request.command.is_empty() { image.config.entrypoint.clone() } else { request.command.clone() };
    if arguments.is_empty() && image.content.wasm().is_some() {
        arguments.push(program_name(image));
    }
    let replaced = !request.command.is_empty() || !request.args.is_empty();
    arguments.extend_from_slice(if replaced { &request.args } else { &image.config.cmd });
    arguments
}

fn program_name(image: &Image) -> String {
    let name = image.references.first().or(image.digests.first());
    let name = name.and_then(|name| name.repository().rsplit('/').next());
    format!("{}.wasm", name.unwrap_or("main"))
}

/// The image's environment with the container's over it.
fn environment(request: &Request, image: &Image) -> Vec<(String, String)> {
    let of_image = image.config.env.iter().filter_map(|entry| entry.split_once('='));
    let mut environment: Vec<(String, String)> = Vec::new();
    for (name, value) in of_image.map(|(name, value)| (name.to_owned(), value.to_owned())).chain(request.env.clone()) {
        match environment.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => environment.push((name, value)),
        }
    }
    environment
}

fn gone_is_fine(result: Result<(), ServiceError>) -> Result<(), ServiceError> {
    match result {
        Err(ServiceError::NoContainer(_)) => Ok(()),
        other => other,
    }
}
