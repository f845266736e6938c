//! Names and ids, each its own type so that no two can be mistaken for one another.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as the API or the runtime writes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// `metadata.uid`: one life of a pod. A pod deleted and created again under its old name has another.
    PodUid
);
name!(
    /// `spec.containers[].name`, unique in its pod.
    ContainerName
);
name!(
    /// `spec.volumes[].name`, unique in its pod.
    VolumeName
);
name!(
    /// The runtime's id of one container instance, without a scheme.
    ContainerId
);
name!(
    /// The runtime's id of one pod sandbox.
    SandboxId
);
name!(
    /// The runtime's id of an image: what `ImageStatus` calls its id, a digest.
    ImageId
);

/// Namespace and name of a pod: how people say which one they mean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
