//! Calls about the runtime itself.

use futures::{Stream, StreamExt as _};

use super::{CallError, Client, failed};
use crate::v1;

/// What stands for the object in an error of a call that has none.
const RUNTIME: &str = "of the runtime";

impl Client {
    /// The runtime's name and version.
    ///
    /// # Errors
    /// The call failed.
    pub async fn version(&self) -> Result<v1::VersionResponse, CallError> {
        let request = v1::VersionRequest { version: "v1".to_owned() };
        self.call("Version", RUNTIME, self.runtime.clone().version(request)).await
    }

    /// The conditions `RuntimeReady` and `NetworkReady`, and what the runtime can do. With `verbose` also what it cares to
    /// tell about itself.
    ///
    /// # Errors
    /// The call failed.
    pub async fn status(&self, verbose: bool) -> Result<v1::StatusResponse, CallError> {
        let request = v1::StatusRequest { verbose };
        self.call("Status", RUNTIME, self.runtime.clone().status(request)).await
    }

    /// Tells the runtime the range that pod addresses come from, as in `10.1.2.0/24`.
    ///
    /// # Errors
    /// The call failed.
    pub async fn update_runtime_config(&self, pod_cidr: &str) -> Result<(), CallError> {
        let network = v1::NetworkConfig { pod_cidr: pod_cidr.to_owned() };
        let request = v1::UpdateRuntimeConfigRequest {
            runtime_config: Some(v1::RuntimeConfig { network_config: Some(network) }),
        };
        self.call("UpdateRuntimeConfig", pod_cidr, self.runtime.clone().update_runtime_config(request)).await?;
        Ok(())
    }

    /// What happens to containers from now on. The stream ends with the connection, or with an error when the reader is
    /// too slow: what was missed must then be listed.
    ///
    /// # Errors
    /// The call failed, or later the stream did.
    pub async fn container_events(
        &self,
    ) -> Result<impl Stream<Item = Result<v1::ContainerEventResponse, CallError>> + Send + Unpin + use<>, CallError>
    {
        const CALL: &str = "GetContainerEvents";
        let request = v1::GetEventsRequest {};
        let events = self.call(CALL, RUNTIME, self.runtime.clone().get_container_events(request)).await?;
        Ok(events.map(|event| event.map_err(|source| failed(CALL, RUNTIME, source))))
    }
}
