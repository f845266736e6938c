//! The Wasmtime engines of a process, built once: options come in, [`Engines`] goes out, shared by every guest.
//!
//! Two engines with the same code settings, so that one compiled file serves both: **on-demand** for commands that
//! run long (no fixed caps), **pooled** for HTTP instances that live for one request. A third, **concurrent**, for guests
//! of WASI 0.3, whose code is another. Beside them: the linkers, the
//! ticker that makes tight loops yield, and a tokio runtime of the guests' own, so that no guest delays the node.
//! No guest's state is ever kept here.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use thiserror::Error;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;
use wasmtime::component::Linker as ComponentLinker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, Linker, PoolingAllocationConfig};

use crate::code::{Codes, CompilerProgram, Kind};
use crate::limits::epoch::Ticker;
use crate::limits::turns::Turns;
use crate::wasi::{self, Host};

/// Blocking file calls of guests that may run at one time; more wait their turn.
const BLOCKING_THREADS: usize = 128;
/// Linear memory a pooled slot keeps resident between requests, where the kernel can reset it cheaply.
const KEEP_RESIDENT_BYTES: usize = 2 << 20;
/// Pooled slots that keep memory resident while unused; bounds the idle cost at this many times the above.
const WARM_SLOTS: u32 = 32;
/// Core instances, memories and tables one pooled component may hold on average: an adapted Rust guest has four
/// core instances, one memory and two tables.
const CORE_INSTANCES_PER_COMPONENT: u32 = 6;

/// Pooled instances kept for commands that run beside HTTP guests, so that a probe waits for no request.
const COMMAND_INSTANCES: u32 = 32;

/// Instances of HTTP guests that may wait for a next request at one time, over all guests that share theirs.
const IDLE_INSTANCES: u32 = 64;

/// What [`Engines::new`] needs to know.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where compiled code is kept between runs; made with mode 0700 if absent.
    pub cache_dir: PathBuf,
    /// What compiles, in a process of its own.
    pub compiler: CompilerProgram,
    /// HTTP instances that may live at one time in this process, over all guests.
    pub http_instances: u32,
    /// Threads that run guests; `None` is one per CPU.
    pub worker_threads: Option<usize>,
}

impl EngineOptions {
    /// The defaults, with compiled code kept in `cache_dir`: 512 HTTP instances, a thread per CPU.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>, compiler: CompilerProgram) -> Self {
        Self { cache_dir: cache_dir.into(), compiler, http_instances: 512, worker_threads: None }
    }
}

/// Why the engines could not be built.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Wasmtime refused the configuration of an engine.
    #[error("cannot build the {profile} engine")]
    Engine {
        /// Which engine.
        profile: &'static str,
        /// What Wasmtime said.
        #[source]
        source: wasmtime::Error,
    },
    /// The WASI host functions could not be linked.
    #[error("cannot link the WASI host functions of the {profile} engine")]
    Link {
        /// Which engine.
        profile: &'static str,
        /// What Wasmtime said.
        #[source]
        source: wasmtime::Error,
    },
    /// The cache directory or its key cannot be used.
    #[error("compile cache: cannot {step} {}", path.display())]
    Cache {
        /// What was being done.
        step: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The threads that run guests could not be started.
    #[error("cannot start the guest threads")]
    Threads(#[source] io::Error),
}

/// One engine with its component linker.
pub(crate) struct Profile {
    pub(crate) engine: Engine,
    pub(crate) components: ComponentLinker<Host>,
}

/// The engines of this process and all that goes with them.
pub struct Engines {
    pub(crate) on_demand: Profile,
    /// Links p1 commands, on the on-demand engine.
    pub(crate) modules: Linker<Host>,
    /// Absent where the address space for the pool cannot be reserved.
    pub(crate) pooled: Option<Profile>,
    /// Runs WASI 0.3, whose functions wait beside one another.
    pub(crate) concurrent: Profile,
    pub(crate) codes: Codes,
    /// One permit for each HTTP instance the pool has room for.
    pub(crate) http_instances: Arc<Semaphore>,
    /// One permit for each instance that may wait for a next request.
    pub(crate) idle_instances: Arc<Semaphore>,
    /// One permit for each instance that is kept for commands beside them.
    pub(crate) command_instances: Arc<Semaphore>,
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
    ticker: Arc<Ticker>,
    turns: Arc<Turns>,
}

impl Engines {
    /// Builds the engines. Where the pool for HTTP instances cannot be reserved, says so in the log and serves HTTP
    /// from the on-demand engine, at several times the cost of a request.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn new(options: EngineOptions) -> Result<Arc<Self>, EngineError> {
        let EngineOptions { cache_dir, compiler, http_instances, worker_threads } = options;
        let on_demand = profile("on-demand", &settings(), wasi::link_components)?;
        let concurrent = profile("concurrent", &concurrent_settings(), wasi::link_concurrent)?;
        let modules = wasi::link_modules(&on_demand.engine)
            .map_err(|source| EngineError::Link { profile: "on-demand", source })?;
        let pooled = match profile("pooled", &pooled_settings(http_instances), wasi::link_components) {
            Ok(pooled) => Some(pooled),
            Err(EngineError::Engine { source, .. }) => {
                tracing::warn!(
                    "no pool of {} HTTP instances, HTTP guests run from the on-demand engine: {source:#}",
                    http_instances
                );
                None
            }
            Err(other) => return Err(other),
        };
        let cache = |step| {
            let path = cache_dir.clone();
            move |source| EngineError::Cache { step, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&cache_dir).map_err(cache("create"))?;
        // Whoever can write here can have code run; one made by somebody else with another mode is closed first.
        fs::set_permissions(&cache_dir, fs::Permissions::from_mode(0o700)).map_err(cache("close"))?;
        let codes = Codes::open(&cache_dir, compiler)?;

        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let workers =
            worker_threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
        threads.worker_threads(workers.max(1));
        // The shared queue is looked at on every poll: with the default (31 polls), two tight loops delay every kill by a
        // tenth of a second. That they do not delay sockets and timers is seen to where they are polled (`Metered`): to look
        // at those on every poll, too, would cost each request a system call.
        let runtime = threads
            .global_queue_interval(1)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("guest")
            .enable_all()
            .build()
            .map_err(EngineError::Threads)?;
        let engines: Vec<_> =
            [&on_demand, &concurrent].into_iter().chain(&pooled).map(|profile| profile.engine.weak()).collect();
        let ticker = Ticker::start(engines).map_err(EngineError::Threads)?;
        Ok(Arc::new(Self {
            on_demand,
            modules,
            pooled,
            concurrent,
            codes,
            http_instances: Arc::new(Semaphore::new(http_instances as usize)),
            idle_instances: Arc::new(Semaphore::new(IDLE_INSTANCES as usize)),
            command_instances: Arc::new(Semaphore::new(COMMAND_INSTANCES as usize)),
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            ticker,
            turns: Turns::new(workers),
        }))
    }

    /// Whether HTTP guests run from the pool.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        self.pooled.is_some()
    }

    /// Kills what still runs and ends the guest threads, without waiting. Guests cannot be started afterwards.
    pub fn shut_down(&self) {
        let runtime = self.runtime.lock().ok().and_then(|mut runtime| runtime.take());
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }

    /// The guests' runtime, until it is shut down.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        let running = self.runtime.lock().is_ok_and(|runtime| runtime.is_some());
        running.then(|| self.handle.clone())
    }

    /// What guests that compute without end wait for.
    pub(crate) fn turns(&self) -> Arc<Turns> {
        Arc::clone(&self.turns)
    }

    pub(crate) fn ticker(&self) -> Arc<Ticker> {
        Arc::clone(&self.ticker)
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        // A runtime must not be dropped where blocking is forbidden, and the last owner may be an async task.
        self.shut_down();
    }
}

fn profile(
    profile: &'static str,
    config: &Config,
    link: fn(&Engine) -> wasmtime::Result<ComponentLinker<Host>>,
) -> Result<Profile, EngineError> {
    let engine = Engine::new(config).map_err(|source| EngineError::Engine { profile, source })?;
    let components = link(&engine).map_err(|source| EngineError::Link { profile, source })?;
    Ok(Profile { engine, components })
}

/// An engine that only compiles, for guests of one kind.
pub(crate) fn compiling(kind: Kind) -> wasmtime::Result<Engine> {
    Engine::new(&if kind.is_concurrent() { concurrent_settings() } else { settings() })
}

/// The settings both engines share; whatever changes the code belongs here, and in a pooled copy nothing may.
fn settings() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // p2 and p1 need no concurrency inside a store, and every instantiation is cheaper without.
    config.concurrency_support(false);
    config
}

/// What WASI 0.3 needs: functions of a guest that wait beside one another.
fn concurrent_settings() -> Config {
    let mut config = settings();
    config.concurrency_support(true).wasm_component_model_async(true);
    config
}

/// Room for this many instances of HTTP guests at one time, for those that wait, and for the commands beside them.
fn pooled_settings(http_instances: u32) -> Config {
    let instances = http_instances.saturating_add(IDLE_INSTANCES).saturating_add(COMMAND_INSTANCES);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_stacks(instances)
        .total_memories(instances)
        .total_tables(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .max_unused_warm_slots(WARM_SLOTS)
        .max_tables_per_module(4)
        .table_elements(50_000);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEEP_RESIDENT_BYTES).table_keep_resident(64 << 10);
    }
    let mut config = settings();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_compiled_file_serves_both_engines() {
        let hash = |config: &Config| crate::code::compatibility(&Engine::new(config).unwrap());
        assert_eq!(hash(&settings()), hash(&pooled_settings(4)));
    }

    #[test]
    fn a_pool_too_big_for_the_address_space_is_reported_and_done_without() {
        let cache = tempfile::tempdir().unwrap();
        let nothing = CompilerProgram { program: PathBuf::new(), args: Vec::new() };
        let mut options = EngineOptions::new(cache.path(), nothing);
        options.http_instances = 100_000;
        let engines = Engines::new(options).unwrap();
        assert!(!engines.is_pooled());
    }
}
