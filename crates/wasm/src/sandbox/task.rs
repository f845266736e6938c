//! The task of one sandbox, the only writer of its state and the holder of its addresses and host ports.
//!
//! In come commands, out go the state, the record and events. A sandbox is said to be not ready before its guests are
//! ended, and its addresses are given back only after that, so that no other pod gets one that is still in use.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cri::v1::ContainerEventType;
use futures::future::try_join_all;
use tokio::sync::{mpsc, watch};

use crate::container::{Command as ContainerCommand, Container};
use crate::host_port::{self, Forwarder};
use crate::runtime::Core;
use crate::sandbox::network::Addresses;
use crate::sandbox::spec::SandboxSpec;
use crate::sandbox::{Command, Sandbox, SandboxRecord, State};
use crate::service::error::{ServiceError, chain};
use crate::wasi::network::PodNetwork;

/// Stops and removals that may wait for the task.
pub(crate) const COMMANDS: usize = 16;

/// One sandbox's task.
pub(crate) struct Task {
    pub(crate) core: Arc<Core>,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) held: Held,
}

/// What a sandbox holds on the node until it is stopped.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) addresses: Option<Addresses>,
    pub(crate) forwarders: Vec<Forwarder>,
}

impl Task {
    /// From creation, or from the restart of the runtime, to removal.
    pub(crate) async fn run(mut self) {
        loop {
            let command = tokio::select! {
                biased;
                () = self.core.closing.cancelled() => return,
                command = self.commands.recv() => command,
            };
            match command {
                None => return,
                Some(Command::Stop(answer)) => {
                    answer.send(self.stop().await).ok();
                }
                Some(Command::Remove(answer)) => match self.remove().await {
                    Ok(()) => {
                        answer.send(Ok(())).ok();
                        return;
                    }
                    Err(error) => {
                        answer.send(Err(error)).ok();
                    }
                },
            }
        }
    }

    async fn stop(&mut self) -> Result<(), ServiceError> {
        let was_ready = self.sandbox.is_ready();
        // From here on no container is started in it: one that is being started now is killed with the others.
        self.state.send_replace(State::NotReady);
        let containers = self.core.containers_of(&self.sandbox.id);
        // Without grace: the kubelet has stopped containers with theirs before it stops a sandbox. One that was only
        // created stays so, and cannot be started any more.
        try_join_all(containers.iter().map(|container| container.stop(Duration::ZERO))).await?;
        self.held.forwarders.clear();
        if let Some(addresses) = self.held.addresses.take() {
            self.core.network.release(addresses);
            self.record().await?;
        }
        if was_ready {
            tracing::info!(sandbox = %self.sandbox.id, pod = %self.sandbox.spec.name, "sandbox stopped");
            self.core.emit(ContainerEventType::ContainerStoppedEvent, self.sandbox.id.as_str(), &self.sandbox);
        }
        Ok(())
    }

    async fn remove(&mut self) -> Result<(), ServiceError> {
        self.stop().await?;
        let containers = self.core.containers_of(&self.sandbox.id);
        try_join_all(containers.iter().map(|container| remove(container))).await?;
        self.core.forget_sandbox(&self.sandbox)?;
        let (core, id) = (Arc::clone(&self.core), self.sandbox.id.clone());
        let removed = tokio::task::spawn_blocking(move || core.sandbox_records.remove(id.as_str())).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(sandbox = %self.sandbox.id, error = %chain(&error), "files of the sandbox are left");
        }
        self.core.emit(ContainerEventType::ContainerDeletedEvent, self.sandbox.id.as_str(), &self.sandbox);
        Ok(())
    }

    async fn record(&self) -> Result<(), ServiceError> {
        let record = record(&self.sandbox, self.held.addresses);
        let core = Arc::clone(&self.core);
        let written =
            tokio::task::spawn_blocking(move || core.sandbox_records.write(record.id.as_str(), &record)).await;
        Ok(written.map_err(|_| ServiceError::ShuttingDown)??)
    }
}

/// A sandbox as it outlives the process.
pub(crate) fn record(sandbox: &Sandbox, addresses: Option<Addresses>) -> SandboxRecord {
    SandboxRecord { id: sandbox.id.clone(), created_at: sandbox.created_at, spec: sandbox.spec.clone(), addresses }
}

async fn remove(container: &Container) -> Result<(), ServiceError> {
    match container.ask(ContainerCommand::Remove).await {
        // Somebody else removed it meanwhile.
        Err(ServiceError::NoContainer(_)) => Ok(()),
        other => other,
    }
}

/// The pod's network as its guests see it.
pub(crate) fn pod_network(spec: &SandboxSpec, addresses: Addresses) -> PodNetwork {
    match addresses {
        Addresses::Own { address, loopback } => PodNetwork::own(address, loopback),
        Addresses::Node { address } => PodNetwork::host(address, addresses.loopback()),
        Addresses::Shared { address, loopback } => {
            let everywhere = match address {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let port = |port: &host_port::HostPort| {
                let to = SocketAddr::new(port.host_ip.unwrap_or(everywhere), port.host_port);
                ((port.protocol, port.container_port), to)
            };
            let ports: HashMap<_, _> = spec.host_ports.iter().map(port).collect();
            PodNetwork::host(address, loopback).with_ports(ports)
        }
    }
}

/// Publishes the pod's ports at the node. A pod that shares the node's address binds them itself.
pub(crate) async fn publish(
    spec: &SandboxSpec,
    addresses: Addresses,
    node: IpAddr,
) -> Result<Vec<Forwarder>, ServiceError> {
    let Addresses::Own { address, .. } = addresses else { return Ok(Vec::new()) };
    let mut forwarders = Vec::new();
    for port in &spec.host_ports {
        forwarders.push(host_port::forward(*port, node, address).await?);
    }
    Ok(forwarders)
}
