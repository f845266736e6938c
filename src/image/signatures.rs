//! Signatures of an image, as `inspect` tells of them.
//!
//! Comes in: what was found when the image was judged, or what its registry has now. Goes out: lines and JSON.

use image::{SignatureFound, Signer, Verdict, Verification};
use serde::Serialize;

use super::output;

/// One signature, in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SignatureFields {
    /// `verified`, `refused`, or `notJudged` where no policy demands one.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<SignerFields>,
    /// The policy's file and entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_at: Option<String>,
    /// Why it will not do.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who has signed by a certificate that came with it, which proves nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed: Option<Identity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SignerFields {
    Key { key: String, fingerprint: String },
    Identity(Identity),
}

#[derive(Serialize)]
struct Identity {
    issuer: String,
    subject: String,
}

impl From<&Signer> for SignerFields {
    fn from(signer: &Signer) -> Self {
        match signer {
            Signer::Key { file, fingerprint } => Self::Key { key: file.clone(), fingerprint: fingerprint.to_string() },
            Signer::Identity { issuer, subject, .. } => {
                Self::Identity(Identity { issuer: issuer.clone(), subject: subject.clone() })
            }
        }
    }
}

impl SignerFields {
    fn text(&self) -> String {
        match self {
            Self::Key { key, fingerprint } => format!("the key {key} ({fingerprint})"),
            Self::Identity(Identity { issuer, subject }) => format!("{subject} of {issuer}"),
        }
    }
}

impl From<&Verification> for SignatureFields {
    fn from(known: &Verification) -> Self {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(known.verified_at);
        Self {
            status: "verified",
            signer: Some(SignerFields::from(&known.signer)),
            policy: Some(format!("policy {}, images {:?}", known.policy.display(), known.pattern)),
            verified_at: Some(output::timestamp(at)),
            reason: None,
            claimed: None,
            format: None,
            place: Some(known.image.clone()),
            digest: None,
        }
    }
}

impl From<SignatureFound> for SignatureFields {
    fn from(found: SignatureFound) -> Self {
        let (status, signer, policy, reason) = match found.verdict {
            Verdict::Verified { signer, rule } => ("verified", Some(SignerFields::from(&signer)), Some(rule), None),
            Verdict::Refused(reason) => ("refused", None, None, Some(reason)),
            Verdict::NotJudged => ("notJudged", None, None, None),
        };
        Self {
            status,
            signer,
            policy,
            verified_at: None,
            reason,
            claimed: found.claimed.map(|(issuer, subject)| Identity { issuer, subject }),
            format: Some(found.format),
            place: Some(found.place),
            digest: Some(found.digest.to_string()),
        }
    }
}

impl SignatureFields {
    /// For people.
    pub(super) fn text(&self) -> String {
        let place = self.place.as_deref().unwrap_or_default();
        match (&self.signer, &self.reason, &self.claimed) {
            (Some(signer), ..) => {
                let (policy, at) = (self.policy.as_deref().unwrap_or_default(), self.verified_at.as_deref());
                let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
                format!("signed by {}, verified against {policy}{at} ({place})", signer.text())
            }
            (None, Some(reason), _) => format!("refused: {reason} ({place})"),
            (None, None, Some(Identity { issuer, subject })) => {
                format!("not verified, claims to be of {subject} of {issuer} ({place})")
            }
            (None, None, None) => format!("not verified, of a key ({place})"),
        }
    }
}
