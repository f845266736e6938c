//! The path of an action as a request's target.
//!
//! Comes in: `path` as the spec writes it, by the rules of the URLs of the kubelet's language: perhaps with a query, perhaps
//! a whole URL, perhaps nothing that a URL may hold. Goes out: what may stand in a request line. Of a URL only what comes
//! after its authority counts.

/// What else than letters and digits a path may hold as it is.
const PATH: &[u8] = b"-._~!$&'()*+,;=:@/";
/// The same for a query, which has nothing to be told apart from.
const QUERY: &[u8] = b"-._~!$&'()*+,;=:@/?[]|\\^`{}\"<>";

/// The target of a request for `path`.
pub(crate) fn request_target(path: &str) -> String {
    if !is_url(path) {
        return rooted(&escaped(path.as_bytes(), PATH));
    }
    let path = path.split_once('#').map_or(path, |(before, _)| before);
    let path = without_authority(path);
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let with_percent: Vec<u8> = PATH.iter().copied().chain([b'%']).collect();
    let mut target = rooted(&escaped(path.as_bytes(), &with_percent));
    if let Some(query) = query {
        let with_percent: Vec<u8> = QUERY.iter().copied().chain([b'%']).collect();
        target.push('?');
        target.push_str(&escaped(query.as_bytes(), &with_percent));
    }
    target
}

/// Whether it can be read as a URL: no control characters, and every escape in its path is one.
fn is_url(text: &str) -> bool {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = path.as_bytes();
    let mut escapes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    !text.chars().any(char::is_control) && escapes.all(|(at, _)| hex(bytes.get(at + 1)) && hex(bytes.get(at + 2)))
}

fn without_authority(url: &str) -> &str {
    let scheme = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let rest = match url.split_once("://") {
        Some((before, rest)) if scheme(before) => rest,
        _ => match url.strip_prefix("//") {
            Some(rest) => rest,
            None => return url,
        },
    };
    rest.find(['/', '?']).map_or("", |at| &rest[at..])
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn escaped(bytes: &[u8], plain: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || plain.contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::request_target;

    #[test]
    fn paths_become_targets() {
        for (path, target) in [
            ("/healthz", "/healthz"),
            ("/", "/"),
            ("healthz", "/healthz"),
            ("/a?b=c&d=/e", "/a?b=c&d=/e"),
            ("/a#fragment", "/a"),
            ("/a b", "/a%20b"),
            ("/a%20b", "/a%20b"),
            ("/ä", "/%C3%A4"),
            ("/redirect?loc=%2Fa", "/redirect?loc=%2Fa"),
            ("http://elsewhere:1/a?b", "/a?b"),
            ("http://elsewhere", "/"),
            ("//elsewhere/a", "/a"),
            ("?a=b", "/?a=b"),
            ("/%zz?a", "/%25zz%3Fa"),
            ("/a\nb", "/a%0Ab"),
        ] {
            assert_eq!(request_target(path), target, "{path:?}");
        }
    }
}
