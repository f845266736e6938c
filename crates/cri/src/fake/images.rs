//! `ImageService`: images by their names, and the registry they come from.

use std::collections::{BTreeMap, BTreeSet};

use tonic::{Request, Response, Status};

use super::Fake;
use crate::v1::{self, image_service_server::ImageService};

/// What every image takes, in bytes.
const IMAGE_BYTES: u64 = 64 * 1024;

/// The images of the fake.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// Names that can be pulled, with the number their digests are made of.
    registry: BTreeMap<String, usize>,
    /// Names that were.
    on_node: BTreeSet<String>,
    /// Who may pull a name, where not everybody may: a user and a password.
    private: BTreeMap<String, (String, String)>,
}

impl Images {
    pub(super) fn publish(&mut self, name: &str) {
        let number = self.registry.len() + 1;
        self.registry.entry(name.to_owned()).or_insert(number);
    }

    pub(super) fn require(&mut self, name: &str, username: &str, password: &str) {
        self.private.insert(name.to_owned(), (username.to_owned(), password.to_owned()));
    }

    /// Whether the registry lets in who shows `auth`.
    fn lets_in(&self, name: &str, auth: Option<&v1::AuthConfig>) -> bool {
        self.private.get(name).is_none_or(|(username, password)| {
            auth.is_some_and(|auth| auth.username == *username && auth.password == *password)
        })
    }

    /// Whether the registry has it.
    pub(super) fn pull(&mut self, name: &str) -> bool {
        let known = self.registry.contains_key(name);
        if known {
            self.on_node.insert(name.to_owned());
        }
        known
    }

    /// The image on the node that `reference` means: a name, an id, or a name with a digest.
    pub(super) fn find(&self, reference: &str) -> Option<v1::Image> {
        self.all().find(|image| {
            image.id == reference || image.repo_tags.iter().chain(&image.repo_digests).any(|name| name == reference)
        })
    }

    /// The name under which a script speaks of an image.
    pub(super) fn name_of(image: &v1::Image) -> String {
        image.repo_tags.first().cloned().unwrap_or_default()
    }

    fn all(&self) -> impl Iterator<Item = v1::Image> {
        self.on_node.iter().map(|name| {
            let number = self.registry.get(name).copied().unwrap_or_default();
            let digest = format!("sha256:{number:064x}");
            v1::Image {
                id: digest.clone(),
                repo_tags: vec![name.clone()],
                repo_digests: vec![format!("{}@{digest}", repository(name))],
                size: IMAGE_BYTES,
                ..v1::Image::default()
            }
        })
    }
}

/// A name without its tag or digest.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

fn named(image: Option<v1::ImageSpec>) -> Result<String, Status> {
    match image {
        Some(spec) if !spec.image.is_empty() => Ok(spec.image),
        _ => Err(Status::invalid_argument("no image is named")),
    }
}

#[tonic::async_trait]
impl ImageService for Fake {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let wanted = request.into_inner().filter.and_then(|filter| filter.image);
        let wanted = wanted.map(|spec| spec.image).filter(|name| !name.is_empty());
        self.enter("ListImages", wanted.as_deref().unwrap_or_default()).await?;
        let state = self.state();
        let images = match wanted {
            Some(name) => state.images.find(&name).into_iter().collect(),
            None => state.images.all().collect(),
        };
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let name = named(request.into_inner().image)?;
        self.enter("ImageStatus", &name).await?;
        let image = self.state().images.find(&name);
        Ok(Response::new(v1::ImageStatusResponse { image, ..v1::ImageStatusResponse::default() }))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = named(request.image)?;
        self.enter("PullImage", &name).await?;
        let mut state = self.state();
        if !state.images.lets_in(&name, request.auth.as_ref()) {
            return Err(Status::permission_denied(format!("pulling image {name:?}: access denied")));
        }
        if !state.images.pull(&name) {
            return Err(Status::not_found(format!("pulling image {name:?}: not found")));
        }
        let image_ref = state.images.find(&name).map(|image| image.id).unwrap_or_default();
        Ok(Response::new(v1::PullImageResponse { image_ref }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let name = named(request.into_inner().image)?;
        self.enter("RemoveImage", &name).await?;
        let mut state = self.state();
        if let Some(image) = state.images.find(&name) {
            state.images.on_node.remove(&Images::name_of(&image));
        }
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        self.enter("ImageFsInfo", "").await?;
        let timestamp = self.now();
        let count = self.state().images.all().count() as u64;
        let usage = v1::FilesystemUsage {
            timestamp,
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: "/var/lib/fake".to_owned() }),
            used_bytes: Some(v1::UInt64Value { value: count * IMAGE_BYTES }),
            inodes_used: Some(v1::UInt64Value { value: count }),
        };
        Ok(Response::new(v1::ImageFsInfoResponse {
            image_filesystems: vec![usage.clone()],
            container_filesystems: vec![usage],
        }))
    }
}
