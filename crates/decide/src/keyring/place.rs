//! The part of a registry that a login or a credential provider is for: `HOST[:PORT][/PATH]`, with globs in the host.

/// A text that is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not HOST[:PORT][/PATH], with * and ? allowed within a label of the host")]
pub struct InvalidPlace(pub String);

/// A part of a registry, or of several with globs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    text: String,
}

impl Place {
    /// Reads a place as Docker's configurations and the kubelet have it: a scheme is left out, `/v1/` and `/v2/` stand
    /// for the registry as a whole.
    ///
    /// # Errors
    /// There is no host in it.
    pub fn parse(text: &str) -> Result<Self, InvalidPlace> {
        let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        let (host, path) = bare.find('/').map_or((bare, ""), |at| bare.split_at(at));
        if host.is_empty() || host.contains(char::is_whitespace) || host.contains('@') {
            return Err(InvalidPlace(text.to_owned()));
        }
        let is_version = path.starts_with("/v1/") || path.starts_with("/v2/");
        let path = if is_version { &path[3..] } else { path };
        let path = if path == "/" { "" } else { path };
        Ok(Self { text: format!("{host}{path}") })
    }

    /// Host and path.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `registry/repository` is in this place: the same port, as many labels in the host, each fitting its glob,
    /// and the path as a prefix.
    #[must_use]
    pub fn holds(&self, repository: &str) -> bool {
        let ((own_host, own_path), (host, path)) = (split(&self.text), split(repository));
        let ((own_name, own_port), (name, port)) = (port_of(own_host), port_of(host));
        let (own_labels, labels) = (own_name.split('.'), name.split('.'));
        own_port == port
            && own_labels.clone().count() == labels.clone().count()
            && own_labels.zip(labels).all(|(glob, label)| fits(glob.as_bytes(), label.as_bytes()))
            && path.starts_with(own_path)
    }
}

fn split(text: &str) -> (&str, &str) {
    text.find('/').map_or((text, ""), |at| text.split_at(at))
}

fn port_of(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// `*` is any number of characters, `?` is one. One `*` is remembered at a time, so the work is bounded by the product of
/// the lengths.
fn fits(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                g += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    g = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(place: &str, image: &str, wanted: bool) {
        assert_eq!(Place::parse(place).unwrap().holds(image), wanted, "{place} holds {image}");
    }

    #[test]
    fn hosts_fit_label_by_label_and_paths_from_their_start() {
        check("registry.example", "registry.example/app", true);
        check("https://registry.example/v2/", "registry.example/app", true);
        check("http://registry.example/v1/team", "registry.example/team/app", true);
        check("registry.example/team", "registry.example/team/app", true);
        check("registry.example/team", "registry.example/other", false);
        check("registry.example", "registry.example.evil/app", false);
        check("registry.example", "registry.example:5000/app", false);
        check("registry.example:5000", "registry.example:5000/app", true);
        check("*.example", "registry.example/app", true);
        check("*.example", "a.b.example/app", false);
        check("*.*.example", "a.b.example/app", true);
        check("reg*.ex?mple:5000/x", "registry.example:5000/x/y", true);
        check("*", "localhost/app", true);
        check("[::1]:5000", "[::1]:5000/app", true);
    }

    #[test]
    fn what_has_no_host_is_no_place() {
        for text in ["", "https://", "/path", "user@host", "a b"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_glob_of_many_stars_ends() {
        assert!(!fits("*a".repeat(500).as_bytes(), "b".repeat(2000).as_bytes()));
        assert!(fits(b"a*b*c", b"a123b456c") && fits(b"**", b"") && !fits(b"a?", b"a"));
    }
}
