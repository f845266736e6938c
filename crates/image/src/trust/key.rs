//! Public keys: PEM or DER comes in, whether a signature is theirs goes out.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::ring::{
    ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
};
use x509_parser::asn1_rs::Oid;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::digest::Digest;

/// A way to sign, hash and all.
type Algorithm = &'static dyn SignatureVerificationAlgorithm;

/// A public key.
#[derive(Clone)]
pub(super) struct Key {
    /// The ways in which such a key signs. A signature is good if it is good in one of them.
    algorithms: Vec<Algorithm>,
    /// The key itself, as its algorithm writes it.
    bits: Vec<u8>,
    /// The whole of it.
    der: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Reads `-----BEGIN PUBLIC KEY-----`.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem);
        Self::from_der(key.map_err(|_| "it is no public key in PEM".to_owned())?.as_ref())
    }

    /// Reads a SubjectPublicKeyInfo.
    pub(super) fn from_der(der: &[u8]) -> Result<Self, String> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| "it is no public key".to_owned())?;
        if !rest.is_empty() {
            return Err("it is no public key".to_owned());
        }
        let written = info.algorithm.algorithm.as_bytes();
        let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let algorithms: Vec<Algorithm> = match (written, curve.as_ref().map(Oid::as_bytes)) {
            (EC_PUBLIC_KEY, Some(P256)) => vec![ECDSA_P256_SHA256, ECDSA_P256_SHA384],
            // cosign hashed with SHA-256 for every key before it hashed by the curve.
            (EC_PUBLIC_KEY, Some(P384)) => vec![ECDSA_P384_SHA384, ECDSA_P384_SHA256],
            (ED25519_KEY, _) => vec![ED25519],
            (RSA_KEY, _) => {
                vec![RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512]
            }
            _ => {
                return Err(
                    "it is a key of a kind that is not supported; ECDSA P-256 and P-384, Ed25519 and RSA are".into()
                );
            }
        };
        Ok(Self { algorithms, bits: info.subject_public_key.data.to_vec(), der: der.to_vec() })
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.algorithms.iter().any(|algorithm| algorithm.verify_signature(&self.bits, message, signature).is_ok())
    }

    /// The hash of the key as a SubjectPublicKeyInfo: what `openssl pkey -pubin -outform DER | sha256sum` says.
    pub(super) fn fingerprint(&self) -> Digest {
        Digest::of(&self.der)
    }
}

/// Object identifiers as DER has them, without tag and length.
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519_KEY: &[u8] = &[0x2b, 0x65, 0x70];
const RSA_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
