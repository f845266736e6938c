//! Tests of `dns`.

use super::{DnsSettings, HostResolv, dns_config};
use cri::v1::DnsConfig;
use decide::pod::Pod;
use decide::report::Report;
use std::sync::Arc;

fn pod(spec: &str) -> Pod {
    let mut api: k8s_openapi::api::core::v1::Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u-1"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }))
    .unwrap();
    let mut whole = serde_json::to_value(api.spec.take()).unwrap();
    let more: serde_json::Value = serde_saphyr::from_str(spec).unwrap();
    whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    api.spec = serde_json::from_value(whole).unwrap();
    decide::parse::parse(Arc::new(api)).unwrap()
}

fn settings() -> DnsSettings {
    DnsSettings {
        cluster_dns: vec!["10.96.0.10".parse().unwrap()],
        cluster_domain: "cluster.local".to_owned(),
        host: HostResolv::parse(
            "# comment\nnameserver 192.0.2.53\nsearch old\nsearch example.com. .\noptions rotate ndots:2\n",
        ),
    }
}

fn words(text: &[String]) -> String {
    text.join(" ")
}

fn check(spec: &str, servers: &str, searches: &str, options: &str) {
    let (config, reports) = dns_config(&pod(spec), &settings());
    assert_eq!(reports, [], "{spec}");
    assert_eq!(
        (words(&config.servers), words(&config.searches), words(&config.options)),
        (servers.to_owned(), searches.to_owned(), options.to_owned())
    );
}

const CLUSTER_SEARCHES: &str = "ns.svc.cluster.local svc.cluster.local cluster.local example.com .";

#[test]
fn the_policy_says_whose_resolver_it_is() {
    let host = ("192.0.2.53", "example.com .", "rotate ndots:2");
    let cluster = ("10.96.0.10", CLUSTER_SEARCHES, "ndots:5");
    let cases = [
        ("{}", cluster),
        ("hostNetwork: true", host),
        ("{dnsPolicy: ClusterFirstWithHostNet, hostNetwork: true}", cluster),
        ("dnsPolicy: Default", host),
        ("{dnsPolicy: None, dnsConfig: {nameservers: [198.51.100.1]}}", ("198.51.100.1", "", "")),
    ];
    for (spec, (servers, searches, options)) in cases {
        check(spec, servers, searches, options);
    }
}

#[test]
fn what_the_pod_says_is_added_and_its_options_win() {
    let config = "dnsConfig: {nameservers: [198.51.100.1, 10.96.0.10], searches: [extra, example.com], \
                  options: [{name: ndots, value: '2'}, {name: edns0}]}";
    let searches = format!("{CLUSTER_SEARCHES} extra");
    check(config, "10.96.0.10 198.51.100.1", &searches, "ndots:2 edns0");
}

#[test]
fn without_a_cluster_the_pod_gets_the_nodes_and_a_warning() {
    let (config, reports) = dns_config(&pod("{}"), &DnsSettings { cluster_dns: Vec::new(), ..settings() });
    assert_eq!(config, DnsConfig::from(settings().host));
    assert_eq!(reports.iter().map(|report| &*report.reason).collect::<Vec<_>>(), ["MissingClusterDNS"]);
    assert!(reports[0].message.contains("\"p_ns(u-1)\""), "{}", reports[0].message);
}

fn forming(message: &str) -> Report {
    Report::warning("DNSConfigForming", message)
}

#[test]
fn what_does_not_fit_is_left_out_aloud() {
    let four = "{dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4]}}";
    let (config, reports) = dns_config(&pod(four), &settings());
    let told = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
                192.0.2.1 192.0.2.2 192.0.2.3";
    assert_eq!((config.servers.len(), reports), (3, vec![forming(told)]));
}

#[test]
fn search_domains_fit_by_number_and_by_length() {
    let with = |searches: &[String]| {
        let spec = format!(
            "{{dnsPolicy: None, dnsConfig: {{nameservers: [192.0.2.1], searches: [{}]}}}}",
            searches.join(", ")
        );
        dns_config(&pod(&spec), &settings())
    };
    let short: Vec<String> = (0..33).map(|number| format!("d{number}")).collect();
    let (config, reports) = with(&short);
    assert_eq!(config.searches, short[..32]);
    assert_eq!(reports.len(), 1, "{reports:?}");

    // Eight of 249 and the spaces between them are 1999; a ninth would be too much.
    let long: Vec<String> = (0..9)
        .map(|number| {
            format!("{number}.{}", ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(64)].join("."))
        })
        .collect();
    let (config, reports) = with(&long);
    assert_eq!(config.searches, long[..8]);
    assert!(config.searches.join(" ").len() <= 2048);
    assert_eq!(reports.len(), 1, "{reports:?}");

    let (config, reports) = with(&short[..32]);
    assert_eq!((config.searches.len(), reports.len()), (32, 0));
}
