//! Certificates kept, renewed, and refused.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::config::Authorization;

fn options() -> ServerOptions {
    ServerOptions {
        enabled: true,
        address: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        client_ca_file: None,
        token_webhook: None,
        authorization: Authorization::AlwaysAllow,
        debugging_handlers: true,
    }
}

fn days_later(days: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * days)
}

#[test]
fn a_certificate_of_ours_is_kept_while_it_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let (home, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
    let serve = |addresses: &[IpAddr], now| {
        serving(&options(), &folder.path().join("pki"), "wasm-1", addresses, now).unwrap().cert[0].clone()
    };
    let first = serve(&[home], days_later(0));
    for name in ["kubelet.crt", "kubelet.key"] {
        let mode = fs::metadata(folder.path().join("pki").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(serve(&[home], days_later(1)), first);
    let moved = serve(&[home, other], days_later(1));
    assert_ne!(moved, first, "another address");
    let renewed = serve(&[home, other], days_later(VALID_FOR_DAYS));
    assert_ne!(renewed, moved, "near its end");
    fs::write(folder.path().join("pki/kubelet.key"), "not a key").unwrap();
    assert_ne!(serve(&[home, other], days_later(VALID_FOR_DAYS)), renewed, "lost its key");
}

#[test]
fn given_files_are_used_and_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let options = ServerOptions { tls: Some((certificate.clone(), key.clone())), ..options() };
    let serve = || serving(&options, folder.path(), "wasm-1", &[], Timestamp::now());
    assert!(matches!(serve(), Err(CertificateError::Read { .. })));
    let (made, other) = (make("a", &[], Timestamp::now()).unwrap(), make("b", &[], Timestamp::now()).unwrap());
    fs::write(&certificate, &made.0).unwrap();
    fs::write(&key, &other.1).unwrap();
    assert!(matches!(serve(), Err(CertificateError::Mismatch { .. })));
    fs::write(&key, &made.1).unwrap();
    assert_eq!(serve().unwrap().cert.len(), 1);
}

#[test]
fn a_client_ca_file_must_hold_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.crt");
    fs::write(&path, "nothing").unwrap();
    assert!(client_roots(&path).unwrap_err().to_string().contains("no certificate"));
    fs::write(&path, make("ca", &[], Timestamp::now()).unwrap().0).unwrap();
    assert_eq!(client_roots(&path).unwrap().len(), 1);
}
