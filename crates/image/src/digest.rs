//! Content digests: text from manifests and references comes in, a checked sha256 value goes out.
//!
//! Only sha256 exists here: the store has one address space, and every registry in use speaks it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A sha256 content digest, written `sha256:<64 lowercase hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Why a text is not a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Another algorithm than sha256.
    #[error("digest algorithm {0:?} is not supported, use sha256")]
    Algorithm(String),
    /// Not `algorithm:hex` with 64 lowercase hexadecimal digits.
    #[error("{0:?} is not a digest, expected sha256: and 64 lowercase hexadecimal digits")]
    Format(String),
}

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// The digest a finished hasher holds.
    pub(crate) fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// The digest with these bytes.
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hexadecimal digits alone, as file names under `blobs/sha256` are.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Format(text.to_owned());
        let (algorithm, digits) = text.split_once(':').ok_or_else(malformed)?;
        if algorithm != "sha256" {
            let known = matches!(algorithm, "sha384" | "sha512" | "blake3");
            return Err(if known { DigestError::Algorithm(algorithm.to_owned()) } else { malformed() });
        }
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(malformed());
        }
        let mut value = [0; 32];
        hex::decode_to_slice(digits, &mut value).map_err(|_| malformed())?;
        Ok(Self(value))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_sha256_is_a_digest() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(empty.parse::<Digest>().unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").to_string(), empty);
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:e3b0",
            &empty.to_uppercase(),
            &empty.replace('e', "E"),
            "sha256:../../../etc/passwd",
        ] {
            assert!(matches!(bad.parse::<Digest>(), Err(DigestError::Format(_))), "{bad}");
        }
        assert_eq!("sha512:00".parse::<Digest>(), Err(DigestError::Algorithm("sha512".into())));
    }
}
