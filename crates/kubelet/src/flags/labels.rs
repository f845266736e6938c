//! Which labels a kubelet may give its node.
//!
//! In comes a key and a value, out goes why they are refused. The rules are the API server's and its NodeRestriction
//! plugin's: better told at the start than as a registration that fails for ever.

/// Labels of the kubernetes.io and k8s.io namespaces that a kubelet may set.
const ALLOWED: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// Namespaces, and those below them, where a kubelet may set any.
const ALLOWED_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Says why the label is refused.
pub(super) fn check(key: &str, value: &str) -> Result<(), String> {
    let (namespace, name) = key.rsplit_once('/').map_or((None, key), |(namespace, name)| (Some(namespace), name));
    if !is_name(name) {
        return Err(format!("the label's name \"{name}\" must be 1 to 63 letters, digits, '-', '_' and '.'"));
    }
    if !value.is_empty() && !is_name(value) {
        return Err(format!("the label's value \"{value}\" must be at most 63 letters, digits, '-', '_' and '.'"));
    }
    let Some(namespace) = namespace else { return Ok(()) };
    let subdomain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    if namespace.is_empty() || namespace.len() > 253 || !namespace.bytes().all(subdomain) {
        return Err(format!("the label's namespace \"{namespace}\" must be a DNS subdomain"));
    }
    let below =
        |parent: &str| namespace == parent || namespace.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    let theirs = below("kubernetes.io") || below("k8s.io");
    if theirs && !ALLOWED.contains(&key) && !ALLOWED_NAMESPACES.iter().any(|parent| below(parent)) {
        return Err(format!(
            "a kubelet may not set it; of kubernetes.io and k8s.io it may set what is below {} and {}",
            ALLOWED_NAMESPACES.join(", "),
            ALLOWED.join(", ")
        ));
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn takes_what_the_api_server_takes() {
        for (key, value) in
            [("pool", "wasm"), ("example.com/a.b", ""), ("kubernetes.io/os", "linux"), ("x.node.kubernetes.io/y", "1")]
        {
            assert_eq!(check(key, value), Ok(()), "{key}={value}");
        }
        for (key, value) in [
            ("", "x"),
            ("-a", "x"),
            ("a", "ä"),
            ("node-role.kubernetes.io/worker", ""),
            ("k8s.io/x", "y"),
            ("/a", "b"),
            ("A.com/a", "b"),
        ] {
            assert!(check(key, value).is_err(), "{key}={value}");
        }
    }
}
