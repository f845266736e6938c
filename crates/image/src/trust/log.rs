//! Transparency logs: an entry and what its log gave for it come in, whether it is about a signature and since when goes
//! out.
//!
//! Rekor v1 promises with a signed time to take an entry in, and proves later that it did; Rekor v2 proves at once and
//! tells no time. A promise and a proof that are there must both be right. Of a proof the root and the size count that
//! the log has signed in its checkpoint, nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha384};

use super::root::{Log, TrustRoot, unix_time};
use super::signature::{Claim, Signature};

const MALFORMED: &str = "the log's entry is malformed";
/// Lines of signatures under a checkpoint that are looked at.
const CHECKPOINT_SIGNATURES_MAX: usize = 32;

/// An entry of a transparency log.
#[derive(Debug, Clone)]
pub(super) struct LogEntry {
    log_id: Vec<u8>,
    body: Vec<u8>,
    /// Seconds since the epoch; it counts where there is a promise.
    integrated_time: u64,
    index: u64,
    promise: Option<Vec<u8>>,
    proof: Option<Proof>,
}

/// A proof that an entry stands in a log.
#[derive(Debug, Clone)]
struct Proof {
    index: u64,
    hashes: Vec<[u8; 32]>,
    checkpoint: String,
}

/// As cosign keeps an entry beside a signature.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Annotation {
    signed_entry_timestamp: String,
    payload: Promised,
}

/// The fields in the order in which the log signs them.
#[derive(Deserialize, Serialize)]
struct Promised {
    body: String,
    #[serde(rename = "integratedTime")]
    integrated_time: u64,
    #[serde(rename = "logID")]
    log_id: String,
    #[serde(rename = "logIndex")]
    log_index: u64,
}

/// As a Sigstore bundle has an entry. Protobuf's JSON leaves zeros out and writes large numbers as text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct BundledEntry {
    log_index: Number,
    log_id: BundledId,
    integrated_time: Number,
    inclusion_promise: Option<BundledPromise>,
    inclusion_proof: Option<BundledProof>,
    canonicalized_body: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct BundledId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundledPromise {
    signed_entry_timestamp: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundledProof {
    #[serde(default)]
    log_index: Number,
    #[serde(default)]
    hashes: Vec<String>,
    checkpoint: BundledCheckpoint,
}

#[derive(Deserialize)]
struct BundledCheckpoint {
    envelope: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

impl Default for Number {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Number {
    fn value(&self) -> Result<u64, String> {
        match self {
            Self::Number(value) => Ok(*value),
            Self::Text(text) => text.parse().map_err(|_| MALFORMED.to_owned()),
        }
    }
}

fn bytes(base64: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(base64).map_err(|_| MALFORMED.to_owned())
}

impl LogEntry {
    pub(super) fn of_annotation(json: &str) -> Result<Self, String> {
        let Annotation { signed_entry_timestamp, payload } = serde_json::from_str(json).map_err(|_| MALFORMED)?;
        Ok(Self {
            log_id: hex::decode(&payload.log_id).map_err(|_| MALFORMED)?,
            body: bytes(&payload.body)?,
            integrated_time: payload.integrated_time,
            index: payload.log_index,
            promise: Some(bytes(&signed_entry_timestamp)?),
            proof: None,
        })
    }

    pub(super) fn of_bundle(entry: BundledEntry) -> Result<Self, String> {
        let proof = |proof: BundledProof| {
            let hashes =
                proof.hashes.iter().map(|hash| <[u8; 32]>::try_from(bytes(hash)?).map_err(|_| MALFORMED.to_owned()));
            Ok::<_, String>(Proof {
                index: proof.log_index.value()?,
                hashes: hashes.collect::<Result<_, _>>()?,
                checkpoint: proof.checkpoint.envelope,
            })
        };
        let promise = entry.inclusion_promise.map(|promise| bytes(&promise.signed_entry_timestamp));
        Ok(Self {
            log_id: bytes(&entry.log_id.key_id)?,
            body: bytes(&entry.canonicalized_body)?,
            integrated_time: entry.integrated_time.value()?,
            index: entry.log_index.value()?,
            promise: promise.transpose()?.filter(|promise| !promise.is_empty()),
            proof: entry.inclusion_proof.map(proof).transpose()?,
        })
    }

    pub(super) fn has_proof(&self) -> bool {
        self.proof.is_some()
    }

    /// Checks that a log of `root` has taken in that this certificate made this signature over `signed`. Gives the time
    /// at which it did, where the log has signed one.
    pub(super) fn check(
        &self,
        root: &TrustRoot,
        signature: &Signature,
        signed: &[u8],
        leaf: &CertificateDer<'_>,
    ) -> Result<Option<UnixTime>, String> {
        let log = root.logs.iter().find(|log| log.ids.contains(&self.log_id));
        let log = log.ok_or("it stands in a transparency log that the trust root does not name")?;
        let body: Value = serde_json::from_slice(&self.body).map_err(|_| MALFORMED)?;
        if self.promise.is_none() && self.proof.is_none() {
            return Err("the log's entry has neither a promise nor a proof".to_owned());
        }
        let time = self.promise.as_ref().map(|promise| self.check_promise(log, promise)).transpose()?;
        if let Some(proof) = &self.proof {
            let is_second = body["apiVersion"] == "0.0.2" && body["kind"] == "hashedrekord";
            self.check_proof(log, proof, is_second)?;
        }
        match is_about(&body, signature, signed, leaf)? {
            true => Ok(time),
            false => Err("the log's entry is about another signature".to_owned()),
        }
    }

    fn check_promise(&self, log: &Log, promise: &[u8]) -> Result<UnixTime, String> {
        let promised = Promised {
            body: STANDARD.encode(&self.body),
            integrated_time: self.integrated_time,
            log_id: hex::encode(&self.log_id),
            log_index: self.index,
        };
        let promised = serde_json::to_vec(&promised).map_err(|_| MALFORMED)?;
        if !log.key.verifies(&promised, promise) {
            return Err("the log's entry is not signed by the log".to_owned());
        }
        let time = unix_time(self.integrated_time);
        match log.validity.holds(time) {
            true => Ok(time),
            false => Err("the trust root does not believe the log at the time of its entry".to_owned()),
        }
    }

    fn check_proof(&self, log: &Log, proof: &Proof, is_second: bool) -> Result<(), String> {
        let checkpoint = Checkpoint::parse(&proof.checkpoint).ok_or("the log's checkpoint is malformed")?;
        if !checkpoint.signatures.iter().any(|signature| log.key.verifies(checkpoint.text.as_bytes(), signature)) {
            return Err("the log's checkpoint is not signed by the log".to_owned());
        }
        // One key may sign for several logs, which since Rekor v2 are told apart by their names.
        if is_second && checkpoint.origin != log.host {
            return Err("the checkpoint is another log's".to_owned());
        }
        let leaf = Sha256::new_with_prefix([0]).chain_update(&self.body).finalize().into();
        match root_of(leaf, proof.index, checkpoint.size, &proof.hashes) {
            Some(root) if root == checkpoint.root => Ok(()),
            _ => Err("the log's proof does not lead to its checkpoint".to_owned()),
        }
    }
}

/// What a log says of itself: a note (C2SP's signed note and checkpoint).
struct Checkpoint<'a> {
    /// What is signed.
    text: &'a str,
    origin: &'a str,
    size: u64,
    root: [u8; 32],
    signatures: Vec<Vec<u8>>,
}

impl<'a> Checkpoint<'a> {
    fn parse(note: &'a str) -> Option<Self> {
        let end = note.find("\n\n")? + 1;
        let (text, below) = note.split_at(end);
        let mut lines = text.lines();
        let origin = lines.next()?;
        let size = lines.next()?.parse().ok()?;
        let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let signatures = below.lines().filter(|line| !line.is_empty()).take(CHECKPOINT_SIGNATURES_MAX);
        // An em dash, the signer's name, and four bytes of its key's hash before the signature.
        let signatures = signatures.filter_map(|line| {
            let (_, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            STANDARD.decode(signature).ok()?.get(4..).map(<[u8]>::to_vec)
        });
        Some(Self { text, origin, size, root, signatures: signatures.collect() })
    }
}

/// The root of a Merkle tree of `size` leaves that has `leaf` at `index`, by the hashes beside its way up (RFC 9162,
/// 2.1.3.2).
fn root_of(leaf: [u8; 32], index: u64, size: u64, hashes: &[[u8; 32]]) -> Option<[u8; 32]> {
    let (mut at, mut last) = (index, size.checked_sub(1)?);
    if at > last {
        return None;
    }
    let node = |left: [u8; 32], right: [u8; 32]| -> [u8; 32] {
        Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
    };
    let mut root = leaf;
    for hash in hashes {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            root = node(*hash, root);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            root = node(root, *hash);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

/// Whether an entry says that this certificate made this signature over `signed`.
fn is_about(body: &Value, signature: &Signature, signed: &[u8], leaf: &CertificateDer<'_>) -> Result<bool, String> {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let decoded = |pointer: &str| STANDARD.decode(text(pointer)).unwrap_or_default();
    let is_leaf = |pem: &[u8]| CertificateDer::from_pem_slice(pem).is_ok_and(|logged| logged == *leaf);
    let payload_is = |hex: &str| match &signature.claim {
        Claim::Envelope { payload, .. } => hex == hex::encode(Sha256::digest(payload)),
        Claim::Payload(_) | Claim::Manifest(_) => false,
    };
    let kind = (text("/kind"), text("/apiVersion"));
    Ok(match kind {
        ("hashedrekord", "0.0.1") => {
            let hash = match text("/spec/data/hash/algorithm") {
                "sha256" => hex::encode(Sha256::digest(signed)),
                "sha384" => hex::encode(Sha384::digest(signed)),
                _ => return Ok(false),
            };
            text("/spec/data/hash/value") == hash
                && decoded("/spec/signature/content") == signature.signature
                && is_leaf(&decoded("/spec/signature/publicKey/content"))
        }
        ("hashedrekord", "0.0.2") => {
            let hash = match text("/spec/hashedRekordV002/data/algorithm") {
                "SHA2_256" => Sha256::digest(signed).to_vec(),
                "SHA2_384" => Sha384::digest(signed).to_vec(),
                _ => return Ok(false),
            };
            decoded("/spec/hashedRekordV002/data/digest") == hash
                && decoded("/spec/hashedRekordV002/signature/content") == signature.signature
                && decoded("/spec/hashedRekordV002/signature/verifier/x509Certificate/rawBytes") == leaf.as_ref()
        }
        ("dsse", "0.0.1") => {
            text("/spec/payloadHash/algorithm") == "sha256"
                && payload_is(text("/spec/payloadHash/value"))
                && decoded("/spec/signatures/0/signature") == signature.signature
                && is_leaf(&decoded("/spec/signatures/0/verifier"))
        }
        ("intoto", "0.0.2") => {
            // Encoded twice, by the envelope and by the log.
            let logged = STANDARD.decode(decoded("/spec/content/envelope/signatures/0/sig")).unwrap_or_default();
            text("/spec/content/payloadHash/algorithm") == "sha256"
                && payload_is(text("/spec/content/payloadHash/value"))
                && logged == signature.signature
                && is_leaf(&decoded("/spec/content/envelope/signatures/0/publicKey"))
        }
        (kind, version) => {
            return Err(format!("the log's entry is of a kind that is not supported ({kind:?}, {version:?})"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(name: u8) -> [u8; 32] {
        Sha256::digest([0, name]).into()
    }

    /// The root of leaves, and the hashes beside the way from one of them (RFC 9162, 2.1.1 and 2.1.3.1).
    fn tree(leaves: &[[u8; 32]], at: usize) -> ([u8; 32], Vec<[u8; 32]>) {
        if let [only] = leaves {
            return (*only, Vec::new());
        }
        let split = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(split);
        let (of, other) =
            if at < split { (tree(left, at), tree(right, 0)) } else { (tree(right, at - split), tree(left, 0)) };
        let (mut hashes, (own, beside)) = (of.1, (of.0, other.0));
        hashes.push(beside);
        let (left, right) = if at < split { (own, beside) } else { (beside, own) };
        (Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into(), hashes)
    }

    #[test]
    fn every_leaf_of_every_tree_leads_to_its_root_and_no_other_does() {
        for size in 1..=20_u8 {
            let leaves: Vec<_> = (0..size).map(leaf).collect();
            for at in 0..size {
                let (root, hashes) = tree(&leaves, usize::from(at));
                let (index, size) = (u64::from(at), u64::from(size));
                assert_eq!(root_of(leaf(at), index, size, &hashes), Some(root), "{at} of {size}");
                assert_ne!(root_of(leaf(99), index, size, &hashes), Some(root));
                if size > 1 {
                    assert_ne!(root_of(leaf(at), index, size, &hashes[1..]), Some(root));
                    assert_ne!(root_of(leaf(at), (index + 1) % size, size, &hashes), Some(root), "{at} of {size}");
                }
                let longer = [hashes.as_slice(), &[leaf(98)]].concat();
                assert_eq!(root_of(leaf(at), index, size, &longer), None);
            }
            assert_eq!(root_of(leaf(0), u64::from(size), u64::from(size), &[]), None);
        }
    }

    #[test]
    fn a_checkpoint_is_a_note_with_signatures_below_it() {
        let root = STANDARD.encode(leaf(1));
        let note =
            format!("log.example\n7\n{root}\nmore\n\n\u{2014} log.example AAAAAGFi\n\u{2014} witness AAAAAGM=\nno\n");
        let checkpoint = Checkpoint::parse(&note).unwrap();
        assert_eq!((checkpoint.origin, checkpoint.size, checkpoint.root), ("log.example", 7, leaf(1)));
        assert_eq!(checkpoint.text, format!("log.example\n7\n{root}\nmore\n"));
        assert_eq!(checkpoint.signatures, [b"ab".to_vec(), b"c".to_vec()]);
        for bad in ["", "log\n\n", "log\n7\n\n", "log\nseven\nAAAA\n\n", "log\n7\nAAAA\n\n"] {
            assert!(Checkpoint::parse(bad).is_none(), "{bad:?}");
        }
    }
}
