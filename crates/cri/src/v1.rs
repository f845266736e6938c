//! `runtime.v1`: the messages, enums and both services of CRI, compiled from `proto/runtime.proto`.
//!
//! Names are CRI's. Times are nanoseconds since the Unix epoch, 0 where there is none, unless a name says otherwise.

mod generated {
    #![expect(
        missing_docs,
        clippy::all,
        clippy::allow_attributes,
        reason = "compiled from proto/runtime.proto, where the words are CRI's"
    )]
    tonic::include_proto!("runtime.v1");
}

use std::fmt;

pub use generated::*;

/// Credentials never reach a log: only whether each of them is there, and for whom.
impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &str| if secret.is_empty() { "" } else { "…" };
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("password", &hidden(&self.password))
            .field("auth", &hidden(&self.auth))
            .field("server_address", &self.server_address)
            .field("identity_token", &hidden(&self.identity_token))
            .field("registry_token", &hidden(&self.registry_token))
            .finish()
    }
}
