//! Images on the node, in CRI's words.
//!
//! In come names as pods write them, out go images of the store, or an error whose text is fit for `kubectl describe`.
//! Not here: fetching and verifying (crate `image`), and compiling.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use cri::{Code, v1};
use image::{
    Content, Credentials, CredentialsError, Image, Lease, Program, ProgramError, PullError, PullErrorKind, Puller,
    PullerOptions, Reference, Store, StoreError, TrustPolicy,
};

/// Why an image cannot be had, told or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The request has no name.
    #[error("image: missing")]
    Missing,
    /// The pull failed.
    #[error("{}", pull_message(.0))]
    Pull(PullError),
    /// The credentials cannot be read.
    #[error("credentials for image {image}")]
    Credentials {
        /// The name.
        image: String,
        /// What is wrong with them.
        #[source]
        source: CredentialsError,
    },
    /// The image is not on the node.
    #[error("image {0:?} not found")]
    NotFound(String),
    /// The image has no program of this name that runs here.
    #[error("image {image}")]
    Program {
        /// The name.
        image: String,
        /// Why not.
        #[source]
        source: ProgramError,
    },
    /// The image is an application that answers HTTP and has no programs.
    #[error("image {image} is the Spin application {application:?}, which answers HTTP and has no programs to be run")]
    SpinApplication {
        /// The name.
        image: String,
        /// What the application calls itself.
        application: String,
    },
    /// The image has no files to mount.
    #[error("image {image} cannot be mounted: {problem}")]
    NotMountable {
        /// The name.
        image: String,
        /// Why not.
        problem: String,
    },
    /// A container is made of it.
    #[error("image {image} is used by container {container}")]
    InUse {
        /// The name.
        image: String,
        /// The container's id.
        container: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work was interrupted by the end of the process.
    #[error("the runtime is shutting down")]
    ShuttingDown,
}

/// The kubelet knows an unreachable registry and a missing signature by these words, and has reasons of its own for them.
fn pull_message(error: &PullError) -> String {
    match error.kind() {
        PullErrorKind::Unavailable => format!("RegistryUnavailable: {}", error.message()),
        PullErrorKind::Untrusted => format!("SignatureValidationFailed: {}", error.message()),
        _ => error.message(),
    }
}

impl ImageError {
    /// The gRPC code. An unreachable registry is not `Unavailable`: that would say the runtime itself is.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Missing | Self::Credentials { .. } | Self::Store(StoreError::Name(_)) => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::InUse { .. } | Self::Store(StoreError::InUse(_)) => Code::FailedPrecondition,
            Self::Program { .. } | Self::SpinApplication { .. } | Self::NotMountable { .. } => Code::FailedPrecondition,
            Self::Store(_) => Code::Internal,
            Self::ShuttingDown => Code::Unavailable,
            Self::Pull(error) => match error.kind() {
                PullErrorKind::InvalidName => Code::InvalidArgument,
                PullErrorKind::NotFound => Code::NotFound,
                PullErrorKind::Unauthorized => Code::PermissionDenied,
                PullErrorKind::Unavailable => Code::Unknown,
                PullErrorKind::Unsupported | PullErrorKind::Untrusted => Code::FailedPrecondition,
                PullErrorKind::Corrupt => Code::DataLoss,
                PullErrorKind::TooLarge => Code::ResourceExhausted,
                PullErrorKind::Store => Code::Internal,
            },
        }
    }
}

/// An image that is not removed for as long as this is held.
pub(crate) struct Held {
    pub(crate) image: Image,
    pub(crate) lease: Lease,
}

/// Where the programs of a container are found: its own, and those of commands beside it.
pub(crate) struct Programs {
    /// The image's name, for messages.
    pub(crate) name: String,
    pub(crate) image: Image,
    /// The environment's `PATH`.
    pub(crate) path: Option<String>,
    pub(crate) working_dir: Option<String>,
}

/// The images of this node.
pub(crate) struct Images {
    puller: Puller,
}

impl Images {
    /// Opens the store at `root`. Images are looked for in `layouts` before a registry is asked.
    pub(crate) fn open(
        root: PathBuf,
        layouts: Vec<PathBuf>,
        plain_http: Vec<String>,
        hosts_directory: Option<PathBuf>,
        trust: Option<Arc<TrustPolicy>>,
    ) -> Result<Self, StoreError> {
        let options =
            PullerOptions { layouts, plain_http, hosts_directory, trust, ..PullerOptions::new(Store::open(root)?) };
        Ok(Self { puller: Puller::new(options) })
    }

    pub(crate) async fn pull(&self, name: &str, auth: Option<v1::AuthConfig>) -> Result<Image, ImageError> {
        let reference = Reference::parse(name).map_err(|error| ImageError::Pull(error.into()))?;
        let credentials = auth.map(credentials).transpose();
        let credentials = credentials.map_err(|source| ImageError::Credentials { image: name.to_owned(), source })?;
        self.puller.pull(&reference, credentials.flatten()).await.map_err(ImageError::Pull)
    }

    /// The image of a name or an id, if it is on the node.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let name = name.to_owned();
        self.store(move |store| store.resolve(&name)).await
    }

    /// The image that a container is to be made of, kept from removal. `asked` is its name as the pod has it, under which
    /// the trust policy judges it.
    pub(crate) async fn hold(&self, name: &str, asked: &str) -> Result<Held, ImageError> {
        let missing = || ImageError::NotFound(name.to_owned());
        let image = self.find(name).await?.ok_or_else(missing)?;
        self.puller.judge(&image, asked).await.map_err(ImageError::Pull)?;
        self.store(move |store| Ok(store.lease(&image)?.map(|lease| Held { image, lease }))).await?.ok_or_else(missing)
    }

    /// The program that an argument vector runs.
    pub(crate) async fn program(&self, programs: &Programs, args: Vec<String>) -> Result<Program, ImageError> {
        let Programs { name, image, path, working_dir } = programs;
        let rootfs = match &image.content {
            Content::Wasm(wasm) => return Ok(Program { wasm: wasm.clone(), args }),
            Content::Rootfs(rootfs) => rootfs.clone(),
            Content::Spin(spin) => {
                let application = spin.name.clone();
                return Err(ImageError::SpinApplication { image: name.clone(), application });
            }
        };
        let (path, working_dir) = (path.clone(), working_dir.clone());
        let found = self.store(move |_| Ok(rootfs.program(&args, path.as_deref(), working_dir.as_deref())));
        found.await?.map_err(|source| ImageError::Program { image: name.clone(), source })
    }

    /// The directory of an image that is to be mounted.
    pub(crate) async fn directory(&self, name: &str, image: &Image, sub_path: &str) -> Result<PathBuf, ImageError> {
        let refused = |problem: String| ImageError::NotMountable { image: name.to_owned(), problem };
        let Content::Rootfs(rootfs) = &image.content else {
            return Err(refused("it is made of wasm alone and has no files".to_owned()));
        };
        let (root, wanted) = (rootfs.path(), rootfs.path().join(sub_path));
        let resolved = self.store(move |_| Ok((root.canonicalize(), wanted.canonicalize()))).await?;
        match resolved {
            (Ok(root), Ok(directory)) if directory.starts_with(&root) && directory.is_dir() => Ok(directory),
            _ => Err(refused(format!("it has no directory {sub_path:?}"))),
        }
    }

    pub(crate) async fn list(&self) -> Result<Vec<Image>, ImageError> {
        self.store(Store::list).await
    }

    pub(crate) async fn remove(&self, image: &Image) -> Result<(), ImageError> {
        let id = image.id;
        self.store(move |store| store.remove(id)).await?;
        Ok(())
    }

    /// The digests of all wasm files of all images, in hex.
    pub(crate) fn wasm_digests(&self) -> Result<HashSet<String>, StoreError> {
        wasm_digests(self.puller.store())
    }

    /// Where images are, with the bytes and inodes they take.
    pub(crate) async fn usage(&self) -> Result<(PathBuf, image::FsUsage), ImageError> {
        self.store(|store| Ok((store.root().to_owned(), store.usage()?))).await
    }

    async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let store = self.puller.store().clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        Ok(done.map_err(|_| ImageError::ShuttingDown)??)
    }
}

/// The digests of all wasm files of all images of a store, in hex.
pub(crate) fn wasm_digests(store: &Store) -> Result<HashSet<String>, StoreError> {
    let mut digests = HashSet::new();
    for image in store.list()? {
        match &image.content {
            Content::Wasm(wasm) => drop(digests.insert(wasm.digest.hex())),
            Content::Rootfs(rootfs) => match rootfs.wasm_files() {
                Ok(files) => digests.extend(files.values().map(image::Digest::hex)),
                // Removed meanwhile, and its code with it.
                Err(error) => tracing::debug!(image = %image.id, %error, "its files are not there"),
            },
            Content::Spin(spin) => digests.extend(spin.layers.iter().map(|layer| layer.digest.hex())),
        }
    }
    Ok(digests)
}

/// What CRI's message proves. One without anything in it proves nothing.
fn credentials(auth: v1::AuthConfig) -> Result<Option<Credentials>, CredentialsError> {
    Ok(if !auth.registry_token.is_empty() {
        Some(Credentials::Bearer(auth.registry_token))
    } else if !auth.identity_token.is_empty() {
        Some(Credentials::IdentityToken(auth.identity_token))
    } else if !auth.username.is_empty() {
        Some(Credentials::Basic { username: auth.username, password: auth.password })
    } else if !auth.auth.is_empty() {
        Some(Credentials::from_auth(&auth.auth)?)
    } else {
        None
    })
}

/// As CRI shows it.
pub(crate) fn cri_image(image: &Image) -> v1::Image {
    let uid = image.config.user.as_deref().and_then(|user| user.split(':').next()?.parse().ok());
    let username = image.config.user.clone().filter(|_| uid.is_none()).unwrap_or_default();
    v1::Image {
        id: image.id.to_string(),
        repo_tags: image.references.iter().map(ToString::to_string).collect(),
        repo_digests: image.digests.iter().map(ToString::to_string).collect(),
        size: image.size_bytes,
        uid: uid.map(|value| v1::Int64Value { value }),
        username,
        ..Default::default()
    }
}

/// The reference that says which image exactly: by digest where it has one.
pub(crate) fn exact_reference(image: &Image) -> String {
    image.digests.first().map_or_else(|| image.id.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_registry_has_the_kubelets_word_and_not_the_runtimes_code() {
        let image = Reference::parse("registry.example/team/app:1").unwrap();
        let cause = "connection refused".to_owned();
        let error = ImageError::Pull(PullError::Unavailable {
            image,
            part: image::Part::Manifest,
            layouts: image::Layouts::default(),
            cause,
        });
        let text = crate::service::error::chain(&error);
        assert!(text.starts_with("RegistryUnavailable: ") && text.contains("connection refused"), "{text}");
        assert_eq!(error.code(), Code::Unknown);
    }

    #[test]
    fn credentials_are_taken_in_the_order_of_what_they_prove() {
        let auth = |registry_token: &str, username: &str, auth: &str| v1::AuthConfig {
            registry_token: registry_token.into(),
            username: username.into(),
            auth: auth.into(),
            ..Default::default()
        };
        assert_eq!(credentials(auth("", "", "")).unwrap(), None);
        assert_eq!(credentials(auth("t", "u", "")).unwrap(), Some(Credentials::Bearer("t".into())));
        let basic = Credentials::Basic { username: "u".into(), password: String::new() };
        assert_eq!(credentials(auth("", "u", "")).unwrap(), Some(basic));
        let identity = v1::AuthConfig { identity_token: "i".into(), ..auth("", "u", "") };
        assert_eq!(credentials(identity).unwrap(), Some(Credentials::IdentityToken("i".into())));
        assert!(credentials(auth("", "", "???")).is_err());
    }
}
