//! `WWW-Authenticate`: a header's text comes in, the way a registry wants to be asked goes out.
//!
//! Pure, and of bounded work: what is malformed is no challenge.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a registry wants to be told who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token of a token service.
    Bearer {
        /// The token service's URL.
        realm: String,
        /// The name the service knows the registry by.
        service: Option<String>,
        /// What the token is to allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenge of an answer; a token is preferred where both are offered.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut challenges: Vec<Self> = texts.flat_map(parse).collect();
        let bearer = challenges.iter().position(|challenge| matches!(challenge, Self::Bearer { .. }));
        match bearer {
            Some(at) => Some(challenges.swap_remove(at)),
            None => challenges.pop(),
        }
    }
}

/// All challenges of one header value: `scheme name=value, name="value", scheme …`.
fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value, found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let Some((value, after)) = take_value(value.trim_start_matches([' ', '\t'])) else { break };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, parameters)).collect()
}

/// A token, or a quoted string with its escapes undone; and what comes after it.
fn take_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let mut realm = None;
    let mut service = None;
    let mut scope = None;
    for (name, value) in parameters {
        match name.as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value).filter(|scope| !scope.is_empty()),
            _ => {}
        }
    }
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => realm.map(|realm| Challenge::Bearer { realm, service, scope }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wanted: &[Challenge]) {
        assert_eq!(parse(text), wanted, "{text}");
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.into(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let realm = "https://auth.example/token";
        check(
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
            &[bearer(realm, Some("registry.example"), Some("repository:a/b:pull,push"))],
        );
        check(r#"bearer realm = "https://auth.example/token" , error="invalid_token""#, &[bearer(realm, None, None)]);
        check(r#"Basic realm="a \"quoted\", name""#, &[Challenge::Basic]);
        check(
            r#"Negotiate, Basic realm="x", Bearer realm="https://auth.example/token", scope="""#,
            &[Challenge::Basic, bearer(realm, None, None)],
        );
    }

    #[test]
    fn what_is_malformed_is_no_challenge() {
        for text in
            ["", ",,,", "=x", r#"Bearer realm="unclosed"#, "Bearer service=x", "realm=\"x\"", r#"Bearer realm="\"#]
        {
            check(text, &[]);
        }
    }

    #[test]
    fn a_token_is_preferred() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Bearer realm=\"https://a.example\"".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Basic realm=\"x\"".parse().unwrap());
        assert_eq!(Challenge::of(&headers), Some(bearer("https://a.example", None, None)));
        headers.remove(WWW_AUTHENTICATE);
        headers.append(WWW_AUTHENTICATE, "Basic realm=\"x\"".parse().unwrap());
        assert_eq!(Challenge::of(&headers), Some(Challenge::Basic));
    }
}
