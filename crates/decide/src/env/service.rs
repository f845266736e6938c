//! Variables that tell a container where Services are.

use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The namespace of the Service that every pod is told of.
const MASTER_NAMESPACE: &str = "default";
/// That Service.
const MASTER: &str = "kubernetes";

/// Variables for the Services of the namespace, if they are wanted (`enableServiceLinks`), and for
/// `default/kubernetes`. Headless Services have none.
#[must_use]
pub fn variables(services: &[Arc<api::Service>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, (&api::ServiceSpec, IpAddr)> = BTreeMap::new();
    for service in services {
        let (Some(name), Some(spec)) = (service.metadata.name.as_deref(), &service.spec) else { continue };
        let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) else { continue };
        let its_namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        if links && its_namespace == namespace {
            // The pod's own namespace wins where it, too, has a `kubernetes`.
            chosen.insert(name, (spec, address));
        } else if its_namespace == MASTER_NAMESPACE && name == MASTER {
            chosen.entry(name).or_insert((spec, address));
        }
    }
    let mut variables = BTreeMap::new();
    for (name, (spec, address)) in chosen {
        tell(&mut variables, &upper(name), spec, address);
    }
    variables
}

fn tell(variables: &mut BTreeMap<String, String>, service: &str, spec: &api::ServiceSpec, address: IpAddr) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    variables.insert(format!("{service}_SERVICE_HOST"), address.to_string());
    variables.insert(format!("{service}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.insert(format!("{service}_SERVICE_PORT_{}", upper(name)), port.port.to_string());
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = url(protocol, address, port.port);
        if index == 0 {
            variables.insert(format!("{service}_PORT"), url.clone());
        }
        let prefix = format!("{service}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{prefix}_PORT"), port.port.to_string());
        variables.insert(format!("{prefix}_ADDR"), address.to_string());
        variables.insert(prefix, url);
    }
}

fn url(protocol: &str, address: IpAddr, port: i32) -> String {
    let authority = match u16::try_from(port) {
        Ok(port) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{address}:{port}"),
    };
    format!("{}://{authority}", protocol.to_lowercase())
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}
