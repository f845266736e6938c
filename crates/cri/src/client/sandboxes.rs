//! Calls about pod sandboxes.

use super::{CallError, Client, incomplete};
use crate::v1;

impl Client {
    /// Makes and starts a sandbox, and gives its id.
    ///
    /// # Errors
    /// The call failed.
    pub async fn run_pod_sandbox(
        &self,
        config: v1::PodSandboxConfig,
        runtime_handler: &str,
    ) -> Result<String, CallError> {
        let object = config
            .metadata
            .as_ref()
            .map_or_else(String::new, |metadata| format!("{}/{}", metadata.namespace, metadata.name));
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_owned() };
        let answer = self.call("RunPodSandbox", &object, self.runtime.clone().run_pod_sandbox(request)).await?;
        Ok(answer.pod_sandbox_id)
    }

    /// Ends a sandbox's containers by force and gives its address back. A sandbox that is stopped or gone is no error.
    ///
    /// # Errors
    /// The call failed.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CallError> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.call("StopPodSandbox", id, self.runtime.clone().stop_pod_sandbox(request)).await?;
        Ok(())
    }

    /// Removes a sandbox and its containers. A sandbox that is gone is no error.
    ///
    /// # Errors
    /// The call failed.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CallError> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.call("RemovePodSandbox", id, self.runtime.clone().remove_pod_sandbox(request)).await?;
        Ok(())
    }

    /// A sandbox's status; a runtime with events also gives its containers' and the time they were all true at.
    ///
    /// # Errors
    /// The call failed, with `is_not_found` for an unknown id.
    pub async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatusResponse, CallError> {
        const CALL: &str = "PodSandboxStatus";
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = self.call(CALL, id, self.runtime.clone().pod_sandbox_status(request)).await?;
        if answer.status.is_none() {
            return Err(incomplete(CALL, id, "status"));
        }
        Ok(answer)
    }

    /// The sandboxes that pass `filter`, or all.
    ///
    /// # Errors
    /// The call failed.
    pub async fn list_pod_sandboxes(
        &self,
        filter: Option<v1::PodSandboxFilter>,
    ) -> Result<Vec<v1::PodSandbox>, CallError> {
        let request = v1::ListPodSandboxRequest { filter };
        let answer = self.call("ListPodSandbox", "of the node", self.runtime.clone().list_pod_sandbox(request)).await?;
        Ok(answer.items)
    }
}
