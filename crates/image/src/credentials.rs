//! What proves to a registry who asks: CRI's authentication in, values that never print their secrets out.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// Credentials for one registry. Their `Debug` form hides everything but the kind.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// A user's name and password, for basic authentication or a registry's token service.
    Basic {
        /// The user's name.
        username: String,
        /// The password or personal access token.
        password: String,
    },
    /// A token the registry takes as it is (CRI's `registry_token`).
    Bearer(String),
    /// A refresh token that a token service changes into one for the registry (CRI's `identity_token`).
    IdentityToken(String),
}

/// The `auth` value of a pull secret is not base64 of `user:password`. Its text says nothing of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the registry credentials' auth value is not base64 of user:password")]
pub struct CredentialsError;

impl Credentials {
    /// Reads the `auth` value of a Docker configuration or of CRI's `AuthConfig`: base64 of `user:password`.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_auth(auth: &str) -> Result<Self, CredentialsError> {
        let auth = auth.trim();
        let decoded = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).map_err(|_| CredentialsError)?;
        let decoded = String::from_utf8(decoded).map_err(|_| CredentialsError)?;
        // Docker pads some values with zero bytes.
        let (username, password) = decoded.trim_end_matches('\0').split_once(':').ok_or(CredentialsError)?;
        Ok(Self::Basic { username: username.to_owned(), password: password.to_owned() })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(..)",
            Self::Bearer(_) => "Bearer(..)",
            Self::IdentityToken(_) => "IdentityToken(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_values_are_decoded_with_and_without_padding() {
        let expected = Credentials::Basic { username: "user".into(), password: "pa:ss".into() };
        assert_eq!(Credentials::from_auth("dXNlcjpwYTpzcw=="), Ok(expected.clone()));
        assert_eq!(Credentials::from_auth("dXNlcjpwYTpzcw\n"), Ok(expected));
        for bad in ["", "dXNlcg==", "???", "/////w=="] {
            assert_eq!(Credentials::from_auth(bad), Err(CredentialsError), "{bad}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let secret = Credentials::from_auth("dXNlcjpwYTpzcw==").unwrap();
        let (bearer, identity) = (Credentials::Bearer("token".into()), Credentials::IdentityToken("token".into()));
        assert_eq!(format!("{secret:?} {bearer:?} {identity:?}"), "Basic(..) Bearer(..) IdentityToken(..)");
    }
}
