//! Calls about images.

use super::{CallError, Client};
use crate::v1;

impl Client {
    /// An image that is on the node, or none.
    ///
    /// # Errors
    /// The call failed.
    pub async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>, CallError> {
        let object = image.image.clone();
        let request = v1::ImageStatusRequest { image: Some(image), verbose: false };
        let answer = self.call("ImageStatus", &object, self.images.clone().image_status(request)).await?;
        Ok(answer.image)
    }

    /// Pulls an image and gives the reference to make containers with. There is no timeout: how long a pull may stand
    /// still is known to the runtime, which sees the bytes. Dropping the future cancels the pull.
    ///
    /// # Errors
    /// The call failed. Its message is fit for the user.
    pub async fn pull_image(
        &self,
        image: v1::ImageSpec,
        auth: Option<v1::AuthConfig>,
        sandbox: Option<v1::PodSandboxConfig>,
    ) -> Result<String, CallError> {
        let object = image.image.clone();
        let request = v1::PullImageRequest { image: Some(image), auth, sandbox_config: sandbox };
        let answer = self.heard("PullImage", &object, self.images.clone().pull_image(request)).await?;
        Ok(answer.image_ref)
    }

    /// The images on the node that pass `filter`, or all.
    ///
    /// # Errors
    /// The call failed.
    pub async fn list_images(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>, CallError> {
        let request = v1::ListImagesRequest { filter };
        let answer = self.call("ListImages", "of the node", self.images.clone().list_images(request)).await?;
        Ok(answer.images)
    }

    /// Removes an image. One that is gone is no error.
    ///
    /// # Errors
    /// The call failed.
    pub async fn remove_image(&self, image: v1::ImageSpec) -> Result<(), CallError> {
        let object = image.image.clone();
        let request = v1::RemoveImageRequest { image: Some(image) };
        self.call("RemoveImage", &object, self.images.clone().remove_image(request)).await?;
        Ok(())
    }

    /// The file systems that hold images and what containers write.
    ///
    /// # Errors
    /// The call failed.
    pub async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, CallError> {
        let request = v1::ImageFsInfoRequest {};
        self.call("ImageFsInfo", "of the node", self.images.clone().image_fs_info(request)).await
    }
}
