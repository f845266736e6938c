//! Why a pull failed, in words for `kubectl describe pod`.
//!
//! A variant names the step and the object. No credentials, tokens, request URLs (they may be signed) or texts of the
//! registry's own (they may echo a request) ever stand in one.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::select::Refusal;
use crate::digest::Digest;
use crate::reference::{Reference, ReferenceError};
use crate::registry::RegistryError;
use crate::store::StoreError;

/// The cause of a [`PullError`], by which callers choose a reason and whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullErrorKind {
    /// The name is not an image reference.
    InvalidName,
    /// There is no such image.
    NotFound,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry or the layout could not be reached or read; a later try may succeed.
    Unavailable,
    /// The image is not one that can run here.
    Unsupported,
    /// Content that is not what its digest or its type says.
    Corrupt,
    /// Over a size limit.
    TooLarge,
    /// It has no signature that the trust policy demands.
    Untrusted,
    /// The local store failed.
    Store,
}

/// A part of an image, as messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The manifest or index a reference stands for.
    Manifest,
    /// The manifest an index names.
    PlatformManifest(Digest),
    /// The configuration.
    Config(Digest),
    /// A layer.
    Layer(Digest),
    /// A signature over the image, or its payload.
    Signature(Digest),
}

impl Part {
    /// The digest it is known by; the top manifest's is known only once it is there.
    pub(crate) fn digest(self) -> Option<Digest> {
        match self {
            Self::Manifest => None,
            Self::PlatformManifest(digest) | Self::Config(digest) | Self::Layer(digest) | Self::Signature(digest) => {
                Some(digest)
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => f.write_str("manifest"),
            Self::PlatformManifest(digest) => write!(f, "manifest {digest}"),
            Self::Config(digest) => write!(f, "configuration {digest}"),
            Self::Layer(digest) => write!(f, "layer {digest}"),
            Self::Signature(digest) => write!(f, "signature {digest}"),
        }
    }
}

/// The image layouts that were looked at before the registry; nothing where there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layouts(pub Vec<PathBuf>);

impl fmt::Display for Layouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, layout) in self.0.iter().enumerate() {
            let before = if position == 0 { " (nor is it in the image layout " } else { " or " };
            write!(f, "{before}{}", layout.display())?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// Why a pull failed. [`PullError::message`] is the whole text for a user.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// The name is not an image reference.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// The registry has no such image, and neither has a layout.
    #[error("{image}: not found in registry {}{layouts}", image.registry())]
    NotFound {
        /// What was to be pulled.
        image: Reference,
        /// Where it is not either.
        layouts: Layouts,
    },
    /// The registry answered 401 or 403, or its token service refused.
    #[error(
        "{image}: registry {} denies access: the image is private or does not exist, and {}{layouts}",
        image.registry(),
        if *with_credentials { "the credentials given for it are not accepted" } else { "no credentials were given (see imagePullSecrets)" }
    )]
    Unauthorized {
        /// What was to be pulled.
        image: Reference,
        /// Whether the pull had credentials.
        with_credentials: bool,
        /// Where it is not either.
        layouts: Layouts,
    },
    /// The registry cannot be reached, breaks off or fails, after all tries.
    #[error("{image}: cannot get the {part} from registry {}: {cause}{layouts}", image.registry())]
    Unavailable {
        /// What was to be pulled.
        image: Reference,
        /// What was being fetched.
        part: Part,
        /// What the network or the registry's status said.
        cause: String,
        /// Where it is not either.
        layouts: Layouts,
    },
    /// The image exists and cannot run here.
    #[error("{image}: unsupported image")]
    Unsupported {
        /// What was to be pulled.
        image: Reference,
        /// What was found, what is supported, the way out.
        source: Refusal,
    },
    /// Content that is not what was announced.
    #[error("{image}: the {part} is corrupt: {problem}")]
    Corrupt {
        /// What was to be pulled.
        image: Reference,
        /// The part at fault.
        part: Part,
        /// What is wrong with it.
        problem: String,
    },
    /// Over a size limit; nothing, or no more than the limit, was downloaded.
    #[error("{image}: the {part} has {size_bytes} bytes, over the limit of {limit_bytes}")]
    TooLarge {
        /// What was to be pulled.
        image: Reference,
        /// The part at fault.
        part: Part,
        /// As announced.
        size_bytes: u64,
        /// As allowed.
        limit_bytes: u64,
    },
    /// The layers unfold to more than is allowed; what was written of it is removed.
    #[error("{image}: {problem}")]
    UnpackedTooLarge {
        /// What was to be pulled.
        image: Reference,
        /// Which limit.
        problem: String,
    },
    /// The trust policy does not let it in. Nothing of it but its manifest was fetched.
    #[error("{image}: {rule}: {problem}")]
    Untrusted {
        /// What was to be pulled.
        image: Reference,
        /// The policy and the part of it that the image falls under.
        rule: String,
        /// What was looked for, what was found, the way out.
        problem: String,
    },
    /// A file of a layout directory could not be read.
    #[error("{image}: cannot read {} of the image layout", path.display())]
    Layout {
        /// What was to be pulled.
        image: Reference,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A layout's `index.json` is not an image index.
    #[error("{image}: {} of the image layout is malformed", path.display())]
    LayoutIndex {
        /// What was to be pulled.
        image: Reference,
        /// The file.
        path: PathBuf,
        /// Where it breaks off.
        source: Arc<serde_json::Error>,
    },
    /// The local store failed.
    #[error("{image}: cannot store the image")]
    Store {
        /// What was to be pulled.
        image: Reference,
        /// What failed.
        source: StoreError,
    },
    /// What this machine was told of the registry cannot be used: `hosts.toml`, a certificate, a proxy.
    #[error("{image}: cannot set up a connection to registry {}: {cause}", image.registry())]
    Client {
        /// What was to be pulled.
        image: Reference,
        /// What the TLS library said.
        cause: String,
    },
    /// The pull's task ended without a result: the program is stopping, or the task has a defect.
    #[error("{image}: the pull was aborted")]
    Aborted {
        /// What was to be pulled.
        image: Reference,
    },
}

impl PullError {
    /// A write into the store that failed.
    pub(crate) fn storing(image: &Reference, source: io::Error) -> Self {
        Self::Store { image: image.clone(), source: StoreError::Write(Arc::new(source)) }
    }

    /// What a registry did not do for `part`, after the image was looked for in `layouts`.
    pub(crate) fn of_registry(image: &Reference, part: Part, layouts: &Layouts, error: RegistryError) -> Self {
        let (image, layouts) = (image.clone(), layouts.clone());
        match error {
            RegistryError::Denied { with_credentials } => Self::Unauthorized { image, with_credentials, layouts },
            RegistryError::Missing if part == Part::Manifest => Self::NotFound { image, layouts },
            RegistryError::Missing => {
                Self::Unavailable { image, part, cause: "it is named by the image and not there".to_owned(), layouts }
            }
            RegistryError::Unavailable(cause) => Self::Unavailable { image, part, cause, layouts },
            RegistryError::Corrupt(problem) => Self::Corrupt { image, part, problem },
            RegistryError::TooLarge { size_bytes, limit_bytes } => {
                Self::TooLarge { image, part, size_bytes, limit_bytes }
            }
            RegistryError::Store(source) => Self::Store { image, source },
            RegistryError::Client(cause) => Self::Client { image, cause },
        }
    }

    /// The cause, for the kubelet's reason.
    #[must_use]
    pub fn kind(&self) -> PullErrorKind {
        match self {
            Self::Name(_) => PullErrorKind::InvalidName,
            Self::NotFound { .. } => PullErrorKind::NotFound,
            Self::Unauthorized { .. } => PullErrorKind::Unauthorized,
            Self::Unavailable { .. } | Self::Layout { .. } | Self::Client { .. } | Self::Aborted { .. } => {
                PullErrorKind::Unavailable
            }
            Self::Unsupported { .. } => PullErrorKind::Unsupported,
            Self::Corrupt { .. } | Self::LayoutIndex { .. } => PullErrorKind::Corrupt,
            Self::TooLarge { .. } | Self::UnpackedTooLarge { .. } => PullErrorKind::TooLarge,
            Self::Untrusted { .. } => PullErrorKind::Untrusted,
            Self::Store { .. } => PullErrorKind::Store,
        }
    }

    /// The error and its causes in one line, for a container's waiting message or a CRI status.
    #[must_use]
    pub fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        message
    }
}
