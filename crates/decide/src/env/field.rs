//! Fields of a pod as text: `fieldRef` and `resourceFieldRef`, for variables and for files.

use crate::names::ContainerName;
use crate::pod::{Bound, FieldPath, Pod, ResourceField, ResourceKind, Resources};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is true of a pod beside what its spec says.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The pod's addresses, the primary one first.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses, the primary one first.
    pub host_ips: &'a [IpAddr],
    /// What a container without limits may use.
    pub allocatable: &'a Resources,
}

/// Why a field cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A `resourceFieldRef` names a container that the pod does not have.
    #[error("container {0} not found")]
    NoContainer(String),
}

/// A field of the pod. One that is not set is empty.
#[must_use]
pub fn field(path: &FieldPath, pod: &Pod, facts: &Facts<'_>) -> String {
    match path {
        FieldPath::Name => pod.name.name.clone(),
        FieldPath::Namespace => pod.name.namespace.clone(),
        FieldPath::Uid => pod.uid.as_str().to_owned(),
        FieldPath::Label(key) => pod.labels.get(key).cloned().unwrap_or_default(),
        FieldPath::Annotation(key) => pod.annotations.get(key).cloned().unwrap_or_default(),
        FieldPath::Labels => lines(&pod.labels),
        FieldPath::Annotations => lines(&pod.annotations),
        FieldPath::NodeName => pod.node_name.clone().unwrap_or_default(),
        FieldPath::ServiceAccountName => pod.service_account.clone().unwrap_or_default(),
        FieldPath::HostIp => first(facts.host_ips),
        FieldPath::HostIps => all(facts.host_ips),
        FieldPath::PodIp => first(facts.pod_ips),
        FieldPath::PodIps => all(facts.pod_ips),
    }
}

fn first(addresses: &[IpAddr]) -> String {
    addresses.first().map(IpAddr::to_string).unwrap_or_default()
}

fn all(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

/// A limit or request in units of the divisor, rounded up. A limit that is not set is what the node has to give; a
/// request that is not set is 0. `asking` is the container that is meant where none is named.
///
/// # Errors
/// The pod has no such container.
pub fn resource(
    wanted: &ResourceField,
    pod: &Pod,
    asking: Option<&ContainerName>,
    allocatable: &Resources,
) -> Result<String, FieldError> {
    let name = wanted.container.as_ref().or(asking);
    let unknown = || FieldError::NoContainer(name.map(ContainerName::to_string).unwrap_or_default());
    let container = name.and_then(|name| pod.container(name)).ok_or_else(unknown)?;
    let amount = |of: &Resources| match wanted.resource {
        ResourceKind::Cpu => of.cpu_millis,
        ResourceKind::Memory => of.memory_bytes,
        ResourceKind::EphemeralStorage => of.ephemeral_storage_bytes,
    };
    let amount = match wanted.bound {
        Bound::Limit => amount(&container.limits).filter(|amount| *amount > 0).or_else(|| amount(allocatable)),
        Bound::Request => amount(&container.requests),
    };
    // CPU is counted in thousandths on both sides, bytes are whole: a divisor finer than one byte counts as one.
    let divisor = match wanted.resource {
        ResourceKind::Cpu => wanted.divisor_millis,
        ResourceKind::Memory | ResourceKind::EphemeralStorage => wanted.divisor_millis.div_ceil(1000),
    };
    Ok(amount.unwrap_or(0).div_ceil(divisor.max(1)).to_string())
}

/// One `key="value"` a line, sorted by key, with the value quoted as Go does.
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect::<Vec<_>>().join("\n")
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            other => match u32::from(other) {
                code @ (0..0x20 | 0x7f) => quoted.push_str(&format!("\\x{code:02x}")),
                code if !is_printable(other) && code <= 0xffff => quoted.push_str(&format!("\\u{code:04x}")),
                code if !is_printable(other) => quoted.push_str(&format!("\\U{code:08x}")),
                _ => quoted.push(other),
            },
        }
    }
    quoted.push('"');
    quoted
}

/// What Rust's `Debug` leaves alone; the quotation mark, which it does not, is none of ours.
fn is_printable(character: char) -> bool {
    character == '\'' || character.escape_debug().eq([character])
}

#[cfg(test)]
mod tests {
    use super::{lines, quoted};

    #[test]
    fn labels_are_one_quoted_line_each() {
        let labels = [("b", "2"), ("a", "say \"hi\"\n")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(lines(&labels.into()), "a=\"say \\\"hi\\\"\\n\"\nb=\"2\"");
        assert_eq!(lines(&[].into()), "");
    }

    #[test]
    fn quoting_is_that_of_go() {
        let expected = [
            ("it's", r#""it's""#),
            ("größe 日本", r#""größe 日本""#),
            ("\0\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            ("\u{200b}\u{feff}", r#""\u200b\ufeff""#),
            ("a\\b\tc", r#""a\\b\tc""#),
        ];
        for (text, wanted) in expected {
            assert_eq!(quoted(text), wanted);
        }
    }
}
