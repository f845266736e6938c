//! Tests of `hosts`.

use super::{HostnameError, PodNames, file, host_network_file, is_wanted, sandbox_hostname};
use crate::parse::parse;
use crate::pod::Pod;
use k8s_openapi::api::core::v1 as api;
use std::sync::Arc;

/// A pod `web-0` of namespace `shop` with these fields.
fn pod(fields: &str) -> Pod {
    let api: api::Pod = serde_saphyr::from_str(&format!(
        "{{metadata: {{name: web-0, namespace: shop, uid: u}}, spec: {{containers: [{{name: c, image: i}}], {fields}}}}}"
    ))
    .unwrap();
    parse(Arc::new(api)).map_err(|refused| refused.rejection).unwrap()
}

fn check_names(fields: &str, hostname: &str, domain: Option<&str>, of_sandbox: Option<&str>) {
    let pod = pod(fields);
    let names = PodNames::of(&pod, "cluster.local");
    assert_eq!((names.hostname.as_str(), names.domain.as_deref()), (hostname, domain), "{fields}");
    assert_eq!(sandbox_hostname(&pod, &names).unwrap().as_deref(), of_sandbox, "{fields}");
}

#[test]
fn names_are_those_of_the_kubelet() {
    let domain = Some("db.shop.svc.cluster.local");
    let fqdn = Some("web-0.db.shop.svc.cluster.local");
    check_names("", "web-0", None, Some("web-0"));
    check_names("hostname: a", "a", None, Some("a"));
    check_names("subdomain: db", "web-0", domain, Some("web-0"));
    check_names("hostname: a, subdomain: db", "a", domain, Some("a"));
    check_names("subdomain: db, setHostnameAsFQDN: true", "web-0", domain, fqdn);
    check_names("setHostnameAsFQDN: true", "web-0", None, Some("web-0"));
    check_names("hostnameOverride: a.example, hostname: b, subdomain: db", "a.example", None, Some("a.example"));
    check_names("hostNetwork: true, subdomain: db, setHostnameAsFQDN: true", "web-0", domain, None);
}

#[test]
fn without_a_cluster_the_domain_ends_where_the_clusters_would_begin() {
    let of = |domain| PodNames::of(&pod("subdomain: db"), domain).domain.unwrap();
    assert_eq!(of(""), "db.shop.svc");
    assert_eq!(of("k8s.example."), "db.shop.svc.k8s.example");
}

#[test]
fn a_long_name_is_cut_and_a_long_fqdn_refused() {
    let (fits, long) = ("a".repeat(63), format!("{}-.{}", "a".repeat(61), "b".repeat(60)));
    let names = |name: &str| PodNames::of(&Pod { name: name_of(name), ..pod("") }, "cluster.local");
    assert_eq!(names(&fits).hostname, fits);
    assert_eq!(names(&long).hostname, "a".repeat(61));

    let fqdn = |length: usize| {
        let pod = pod(&format!("hostname: {}, subdomain: db, setHostnameAsFQDN: true", "h".repeat(length)));
        sandbox_hostname(&pod, &PodNames::of(&pod, "cluster.local"))
    };
    // 26 bytes of domain and dot follow.
    assert_eq!(fqdn(38).unwrap().unwrap().len(), 64);
    let too_long = format!("{}.db.shop.svc.cluster.local", "h".repeat(39));
    assert_eq!(fqdn(39), Err(HostnameError::TooLong { fqdn: too_long.clone() }));
    assert_eq!(
        fqdn(39).unwrap_err().to_string(),
        format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {too_long} is too long \
             (64 characters is the max, 65 characters requested)"
        )
    );
}

fn name_of(name: &str) -> crate::names::PodName {
    crate::names::PodName { namespace: "shop".into(), name: name.into() }
}

const ALIASES: &str =
    "hostAliases: [{ip: 192.0.2.7, hostnames: [one, two.example]}, {ip: '2001:db8::7', hostnames: [six]}]";
const ALIAS_LINES: &str = "\n# Entries added by HostAliases.\n192.0.2.7\tone\ttwo.example\n2001:db8::7\tsix\n";

fn check_file(fields: &str, ips: &[&str], last_lines: &str) {
    let pod = pod(fields);
    let ips: Vec<_> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    let first_lines = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
                       ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
                       fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";
    let written = file(&pod, &PodNames::of(&pod, "cluster.local"), &ips);
    assert_eq!(written, format!("{first_lines}{last_lines}"), "{fields}");
}

#[test]
fn the_file_is_the_kubelets() {
    check_file("", &["10.0.0.9"], "10.0.0.9\tweb-0\n");
    check_file("", &["10.0.0.9", "2001:db8::9"], "10.0.0.9\tweb-0\n2001:db8::9\tweb-0\n");
    check_file("subdomain: db", &["10.0.0.9"], "10.0.0.9\tweb-0.db.shop.svc.cluster.local\tweb-0\n");
    check_file(ALIASES, &["10.0.0.9"], &format!("10.0.0.9\tweb-0\n{ALIAS_LINES}"));
    // As the kubelet does, the file has the short name although the host name is the long one.
    let as_fqdn = "subdomain: db, setHostnameAsFQDN: true";
    check_file(as_fqdn, &["10.0.0.9"], "10.0.0.9\tweb-0.db.shop.svc.cluster.local\tweb-0\n");
}

#[test]
fn with_host_network_it_is_the_nodes() {
    let node = b"192.0.2.1\tnode \xff\n";
    let header = b"# Kubernetes-managed hosts file (host network).\n";
    assert_eq!(host_network_file(&pod("hostNetwork: true"), node), [header.as_slice(), node].concat());
    let with_aliases = host_network_file(&pod(&format!("hostNetwork: true, {ALIASES}")), node);
    assert_eq!(with_aliases, [header.as_slice(), node, ALIAS_LINES.as_bytes()].concat());
}

#[test]
fn a_container_that_mounts_something_there_keeps_its_own() {
    for (path, wanted) in [("/etc/hosts", false), ("/etc//hosts/", false), ("/etc", true), ("/etc/hosts.d", true)] {
        let api: api::Pod = serde_saphyr::from_str(&format!(
            "{{metadata: {{name: p, namespace: n, uid: u}}, spec: {{volumes: [{{name: v}}], \
             containers: [{{name: c, image: i, volumeMounts: [{{name: v, mountPath: {path}}}]}}]}}}}"
        ))
        .unwrap();
        let pod = parse(Arc::new(api)).map_err(|refused| refused.rejection).unwrap();
        assert_eq!(pod.containers.iter().map(is_wanted).collect::<Vec<_>>(), [wanted], "{path}");
    }
}
