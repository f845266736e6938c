//! Checks of images.

use tokio::time;
use tonic::Code;

use super::{Checked, Failure, PATIENCE, Seam, ensure, refused};
use crate::client::CallError;
use crate::v1::{ImageFilter, ImageSpec};

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..ImageSpec::default() }
}

async fn pull(seam: &Seam, image: &str) -> Checked<Result<String, CallError>> {
    time::timeout(PATIENCE, seam.client.pull_image(spec(image), None, None))
        .await
        .map_err(|_| Failure::Expectation(format!("no end of the pull of {image}")))
}

/// After a pull the image is found by its name and by what the pull gave, and stands in the list.
///
/// # Errors
/// The check does not hold.
pub async fn a_pulled_image_is_on_the_node(seam: &Seam) -> Checked {
    let name = &seam.images.exits_zero;
    let image_ref = pull(seam, name).await??;
    ensure!(!image_ref.is_empty(), "the pull gave no reference");
    let Some(image) = seam.client.image_status(spec(name)).await? else {
        return Err(Failure::Expectation(format!("{name} is pulled and has no status")));
    };
    ensure!(!image.id.is_empty(), "no id: {image:?}");
    ensure!(image.size > 0, "no size: {image:?}");
    let by_ref = seam.client.image_status(spec(&image_ref)).await?.unwrap_or_default();
    ensure!(by_ref.id == image.id, "{image_ref} is {:?} and not {:?}", by_ref.id, image.id);
    let all = seam.client.list_images(None).await?;
    ensure!(all.iter().any(|listed| listed.id == image.id), "not in the list: {all:?}");
    let filter = ImageFilter { image: Some(spec(name)) };
    let found = seam.client.list_images(Some(filter)).await?;
    ensure!(found.iter().map(|listed| &listed.id).eq([&image.id]), "the list for {name} is {found:?}");
    Ok(())
}

/// A user can see from the error which image it was.
///
/// # Errors
/// The check does not hold.
pub async fn a_pull_of_a_missing_image_names_it(seam: &Seam) -> Checked {
    let name = &seam.images.missing;
    let error = refused(pull(seam, name).await?, &[Code::NotFound, Code::Unknown])?;
    ensure!(error.message().contains(name), "{name} is not named: {:?}", error.message());
    let status = seam.client.image_status(spec(name)).await?;
    ensure!(status.is_none(), "there is one after all: {status:?}");
    Ok(())
}

/// The kubelet tells a missing image from a failure by this.
///
/// # Errors
/// The check does not hold.
pub async fn status_of_an_unknown_image_is_empty(seam: &Seam) -> Checked {
    let status = seam.client.image_status(spec(&seam.images.missing)).await?;
    ensure!(status.is_none(), "there is one: {status:?}");
    Ok(())
}

/// Removing is idempotent.
///
/// # Errors
/// The check does not hold.
pub async fn removing_an_unknown_image_is_no_error(seam: &Seam) -> Checked {
    seam.client.remove_image(spec(&seam.images.missing)).await?;
    Ok(())
}
