//! Compiled code: a wasm file and its digest come in, a [`Code`] that any number of guests can share goes out.
//!
//! Compiled once per digest, however many ask at one time, in a process of its own (see [`compiler`]); kept on disk for
//! the next run (see [`cache`]) and in memory as long as somebody holds it. What kind of guest a file is, its bytes
//! decide, never its name. Nothing is ever compiled on a guest's way to its first instruction.

mod cache;
mod compiler;
mod inspect;
mod map;
mod unfit;
mod worker;

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::OwnedMutexGuard;
use wasmtime::{Engine, InstancePre, UnknownImportError};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p3::bindings as p3;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::engine::{EngineError, Engines, Profile};
use crate::wasi::Host;
pub(crate) use cache::discard;
use cache::{Cache, Verified};
use compiler::Compiler;

pub use compiler::CompilerProgram;
pub use unfit::Unfit;
pub use worker::compile_worker;

/// How long a file whose compilation took too much is not tried again: the kubelet asks every few seconds.
const NOT_AGAIN_FOR: Duration = Duration::from_secs(10 * 60);

/// What kind of guest a wasm file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A core module with `_start`, using `wasi_snapshot_preview1`.
    CommandP1,
    /// A core module with `_initialize` and no `_start`: a library whose functions are called one by one.
    ReactorP1,
    /// A component exporting `wasi:cli/run@0.2`.
    CommandP2,
    /// A component exporting `wasi:cli/run@0.3`.
    CommandP3,
    /// A component exporting `wasi:http/incoming-handler@0.2`: we listen, it answers.
    HttpP2,
    /// A component exporting `wasi:http/handler@0.3`: the same.
    HttpP3,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::CommandP1, Kind::ReactorP1, Kind::CommandP2, Kind::CommandP3, Kind::HttpP2, Kind::HttpP3];

    /// Whether it is served over HTTP rather than run.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Kind::HttpP2 | Kind::HttpP3)
    }

    /// Whether it is a core module, not a component.
    pub(crate) fn is_module(self) -> bool {
        matches!(self, Kind::CommandP1 | Kind::ReactorP1)
    }

    /// Whether its functions wait beside one another, as those of WASI 0.3 do.
    pub(crate) fn is_concurrent(self) -> bool {
        matches!(self, Kind::CommandP3 | Kind::HttpP3)
    }

    fn tag(self) -> &'static str {
        match self {
            Kind::CommandP1 => "p1",
            Kind::ReactorP1 => "p1-reactor",
            Kind::CommandP2 => "p2",
            Kind::CommandP3 => "p3",
            Kind::HttpP2 => "http",
            Kind::HttpP3 => "http-p3",
        }
    }
}

/// Why a wasm file cannot be run here. Of its own fault are [`CodeError::Unfit`] and an unknown import.
#[derive(Debug, Error)]
pub enum CodeError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The wasm file.
        path: PathBuf,
        /// What reading said.
        #[source]
        source: io::Error,
    },
    /// The digest is not of the form the cache is keyed by.
    #[error("{digest:?} is not a sha256 digest of a wasm file")]
    Digest {
        /// What was given.
        digest: String,
    },
    /// The file is not what its digest says.
    #[error("{} has digest sha256:{found}, not {expected}", path.display())]
    DigestMismatch {
        /// The wasm file.
        path: PathBuf,
        /// The digest it was asked for by.
        expected: String,
        /// What its bytes hash to, in hex.
        found: String,
    },
    /// It runs on no node like this one.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// It imports what is not there.
    #[error("imports what this node does not provide: {import}")]
    UnknownImport {
        /// The import, with its module or its interface and version.
        import: String,
    },
    /// A compilation may take only so much.
    #[error("compiling it takes more than {limit}")]
    TooCostly {
        /// What it was given, with the unit.
        limit: String,
    },
    /// The compiler ended without an answer.
    #[error("the compiler failed: {how}")]
    CompilerFailed {
        /// How it ended, and what it complained of.
        how: String,
    },
    /// The compiler's process cannot be started or spoken to.
    #[error("cannot run the compiler {}", program.display())]
    CompilerProcess {
        /// Its file.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The compiled code cannot be kept or mapped.
    #[error("cannot {step} the compiled code {}", path.display())]
    Cache {
        /// What was being done.
        step: &'static str,
        /// The file in the cache.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Wasmtime refused code that it compiled itself.
    #[error("cannot load the compiled code")]
    Load(#[source] wasmtime::Error),
    /// The guest threads have been shut down, or compiling panicked.
    #[error("compiling was interrupted")]
    Interrupted,
}

/// Compiled code, linked and ready to be instantiated any number of times.
pub struct Code {
    kind: Kind,
    digest: String,
    prepared: Prepared,
}

/// The ready-to-instantiate form of each kind.
pub(crate) enum Prepared {
    CommandP1(InstancePre<Host>),
    ReactorP1(InstancePre<Host>),
    CommandP2(CommandPre<Host>),
    CommandP3(p3::CommandPre<Host>),
    HttpP2(ProxyPre<Host>),
    HttpP3(ServicePre<Host>),
}

impl Code {
    /// What kind of guest it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The digest of the wasm file, `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub(crate) fn prepared(&self) -> &Prepared {
        &self.prepared
    }
}

/// The code of this process: what is loaded, what is being compiled, where it is kept.
pub(crate) struct Codes {
    cache: Arc<Cache>,
    compiler: Compiler,
    known: Mutex<HashMap<String, Slot>>,
    compilations: AtomicU64,
}

/// Held while a digest is loaded or compiled; all others who want it wait for it.
type Slot = Arc<tokio::sync::Mutex<Known>>;

/// What this process knows of a digest.
#[derive(Default)]
struct Known {
    code: Weak<Code>,
    too_costly: Option<TooCostly>,
}

struct TooCostly {
    limit: String,
    since: Instant,
}

impl Known {
    fn is_something(&self) -> bool {
        self.code.strong_count() > 0 || self.too_costly().is_some()
    }

    fn too_costly(&self) -> Option<CodeError> {
        let known = self.too_costly.as_ref().filter(|known| known.since.elapsed() < NOT_AGAIN_FOR)?;
        Some(CodeError::TooCostly { limit: known.limit.clone() })
    }
}

impl Codes {
    pub(crate) fn open(dir: &Path, compiler: CompilerProgram) -> Result<Self, EngineError> {
        Ok(Self {
            cache: Arc::new(Cache::open(dir)?),
            compiler: Compiler::new(compiler),
            known: Mutex::default(),
            compilations: AtomicU64::new(0),
        })
    }

    fn slot(&self, digest: &str) -> Slot {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use =
            |slot: &Slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|known| known.is_something());
        known.retain(|_, slot| in_use(slot));
        Arc::clone(known.entry(digest.to_owned()).or_default())
    }
}

impl Engines {
    /// The code of the wasm file at `wasm`, whose bytes hash to `digest` (`sha256:` and 64 hex digits): loaded if
    /// someone holds it, mapped from the cache if it was compiled before, else compiled. The file is read only then.
    ///
    /// # Errors
    /// See [`CodeError`]. [`CodeError::TooCostly`] is remembered for ten minutes, no other failure is.
    pub async fn code(self: &Arc<Self>, wasm: &Path, digest: &str) -> Result<Arc<Code>, CodeError> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| is_sha256_hex(hex));
        let hex = hex.ok_or_else(|| CodeError::Digest { digest: digest.to_owned() })?.to_owned();
        let known = self.codes.slot(digest).lock_owned().await;
        if let Some(code) = known.code.upgrade() {
            return Ok(code);
        }
        // On its own: a caller who gives up leaves it to go on, and whoever asks next waits for that.
        let runtime = self.runtime().ok_or(CodeError::Interrupted)?;
        let obtained = runtime.spawn(Arc::clone(self).obtain(known, wasm.to_owned(), hex));
        obtained.await.map_err(|_| CodeError::Interrupted)?
    }

    async fn obtain(
        self: Arc<Self>,
        mut known: OwnedMutexGuard<Known>,
        wasm: PathBuf,
        hex: String,
    ) -> Result<Arc<Code>, CodeError> {
        let name = hex.clone();
        let prepared = match self.blocking(move |engines| engines.load(&name)).await? {
            Some(prepared) => prepared,
            None => match known.too_costly() {
                Some(error) => return Err(error),
                None => self.compile(&wasm, &hex).await.inspect_err(|error| {
                    if let CodeError::TooCostly { limit } = error {
                        known.too_costly = Some(TooCostly { limit: limit.clone(), since: Instant::now() });
                    }
                })?,
            },
        };
        let code = Arc::new(Code { kind: prepared.kind(), digest: format!("sha256:{hex}"), prepared });
        known.code = Arc::downgrade(&code);
        Ok(code)
    }

    /// What compiled code takes on disk, in bytes and in files.
    pub(crate) fn code_usage(&self) -> Result<(u64, u64), CodeError> {
        let kept = cache::kept(self.codes.cache.directory())?;
        Ok((kept.bytes, kept.inodes))
    }

    /// Removes the code of wasm files that no image has any more. What `needed` gives is asked for once the list of code
    /// is made: of an image that comes in meanwhile, nothing was compiled before that.
    pub(crate) fn discard_code<E: From<CodeError>>(
        &self,
        needed: impl FnOnce() -> Result<HashSet<String>, E>,
    ) -> Result<(), E> {
        cache::discard(self.codes.cache.directory(), needed)
    }

    /// How many files this process has compiled.
    #[must_use]
    pub fn compilations(&self) -> u64 {
        self.codes.compilations.load(Ordering::Relaxed)
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Engines) -> Result<T, CodeError> + Send + 'static,
    ) -> Result<T, CodeError> {
        let engines = Arc::clone(self);
        let runtime = self.runtime().ok_or(CodeError::Interrupted)?;
        runtime.spawn_blocking(move || work(&engines)).await.map_err(|_| CodeError::Interrupted)?
    }

    /// From the cache, if it is there and ours.
    fn load(&self, hex: &str) -> Result<Option<Prepared>, CodeError> {
        for kind in Kind::ALL {
            let name = self.file_name(hex, kind);
            let Some(file) = self.codes.cache.verified(&name)? else { continue };
            match self.prepare(kind, &file) {
                Ok(prepared) => return Ok(Some(prepared)),
                Err(CodeError::Load(error)) => {
                    tracing::warn!("compiled code {name} cannot be loaded and is compiled again: {error:#}");
                    self.codes.cache.remove(&name)?;
                }
                Err(other) => return Err(other),
            }
        }
        Ok(None)
    }

    async fn compile(self: &Arc<Self>, wasm: &Path, hex: &str) -> Result<Prepared, CodeError> {
        let started = Instant::now();
        let (engines, name) = (Arc::clone(self), hex.to_owned());
        let draft = move |kind| engines.codes.cache.draft(&engines.file_name(&name, kind));
        let (kind, file) = self.codes.compiler.compile(wasm, hex, draft).await?;
        self.codes.compilations.fetch_add(1, Ordering::Relaxed);
        tracing::info!("compiled sha256:{hex} in {:.1?}", started.elapsed());
        self.blocking(move |engines| engines.prepare(kind, &file)).await
    }

    fn prepare(&self, kind: Kind, file: &Verified) -> Result<Prepared, CodeError> {
        match kind {
            Kind::CommandP1 | Kind::ReactorP1 => {
                let module = map::module(&self.on_demand.engine, file).map_err(CodeError::Load)?;
                let linked = self.modules.instantiate_pre(&module).map_err(unknown_import)?;
                Ok(if kind == Kind::CommandP1 { Prepared::CommandP1(linked) } else { Prepared::ReactorP1(linked) })
            }
            Kind::CommandP2 => {
                let component = map::component(&self.on_demand.engine, file).map_err(CodeError::Load)?;
                let linked = self.on_demand.components.instantiate_pre(&component).map_err(unknown_import)?;
                Ok(Prepared::CommandP2(CommandPre::new(linked).map_err(no_entry_point)?))
            }
            Kind::CommandP3 => {
                let component = map::component(&self.concurrent.engine, file).map_err(CodeError::Load)?;
                let linked = self.concurrent.components.instantiate_pre(&component).map_err(unknown_import)?;
                Ok(Prepared::CommandP3(p3::CommandPre::new(linked).map_err(no_entry_point)?))
            }
            Kind::HttpP2 => self.prepare_http(file),
            Kind::HttpP3 => {
                let component = map::component(&self.concurrent.engine, file).map_err(CodeError::Load)?;
                let linked = self.concurrent.components.instantiate_pre(&component).map_err(unknown_import)?;
                Ok(Prepared::HttpP3(ServicePre::new(linked).map_err(no_entry_point)?))
            }
        }
    }

    /// Whose code a kind of guest has.
    fn engine(&self, kind: Kind) -> &Engine {
        if kind.is_concurrent() { &self.concurrent.engine } else { &self.on_demand.engine }
    }

    fn prepare_http(&self, file: &Verified) -> Result<Prepared, CodeError> {
        let on = |profile: &Profile| {
            let component = map::component(&profile.engine, file).map_err(CodeError::Load)?;
            let linked = profile.components.instantiate_pre(&component).map_err(unknown_import)?;
            Ok(Prepared::HttpP2(ProxyPre::new(linked).map_err(no_entry_point)?))
        };
        let Some(pooled) = &self.pooled else { return on(&self.on_demand) };
        match on(pooled) {
            // The pool has fixed sizes; what does not fit a slot still runs, at a higher cost per request.
            Err(CodeError::Load(error)) => {
                tracing::info!("does not fit the pool of HTTP instances, runs from the on-demand engine: {error:#}");
                on(&self.on_demand)
            }
            done => done,
        }
    }

    fn file_name(&self, hex: &str, kind: Kind) -> String {
        format!("{hex}-{}-{}.cwasm", kind.tag(), compatibility(self.engine(kind)))
    }
}

impl Prepared {
    fn kind(&self) -> Kind {
        match self {
            Prepared::CommandP1(_) => Kind::CommandP1,
            Prepared::ReactorP1(_) => Kind::ReactorP1,
            Prepared::CommandP2(_) => Kind::CommandP2,
            Prepared::CommandP3(_) => Kind::CommandP3,
            Prepared::HttpP2(_) => Kind::HttpP2,
            Prepared::HttpP3(_) => Kind::HttpP3,
        }
    }
}

fn is_sha256_hex(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
fn unknown_import(error: wasmtime::Error) -> CodeError {
    let import = match error.downcast_ref::<UnknownImportError>() {
        Some(unknown) => format!("{:?} from module {:?}", unknown.name(), unknown.module()),
        None => format!("{error:#}"),
    };
    CodeError::UnknownImport { import }
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
fn no_entry_point(error: wasmtime::Error) -> CodeError {
    Unfit::NoEntryPoint { detail: format!("{error:#}") }.into()
}

/// What compiled code depends on beside the wasm file: Wasmtime's version, the processor, the engine's settings.
pub(crate) fn compatibility(engine: &Engine) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            let digest = self.0.clone().finalize();
            digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
        }
    }
    let mut sha = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut sha);
    format!("{:016x}", sha.finish())
}
