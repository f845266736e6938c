//! Names that the runtime gives: ids of sandboxes and containers, and the times it stamps them with.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// An id that nobody has: 64 hexadecimal digits of randomness, as other runtimes' ids are.
            #[must_use]
            pub(crate) fn random() -> Self {
                Self(hex::encode(rand::random::<[u8; 32]>()).into())
            }

            /// The digits.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<String> for $name {
            fn from(digits: String) -> Self {
                Self(digits.into())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// Names one sandbox, for good: a pod that is given a new sandbox has a new id.
    SandboxId
}

id! {
    /// Names one container, for good: a container that is restarted is a new one.
    ContainerId
}

/// A time as CRI writes it: nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Nanoseconds(pub(crate) i64);

impl Nanoseconds {
    pub(crate) fn now() -> Self {
        // 64 bits last until the year 2262.
        Self(i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_hexadecimal_digits_and_differ() {
        let id = ContainerId::random();
        assert!(id.as_str().len() == 64 && id.as_str().bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_ne!(id, ContainerId::random());
    }
}
