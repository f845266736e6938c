//! Sigstore bundles: with keys, with identities in logs of both kinds, with timestamps, and everything that can be wrong.

use super::*;
use crate::manifest::Descriptor;

const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const V03: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn statement(digest: Digest, predicate_type: &str) -> Vec<u8> {
    let subject = json!([{"name": "", "digest": {"sha256": digest.hex()}}]);
    json!({"_type": "https://in-toto.io/Statement/v1", "subject": subject, "predicateType": predicate_type,
        "predicate": {}})
    .to_string()
    .into_bytes()
}

/// What DSSE signs.
fn encoded(payload: &[u8]) -> Vec<u8> {
    [format!("DSSEv1 28 {IN_TOTO} {} ", payload.len()).as_bytes(), payload].concat()
}

fn envelope(payload: &[u8], key: &KeyPair) -> (Value, Vec<u8>) {
    let signature = key.sign(&encoded(payload)).unwrap();
    let envelope =
        json!({"payload": b64(payload), "payloadType": IN_TOTO, "signatures": [{"sig": b64(&signature), "keyid": ""}]});
    (envelope, signature)
}

fn read(bundle: &Value) -> Vec<Found> {
    let content = bundle.to_string().into_bytes();
    vec![Found::read(&Descriptor::of(V03, &content), Format::Bundle, content)]
}

fn with_key(key: &KeyPair) -> TrustPolicy {
    policy(&[("k.pub", &key.public_key_pem())], "images: [{pattern: r.example/**, keys: [k.pub]}]").unwrap()
}

#[test]
fn a_key_vouches_by_a_statement_of_cosign() {
    let (key, stranger) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let policy = with_key(&key);
    let bundle = |payload: &[u8], key: &KeyPair| {
        json!({"mediaType": V03, "verificationMaterial": {"publicKey": {"hint": "x"}},
            "dsseEnvelope": envelope(payload, key).0})
    };
    let check = |found: &[Found]| judge(&policy, APP, found, image());
    let good = bundle(&statement(image(), SIGNED), &key);
    assert_eq!(check(&read(&good)), Ok(()));
    let refuses = |bundle: &Value, words: &str| {
        let error = check(&read(bundle)).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    };
    refuses(&bundle(&statement(image(), SIGNED), &stranger), "not of the key");
    refuses(&bundle(&statement(Digest::of(b"other"), SIGNED), &key), "for another image");
    // Who says how an image was built has not said that it is to be run.
    refuses(&bundle(&statement(image(), "https://slsa.dev/provenance/v1"), &key), "an attestation of type");
    refuses(&bundle(b"{}", &key), "no statement of in-toto");
    let mut wrong = good.clone();
    wrong["dsseEnvelope"]["payload"] = json!(b64(statement(Digest::of(b"x"), SIGNED)));
    refuses(&wrong, "for another image");
    wrong = good.clone();
    wrong["dsseEnvelope"]["payloadType"] = json!("text/plain");
    refuses(&wrong, "its envelope holds");
    wrong = good.clone();
    wrong["dsseEnvelope"]["signatures"] = json!([]);
    refuses(&wrong, "not one signature");
    wrong = good.clone();
    wrong["mediaType"] = json!("application/vnd.dev.sigstore.bundle.v0.4+json");
    refuses(&wrong, "version that is not supported");
    refuses(&json!({"mediaType": V03}), "malformed");
}

#[test]
fn a_key_vouches_for_the_manifest_itself() {
    let key = KeyPair::generate().unwrap();
    let policy = with_key(&key);
    let bundle = |signed: &[u8], digest: Digest| {
        let message = json!({"messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest.bytes())},
            "signature": b64(key.sign(signed).unwrap())});
        json!({"mediaType": V03, "verificationMaterial": {}, "messageSignature": message})
    };
    assert_eq!(judge(&policy, APP, &read(&bundle(MANIFEST, image())), image()), Ok(()));
    assert!(judge(&policy, APP, &read(&bundle(b"other", image())), image()).unwrap_err().contains("not of the key"));
    let other = judge(&policy, APP, &read(&bundle(b"other", Digest::of(b"other"))), image());
    assert!(other.unwrap_err().contains("for another image"));
}

/// How a test's keyless bundle is made, and made wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Logged {
    /// Rekor v1's entry of an envelope.
    Dsse,
    /// Its older entry of an envelope.
    Intoto,
    /// Rekor v2's entry, whose time a timestamp authority says.
    Second,
}

struct Wrong {
    forge: Forge,
    /// Another leaf in the tree than the one that is told.
    other_leaf: bool,
    unsigned_checkpoint: bool,
    /// The name the log calls itself in its checkpoint.
    origin: &'static str,
    no_promise: bool,
    no_proof: bool,
    /// What the timestamp authority saw in place of the signature.
    stamped: Option<&'static [u8]>,
    stamped_at: &'static str,
    no_stamp: bool,
    stranger_stamps: bool,
}

impl Default for Wrong {
    fn default() -> Self {
        Self {
            forge: Forge::default(),
            other_leaf: false,
            unsigned_checkpoint: false,
            origin: "log.example",
            no_promise: false,
            no_proof: false,
            stamped: None,
            stamped_at: "20231114221320Z",
            no_stamp: false,
            stranger_stamps: false,
        }
    }
}

impl World {
    fn bundle(&self, logged: Logged, wrong: &Wrong) -> Value {
        let (key, certificate) = self.certificate(&wrong.forge);
        let payload = statement(image(), SIGNED);
        let (envelope, signature) = envelope(&payload, &key);
        let (sig, pem) = (b64(&signature), b64(certificate.pem()));
        let hash = hex::encode(Sha256::digest(&payload));
        let hash = json!({"algorithm": "sha256", "value": if wrong.other_leaf { "00" } else { hash.as_str() }});
        let (kind, version, spec) = match logged {
            Logged::Dsse => (
                "dsse",
                "0.0.1",
                json!({"payloadHash": hash, "envelopeHash": {},
                "signatures": [{"signature": sig, "verifier": pem}]}),
            ),
            Logged::Intoto => (
                "intoto",
                "0.0.2",
                json!({"content": {"payloadHash": hash,
                "envelope": {"signatures": [{"sig": b64(&sig), "publicKey": pem}]}}}),
            ),
            Logged::Second => {
                let digest = b64(Sha256::digest(encoded(if wrong.other_leaf { b"other" } else { &payload })));
                let verifier = json!({"keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "x509Certificate": {"rawBytes": b64(certificate.der())}});
                (
                    "hashedrekord",
                    "0.0.2",
                    json!({"hashedRekordV002": {"data": {"algorithm": "SHA2_256",
                    "digest": digest}, "signature": {"content": sig, "verifier": verifier}}}),
                )
            }
        };
        let body = json!({"apiVersion": version, "kind": kind, "spec": spec}).to_string();
        let mut entry = json!({"logId": {"keyId": b64(Sha256::digest(spki(&self.log)))},
            "kindVersion": {"kind": kind, "version": version}, "canonicalizedBody": b64(&body)});
        if !wrong.no_proof {
            entry["inclusionProof"] = self.proof(body.as_bytes(), wrong);
        }
        let mut material = json!({"certificate": {"rawBytes": b64(certificate.der())}});
        if logged == Logged::Second {
            let stamps = if wrong.stranger_stamps { &KeyPair::generate().unwrap() } else { &self.stamps };
            let stamp = timestamp(stamps, wrong.stamped.unwrap_or(&signature), wrong.stamped_at);
            if !wrong.no_stamp {
                material["timestampVerificationData"] = json!({"rfc3161Timestamps": [{"signedTimestamp": b64(stamp)}]});
            }
        } else if !wrong.no_promise {
            let id = hex::encode(Sha256::digest(spki(&self.log)));
            let at = wrong.forge.logged_at;
            let promised = format!(r#"{{"body":"{}","integratedTime":{at},"logID":"{id}","logIndex":70}}"#, b64(&body));
            let log = if wrong.forge.other_log { &KeyPair::generate().unwrap() } else { &self.log };
            entry["integratedTime"] = json!(at.to_string());
            entry["logIndex"] = json!("70");
            entry["inclusionPromise"] = json!({"signedEntryTimestamp": b64(log.sign(promised.as_bytes()).unwrap())});
        }
        material["tlogEntries"] = json!([entry]);
        json!({"mediaType": V03, "verificationMaterial": material, "dsseEnvelope": envelope})
    }

    /// The second of three leaves.
    fn proof(&self, body: &[u8], wrong: &Wrong) -> Value {
        let leaf = |content: &[u8]| -> [u8; 32] { Sha256::digest([&[0], content].concat()).into() };
        let node = |left: [u8; 32], right: [u8; 32]| -> [u8; 32] {
            Sha256::digest([&[1], &left[..], &right[..]].concat()).into()
        };
        let (first, last) = (leaf(b"first"), leaf(b"last"));
        let root = node(node(first, leaf(body)), last);
        let text = format!("{}\n3\n{}\n", wrong.origin, b64(root));
        let signer = if wrong.unsigned_checkpoint { &KeyPair::generate().unwrap() } else { &self.log };
        let signature = b64([b"abcd", signer.sign(text.as_bytes()).unwrap().as_slice()].concat());
        let note = format!("{text}\n\u{2014} {} {signature}\n", wrong.origin);
        json!({"logIndex": "1", "treeSize": "3", "rootHash": b64(root), "hashes": [b64(first), b64(last)],
            "checkpoint": {"envelope": note}})
    }
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap();
    let length = match length {
        0..=0x7f => vec![length.to_be_bytes()[1]],
        0x80..=0xff => vec![0x81, length.to_be_bytes()[1]],
        _ => [&[0x82], &length.to_be_bytes()[..]].concat(),
    };
    [&[tag], &length[..], &content[..]].concat()
}

/// An answer of a timestamp authority (RFC 3161), as Sigstore's gives it: without certificates.
fn timestamp(key: &KeyPair, seen: &[u8], at: &str) -> Vec<u8> {
    let number = |value: u8| der(0x02, &[&[value]]);
    let oid = |arcs: &[u8]| der(0x06, &[arcs]);
    let sha256 = der(0x30, &[&oid(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1])]);
    let pkcs9 = |last: &[u8]| oid(&[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9], last].concat());
    let info_type = pkcs9(&[0x10, 1, 4]);
    let imprint = der(0x30, &[&sha256, &der(0x04, &[&Sha256::digest(seen)])]);
    let info = der(0x30, &[&number(1), &oid(&[0x2a, 3]), &imprint, &number(7), &der(0x18, &[at.as_bytes()])]);
    let attributes = [
        der(0x30, &[&pkcs9(&[3]), &der(0x31, &[&info_type])]),
        der(0x30, &[&pkcs9(&[4]), &der(0x31, &[&der(0x04, &[&Sha256::digest(&info)])])]),
    ]
    .concat();
    let signature = key.sign(&der(0x31, &[&attributes])).unwrap();
    let ecdsa = der(0x30, &[&oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]);
    let who = der(0x30, &[&der(0x30, &[]), &number(1)]);
    let attributes = der(0xa0, &[&attributes]);
    let signer = der(0x30, &[&number(1), &who, &sha256, &attributes, &ecdsa, &der(0x04, &[&signature])]);
    let encapsulated = der(0x30, &[&info_type, &der(0xa0, &[&der(0x04, &[&info])])]);
    let signed = der(0x30, &[&number(3), &der(0x31, &[&sha256]), &encapsulated, &der(0x31, &[&signer])]);
    let signed_data = oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2]);
    let content = der(0x30, &[&signed_data, &der(0xa0, &[&signed])]);
    der(0x30, &[&der(0x30, &[&number(0)]), &content])
}

#[test]
fn an_identity_vouches_by_a_bundle_with_each_kind_of_log() {
    let world = World::new();
    let policy = keyless(&world, SUBJECT);
    for logged in [Logged::Dsse, Logged::Intoto, Logged::Second] {
        let bundle = world.bundle(logged, &Wrong::default());
        assert_eq!(judge(&policy, APP, &read(&bundle), image()), Ok(()), "{logged:?}");
    }
    // Certificates in a chain, as the first versions of the format had them.
    let mut old = world.bundle(Logged::Dsse, &Wrong::default());
    let certificate = old["verificationMaterial"].as_object_mut().unwrap().remove("certificate").unwrap();
    old["verificationMaterial"]["x509CertificateChain"] = json!({ "certificates": [certificate] });
    old["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.2");
    assert_eq!(judge(&policy, APP, &read(&old), image()), Ok(()));
    // A log that nobody here knows takes nothing from one that is known.
    let mut two = world.bundle(Logged::Dsse, &Wrong::default());
    let mut stranger = two["verificationMaterial"]["tlogEntries"][0].clone();
    stranger["logId"]["keyId"] = json!(b64("nobody"));
    two["verificationMaterial"]["tlogEntries"].as_array_mut().unwrap().insert(0, stranger);
    assert_eq!(judge(&policy, APP, &read(&two), image()), Ok(()));
}

#[test]
fn whatever_is_wrong_with_a_keyless_bundle_is_told() {
    let world = World::new();
    let policy = keyless(&world, SUBJECT);
    let check = |logged: Logged, wrong: Wrong, words: &str| {
        let error = judge(&policy, APP, &read(&world.bundle(logged, &wrong)), image()).unwrap_err();
        assert!(error.contains(words), "{logged:?}, {words}: {error}");
    };
    for logged in [Logged::Dsse, Logged::Intoto, Logged::Second] {
        let forge = Forge { subject: "https://ci.example/evil", ..Forge::default() };
        check(logged, Wrong { forge, ..Wrong::default() }, "signed by \"https://ci.example/evil\"");
        let forge = Forge { other_authority: true, ..Forge::default() };
        check(logged, Wrong { forge, ..Wrong::default() }, "no authority of the trust root");
        check(logged, Wrong { other_leaf: true, ..Wrong::default() }, "about another signature");
        check(logged, Wrong { unsigned_checkpoint: true, ..Wrong::default() }, "checkpoint is not signed by the log");
        check(logged, Wrong { no_proof: true, ..Wrong::default() }, "has no proof of inclusion");
    }
    let forge = Forge { other_log: true, ..Forge::default() };
    check(Logged::Dsse, Wrong { forge, ..Wrong::default() }, "not signed by the log");
    check(Logged::Dsse, Wrong { no_promise: true, ..Wrong::default() }, "has signed when it was made");
    check(Logged::Second, Wrong { no_stamp: true, ..Wrong::default() }, "has signed when it was made");
    check(Logged::Second, Wrong { origin: "other.example", ..Wrong::default() }, "is another log's");
    check(Logged::Second, Wrong { stamped: Some(b"other"), ..Wrong::default() }, "timestamp is for another signature");
    check(Logged::Second, Wrong { stranger_stamps: true, ..Wrong::default() }, "no timestamp authority");
    // Before the trust root believes the timestamp authority.
    check(Logged::Second, Wrong { stamped_at: "20220101000000Z", ..Wrong::default() }, "no timestamp authority");
    check(Logged::Second, Wrong { stamped_at: "yesterday", ..Wrong::default() }, "timestamp is malformed");

    let mut wrong = world.bundle(Logged::Dsse, &Wrong::default());
    let proof = &mut wrong["verificationMaterial"]["tlogEntries"][0]["inclusionProof"];
    proof["hashes"].as_array_mut().unwrap().swap(0, 1);
    let error = judge(&policy, APP, &read(&wrong), image()).unwrap_err();
    assert!(error.contains("does not lead to its checkpoint"), "{error}");
    wrong["verificationMaterial"]["tlogEntries"] = json!([]);
    let error = judge(&policy, APP, &read(&wrong), image()).unwrap_err();
    assert!(error.contains("does not stand in a transparency log"), "{error}");
}

#[test]
fn a_timestamp_that_is_cut_short_is_no_timestamp() {
    let world = World::new();
    let policy = keyless(&world, SUBJECT);
    let good = world.bundle(Logged::Second, &Wrong::default());
    let place = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp";
    let stamp = STANDARD.decode(good.pointer(place).unwrap().as_str().unwrap()).unwrap();
    for length in 0..stamp.len() {
        let mut bundle = good.clone();
        *bundle.pointer_mut(place).unwrap() = json!(b64(&stamp[..length]));
        assert!(judge(&policy, APP, &read(&bundle), image()).is_err(), "cut at {length}");
    }
}
