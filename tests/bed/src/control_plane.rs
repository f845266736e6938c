//! A real Kubernetes control plane on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.
//!
//! Comes in: nothing but Go to build `tests/controlplane` once per machine. Goes out: a running control plane,
//! kubeconfigs for its administrator and its nodes. Never here: a node, a cluster that was already there
//! (see [`existing`]), or anything left behind: the components end with the process that started them.

pub(crate) mod access;
mod binary;
mod component;
mod slot;
mod up;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};

pub use self::binary::{binary, kubectl};
pub use self::up::{up, up_kubectl};

use self::access::{Authority, Purpose};
use self::component::{Component, Launch};
use self::slot::{Port, Slot};

/// Names a kubeconfig of a cluster that tests use instead of a control plane of their own.
pub const EXISTING_CLUSTER: &str = "WASKLET_TEST_KUBECONFIG";

/// The Kubernetes release that `tests/controlplane/go.mod` names.
pub const VERSION: &str = "v1.37.2";

/// Whom servers of further API groups let speak for others.
const AGGREGATOR: &str = "front-proxy-client";

/// An API server on two busy cores has been seen to need 15 s.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// What a test wants different from the usual control plane: more flags, which win over the usual ones.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// Further flags of kube-apiserver, such as `--feature-gates=Name=true`.
    pub api_server_flags: Vec<String>,
    /// Further flags of kube-controller-manager, such as `--node-monitor-grace-period=5s`.
    pub controller_manager_flags: Vec<String>,
    /// Further flags of kube-scheduler.
    pub scheduler_flags: Vec<String>,
}

/// A running control plane. Dropping it kills its components and removes its directory, unless a test is
/// panicking or `WASKLET_TEST_KEEP` is set: then the logs stay.
#[derive(Debug)]
pub struct ControlPlane {
    // Dropped in this order: clients before their servers, the directory last.
    _scheduler: Component,
    _controller_manager: Component,
    api_server: Mutex<Option<Component>>,
    _etcd: Component,
    api_server_launch: Launch,
    authority: Authority,
    admin_kubeconfig: PathBuf,
    slot: Slot,
}

impl ControlPlane {
    /// Builds the binary if this machine has none yet, starts all components and waits until they are ready.
    ///
    /// # Errors
    /// If the build fails, if no slot of ports is free, or if a component ends or is not ready in time; the
    /// error then carries the end of its log.
    pub async fn start(options: Options) -> Result<ControlPlane> {
        let binary = tokio::task::spawn_blocking(binary).await.context("building the control plane")??;
        let slot = Slot::take()?;
        let advertised = advertised_address();
        let authority = Authority::create(slot.dir(), slot.url(Port::ApiServer))?;
        let admin_kubeconfig = authority.kubeconfig("admin", "kubernetes-admin", Some("system:masters"))?;
        let admin = client_config(&admin_kubeconfig).await?;
        let launch = |name, flags| Launch { binary: binary.clone(), name, flags, dir: slot.dir().to_path_buf() };

        let mut etcd = launch("etcd", etcd_flags(&slot)).start()?;
        let api_server_launch =
            launch("kube-apiserver", api_server_flags(&slot, &authority, advertised, options.api_server_flags)?);
        let mut api_server = api_server_launch.start()?;
        etcd.await_ready(&admin, &slot.plain_url(Port::EtcdClient), "/readyz", READY_WITHIN).await?;
        api_server.await_ready(&admin, &slot.url(Port::ApiServer), "/readyz", READY_WITHIN).await?;

        let flags = controller_manager_flags(&slot, &authority, options.controller_manager_flags)?;
        let mut controller_manager = launch("kube-controller-manager", flags).start()?;
        let flags = scheduler_flags(&slot, &authority, options.scheduler_flags)?;
        let mut scheduler = launch("kube-scheduler", flags).start()?;
        controller_manager.await_ready(&admin, &slot.url(Port::ControllerManager), "/healthz", READY_WITHIN).await?;
        scheduler.await_ready(&admin, &slot.url(Port::Scheduler), "/readyz", READY_WITHIN).await?;

        Ok(ControlPlane {
            _scheduler: scheduler,
            _controller_manager: controller_manager,
            api_server: Mutex::new(Some(api_server)),
            _etcd: etcd,
            api_server_launch,
            authority,
            admin_kubeconfig,
            slot,
        })
    }

    /// The kubeconfig of a member of system:masters.
    pub fn kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// The kubeconfig of the node of this name: user `system:node:NAME`, group `system:nodes`, nothing more.
    /// Asked again for the same name, it is the same file.
    ///
    /// # Errors
    /// If the name is no node name or a file cannot be written.
    pub fn node_kubeconfig(&self, name: &str) -> Result<PathBuf> {
        ensure!(
            !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c)),
            "{name:?} is no node name"
        );
        self.authority.kubeconfig(&format!("node-{name}"), &format!("system:node:{name}"), Some("system:nodes"))
    }

    /// The authority that signs every client certificate here: what a kubelet's `clientCAFile` names.
    pub fn client_ca(&self) -> &Path {
        self.authority.certificate()
    }

    /// Where the components' logs (`logs/NAME.log`), certificates and kubeconfigs are.
    pub fn dir(&self) -> &Path {
        self.slot.dir()
    }

    /// Kills the API server, as a crash would: open watches break, nothing is drained.
    pub fn stop_api_server(&self) {
        drop(self.api_server.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Starts the API server again, on the same port and the same data, and waits until it is ready.
    /// Kills it first where it is still running.
    ///
    /// # Errors
    /// If it ends or is not ready in time.
    pub async fn start_api_server(&self) -> Result<()> {
        self.stop_api_server();
        let admin = client_config(&self.admin_kubeconfig).await?;
        let mut api_server = self.api_server_launch.start()?;
        api_server.await_ready(&admin, &self.slot.url(Port::ApiServer), "/readyz", READY_WITHIN).await?;
        *self.api_server.lock().unwrap_or_else(PoisonError::into_inner) = Some(api_server);
        Ok(())
    }
}

/// The kubeconfig of the cluster that the person running the tests named in [`EXISTING_CLUSTER`], if any.
pub fn existing() -> Option<PathBuf> {
    std::env::var_os(EXISTING_CLUSTER).filter(|path| !path.is_empty()).map(PathBuf::from)
}

pub(crate) async fn client_config(kubeconfig: &Path) -> Result<kube::Config> {
    let read = Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("reading {}", kubeconfig.display()))
}

fn etcd_flags(slot: &Slot) -> Vec<String> {
    let client = slot.plain_url(Port::EtcdClient);
    let peer = slot.plain_url(Port::EtcdPeer);
    vec![
        format!("--data-dir={}", slot.dir().join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // Nobody needs this data after a power cut.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn api_server_flags(
    slot: &Slot,
    authority: &Authority,
    advertised: Option<IpAddr>,
    more: Vec<String>,
) -> Result<Vec<String>> {
    let service = slot.first_service_address();
    let mut names: Vec<String> = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        .into_iter()
        .chain(["kubernetes.default.svc.cluster.local", "127.0.0.1"])
        .map(String::from)
        .collect();
    names.push(service.to_string());
    names.extend(advertised.map(|address| address.to_string()));
    let serving = authority.issue("kube-apiserver", "kube-apiserver", None, &Purpose::Server(names))?;
    let kubelet_client = authority.issue(
        "kube-apiserver-to-kubelets",
        "kube-apiserver-kubelet-client",
        Some("system:masters"),
        &Purpose::Client,
    )?;
    let aggregator = authority.issue(AGGREGATOR, AGGREGATOR, None, &Purpose::Client)?;
    let accounts = authority.service_account_keys();

    let mut flags = vec![
        format!("--etcd-servers={}", slot.plain_url(Port::EtcdClient)),
        format!("--secure-port={}", slot.port(Port::ApiServer)),
        format!("--client-ca-file={}", authority.certificate().display()),
        format!("--tls-cert-file={}", serving.certificate.display()),
        format!("--tls-private-key-file={}", serving.key.display()),
        format!("--kubelet-client-certificate={}", kubelet_client.certificate.display()),
        format!("--kubelet-client-key={}", kubelet_client.key.display()),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--requestheader-client-ca-file={}", authority.certificate().display()),
        format!("--requestheader-allowed-names={AGGREGATOR}"),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={}", aggregator.certificate.display()),
        format!("--proxy-client-key-file={}", aggregator.key.display()),
        format!("--service-account-key-file={}", accounts.public.display()),
        format!("--service-account-signing-key-file={}", accounts.private.display()),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-cluster-ip-range={}", slot.service_cidr()),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--enable-bootstrap-token-auth".into(),
        "--allow-privileged".into(),
        "--profiling=false".into(),
    ];
    match advertised {
        Some(address) => {
            flags.push("--bind-address=0.0.0.0".into());
            flags.push(format!("--advertise-address={address}"));
        }
        // Without any other address the `kubernetes` Service has no endpoints; all else works.
        None => flags.extend(["--bind-address=127.0.0.1".into(), "--advertise-address=127.0.0.1".into()]),
    }
    flags.extend(more);
    Ok(flags)
}

fn controller_manager_flags(slot: &Slot, authority: &Authority, more: Vec<String>) -> Result<Vec<String>> {
    let name = "kube-controller-manager";
    let kubeconfig = authority.kubeconfig(name, &format!("system:{name}"), None)?;
    let mut flags = loopback_server_flags(authority, name, slot.port(Port::ControllerManager), &kubeconfig)?;
    flags.extend([
        "--controllers=*,bootstrapsigner,tokencleaner".into(),
        // Its default is a directory of the machine's, which it creates.
        format!("--flex-volume-plugin-dir={}", slot.dir().join("flexvolume").display()),
        "--use-service-account-credentials".into(),
        "--allocate-node-cidrs".into(),
        format!("--cluster-cidr={}", slot.cluster_cidr()),
        "--node-cidr-mask-size=24".into(),
        format!("--service-cluster-ip-range={}", slot.service_cidr()),
        format!("--service-account-private-key-file={}", authority.service_account_keys().private.display()),
        format!("--root-ca-file={}", authority.certificate().display()),
        format!("--cluster-signing-cert-file={}", authority.certificate().display()),
        format!("--cluster-signing-key-file={}", authority.key().display()),
    ]);
    flags.extend(more);
    Ok(flags)
}

fn scheduler_flags(slot: &Slot, authority: &Authority, more: Vec<String>) -> Result<Vec<String>> {
    let name = "kube-scheduler";
    let kubeconfig = authority.kubeconfig(name, &format!("system:{name}"), None)?;
    let mut flags = loopback_server_flags(authority, name, slot.port(Port::Scheduler), &kubeconfig)?;
    flags.extend(more);
    Ok(flags)
}

fn loopback_server_flags(authority: &Authority, name: &str, port: u16, kubeconfig: &Path) -> Result<Vec<String>> {
    let serving = authority.issue(name, name, None, &Purpose::Server(vec!["127.0.0.1".into()]))?;
    let kubeconfig = kubeconfig.display();
    Ok(vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", serving.certificate.display()),
        format!("--tls-private-key-file={}", serving.key.display()),
        "--leader-elect=false".into(),
        // At the usual 20 requests per second the controllers take 5 s to start.
        "--kube-api-qps=1000".into(),
        "--kube-api-burst=1000".into(),
        "--profiling=false".into(),
    ])
}

/// This machine's address on the way to anywhere else. No packet is sent: connecting a UDP socket only picks a route.
fn advertised_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}
