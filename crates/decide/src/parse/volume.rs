//! `spec.volumes[]` of the API into [`Volume`]s. Which kinds are refused stands in `support/table.rs`.

use super::container::{each, pull_policy};
use super::{field, invalid, path_part, unique, unsupported, unsupported_value};
use crate::names::VolumeName;
use crate::pod::{
    ConfigKind, DownwardContent, DownwardFile, FileSource, FileVolume, HostPathKind, KeyToPath, Rejection, Volume,
    VolumeSource,
};
use crate::quantity;
use k8s_openapi::api::core::v1 as api;
use std::time::Duration;

/// Mode of projected files, unless the spec says otherwise.
const DEFAULT_MODE: u32 = 0o644;
/// Shortest life of a token.
const SHORTEST_TOKEN_SECONDS: i64 = 600;
/// Life of a token, unless the spec says otherwise.
const TOKEN_SECONDS: i64 = 3600;

pub(super) fn volumes(api: &[api::Volume]) -> Result<Vec<Volume>, Rejection> {
    let read = |(index, one): (usize, &api::Volume)| {
        let place = format!("spec.volumes[{index}]");
        path_part(&format!("{place}.name"), &one.name)?;
        Ok(Volume { name: VolumeName::from(one.name.as_str()), source: source(one, &place)? })
    };
    let volumes = api.iter().enumerate().map(read).collect::<Result<Vec<_>, Rejection>>()?;
    unique("spec.volumes", volumes.iter().map(|volume| volume.name.as_str()))?;
    Ok(volumes)
}

/// Places of size limits that nothing holds: those of directories on the disk.
pub(super) fn limits_that_do_not_hold(volumes: &[Volume]) -> impl Iterator<Item = String> {
    let not_held = |source: &VolumeSource| {
        matches!(source, VolumeSource::EmptyDir { in_memory: false, size_limit_bytes: Some(_) })
    };
    let places = volumes.iter().enumerate().filter(move |(_, volume)| not_held(&volume.source));
    places.map(|(index, _)| format!("spec.volumes[{index}].emptyDir.sizeLimit"))
}

fn source(volume: &api::Volume, place: &str) -> Result<VolumeSource, Rejection> {
    if let Some(api) = &volume.host_path {
        return host_path(api, &format!("{place}.hostPath"));
    }
    if let Some(api) = &volume.config_map {
        let place = format!("{place}.configMap");
        let source = config(ConfigKind::ConfigMap, &api.name, api.items.as_ref(), api.optional, &place)?;
        return files("kubernetes.io~configmap", api.default_mode, vec![source], &place);
    }
    if let Some(api) = &volume.secret {
        let place = format!("{place}.secret");
        let name = api.secret_name.clone().unwrap_or_default();
        let source = config(ConfigKind::Secret, &name, api.items.as_ref(), api.optional, &place)?;
        return files("kubernetes.io~secret", api.default_mode, vec![source], &place);
    }
    if let Some(api) = &volume.downward_api {
        let place = format!("{place}.downwardAPI");
        let source = FileSource::DownwardApi(each(api.items.as_ref(), &format!("{place}.items"), downward_file)?);
        return files("kubernetes.io~downward-api", api.default_mode, vec![source], &place);
    }
    if let Some(api) = &volume.projected {
        let place = format!("{place}.projected");
        let sources = each(api.sources.as_ref(), &format!("{place}.sources"), projection)?;
        return files("kubernetes.io~projected", api.default_mode, sources, &place);
    }
    if let Some(api) = &volume.image {
        let place = format!("{place}.image");
        let reference = api.reference.clone().unwrap_or_default();
        if reference.trim().is_empty() {
            return Err(invalid(format!("{place}.reference is missing")));
        }
        let pull_policy = pull_policy(api.pull_policy.as_deref(), &reference, &format!("{place}.pullPolicy"))?;
        return Ok(VolumeSource::Image { reference, pull_policy });
    }
    // A volume that names no source is an empty directory, as the API defaults it.
    empty_dir(&volume.empty_dir.clone().unwrap_or_default(), &format!("{place}.emptyDir"))
}

fn empty_dir(api: &api::EmptyDirVolumeSource, place: &str) -> Result<VolumeSource, Rejection> {
    let in_memory = match api.medium.as_deref() {
        None | Some("") => false,
        Some("Memory") => true,
        Some(other) => return Err(unsupported_value(&format!("{place}.medium"), other, "Memory or nothing")),
    };
    let size_limit_bytes = match &api.size_limit {
        None => None,
        Some(size) => {
            let bytes = quantity::whole(&size.0).map_err(|error| invalid(format!("{place}.sizeLimit: {error}")))?;
            Some(bytes).filter(|bytes| *bytes > 0)
        }
    };
    Ok(VolumeSource::EmptyDir { in_memory, size_limit_bytes })
}

fn host_path(api: &api::HostPathVolumeSource, place: &str) -> Result<VolumeSource, Rejection> {
    let path = api.path.clone();
    if !path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..") {
        return Err(invalid(format!("{place}.path: {path:?} is not an absolute path without \"..\"")));
    }
    let kind = match api.type_.as_deref() {
        None | Some("") => HostPathKind::Unchecked,
        Some("DirectoryOrCreate") => HostPathKind::DirectoryOrCreate,
        Some("Directory") => HostPathKind::Directory,
        // WASI opens directories only.
        Some(other) => {
            return Err(unsupported_value(&format!("{place}.type"), other, "Directory or DirectoryOrCreate"));
        }
    };
    Ok(VolumeSource::HostPath { path, kind })
}

fn files(
    plugin: &'static str,
    default_mode: Option<i32>,
    sources: Vec<FileSource>,
    place: &str,
) -> Result<VolumeSource, Rejection> {
    let default_mode = mode(default_mode, &format!("{place}.defaultMode"))?.unwrap_or(DEFAULT_MODE);
    Ok(VolumeSource::Files(FileVolume { plugin, default_mode, sources }))
}

fn projection(api: &api::VolumeProjection, place: &str) -> Result<FileSource, Rejection> {
    if let Some(api) = &api.config_map {
        let place = format!("{place}.configMap");
        return config(ConfigKind::ConfigMap, &api.name, api.items.as_ref(), api.optional, &place);
    }
    if let Some(api) = &api.secret {
        let place = format!("{place}.secret");
        return config(ConfigKind::Secret, &api.name, api.items.as_ref(), api.optional, &place);
    }
    if let Some(api) = &api.downward_api {
        let items = each(api.items.as_ref(), &format!("{place}.downwardAPI.items"), downward_file)?;
        return Ok(FileSource::DownwardApi(items));
    }
    if let Some(api) = &api.service_account_token {
        let seconds = api.expiration_seconds.unwrap_or(TOKEN_SECONDS).max(SHORTEST_TOKEN_SECONDS);
        return Ok(FileSource::ServiceAccountToken {
            audience: api.audience.clone().unwrap_or_default(),
            expiration: Duration::from_secs(seconds.unsigned_abs()),
            path: inner_path(&api.path, &format!("{place}.serviceAccountToken.path"))?,
        });
    }
    Err(unsupported(format!("{place} names no source that wasklet knows")))
}

fn config(
    kind: ConfigKind,
    name: &str,
    items: Option<&Vec<api::KeyToPath>>,
    optional: Option<bool>,
    place: &str,
) -> Result<FileSource, Rejection> {
    if name.is_empty() {
        return Err(invalid(format!("{place} does not name its object")));
    }
    let items = each(items, &format!("{place}.items"), |item, place| {
        Ok(KeyToPath {
            key: item.key.clone(),
            path: inner_path(&item.path, &format!("{place}.path"))?,
            mode: mode(item.mode, &format!("{place}.mode"))?,
        })
    })?;
    Ok(FileSource::Config { kind, name: name.to_owned(), items, optional: optional.unwrap_or(false) })
}

fn downward_file(api: &api::DownwardAPIVolumeFile, place: &str) -> Result<DownwardFile, Rejection> {
    let content = match (&api.field_ref, &api.resource_field_ref) {
        (Some(field), None) => DownwardContent::Field(field::for_file(field, &format!("{place}.fieldRef"))?),
        (None, Some(resource)) => {
            let place = format!("{place}.resourceFieldRef");
            let resource = field::resource(resource, &place)?;
            if resource.container.is_none() {
                return Err(invalid(format!("{place}.containerName is missing")));
            }
            DownwardContent::Resource(resource)
        }
        _ => return Err(invalid(format!("{place} must name either a field or a resource"))),
    };
    let path = inner_path(&api.path, &format!("{place}.path"))?;
    Ok(DownwardFile { path, content, mode: mode(api.mode, &format!("{place}.mode"))? })
}

/// A path inside a volume. It must stay inside, and must not look like what the atomic writer keeps there.
fn inner_path(path: &str, place: &str) -> Result<String, Rejection> {
    let inside = !path.is_empty()
        && !path.starts_with('/')
        && !path.contains('\0')
        && !path.starts_with("..")
        && path.split('/').all(|part| part != "..");
    match inside {
        true => Ok(path.to_owned()),
        false => Err(invalid(format!("{place}: {path:?} is not a relative path without \"..\""))),
    }
}

fn mode(bits: Option<i32>, place: &str) -> Result<Option<u32>, Rejection> {
    let Some(bits) = bits else {
        return Ok(None);
    };
    match u32::try_from(bits) {
        Ok(bits) if bits <= 0o777 => Ok(Some(bits)),
        _ => Err(invalid(format!("{place}: {bits} is not between 0 and 0777"))),
    }
}
