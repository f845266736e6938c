//! Policies and signatures with keys and certificates made here, and everything about them that can be wrong.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, SigningKey,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::signature::Subject;
use super::*;
use crate::manifest::Manifest;

mod bundles;

const ISSUER: &str = "https://issuer.example";
const SUBJECT: &str = "https://ci.example/org/repo";
/// Within the validity of rcgen's certificates, which is from 1975 to 4096.
const LOGGED_AT: u64 = 1_700_000_000;

fn image() -> Digest {
    Digest::of(MANIFEST)
}

/// What is signed, in the tests.
const MANIFEST: &[u8] = b"image";

fn payload(digest: Digest) -> Vec<u8> {
    let critical = json!({"identity": {"docker-reference": "r.example/team/app"},
        "image": {"docker-manifest-digest": digest}, "type": "cosign container image signature"});
    json!({ "critical": critical, "optional": null }).to_string().into_bytes()
}

/// What a test may change of a good keyless signature.
struct Forge {
    issuer: &'static str,
    subject: &'static str,
    usage: ExtendedKeyUsagePurpose,
    logged_payload: Vec<u8>,
    logged_at: u64,
    other_authority: bool,
    other_log: bool,
}

impl Default for Forge {
    fn default() -> Self {
        Self {
            issuer: ISSUER,
            subject: SUBJECT,
            usage: ExtendedKeyUsagePurpose::CodeSigning,
            logged_payload: payload(image()),
            logged_at: LOGGED_AT,
            other_authority: false,
            other_log: false,
        }
    }
}

/// An authority, a log and a timestamp authority, and the trust root that names them.
struct World {
    authority: Issuer<'static, KeyPair>,
    log: KeyPair,
    stamps: KeyPair,
    root: Value,
}

impl World {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let certificate = params.self_signed(&key).unwrap();
        let (log, stamps) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let authority = Issuer::new(params, key);
        let mut stamping = CertificateParams::new(Vec::new()).unwrap();
        stamping.distinguished_name.push(DnType::CommonName, "timestamps");
        stamping.extended_key_usages = vec![ExtendedKeyUsagePurpose::TimeStamping];
        let stamping = stamping.signed_by(&stamps, &authority).unwrap();
        let b64 = |bytes: &[u8]| STANDARD.encode(bytes);
        let root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [{"baseUrl": "https://log.example", "publicKey": {"rawBytes": b64(&spki(&log)),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": {"start": "2021-01-12T11:53:27.000Z"}}}],
            "certificateAuthorities": [{"certChain": {"certificates": [{"rawBytes": b64(certificate.der())}]}}],
            "timestampAuthorities": [{"certChain": {"certificates": [{"rawBytes": b64(stamping.der())},
                {"rawBytes": b64(certificate.der())}]}, "validFor": {"start": "2023-04-14T00:00:00.000Z"}}],
        });
        Self { authority, log, stamps, root }
    }

    /// A key, and the certificate of its holder's identity.
    fn certificate(&self, forge: &Forge) -> (KeyPair, rcgen::Certificate) {
        let stranger = Self::new_authority_only();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(forge.subject.try_into().unwrap())];
        params.extended_key_usages = vec![forge.usage.clone()];
        let mut issuer = vec![0x0c, u8::try_from(forge.issuer.len()).unwrap()];
        issuer.extend(forge.issuer.as_bytes());
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 8], issuer));
        let authority = if forge.other_authority { &stranger } else { &self.authority };
        let certificate = params.signed_by(&key, authority).unwrap();
        (key, certificate)
    }

    /// A keyless signature of [`image`], as cosign stores it.
    fn sign(&self, forge: &Forge) -> Value {
        let (key, certificate) = self.certificate(forge);
        let certificate = certificate.pem();
        let payload = payload(image());
        let signature = STANDARD.encode(key.sign(&payload).unwrap());
        let logged = json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hex::encode(Sha256::digest(&forge.logged_payload))}},
            "signature": {"content": signature, "publicKey": {"content": STANDARD.encode(&certificate)}}}});
        let log = if forge.other_log { &KeyPair::generate().unwrap() } else { &self.log };
        let id = hex::encode(Sha256::digest(spki(&self.log)));
        let body = STANDARD.encode(logged.to_string());
        let entry = format!(r#"{{"body":"{body}","integratedTime":{},"logID":"{id}","logIndex":7}}"#, forge.logged_at);
        let promise = STANDARD.encode(log.sign(entry.as_bytes()).unwrap());
        let entry: Value = serde_json::from_str(&entry).unwrap();
        let bundle = json!({"SignedEntryTimestamp": promise, "Payload": entry}).to_string();
        json!({"dev.cosignproject.cosign/signature": signature, "dev.sigstore.cosign/certificate": certificate,
            "dev.sigstore.cosign/bundle": bundle})
    }

    fn new_authority_only() -> Issuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        Issuer::new(params, KeyPair::generate().unwrap())
    }
}

fn spki(key: &KeyPair) -> Vec<u8> {
    use rustls::pki_types::SubjectPublicKeyInfoDer;
    use rustls::pki_types::pem::PemObject;
    SubjectPublicKeyInfoDer::from_pem_slice(key.public_key_pem().as_bytes()).unwrap().to_vec()
}

/// The signatures of a manifest with one layer.
fn stored(annotations: &Value, payload: &[u8]) -> Vec<Found> {
    let layer = json!({"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": Digest::of(payload),
        "size": payload.len(), "annotations": annotations});
    let config =
        json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"{}"), "size": 2});
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let manifest: Manifest = serde_json::from_value(manifest).unwrap();
    signature_layers(&manifest).map(|(layer, format)| Found::read(layer, format, payload.to_vec())).collect()
}

fn policy(files: &[(&str, &str)], text: &str) -> Result<TrustPolicy, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let path = folder.path().join("policy.yaml");
    fs::write(&path, text).unwrap();
    TrustPolicy::read(&path).map_err(|error| error.to_string())
}

fn judge(policy: &TrustPolicy, image_name: &str, found: &[Found], digest: Digest) -> Result<(), String> {
    match policy.demand(&Reference::parse(image_name).unwrap())? {
        Demand::Nothing => Ok(()),
        Demand::Signature(signers) => {
            let subjects = [Subject { digest, content: MANIFEST.to_vec() }];
            signers.check(found, &subjects).map(|signer| assert!(signers.include(&signer)))
        }
    }
}

const APP: &str = "r.example/team/app:v1";

fn key_signature(key: &KeyPair, payload: &[u8]) -> Value {
    json!({"dev.cosignproject.cosign/signature": STANDARD.encode(key.sign(payload).unwrap())})
}

#[test]
fn a_key_vouches_for_what_it_signed_and_nothing_else() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
        let (key, other) = (KeyPair::generate_for(algorithm).unwrap(), KeyPair::generate_for(algorithm).unwrap());
        let text = "images: [{pattern: r.example/team/*, keys: [other.pub, team.pub]}]";
        let team = key.public_key_pem();
        let policy = policy(&[("team.pub", &team), ("other.pub", &other.public_key_pem())], text).unwrap();
        let payload = payload(image());
        let good = stored(&key_signature(&key, &payload), &payload);
        assert_eq!(judge(&policy, APP, &good, image()), Ok(()));
        let error = judge(&policy, APP, &good, Digest::of(b"another")).unwrap_err();
        assert!(error.contains("for another image"), "{error}");
        let stranger = KeyPair::generate_for(algorithm).unwrap();
        let forged = stored(&key_signature(&stranger, &payload), &payload);
        assert_eq!(judge(&policy, APP, &forged, image()).unwrap_err(), "the signature is of none of the 2 keys");
        // One good one is enough, in whatever company.
        assert_eq!(judge(&policy, APP, &[forged.clone(), good.clone()].concat(), image()), Ok(()));
        let mut changed = payload.clone();
        changed.push(b' ');
        let changed = stored(&key_signature(&key, &payload), &changed);
        assert!(judge(&policy, APP, &changed, image()).is_err());
    }
}

fn keyless(world: &World, subject: &str) -> TrustPolicy {
    let text = format!(
        "images: [{{pattern: r.example/**, identities: [{{issuer: '{ISSUER}', subject: '{subject}', trustRoot: root.json}}]}}]"
    );
    policy(&[("root.json", &world.root.to_string())], &text).unwrap()
}

#[test]
fn an_identity_vouches_by_certificate_and_log() {
    let world = World::new();
    let signed = stored(&world.sign(&Forge::default()), &payload(image()));
    for subject in [SUBJECT, "https://ci.example/org/*", "https://**"] {
        assert_eq!(judge(&keyless(&world, subject), APP, &signed, image()), Ok(()), "{subject}");
    }
    let error = judge(&keyless(&world, "https://ci.example/*"), APP, &signed, image()).unwrap_err();
    assert_eq!(error, format!("it was signed by {SUBJECT:?}"), "a * ends at a slash");
}

#[test]
fn whatever_is_wrong_with_a_keyless_signature_is_told() {
    let world = World::new();
    let policy = keyless(&world, SUBJECT);
    let check = |forge: Forge, words: &str| {
        let signed = stored(&world.sign(&forge), &payload(image()));
        let error = judge(&policy, APP, &signed, image()).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    };
    check(Forge { issuer: "https://evil.example", ..Forge::default() }, "an identity of \"https://evil.example\"");
    check(Forge { subject: "https://ci.example/evil", ..Forge::default() }, "signed by \"https://ci.example/evil\"");
    check(Forge { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Forge::default() }, "no authority of the trust root");
    check(Forge { other_authority: true, ..Forge::default() }, "no authority of the trust root");
    check(Forge { logged_at: 1, ..Forge::default() }, "does not believe the log at the time");
    check(Forge { other_log: true, ..Forge::default() }, "not signed by the log");
    check(Forge { logged_payload: b"other".to_vec(), ..Forge::default() }, "about another signature");

    let mut without = world.sign(&Forge::default());
    without.as_object_mut().unwrap().remove("dev.sigstore.cosign/bundle");
    let error = judge(&policy, APP, &stored(&without, &payload(image())), image()).unwrap_err();
    assert!(error.contains("does not stand in a transparency log"), "{error}");
    let bare = stored(&key_signature(&KeyPair::generate().unwrap(), &payload(image())), &payload(image()));
    assert!(judge(&policy, APP, &bare, image()).unwrap_err().contains("no certificate of an identity"));
}

#[test]
fn the_first_entry_that_fits_counts() {
    let key = KeyPair::generate().unwrap().public_key_pem();
    let text = "
default: reject
images:
- {pattern: r.example/team/open, accept: true}
- {pattern: r.example/team/bad*, accept: false}
- {pattern: r.example/team/*, keys: [k.pub]}
- {pattern: 'docker.io/library/**', accept: true}
";
    let policy = policy(&[("k.pub", &key)], text).unwrap();
    for (name, wanted) in [
        ("r.example/team/open:v1", "nothing"),
        ("r.example/team/bad-one", "its entry rejects it"),
        ("r.example/team/app", "signature"),
        ("r.example/team/deep/app", "no entry is for it"),
        ("r.example.evil/team/open", "no entry is for it"),
        ("nginx", "nothing"),
    ] {
        let said = match policy.demand(&Reference::parse(name).unwrap()) {
            Ok(Demand::Nothing) => "nothing".to_owned(),
            Ok(Demand::Signature(_)) => "signature".to_owned(),
            Err(error) => error,
        };
        assert!(said.contains(wanted), "{name}: {said}");
    }
    let name = policy.name_for(&Reference::parse(APP).unwrap());
    assert!(name.contains("policy.yaml, images \"r.example/team/*\""), "{name}");
}

#[test]
fn a_policy_that_cannot_be_kept_to_is_refused() {
    let key = KeyPair::generate().unwrap().public_key_pem();
    for (text, words) in [
        ("images: [{pattern: r.example/*}]", "names neither keys nor identities nor accept"),
        ("images: [{pattern: r.example/*, keys: [k.pub], accept: true}]", "either accept"),
        ("images: [{pattern: r.example, accept: true}]", "is not REGISTRY/REPOSITORY"),
        ("images: [{pattern: 'r.example/a:v1@x', accept: true}]", "is not REGISTRY/REPOSITORY"),
        ("images: [{pattern: r.example/*, keys: [missing.pub]}]", "missing.pub"),
        ("images: [{pattern: r.example/*, keys: [policy.yaml]}]", "no public key in PEM"),
        ("images: [{pattern: r.example/*, key: k.pub}]", "key"),
        (
            "images: [{pattern: r.example/*, identities: [{issuer: i, subject: '**', trustRoot: k.pub}]}]",
            "all wildcards",
        ),
        (
            "images: [{pattern: r.example/*, identities: [{issuer: i, subject: s, trustRoot: k.pub}]}]",
            "no trusted root",
        ),
        ("default: maybe", "maybe"),
    ] {
        let error = policy(&[("k.pub", &key)], text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}
