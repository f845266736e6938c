//! A node for one test: a runtime over a directory of its own, its client, and images it can pull.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::names::{ContainerAnnotations, ContainerPort, PodIdentity, PortProtocol};
use cri::{Client, v1};
use image::{Reference, pack};
use testbed::guests::wat;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wasm::{CompilerProgram, PodAddressMode, Runtime, RuntimeError, RuntimeOptions};

use crate::guests;

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// A node. Dropping it is the end of its files.
pub(crate) struct Node {
    directory: tempfile::TempDir,
    mode: PodAddressMode,
    pub(crate) runtime: Option<Arc<Runtime>>,
    client: Option<Client>,
    registry: u16,
}

/// The name of a guest's image.
pub(crate) fn reference(guest: &str) -> String {
    format!("test.invalid/guests/{guest}:v1")
}

impl Node {
    /// A node whose pods share its address, which is loopback.
    pub(crate) async fn new() -> Self {
        Self::with_mode(PodAddressMode::Host).await
    }

    pub(crate) async fn with_mode(mode: PodAddressMode) -> Self {
        let directory = tempfile::tempdir().unwrap();
        pack_guests(&directory.path().join("layout"));
        let registry = empty_registry().await;
        let mut node = Self { directory, mode, runtime: None, client: None, registry };
        node.open().await;
        node
    }

    pub(crate) fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The layout that images are pulled from.
    pub(crate) fn layout(&self) -> PathBuf {
        self.directory.path().join("layout")
    }

    /// A directory on the node.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let directory = self.directory.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        // As the kubelet names one: without links.
        directory.canonicalize().unwrap()
    }

    /// An image that does not exist, in a registry that answers.
    pub(crate) fn missing_image(&self) -> String {
        format!("127.0.0.1:{}/guests/missing:v1", self.registry)
    }

    /// Ends the runtime as a kill would, and starts another over the same files.
    pub(crate) async fn kill_and_reopen(&mut self) {
        self.client = None;
        self.runtime = None;
        self.open().await;
    }

    async fn open(&mut self) {
        let options = RuntimeOptions {
            state_dir: self.state_dir(),
            compiler: CompilerProgram { program: env!("CARGO_BIN_EXE_compile-worker").into(), args: Vec::new() },
            shared_dir: self.state_dir(),
            image_layouts: vec![self.directory.path().join("layout")],
            plain_http_hosts: Vec::new(),
            registry_hosts: None,
            trust_policy: None,
            node_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            pod_address_mode: self.mode,
            guest_threads: Some(2),
        };
        // Tasks of an earlier runtime hold its lock until they have seen that it is gone.
        let runtime = eventually("the state directory is free", async || match Runtime::open(options.clone()).await {
            Ok(runtime) => Some(runtime),
            Err(RuntimeError::InUse(_)) => None,
            Err(error) => panic!("{error:?}"),
        })
        .await;
        self.client = Some(Client::new(cri::in_memory(runtime.routes())));
        self.runtime = Some(runtime);
    }

    /// Runs a sandbox for a pod `name`.
    pub(crate) async fn pod(&self, name: &str) -> Pod<'_> {
        self.pod_with(name, |_| {}).await
    }

    pub(crate) async fn pod_with(&self, name: &str, change: impl FnOnce(&mut v1::PodSandboxConfig)) -> Pod<'_> {
        let config = self.sandbox_config(name, change);
        let id = self.client().run_pod_sandbox(config.clone(), "").await.unwrap();
        Pod { node: self, id, config }
    }

    pub(crate) fn sandbox_config(
        &self,
        name: &str,
        change: impl FnOnce(&mut v1::PodSandboxConfig),
    ) -> v1::PodSandboxConfig {
        let identity = identity(name);
        let mut config = v1::PodSandboxConfig {
            metadata: Some(identity.sandbox_metadata(0)),
            hostname: name.to_owned(),
            log_directory: self.directory.path().join("logs").join(name).display().to_string(),
            labels: identity.sandbox_labels(&cri::names::Map::new()),
            ..Default::default()
        };
        change(&mut config);
        config
    }
}

fn identity(name: &str) -> PodIdentity {
    PodIdentity { name: name.to_owned(), namespace: "tests".to_owned(), uid: format!("uid-{name}") }
}

/// A sandbox.
pub(crate) struct Pod<'a> {
    node: &'a Node,
    pub(crate) id: String,
    pub(crate) config: v1::PodSandboxConfig,
}

impl Pod<'_> {
    pub(crate) fn container_config(&self, name: &str, guest: &str) -> v1::ContainerConfig {
        let identity = identity(&self.config.metadata.as_ref().unwrap().name);
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: reference(guest), ..Default::default() }),
            labels: identity.container_labels(name),
            log_path: format!("{name}/0.log"),
            ..Default::default()
        }
    }

    pub(crate) async fn try_create(
        &self,
        name: &str,
        guest: &str,
        change: impl FnOnce(&mut v1::ContainerConfig),
    ) -> Result<String, cri::CallError> {
        let mut config = self.container_config(name, guest);
        change(&mut config);
        let image = config.image.clone().unwrap();
        self.node.client().pull_image(image, None, None).await?;
        self.node.client().create_container(&self.id, config, self.config.clone()).await
    }

    pub(crate) async fn create(
        &self,
        name: &str,
        guest: &str,
        change: impl FnOnce(&mut v1::ContainerConfig),
    ) -> String {
        self.try_create(name, guest, change).await.unwrap()
    }

    pub(crate) async fn start(&self, name: &str, guest: &str, change: impl FnOnce(&mut v1::ContainerConfig)) -> String {
        let id = self.create(name, guest, change).await;
        self.node.client().start_container(&id).await.unwrap();
        id
    }

    /// Waits for a container's end.
    pub(crate) async fn exit_of(&self, id: &str) -> v1::ContainerStatus {
        exit_of(self.node, id).await
    }

    /// The lines of a container's log: stream, tag and text.
    pub(crate) fn log(&self, name: &str) -> Vec<String> {
        let path = Path::new(&self.config.log_directory).join(name).join("0.log");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
    }

    pub(crate) async fn address(&self) -> IpAddr {
        let status = self.node.client().pod_sandbox_status(&self.id).await.unwrap().status.unwrap();
        status.network.unwrap().ip.parse().unwrap()
    }

    pub(crate) async fn remove(self) {
        self.node.client().remove_pod_sandbox(&self.id).await.unwrap();
    }
}

/// Waits for a container's end.
pub(crate) async fn exit_of(node: &Node, id: &str) -> v1::ContainerStatus {
    eventually("the container exits", async || {
        let status = node.client().container_status(id).await.unwrap();
        (status.state() == v1::ContainerState::ContainerExited).then_some(status)
    })
    .await
}

/// The annotations of a container that declares a TCP port.
pub(crate) fn serves_on(port: u16) -> cri::names::Map {
    let port = ContainerPort {
        name: String::new(),
        host_port: None,
        container_port: port,
        protocol: PortProtocol::Tcp,
        host_ip: String::new(),
    };
    ContainerAnnotations { ports: vec![port], ..Default::default() }.to_map().unwrap()
}

/// Waits until there is something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let looked = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap_or_else(|_| panic!("it is not so after {PATIENCE:?}: {what}"))
}

/// What a server answers to a GET, head and body.
pub(crate) async fn get(address: IpAddr, port: u16) -> std::io::Result<String> {
    get_path(address, port, "/").await
}

/// The same, of another path.
pub(crate) async fn get_path(address: IpAddr, port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((address, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nspin-path-info: /forged\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A port of loopback that nobody listens at now.
pub(crate) async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

fn pack_guests(layout: &Path) {
    std::fs::create_dir_all(layout).unwrap();
    let guests = [
        ("prints", wat::prints_and_exits("hello from wasm\n", 0)),
        ("exits-seven", wat::prints_and_exits("seven\n", 7)),
        ("parked", wat::sleeps()),
        ("spins", wat::loops()),
        ("fills", wat::fills()),
        ("opens-sockets", wat::opens_sockets()),
        ("traps", wat::traps()),
        ("grows", wat::grows()),
        ("cat", wat::cat()),
        ("reads", wat::reads()),
        ("commands", wat::commands()),
        ("health", wat::health()),
        ("http-health", wat::http_health()),
        ("terminates", wat::terminates()),
        ("stays", wat::stays()),
        ("handles-stop", wat::handles_stop()),
        ("stores", wat::stores()),
        ("stores-2", wat::stores_2()),
        ("run-03-sleeps", wat::concurrent_sleeps()),
        ("live", wat::live()),
        ("reactor", wat::reactor(false)),
        ("unknown-import", wat::unknown_import()),
        ("http", wat::http_answers(200, "hello over http\n")),
        ("shows-itself", guests::shows_itself()),
        ("floods", guests::floods()),
        ("leaves-a-message", guests::leaves_a_message()),
    ];
    for (name, wasm) in guests {
        let name = Reference::parse(&reference(name)).unwrap();
        pack::add_to_layout(layout, &name, &pack::artifact(&wasm).unwrap()).unwrap();
    }
    testbed::guests::spin::add_to_layout(layout, &reference("spin-shop"), &testbed::guests::spin::shop()).unwrap();
}

/// A registry that has nothing.
async fn empty_registry() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _request = client.read(&mut [0; 4096]).await;
            let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _answered = client.write_all(answer.as_bytes()).await;
        }
    });
    port
}
