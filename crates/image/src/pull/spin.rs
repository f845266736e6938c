//! A Spin application's locked form comes in, its name goes out, or why it is none.
//!
//! Pure. Only its head is read: what its components and triggers are is a Spin host's part.

use serde::Deserialize;

/// The versions of the locked form there are.
const LOCK_VERSIONS: [u64; 2] = [0, 1];

#[derive(Deserialize)]
struct LockedApp {
    spin_lock_version: u64,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// The application's name, empty if it has none.
pub(super) fn name(locked_app: &[u8]) -> Result<String, String> {
    let app: LockedApp =
        serde_json::from_slice(locked_app).map_err(|error| format!("it is no locked Spin application ({error})"))?;
    if !LOCK_VERSIONS.contains(&app.spin_lock_version) {
        return Err(format!("it is a locked Spin application of the unknown version {}", app.spin_lock_version));
    }
    Ok(app.metadata.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_versions_of_a_locked_application_are_taken() {
        assert_eq!(name(br#"{"spin_lock_version":1,"metadata":{"name":"shop"},"components":[]}"#).unwrap(), "shop");
        assert_eq!(name(br#"{"spin_lock_version":0}"#).unwrap(), "");
        for bad in ["", "{}", r#"{"spin_lock_version":2}"#, r#"{"spin_lock_version":"1"}"#] {
            assert!(name(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
