//! The environment of a container: what its `env` and `envFrom` name is gathered, and the pure core makes it up.
//!
//! Comes in: the pod, the container, its addresses. Goes out: variables, command and arguments; or why not, in the
//! kubelet's words. Never here: what wins over what; [`decide::env`] knows.

use std::net::IpAddr;

use decide::env::field::Facts;
use decide::event::Failure;
use decide::pod::{Container, Pod, Resources};

pub use decide::env::ContainerEnvironment;

use crate::objects::{self, ObjectError, Objects};

/// Where a pod is.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// The pod's addresses, the primary one first.
    pub pod_ips: Vec<IpAddr>,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<IpAddr>,
}

/// The environment that a container of the pod is created with. `allocatable` stands in for limits that are not set.
///
/// # Errors
/// `CreateContainerConfigError`: something that is not optional is missing, or the API server does not answer.
pub async fn container_environment(
    objects: &Objects,
    pod: &Pod,
    container: &Container,
    addresses: &Addresses,
    allocatable: &Resources,
) -> Result<ContainerEnvironment, Failure> {
    let not_had = |error: ObjectError| Failure::new("CreateContainerConfigError", error.message());
    let references: Vec<_> = objects::of_environment(container).collect();
    let configs = objects.configs(&pod.name.namespace, &references).await.map_err(not_had)?;
    let services = objects.services().await.map_err(not_had)?;
    let facts = Facts { pod_ips: &addresses.pod_ips, host_ips: &addresses.host_ips, allocatable };
    Ok(decide::env::environment(pod, container, &facts, &configs, &services)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::objects::mock_api::MockApi;

    async fn made(server: &MockApi, container: &str) -> Result<ContainerEnvironment, Failure> {
        let yaml = format!(
            "{{metadata: {{name: p, namespace: ns, uid: u}}, spec: {{containers: [{{name: c, image: i, {container}}}]}}}}"
        );
        let api: k8s_openapi::api::core::v1::Pod = serde_saphyr::from_str(&yaml).unwrap();
        let pod = decide::parse::parse(Arc::new(api)).unwrap();
        let objects = Objects::of_api_at(server.client(), server.clock());
        objects.register(&pod);
        let addresses = Addresses { pod_ips: vec![[10, 0, 0, 5].into()], host_ips: vec![[192, 0, 2, 1].into()] };
        let allocatable = Resources { memory_bytes: Some(1 << 30), ..Resources::default() };
        let container = pod.containers.iter().next().unwrap();
        container_environment(&objects, &pod, container, &addresses, &allocatable).await
    }

    #[tokio::test(start_paused = true)]
    async fn everything_a_container_names_is_gathered() {
        let server = MockApi::new();
        server.put("configmaps", "ns", "m", json!({"data": {"FROM_MAP": "1"}}));
        server.put("secrets", "ns", "s", json!({"data": {"k": "aGlkZGVu"}}));
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 443}]});
        server.put("services", "default", "kubernetes", json!({"spec": spec}));
        let container = "args: ['$(FROM_SECRET)', '$(KUBERNETES_SERVICE_HOST)'], envFrom: [{configMapRef: {name: m}}], env: [ \
            {name: FROM_SECRET, valueFrom: {secretKeyRef: {name: s, key: k}}}, \
            {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, \
            {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}, \
            {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}]";
        let made = made(&server, container).await.unwrap();
        assert_eq!(made.args, ["hidden", "10.96.0.1"]);
        let of = |name: &str| made.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let names = ["FROM_MAP", "FROM_SECRET", "IPS", "HOST", "MEMORY", "KUBERNETES_PORT"];
        let values = ["1", "hidden", "10.0.0.5", "192.0.2.1", "1024", "tcp://10.96.0.1:443"];
        assert_eq!(names.map(of), values.map(Some));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_had_keeps_the_container_from_being_created() {
        let server = MockApi::new();
        let container = "envFrom: [{secretRef: {name: none}}]";
        let failure = made(&server, container).await.unwrap_err();
        assert_eq!(failure, Failure::new("CreateContainerConfigError", "secret \"none\" not found"));

        server.set_away(true);
        let failure = made(&server, container).await.unwrap_err();
        assert_eq!(failure.reason, "CreateContainerConfigError");
        assert!(failure.message.starts_with("reading Secret ns/none: "), "{}", failure.message);
        let failure = made(&server, "env: []").await.unwrap_err();
        assert!(failure.message.starts_with("no answer from the API server about Services"), "{}", failure.message);
    }
}
