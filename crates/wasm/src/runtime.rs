//! The runtime of one node: engines, images, addresses, and all sandboxes and containers.
//!
//! In come its options and, by its gRPC services, the kubelet's calls; out go running guests. What it knows outlives it in
//! records: after a restart, sandboxes are not ready and what ran has ended, nobody knows how (exit code 255, reason
//! `Unknown`), because guests live in this process. Nothing here knows of Kubernetes objects.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cri::v1;
use futures::future::join_all;
use rustix::fs::FlockOperation;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::code::CompilerProgram;
use crate::container::stdio::Stdio;
use crate::container::task::COMMANDS as CONTAINER_COMMANDS;
use crate::container::{self, Container, ContainerRecord};
use crate::engine::{EngineError, EngineOptions, Engines};
use crate::id::{Nanoseconds, SandboxId};
use crate::images::Images;
use crate::keyvalue;
use crate::records::{RecordError, Records};
use crate::registry::Registry;
use crate::route::Remembered;
use crate::sandbox::network::{Network, PodAddressMode};
use crate::sandbox::task::{COMMANDS as SANDBOX_COMMANDS, Held};
use crate::sandbox::{self, Sandbox, SandboxRecord};
use crate::service::error::{ServiceError, chain};

/// Events a reader may lag behind before it has to list anew.
const EVENTS: usize = 1024;
/// Where compiled code is, beneath what runtimes share.
const CODE: &str = "code";

/// What a [`Runtime`] needs to know.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// Where the records of sandboxes and containers are kept; made with mode 0700 if absent. One runtime at a time.
    pub state_dir: PathBuf,
    /// What compiles wasm, in a process of its own.
    pub compiler: CompilerProgram,
    /// Where images and compiled code are kept; any number of runtimes share it.
    pub shared_dir: PathBuf,
    /// OCI image layouts that images are looked for in before a registry is asked.
    pub image_layouts: Vec<PathBuf>,
    /// Registries that are spoken to without TLS, as `HOST` or `HOST:PORT`.
    pub plain_http_hosts: Vec<String>,
    /// A directory of containerd's `hosts.toml` files: mirrors, certificate authorities, client certificates.
    pub registry_hosts: Option<PathBuf>,
    /// A file that says which images need whose signature; without one, all are taken.
    pub trust_policy: Option<PathBuf>,
    /// The node's own address: that of pods on the host's network, and of all pods in host mode.
    pub node_address: IpAddr,
    /// Where pods get their addresses from.
    pub pod_address_mode: PodAddressMode,
    /// Threads that run guests; `None` is one per CPU.
    pub guest_threads: Option<usize>,
}

/// Why a runtime could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The records cannot be read, or their directories not be made.
    #[error("open the records")]
    Records(#[from] RecordError),
    /// The lock file cannot be opened.
    #[error("lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another runtime uses the directory.
    #[error("another runtime uses the state directory {}", .0.display())]
    InUse(PathBuf),
    /// The image store cannot be opened.
    #[error("open the images")]
    Images(#[from] image::StoreError),
    /// The trust policy cannot be kept to.
    #[error("read the trust policy")]
    Trust(#[from] image::TrustError),
    /// The engines cannot be built.
    #[error("build the engines")]
    Engines(#[from] EngineError),
    /// The process is ending.
    #[error("opening the runtime was interrupted")]
    Interrupted,
}

/// The runtime of a node. Dropping it, and its routes with it, ends all guests at once, as a kill would.
pub struct Runtime {
    pub(crate) core: Arc<Core>,
}

/// What calls and tasks share.
pub(crate) struct Core {
    pub(crate) engines: Arc<Engines>,
    pub(crate) images: Images,
    pub(crate) network: Network,
    pub(crate) sandbox_records: Records,
    pub(crate) container_records: Records,
    /// Tasks end when this is cancelled, and write nothing any more.
    pub(crate) closing: CancellationToken,
    registry: Mutex<Registry>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
    /// Held for as long as anything here may write.
    _lock: File,
}

impl Runtime {
    /// Opens a runtime over its state directory, with the sandboxes and containers that an earlier one has left there.
    /// Must be called in a tokio runtime, which then runs its tasks; guests have threads of their own.
    ///
    /// # Errors
    /// See [`RuntimeError`]. A broken record is none: it is set aside.
    pub async fn open(options: RuntimeOptions) -> Result<Arc<Self>, RuntimeError> {
        let opened = tokio::task::spawn_blocking(move || open(options)).await;
        let (core, sandboxes, containers) = opened.map_err(|_| RuntimeError::Interrupted)??;
        let core = Arc::new(core);
        core.network.tidy().await;
        restore(&core, sandboxes, containers);
        core.tidy_code().await;
        Ok(Arc::new(Self { core }))
    }

    /// Its services: CRI's `RuntimeService` and `ImageService`, and our `Stdio`.
    #[must_use]
    pub fn routes(self: &Arc<Self>) -> cri::Routes {
        cri::routes(Arc::clone(self), Arc::clone(self), Arc::clone(self))
    }

    /// How many wasm files it has compiled since it was opened.
    #[must_use]
    pub fn compilations(&self) -> u64 {
        self.core.engines.compilations()
    }

    /// Ends all guests, with `grace` to do so by themselves, records how each ended, and takes the podCIDR's route away.
    pub async fn shutdown(&self, grace: Duration) {
        let containers = self.core.registry().containers();
        for stopped in join_all(containers.iter().map(|container| container.stop(grace))).await {
            if let Err(error) = stopped {
                tracing::warn!(error = %chain(&error), "a container could not be stopped");
            }
        }
        self.core.network.close().await;
        self.abandon();
    }

    fn abandon(&self) {
        self.core.closing.cancel();
        self.core.engines.shut_down();
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.abandon();
    }
}

type Opened = (Core, Vec<SandboxRecord>, Vec<ContainerRecord>);

fn open(options: RuntimeOptions) -> Result<Opened, RuntimeError> {
    let state_dir = options.state_dir;
    crate::records::create_directory(&state_dir)?;
    let lock = lock(&state_dir)?;
    let sandbox_records = Records::open(state_dir.join("sandboxes"))?;
    let container_records = Records::open(state_dir.join("containers"))?;
    let sandboxes: Vec<SandboxRecord> = sandbox_records.read_all()?;
    // Before anything of theirs is removed: with a mount in it, nothing could be.
    container::root::unmount_below(&state_dir.join("containers"));
    let containers: Vec<ContainerRecord> = container_records.read_all()?;
    let trust = options.trust_policy.as_deref().map(image::TrustPolicy::read).transpose()?.map(Arc::new);
    let images = Images::open(
        options.shared_dir.join("images"),
        options.image_layouts,
        options.plain_http_hosts,
        options.registry_hosts,
        trust,
    )?;
    let mut engine_options = EngineOptions::new(options.shared_dir.join(CODE), options.compiler);
    engine_options.worker_threads = options.guest_threads;
    let engines = Engines::new(engine_options)?;
    let held = sandboxes.iter().filter_map(|sandbox| sandbox.addresses);
    let remembered = Remembered::at(state_dir.join("pod-cidr"));
    let network = Network::new(options.node_address, options.pod_address_mode, remembered, held);
    let core = Core {
        engines,
        images,
        network,
        sandbox_records,
        container_records,
        closing: CancellationToken::new(),
        registry: Mutex::default(),
        events: broadcast::Sender::new(EVENTS),
        _lock: lock,
    };
    Ok((core, sandboxes, containers))
}

fn lock(state_dir: &Path) -> Result<File, RuntimeError> {
    let path = state_dir.join("lock");
    let failed = |source| RuntimeError::Lock { path: path.clone(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(RuntimeError::InUse(state_dir.to_owned())),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Takes over what an earlier process has left: nothing of it runs any more.
fn restore(core: &Arc<Core>, sandboxes: Vec<SandboxRecord>, containers: Vec<ContainerRecord>) {
    for record in sandboxes {
        let (state, watched) = watch::channel(sandbox::State::NotReady);
        let (commands, asked) = mpsc::channel(SANDBOX_COMMANDS);
        let held = Held { addresses: record.addresses, forwarders: Vec::new() };
        let sandbox = Arc::new(Sandbox {
            id: record.id,
            spec: record.spec,
            created_at: record.created_at,
            state: watched,
            commands,
            pairs: keyvalue::Memory::default(),
        });
        if let Err(error) = core.registry().insert_sandbox(Arc::clone(&sandbox)) {
            tracing::error!(sandbox = %sandbox.id, error = %chain(&error), "a record is left out");
            continue;
        }
        let span = sandbox.span();
        let task = sandbox::task::Task { core: Arc::clone(core), sandbox, state, commands: asked, held };
        tokio::spawn(task.run().instrument(span));
    }
    for record in containers {
        restore_container(core, record);
    }
}

fn restore_container(core: &Arc<Core>, record: ContainerRecord) {
    let exited = container::State::Exited(record.state.after_restart());
    let (state, watched) = watch::channel(exited);
    let (resources, resources_now) = watch::channel(record.spec.resources);
    let (commands, asked) = mpsc::channel(CONTAINER_COMMANDS);
    let container = Arc::new(Container {
        id: record.id,
        sandbox_id: record.sandbox_id,
        spec: record.spec,
        programs: None,
        resources: resources_now,
        created_at: record.created_at,
        stdio: Arc::new(Stdio::closed()),
        state: watched,
        commands,
    });
    let sandbox = core.registry().sandbox(container.sandbox_id.as_str());
    let taken = sandbox.and_then(|sandbox| core.registry().insert_container(Arc::clone(&container)).map(|()| sandbox));
    let sandbox = match taken {
        Ok(sandbox) => sandbox,
        Err(error) => {
            tracing::error!(container = %container.id, error = %chain(&error), "a container's record is dropped");
            if let Err(error) = core.container_records.remove(container.id.as_str()) {
                tracing::warn!(container = %container.id, error = %chain(&error), "and files of it are left");
            }
            return;
        }
    };
    // Written once more, so that the time it was found ended at stays the same from now on.
    let record = container::task::record(&container, &state.borrow());
    if let Err(error) = core.container_records.write(container.id.as_str(), &record) {
        tracing::warn!(container = %container.id, error = %chain(&error), "its state is not recorded");
    }
    let span = sandbox.span();
    let task = container::task::Task { core: Arc::clone(core), sandbox, container, state, resources, commands: asked };
    tokio::spawn(task.run_exited().instrument(span));
}

/// Why compiled code could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum DiscardError {
    /// A file of the code's directory.
    #[error(transparent)]
    Code(#[from] crate::code::CodeError),
    /// What is still needed is not known.
    #[error(transparent)]
    Images(#[from] image::StoreError),
}

/// Removes the compiled code of images that are not in `store` any more. No runtime needs to run; those that do keep what
/// they have mapped.
///
/// # Errors
/// See [`DiscardError`].
pub fn discard_code(shared_dir: &Path, store: &image::Store) -> Result<(), DiscardError> {
    crate::code::discard(&shared_dir.join(CODE), || Ok(crate::images::wasm_digests(store)?))
}

impl Core {
    /// Removes the compiled code of images that are gone. Does file I/O.
    fn discard_code(&self) -> Result<(), DiscardError> {
        self.engines.discard_code(|| Ok(self.images.wasm_digests()?))
    }

    /// The same, aside and without complaint: what is left behind costs room and nothing else, and goes another time.
    pub(crate) async fn tidy_code(self: &Arc<Self>) {
        let core = Arc::clone(self);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || core.discard_code()).await {
            tracing::warn!(error = %chain(&error), "compiled code of removed images is left");
        }
    }

    /// Which sandboxes and containers there are. Never held across an await.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn containers_of(&self, sandbox: &SandboxId) -> Vec<Arc<Container>> {
        self.registry().containers_of(sandbox)
    }

    pub(crate) fn forget_container(&self, container: &Container) {
        self.registry().remove_container(container);
    }

    pub(crate) fn forget_sandbox(&self, sandbox: &Sandbox) -> Result<(), ServiceError> {
        self.registry().remove_sandbox(sandbox)
    }

    /// Tells all readers of events what happened to a container, or to the sandbox itself, with the state the pod is in.
    pub(crate) fn emit(&self, what: v1::ContainerEventType, id: &str, sandbox: &Sandbox) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let containers = self.containers_of(&sandbox.id);
        let event = v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: what as i32,
            created_at: Nanoseconds::now().0,
            pod_sandbox_status: Some(sandbox.status()),
            containers_statuses: containers.iter().map(|container| container.status()).collect(),
        };
        // An error says that nobody listens any more.
        let _ = self.events.send(event);
    }

    /// Events from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<v1::ContainerEventResponse> {
        self.events.subscribe()
    }
}
