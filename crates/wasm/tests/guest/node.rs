//! A node in miniature: engines, compiled guests, and what a container's owner would hold of a running one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use wasm::code::{Code, CodeError, CompilerProgram};
use wasm::engine::{EngineOptions, Engines};
use wasm::guest::{Exit, Guest, GuestSpec, Http, StartError, Stdin, start};
use wasm::limits::Limits;
use wasm::wasi::network::{PodNetwork, Protocol};

/// Far longer than anything here takes: a test that reaches it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The engines all tests share, with their cache below the build directory.
pub(crate) static ENGINES: LazyLock<Arc<Engines>> = LazyLock::new(|| {
    let mut options = EngineOptions::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm-guests"), compiler());
    options.http_instances = 32;
    Engines::new(options).expect("the engines are built")
});

/// Engines of a test's own, whose guests have one thread.
pub(crate) fn one_thread() -> Arc<Engines> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm-guests");
    let options = EngineOptions { worker_threads: Some(1), ..EngineOptions::new(cache, compiler()) };
    Engines::new(options).expect("the engines are built")
}

/// The process that compiles.
pub(crate) fn compiler() -> CompilerProgram {
    CompilerProgram { program: env!("CARGO_BIN_EXE_compile-worker").into(), args: Vec::new() }
}

pub(crate) fn digest(wasm: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(wasm)))
}

/// A wasm file in a directory of its own.
pub(crate) fn file(wasm: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("guest.wasm");
    std::fs::write(&path, wasm).unwrap();
    (dir, path)
}

pub(crate) async fn compile(wasm: &[u8]) -> Result<Arc<Code>, CodeError> {
    let (_dir, path) = file(wasm);
    ENGINES.code(&path, &digest(wasm)).await
}

/// A pod whose address and loopback address no other test has.
pub(crate) fn pod() -> PodNetwork {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id().to_be_bytes()[3];
    let address = |block| IpAddr::V4(Ipv4Addr::new(127, block, process, number));
    PodNetwork::own(address(77), address(78))
}

/// A port nobody has at this moment.
pub(crate) fn free_port(address: IpAddr) -> u16 {
    std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

/// A guest to be, and the ends of its streams.
pub(crate) struct Setup {
    pub(crate) spec: GuestSpec,
    engines: Arc<Engines>,
    stdout: mpsc::Receiver<Bytes>,
    stderr: mpsc::Receiver<Bytes>,
}

/// A guest and what it writes.
pub(crate) struct Running {
    pub(crate) guest: Guest,
    pub(crate) stdout: mpsc::Receiver<Bytes>,
    pub(crate) stderr: mpsc::Receiver<Bytes>,
}

#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Setup {
    pub(crate) async fn of(wasm: &[u8]) -> Self {
        Self::on(&ENGINES, wasm).await
    }

    pub(crate) async fn on(engines: &Arc<Engines>, wasm: &[u8]) -> Self {
        let (_dir, path) = file(wasm);
        let code = engines.code(&path, &digest(wasm)).await.expect("the guest compiles");
        let (stdout_sink, stdout) = mpsc::channel(16);
        let (stderr_sink, stderr) = mpsc::channel(16);
        let spec = GuestSpec {
            code,
            args: vec!["guest.wasm".to_owned()],
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            stdin: Stdin::Empty,
            stdout: stdout_sink,
            stderr: stderr_sink,
            tty: false,
            network: Arc::new(pod()),
            http: Http::default(),
            limits: Limits::default(),
            hostname: "web-0".to_owned(),
            pairs: wasm::keyvalue::Memory::default(),
            application: None,
        };
        Self { spec, engines: Arc::clone(engines), stdout, stderr }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut GuestSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    pub(crate) fn try_start(self) -> Result<Running, StartError> {
        let guest = start(&self.engines, self.spec)?;
        Ok(Running { guest, stdout: self.stdout, stderr: self.stderr })
    }

    pub(crate) fn start(self) -> Running {
        self.try_start().expect("the guest starts")
    }

    pub(crate) async fn run(self) -> Finished {
        self.start().finish().await
    }
}

impl Running {
    /// Waits for its end, and reads all it wrote.
    pub(crate) async fn finish(mut self) -> Finished {
        let all = async { tokio::join!(self.guest.exited(), text(&mut self.stdout), text(&mut self.stderr)) };
        let (exit, stdout, stderr) = tokio::time::timeout(PATIENCE, all).await.expect("the guest ends");
        Finished { exit, stdout, stderr }
    }

    pub(crate) async fn exited(&self) -> Exit {
        tokio::time::timeout(PATIENCE, self.guest.exited()).await.expect("the guest ends")
    }

    /// Waits until the guest has used this much CPU time: it is running then.
    pub(crate) async fn used_cpu(&self, used: Duration) {
        until("the guest has run", || self.guest.usage().cpu >= used).await;
    }
}

pub(crate) async fn text(from: &mut mpsc::Receiver<Bytes>) -> String {
    let mut all = Vec::new();
    while let Some(piece) = from.recv().await {
        all.extend_from_slice(&piece);
    }
    String::from_utf8(all).unwrap()
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "still waiting until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A pod's port mapped to a free one of the node.
pub(crate) fn mapped(port: u16) -> (HashMap<(Protocol, u16), SocketAddr>, SocketAddr) {
    let node = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let at = SocketAddr::new(node, free_port(node));
    (HashMap::from([((Protocol::Tcp, port), at)]), at)
}
