//! `RuntimeService`: takes the messages apart and puts the answers together.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use super::Fake;
use super::state::Feed;
use crate::v1::{self, runtime_service_server::RuntimeService};

type Events = tonic::codegen::BoxStream<v1::ContainerEventResponse>;

#[tonic::async_trait]
impl RuntimeService for Fake {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Result<Response<v1::VersionResponse>, Status> {
        self.enter("Version", "").await?;
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "fake".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        self.enter("Status", "").await?;
        let condition = |name: &str, status| v1::RuntimeCondition {
            r#type: name.to_owned(),
            status,
            reason: if status { String::new() } else { format!("{name}IsScripted") },
            message: String::new(),
        };
        let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", self.state().network_ready)];
        Ok(Response::new(v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions }),
            ..v1::StatusResponse::default()
        }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<v1::UpdateRuntimeConfigResponse>, Status> {
        let network = request.into_inner().runtime_config.and_then(|config| config.network_config);
        let pod_cidr = network.map(|network| network.pod_cidr).unwrap_or_default();
        self.enter("UpdateRuntimeConfig", &pod_cidr).await?;
        self.state().pod_cidr = (!pod_cidr.is_empty()).then_some(pod_cidr);
        Ok(Response::new(v1::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Result<Response<v1::RunPodSandboxResponse>, Status> {
        let pod_sandbox_id = self.run_sandbox(request.into_inner()).await?;
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Result<Response<v1::StopPodSandboxResponse>, Status> {
        self.stop_sandbox(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(v1::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Result<Response<v1::RemovePodSandboxResponse>, Status> {
        self.remove_sandbox(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(v1::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Result<Response<v1::PodSandboxStatusResponse>, Status> {
        self.sandbox_status(&request.into_inner().pod_sandbox_id).await.map(Response::new)
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Result<Response<v1::ListPodSandboxResponse>, Status> {
        let items = self.list_sandboxes(request.into_inner().filter.unwrap_or_default()).await?;
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        let container_id = self.create(request.into_inner()).await?;
        Ok(Response::new(v1::CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        self.start(&request.into_inner().container_id).await?;
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Result<Response<v1::StopContainerResponse>, Status> {
        let request = request.into_inner();
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        self.stop(&request.container_id, grace).await?;
        Ok(Response::new(v1::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        self.remove(&request.into_inner().container_id).await?;
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        let containers = self.list(request.into_inner().filter.unwrap_or_default()).await?;
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Result<Response<v1::ContainerStatusResponse>, Status> {
        let status = self.status_of(&request.into_inner().container_id).await?;
        Ok(Response::new(v1::ContainerStatusResponse {
            status: Some(status),
            ..v1::ContainerStatusResponse::default()
        }))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Result<Response<v1::UpdateContainerResourcesResponse>, Status> {
        let request = request.into_inner();
        self.update_resources(&request.container_id, request.linux.unwrap_or_default()).await?;
        Ok(Response::new(v1::UpdateContainerResourcesResponse {}))
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Result<Response<v1::ExecSyncResponse>, Status> {
        self.exec(request.into_inner()).await.map(Response::new)
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Result<Response<v1::ReopenContainerLogResponse>, Status> {
        self.reopen_log(&request.into_inner().container_id).await?;
        Ok(Response::new(v1::ReopenContainerLogResponse {}))
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Result<Response<v1::ContainerStatsResponse>, Status> {
        let stats = self.stats_of(&request.into_inner().container_id).await?;
        Ok(Response::new(v1::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Result<Response<v1::ListContainerStatsResponse>, Status> {
        let stats = self.list_stats(request.into_inner().filter.unwrap_or_default()).await?;
        Ok(Response::new(v1::ListContainerStatsResponse { stats }))
    }

    async fn get_container_events(&self, _: Request<v1::GetEventsRequest>) -> Result<Response<Events>, Status> {
        // Listening before the call is recorded: whoever saw it misses nothing.
        let feed = self.shared.feed.subscribe();
        self.enter("GetContainerEvents", "").await?;
        let events = stream::unfold(Some(feed), async |feed| {
            let mut feed = feed?;
            match feed.recv().await {
                Ok(Feed::Event(event)) => Some((Ok(*event), Some(feed))),
                Ok(Feed::Down) => Some((Err(Status::unavailable("the runtime crashed")), None)),
                Err(RecvError::Lagged(missed)) => {
                    let status = Status::data_loss(format!("{missed} events were missed"));
                    Some((Err(status), None))
                }
                Err(RecvError::Closed) => None,
            }
        });
        Ok(Response::new(events.boxed()))
    }
}
