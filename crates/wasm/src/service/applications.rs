//! Spin applications as containers: an image, an environment and mounts come in, compiled components with their files and
//! grants go out. What cannot run is refused before any file of the container is made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use image::Spin;
use image::spin::{File as SpinFile, FileContent};
use serde_json::json;

use crate::code::{Code, Unfit};
use crate::container::mounts::{MountError, MountRequest};
use crate::guest::Mount;
use crate::guest::application::{Application, Part as Component};
use crate::host_path;
use crate::keyvalue::{Bucket, Files, Memory};
use crate::runtime::Core;
use crate::service::error::ServiceError;
use crate::spin::{Part, Plan, PlanError, Store, runtime_config};
use crate::wasi::Grants;

/// What is read of a locked application and of a runtime configuration: as much as a manifest may have. In bytes.
const TEXT_LIMIT: u64 = 4 << 20;

/// An application that can run, with its components' code.
pub(super) struct Planned {
    pub(super) plan: Plan,
    codes: Vec<Arc<Code>>,
}

/// An application with its files, ready to be served: its first component, and what goes with it.
pub(super) struct Assembled {
    pub(super) code: Arc<Code>,
    pub(super) id: String,
    pub(super) env: Vec<(String, String)>,
    pub(super) mounts: Vec<Mount>,
    pub(super) application: Application,
}

/// Where an application's files and pairs are to be.
pub(super) struct Place {
    /// The container's own directory.
    pub(super) directory: PathBuf,
    /// The container's mounts, the root first.
    pub(super) mounts: Vec<Mount>,
    /// The pod's pairs.
    pub(super) pairs: Memory,
}

impl Core {
    /// Plans an application and compiles what of it is not compiled yet.
    pub(super) async fn plan(
        &self,
        image: &str,
        spin: &Spin,
        environment: &[(String, String)],
        config: Option<MountRequest>,
    ) -> Result<Planned, ServiceError> {
        let refused = |source| ServiceError::Application { image: image.to_owned(), source };
        let (locked_app, config) = {
            let path = spin.locked_app.path.clone();
            let read = tokio::task::spawn_blocking(move || {
                let locked_app = File::open(&path).and_then(text_of);
                let guest = "locked application".to_owned();
                let locked_app = locked_app.map_err(|source| MountError::HostPath { guest, host: path, source })?;
                Ok::<_, MountError>((locked_app, config_of(config)?))
            });
            read.await.map_err(|_| ServiceError::ShuttingDown)??
        };
        let plan = Plan::new(locked_app.as_bytes(), environment, config.as_deref()).map_err(refused)?;
        let mut codes = Vec::new();
        for part in &plan.parts {
            missing(spin, part).map_err(refused)?;
            let failed =
                |source| ServiceError::Component { image: image.to_owned(), component: part.id.clone(), source };
            let Some(wasm) = spin.blob(&part.wasm) else { continue };
            let code = self.engines.code(&wasm.path, &wasm.digest.to_string()).await.map_err(failed)?;
            if !code.kind().is_http() {
                let detail =
                    "a component of a Spin application must export wasi:http/incoming-handler or wasi:http/handler";
                return Err(failed(Unfit::NoEntryPoint { detail: detail.to_owned() }.into()));
            }
            codes.push(code);
        }
        Ok(Planned { plan, codes })
    }
}

impl Planned {
    /// Puts the components' files where they belong. Blocks for some system calls per file.
    pub(super) fn assemble(self, image: &str, spin: &Spin, place: &Place) -> Result<Assembled, ServiceError> {
        let Plan { name, version, router, answers, parts, .. } = self.plan;
        let about = Bytes::from(json!({ "name": name, "version": version }).to_string());
        let mut components = Vec::new();
        for (number, (part, code)) in parts.into_iter().zip(self.codes).enumerate() {
            let root = place.directory.join("components").join(number.to_string());
            lay_out(spin, &part.files, &root)?;
            let grants =
                grants(&part, place).map_err(|source| ServiceError::Application { image: image.to_owned(), source })?;
            let at_root = Mount { host: root, guest: "/".to_owned(), read_only: true };
            let volumes = place.mounts.iter().filter(|mount| mount.guest != "/").cloned();
            let mounts = std::iter::once(at_root).chain(volumes).collect();
            components.push((part.id, code, part.env, mounts, grants));
        }
        let mut components = components.into_iter();
        let no_route = || ServiceError::Application { image: image.to_owned(), source: PlanError::NoRoute };
        let (id, code, env, mounts, first) = components.next().ok_or_else(no_route)?;
        // Each has been seen to answer HTTP.
        let others =
            components.filter_map(|(id, code, env, mounts, grants)| Component::new(id, &code, env, mounts, grants));
        let others = others.collect();
        let application = Application { router, answers, about, first, others };
        Ok(Assembled { code, id, env, mounts, application })
    }
}

/// Takes the runtime configuration out of the mounts: it is the node that reads it, not a component.
pub(super) fn without_config(mounts: &[MountRequest]) -> (Vec<MountRequest>, Option<MountRequest>) {
    let (config, others): (Vec<_>, Vec<_>) =
        mounts.iter().cloned().partition(|mount| mount.guest == runtime_config::PATH);
    (others, config.into_iter().next())
}

fn config_of(config: Option<MountRequest>) -> Result<Option<String>, MountError> {
    let Some(MountRequest { guest, host, .. }) = config else { return Ok(None) };
    let open = || {
        let found = host_path::find(&host)?;
        if !found.is_directory() {
            return found.open(OpenOptions::new().read(true));
        }
        // A volume without a subPath is a directory of that name, with the file in it.
        let file = host_path::open_beneath(&found, Path::new(guest.trim_start_matches('/')))?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    match open().and_then(text_of) {
        // An optional Secret that is not there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(|source| MountError::HostPath { guest, host, source }),
    }
}

fn text_of(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(TEXT_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether all that a component is made of is in the image.
fn missing(spin: &Spin, part: &Part) -> Result<(), PlanError> {
    let wasm = std::iter::once((&part.wasm, "its wasm".to_owned()));
    let files = part.files.iter().filter_map(|file| match &file.content {
        FileContent::Blob(digest) => Some((digest, format!("the file {}", file.path.display()))),
        FileContent::Inline(_) => None,
    });
    match wasm.chain(files).find(|(digest, _)| spin.blob(digest).is_none()) {
        Some((digest, what)) => Err(PlanError::NoBlob { component: part.id.clone(), what, digest: *digest }),
        None => Ok(()),
    }
}

/// A directory of a component's files. They are the store's own, which nobody writes to: the directory is read-only.
fn lay_out(spin: &Spin, files: &[SpinFile], root: &Path) -> Result<(), MountError> {
    crate::records::create_directory(root)?;
    for file in files {
        let path = root.join(&file.path);
        if let Some(directory) = path.parent() {
            crate::records::create_directory(directory)?;
        }
        let put = match &file.content {
            FileContent::Inline(content) => fs::write(&path, content),
            FileContent::Blob(digest) => match spin.blob(digest) {
                // On another file system they are copied.
                Some(blob) => fs::hard_link(&blob.path, &path).or_else(|_| fs::copy(&blob.path, &path).map(drop)),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        };
        put.map_err(|source| MountError::Write { path, source })?;
    }
    Ok(())
}

fn grants(part: &Part, place: &Place) -> Result<Grants, PlanError> {
    let bucket = |(label, store): (&String, &Store)| {
        let bucket = match store {
            Store::Pod => Bucket::Pod(place.pairs.clone()),
            Store::Own => Bucket::Pod(Memory::default()),
            Store::Volume(path) => {
                let volume = place.mounts.iter().find(|mount| mount.guest != "/" && mount.guest == *path);
                let volume = volume.ok_or_else(|| PlanError::NoVolume {
                    component: part.id.clone(),
                    label: label.clone(),
                    path: path.clone(),
                })?;
                Bucket::Volume(Files::new(volume.host.clone(), volume.read_only))
            }
        };
        Ok::<_, PlanError>((label.clone(), bucket))
    };
    Ok(Grants {
        variables: part.variables.clone().into(),
        stores: part.stores.iter().map(bucket).collect::<Result<_, _>>()?,
        hosts: part.hosts.clone(),
    })
}
