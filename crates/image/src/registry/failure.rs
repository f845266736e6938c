//! Why a registry did not do what was asked of it, and whether asking again may help.

use std::error::Error;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::store::StoreError;

/// Characters; a longer error code is not one.
const ERROR_CODE_MAX: usize = 40;

/// Why a registry did not do what was asked of it. Whoever asked knows the image and the step, and says them.
#[derive(Debug, Clone)]
pub(crate) enum RegistryError {
    /// 401 or 403, of the registry or of its token service.
    Denied {
        /// Whether it was given credentials.
        with_credentials: bool,
    },
    /// There is no such thing.
    Missing,
    /// It cannot be reached, breaks off or fails.
    Unavailable(String),
    /// It gave something else than was asked for.
    Corrupt(String),
    /// More than is read.
    TooLarge {
        /// As announced, or as far as it was read.
        size_bytes: u64,
        /// As allowed.
        limit_bytes: u64,
    },
    /// The local store failed.
    Store(StoreError),
    /// What this machine was told of hosts cannot be used.
    Client(String),
}

/// How one try ended.
#[derive(Debug)]
pub(crate) enum Failure {
    /// May go better next time.
    Passing {
        /// What happened.
        cause: String,
        /// How long the registry asks us to wait.
        after: Option<Duration>,
    },
    /// Will end the same way next time.
    Lasting(RegistryError),
}

impl Failure {
    pub(crate) fn passing(cause: impl Into<String>) -> Self {
        Self::Passing { cause: cause.into(), after: None }
    }

    pub(crate) fn unavailable(cause: impl Into<String>) -> Self {
        Self::Lasting(RegistryError::Unavailable(cause.into()))
    }

    /// A request that got no answer, or whose answer broke off.
    pub(crate) fn of_request(error: &reqwest::Error) -> Self {
        let cause = root_cause(error);
        if error.is_builder() {
            return Self::unavailable(cause);
        }
        // Three tries make no certificate better.
        match cause.contains("invalid peer certificate") {
            true => Self::unavailable(format!("{cause}; `ca` in the host's hosts.toml names an authority to believe")),
            false => Self::passing(cause),
        }
    }
}

/// The error codes of the OCI distribution specification in an answer.
pub(crate) fn codes(body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Envelope {
        #[serde(default)]
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
    }
    let envelope: Option<Envelope> = serde_json::from_slice(body).ok();
    let codes = envelope.into_iter().flat_map(|envelope| envelope.errors).map(|entry| entry.code);
    codes.filter(|code| is_code(code)).take(3).collect()
}

/// Anything else is a registry's free text, which may echo the request.
fn is_code(code: &str) -> bool {
    !code.is_empty() && code.len() <= ERROR_CODE_MAX && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
}

/// Judges an answer that is no success. `after` is what its `Retry-After` says.
pub(crate) fn judge(status: StatusCode, codes: &[String], after: Option<Duration>, with_credentials: bool) -> Failure {
    let any = |wanted: &[&str]| codes.iter().any(|code| wanted.contains(&code.as_str()));
    let said = std::iter::once(format!("HTTP {}", status.as_u16())).chain(codes.iter().cloned());
    let said = format!("it answered {}", said.collect::<Vec<_>>().join(" "));
    match status.as_u16() {
        401 | 403 => Failure::Lasting(RegistryError::Denied { with_credentials }),
        404 => Failure::Lasting(RegistryError::Missing),
        408 | 425 | 429 | 500.. => Failure::Passing { cause: said, after },
        _ if any(&["UNAUTHORIZED", "DENIED"]) => Failure::Lasting(RegistryError::Denied { with_credentials }),
        _ if any(&["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND", "BLOB_UNKNOWN"]) => {
            Failure::Lasting(RegistryError::Missing)
        }
        _ if any(&["TOOMANYREQUESTS"]) => Failure::Passing { cause: said, after },
        _ => Failure::unavailable(said),
    }
}

/// The innermost error's text: the system's or the TLS library's own words, which hold no request.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    // An HTTP client's own error would quote the URL, and with it a signature or token.
    if text.contains("://") { "the connection broke off".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_are_repeated() {
        let body = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"token=abc"}}]}}"#);
        assert_eq!(codes(body("NAME_INVALID").as_bytes()), ["NAME_INVALID"]);
        for bad in ["token=abc", "", &"A".repeat(41)] {
            assert!(codes(body(bad).as_bytes()).is_empty(), "{bad}");
        }
        assert!(codes(b"you sent a password").is_empty());
    }

    #[test]
    fn a_cause_never_quotes_a_url() {
        let quoting = std::io::Error::other("error for url (https://bucket.example/blob?signature=abc)");
        assert_eq!(root_cause(&quoting), "the connection broke off");
    }

    #[test]
    fn a_status_says_whether_to_ask_again() {
        let judged =
            |status: u16, code: &str| judge(StatusCode::from_u16(status).unwrap(), &[code.to_owned()], None, false);
        for (status, code) in [(429, "TOOMANYREQUESTS"), (503, "UNAVAILABLE"), (400, "TOOMANYREQUESTS")] {
            assert!(matches!(judged(status, code), Failure::Passing { .. }), "{status} {code}");
        }
        assert!(matches!(judged(400, "DENIED"), Failure::Lasting(RegistryError::Denied { .. })));
        assert!(matches!(judged(400, "NAME_UNKNOWN"), Failure::Lasting(RegistryError::Missing)));
        let Failure::Lasting(RegistryError::Unavailable(cause)) = judged(400, "NAME_INVALID") else { panic!() };
        assert_eq!(cause, "it answered HTTP 400 NAME_INVALID");
    }
}
