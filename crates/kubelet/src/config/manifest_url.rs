//! Where manifests are asked for over HTTP: the URL, and headers whose values nobody is to see again.
//!
//! In come the fields of the configuration, out goes a [`ManifestUrl`]; the fields keep the names of the headers only.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::resolve::invalid;
use super::{ConfigError, KubeletConfiguration};
use crate::sources::http::check_url;

/// What is shown in the place of a header's value, the kubelet's word.
const MASKED: &str = "<masked>";

/// A URL of static pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestUrl {
    /// The URL.
    pub url: Uri,
    /// What is sent with each request; the values are marked as sensitive.
    pub headers: HeaderMap,
    /// How often it is asked for.
    pub check_frequency: Duration,
}

/// Takes the URL and its headers, and leaves no value of them in the configuration.
pub(super) fn take(configuration: &mut KubeletConfiguration) -> Result<Option<ManifestUrl>, ConfigError> {
    let mut headers = HeaderMap::new();
    for (name, values) in configuration.static_pod_url_header.iter_mut().flatten() {
        let wrong = |message| invalid("staticPodURLHeader", name, message);
        let header: HeaderName = name.parse().map_err(|_| wrong("this is no name of a header"))?;
        for value in std::mem::replace(values, vec![MASKED.to_owned()]) {
            let mut value = HeaderValue::from_str(&value).map_err(|_| wrong("a value of it cannot be sent"))?;
            value.set_sensitive(true);
            headers.append(header.clone(), value);
        }
    }
    let Some(text) = configuration.static_pod_url.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    // The URL itself may be a secret.
    let url = check_url(text).map_err(|error| invalid("staticPodURL", "…", error))?;
    let check_frequency = configuration.http_check_frequency.unwrap_or_default().0;
    Ok(Some(ManifestUrl { url, headers, check_frequency }))
}
