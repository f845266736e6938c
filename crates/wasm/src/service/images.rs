//! CRI's `ImageService`: pull, look, list, remove.

use std::sync::Arc;

use cri::v1;
use cri::v1::image_service_server::ImageService;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::container::State;
use crate::id::Nanoseconds;
use crate::images::{ImageError, cri_image};
use crate::runtime::Runtime;
use crate::service::error::{ServiceError, chain};
use crate::service::{Answer, USE_LIST, not_supported};

fn name(spec: Option<v1::ImageSpec>) -> Result<String, ServiceError> {
    match spec {
        Some(spec) if !spec.image.is_empty() => Ok(spec.image),
        _ => Err(ImageError::Missing.into()),
    }
}

#[tonic::async_trait]
impl ImageService for Runtime {
    async fn pull_image(&self, request: Request<v1::PullImageRequest>) -> Answer<v1::PullImageResponse> {
        let request = request.into_inner();
        let name = name(request.image)?;
        let image = self.core.images.pull(&name, request.auth).await.map_err(ServiceError::from)?;
        tracing::info!(image = name, id = %image.id, "image pulled");
        Ok(Response::new(v1::PullImageResponse { image_ref: image.id.to_string() }))
    }

    async fn image_status(&self, request: Request<v1::ImageStatusRequest>) -> Answer<v1::ImageStatusResponse> {
        let name = name(request.into_inner().image)?;
        let image = self.core.images.find(&name).await.map_err(ServiceError::from)?;
        Ok(Response::new(v1::ImageStatusResponse { image: image.as_ref().map(cri_image), ..Default::default() }))
    }

    async fn list_images(&self, request: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        let images = match request.into_inner().filter.and_then(|filter| filter.image) {
            Some(spec) if !spec.image.is_empty() => self.core.images.find(&spec.image).await.map(Vec::from_iter),
            _ => self.core.images.list().await,
        };
        let images = images.map_err(ServiceError::from)?;
        Ok(Response::new(v1::ListImagesResponse { images: images.iter().map(cri_image).collect() }))
    }

    async fn remove_image(&self, request: Request<v1::RemoveImageRequest>) -> Answer<v1::RemoveImageResponse> {
        let name = name(request.into_inner().image)?;
        let Some(image) = self.core.images.find(&name).await.map_err(ServiceError::from)? else {
            return Ok(Response::new(v1::RemoveImageResponse {}));
        };
        let id = image.id.to_string();
        let containers = self.core.registry().containers();
        // One that has ended needs its image no more.
        let uses = |state: &State| !matches!(state, State::Exited(_));
        if let Some(user) = containers.iter().find(|it| it.spec.image_id == id && uses(&it.state.borrow())) {
            let in_use = ImageError::InUse { image: name, container: user.id.to_string() };
            return Err(ServiceError::from(in_use).into());
        }
        self.core.images.remove(&image).await.map_err(ServiceError::from)?;
        tracing::info!(image = name, id, "image removed");
        self.core.tidy_code().await;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Answer<v1::ImageFsInfoResponse> {
        let (root, usage) = self.core.images.usage().await.map_err(ServiceError::from)?;
        let core = Arc::clone(&self.core);
        let code = tokio::task::spawn_blocking(move || core.engines.code_usage()).await;
        let code = code.map_err(|_| ServiceError::ShuttingDown)?;
        let (code_bytes, code_files) = code.map_err(|error| Status::internal(chain(&error)))?;
        let filesystem = |mountpoint: &std::path::Path, bytes, inodes| v1::FilesystemUsage {
            timestamp: Nanoseconds::now().0,
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: mountpoint.to_string_lossy().into_owned() }),
            used_bytes: Some(v1::UInt64Value { value: bytes }),
            inodes_used: Some(v1::UInt64Value { value: inodes }),
        };
        Ok(Response::new(v1::ImageFsInfoResponse {
            image_filesystems: vec![filesystem(&root, usage.bytes + code_bytes, usage.inodes + code_files)],
            container_filesystems: Vec::new(),
        }))
    }

    async fn stream_images(
        &self,
        _: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<BoxStream<v1::StreamImagesResponse>>, Status> {
        not_supported("StreamImages", USE_LIST)
    }
}
