//! Tests of `network`.

use super::*;

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn network(&self, mode: PodAddressMode, held: impl IntoIterator<Item = Addresses>) -> Network {
        Network::new(NODE, mode, Remembered::at(self.0.path().join("pod-cidr")), held.into_iter())
    }
}

fn is_local(address: &str) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

#[test]
fn in_host_mode_pods_share_all_but_loopback() {
    let network = Case::new().network(PodAddressMode::Host, []);
    let (a, b) = (network.lease(false).unwrap(), network.lease(false).unwrap());
    assert_eq!((a.address(), b.address()), (NODE, NODE));
    assert_ne!(a.loopback(), b.loopback());
    let on_host = network.lease(true).unwrap();
    assert_eq!(on_host.loopback().to_string(), "127.0.0.1");
    network.release(on_host);
    assert_eq!(network.readiness(), Ok(()));
}

#[test]
fn without_permission_pods_share_the_nodes_address_whatever_was_asked_for() {
    let network = Case::new().network(PodAddressMode::Auto, []);
    match route::is_permitted() {
        true => assert!(matches!(network.lease(false), Err(LeaseError::Network(NetworkError::NotReady(_))))),
        false => assert!(matches!(network.lease(false), Ok(Addresses::Shared { address: NODE, .. }))),
    }
}

#[test]
fn what_a_record_holds_is_not_given_again() {
    let case = Case::new();
    let first = case.network(PodAddressMode::Host, []).lease(false).unwrap();
    let network = case.network(PodAddressMode::Host, [first]);
    assert_ne!(network.lease(false).unwrap().loopback(), first.loopback());
}

#[tokio::test]
async fn a_pod_cidr_is_awaited_then_used_and_leases_survive_in_it() {
    if !route::is_permitted() {
        return;
    }
    let held = Addresses::Own { address: "198.18.48.2".parse().unwrap(), loopback: "127.1.0.1".parse().unwrap() };
    let case = Case::new();
    let network = case.network(PodAddressMode::Auto, [held]);
    assert!(network.readiness().unwrap_err().contains("podCIDR"));
    assert!(network.lease(false).is_err());
    assert!(network.lease(true).is_ok());

    assert!(network.set_pod_cidr("198.18.48.0").await.is_err());
    network.set_pod_cidr("198.18.48.0/29,fd00:48::/64").await.unwrap();
    assert_eq!(network.readiness(), Ok(()));
    assert_eq!(network.lease(false).unwrap().address().to_string(), "198.18.48.3");

    network.set_pod_cidr("198.18.49.0/29").await.unwrap();
    assert_eq!(network.lease(false).unwrap().address().to_string(), "198.18.49.2");
    assert!(!is_local("198.18.48.2"));
    network.close().await;
    assert!(!is_local("198.18.49.2"));
}

#[tokio::test]
async fn the_route_of_a_killed_runtime_is_taken_over_or_taken_away() {
    if !route::is_permitted() {
        return;
    }
    let case = Case::new();
    let (first, second) = ("198.18.51.0/29", "198.18.52.0/29");
    case.network(PodAddressMode::Auto, []).set_pod_cidr(first).await.unwrap();
    case.network(PodAddressMode::Auto, []).set_pod_cidr(first).await.unwrap();
    assert!(is_local("198.18.51.2"));
    case.network(PodAddressMode::Auto, []).set_pod_cidr(second).await.unwrap();
    assert!(!is_local("198.18.51.2") && is_local("198.18.52.2"));
    case.network(PodAddressMode::Auto, []).tidy().await;
    assert!(is_local("198.18.52.2"));
    case.network(PodAddressMode::Host, []).tidy().await;
    assert!(!is_local("198.18.52.2"));
}
