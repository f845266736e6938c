//! Checks of what a runtime says of itself.

use super::{Checked, Seam, ensure};

/// A name, a version, and CRI's version are given.
///
/// # Errors
/// The check does not hold.
pub async fn version_names_the_runtime(seam: &Seam) -> Checked {
    let version = seam.client.version().await?;
    ensure!(!version.runtime_name.is_empty(), "no name: {version:?}");
    ensure!(!version.runtime_version.is_empty(), "no version: {version:?}");
    ensure!(version.runtime_api_version == "v1", "not CRI v1: {version:?}");
    Ok(())
}

/// The runtime is ready, and says whether the network is.
///
/// # Errors
/// The check does not hold.
pub async fn status_has_the_two_conditions(seam: &Seam) -> Checked {
    let conditions = seam.client.status(false).await?.status.unwrap_or_default().conditions;
    for name in ["RuntimeReady", "NetworkReady"] {
        ensure!(
            conditions.iter().filter(|condition| condition.r#type == name).count() == 1,
            "not one condition {name}: {conditions:?}"
        );
    }
    ensure!(
        conditions.iter().any(|condition| condition.r#type == "RuntimeReady" && condition.status),
        "the runtime is not ready: {conditions:?}"
    );
    Ok(())
}

/// At least one file system for images is named, with what is used of it.
///
/// # Errors
/// The check does not hold.
pub async fn image_file_systems_are_told(seam: &Seam) -> Checked {
    let info = seam.client.image_fs_info().await?;
    let told = info.image_filesystems.iter().any(|usage| {
        usage.timestamp > 0
            && usage.used_bytes.is_some()
            && usage.fs_id.as_ref().is_some_and(|found| !found.mountpoint.is_empty())
    });
    ensure!(told, "no image file system: {info:?}");
    Ok(())
}
