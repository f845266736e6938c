//! Calls about containers.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::oneshot;
use tonic::Code;

use super::{CallError, Client, ExecError, failed, incomplete};
use crate::v1;
use crate::wasklet::AttachRequest;
use crate::wasklet::attach_response::Output;

impl Client {
    /// Makes a container in a sandbox, out of an image that is already there, and gives its id. `sandbox` is the
    /// configuration that the sandbox was run with.
    ///
    /// # Errors
    /// The call failed.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String, CallError> {
        let object = config.metadata.as_ref().map_or_else(String::new, |metadata| metadata.name.clone());
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        let answer = self.call("CreateContainer", &object, self.runtime.clone().create_container(request)).await?;
        Ok(answer.container_id)
    }

    /// Starts a created container. A container starts once.
    ///
    /// # Errors
    /// The call failed.
    pub async fn start_container(&self, id: &str) -> Result<(), CallError> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        self.call("StartContainer", id, self.runtime.clone().start_container(request)).await?;
        Ok(())
    }

    /// Asks a container to end and, after `grace` (rounded up to whole seconds), ends it by force. Returns when it has
    /// ended; one that is not running is no error. The call may take `grace` beyond the usual timeout.
    ///
    /// # Errors
    /// The call failed.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CallError> {
        let grace_seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let request = v1::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::try_from(grace_seconds).unwrap_or(i64::MAX),
        };
        let limit = self.request_timeout.saturating_add(Duration::from_secs(grace_seconds));
        self.within(limit, "StopContainer", id, self.runtime.clone().stop_container(request)).await?;
        Ok(())
    }

    /// Removes a container, by force if it runs. A container that is gone is no error.
    ///
    /// # Errors
    /// The call failed.
    pub async fn remove_container(&self, id: &str) -> Result<(), CallError> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        self.call("RemoveContainer", id, self.runtime.clone().remove_container(request)).await?;
        Ok(())
    }

    /// The containers that pass `filter`, or all.
    ///
    /// # Errors
    /// The call failed.
    pub async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>, CallError> {
        let request = v1::ListContainersRequest { filter };
        let answer = self.call("ListContainers", "of the node", self.runtime.clone().list_containers(request)).await?;
        Ok(answer.containers)
    }

    /// A container's status.
    ///
    /// # Errors
    /// The call failed, with `is_not_found` for an unknown id.
    pub async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, CallError> {
        const CALL: &str = "ContainerStatus";
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.call(CALL, id, self.runtime.clone().container_status(request)).await?;
        answer.status.ok_or_else(|| incomplete(CALL, id, "status"))
    }

    /// What a container uses.
    ///
    /// # Errors
    /// The call failed, with `is_not_found` for an unknown id.
    pub async fn container_stats(&self, id: &str) -> Result<v1::ContainerStats, CallError> {
        const CALL: &str = "ContainerStats";
        let request = v1::ContainerStatsRequest { container_id: id.to_owned() };
        let answer = self.call(CALL, id, self.runtime.clone().container_stats(request)).await?;
        answer.stats.ok_or_else(|| incomplete(CALL, id, "stats"))
    }

    /// What the running containers that pass `filter` use.
    ///
    /// # Errors
    /// The call failed.
    pub async fn list_container_stats(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>, CallError> {
        let request = v1::ListContainerStatsRequest { filter };
        let answer =
            self.call("ListContainerStats", "of the node", self.runtime.clone().list_container_stats(request)).await?;
        Ok(answer.stats)
    }

    /// Has a running container write its log to the file now at its path, after the old one was moved.
    ///
    /// # Errors
    /// The call failed.
    pub async fn reopen_container_log(&self, id: &str) -> Result<(), CallError> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.call("ReopenContainerLog", id, self.runtime.clone().reopen_container_log(request)).await?;
        Ok(())
    }

    /// Changes the limits of a container that is created or running. What is 0 or empty in `resources` stays as it is; a
    /// limit below 0 is none.
    ///
    /// # Errors
    /// The call failed; the limits are then those from before.
    pub async fn update_container_resources(
        &self,
        id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<(), CallError> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            ..v1::UpdateContainerResourcesRequest::default()
        };
        self.call("UpdateContainerResources", id, self.runtime.clone().update_container_resources(request)).await?;
        Ok(())
    }

    /// Runs a command in a running container and gives its end, with what it wrote: of both streams together at most
    /// [`MAX_EXEC_OUTPUT_BYTES`](crate::MAX_EXEC_OUTPUT_BYTES), the rest is discarded. Past `limit` (rounded up to whole seconds; zero is no limit) the
    /// command is stopped. The call may take `limit` beyond the usual timeout; one without a limit takes what it takes.
    ///
    /// # Errors
    /// The command ran longer than it may, or the call failed. A command that ends with an exit code other than 0 is no
    /// error.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<v1::ExecSyncResponse, ExecError> {
        const CALL: &str = "ExecSync";
        let limit_seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
        let request = v1::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(limit_seconds).unwrap_or(i64::MAX),
        };
        let mut runtime = self.runtime.clone();
        let answer = runtime.exec_sync(request);
        let answered = if limit_seconds == 0 {
            self.heard(CALL, id, answer).await
        } else {
            let within = self.request_timeout.saturating_add(Duration::from_secs(limit_seconds));
            self.within(within, CALL, id, answer).await
        };
        answered.map_err(|error| match error.code() {
            Code::DeadlineExceeded => {
                ExecError::TimedOut { command: command.join(" "), limit: Duration::from_secs(limit_seconds) }
            }
            _ => ExecError::Call(error),
        })
    }

    /// Joins the standard streams of a container that is created or running. The end of `stdin` ends the container's
    /// standard input; whoever has none to give passes `futures::stream::pending()`. The output ends when the container
    /// does, and dropping it leaves the container as it is.
    ///
    /// # Errors
    /// The call failed, or later the stream did.
    pub async fn attach<S>(
        &self,
        id: &str,
        stdin: S,
    ) -> Result<impl Stream<Item = Result<Output, CallError>> + Send + Unpin + use<S>, CallError>
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        const CALL: &str = "Attach";
        let id = id.to_owned();
        let (reading, dropped) = oneshot::channel::<()>();
        let first = AttachRequest { container_id: id.clone(), ..AttachRequest::default() };
        let last = AttachRequest { close_stdin: true, ..AttachRequest::default() };
        let request = stream::iter([first])
            .chain(stdin.map(|stdin| AttachRequest { stdin, ..AttachRequest::default() }))
            .chain(stream::iter([last]))
            // The end of the request is no word of ours: without it the call would live on after its output is dropped.
            .chain(stream::pending())
            .take_until(dropped);
        let answer = self.call(CALL, &id, self.stdio.clone().attach(request)).await?;
        Ok(answer.filter_map(move |message| {
            let _ = &reading;
            std::future::ready(match message {
                Ok(message) => message.output.map(Ok),
                Err(source) => Some(Err(failed(CALL, &id, source))),
            })
        }))
    }
}
