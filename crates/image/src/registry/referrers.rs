//! Which manifests name another one as their subject (OCI 1.1): a digest comes in, their descriptors go out.

use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, Url};

use super::ask::Ask;
use super::failure::{Failure, RegistryError};
use super::host::{Host, read_bounded};
use crate::digest::Digest;
use crate::manifest::{Descriptor, OCI_INDEX};

/// Pages of one list that are read.
const PAGES_MAX: usize = 10;

impl Host {
    /// The referrers of a manifest, [`RegistryError::Missing`] where the host does not keep count of them.
    pub(super) async fn referrers(&self, digest: Digest, page_bytes_max: u64) -> Result<Vec<Descriptor>, Failure> {
        let mut found = Vec::new();
        let mut ask = Ask::new(Method::GET, format!("referrers/{digest}"));
        for _ in 0..PAGES_MAX {
            ask.accept = Some(OCI_INDEX.to_owned());
            let answer = self.send(&ask).await.map_err(not_counted)?;
            let next = next_page(answer.headers(), answer.url());
            let page = read_bounded(answer, page_bytes_max).await?;
            found.extend(referrers_of(&page).map_err(|problem| Failure::Lasting(RegistryError::Corrupt(problem)))?);
            match next {
                Some(next) => ask = Ask::to(Method::GET, next),
                None => return Ok(found),
            }
        }
        let problem = format!("its list of referrers has more than {PAGES_MAX} pages");
        Err(Failure::Lasting(RegistryError::Corrupt(problem)))
    }
}

/// Hosts that do not know the question answer it in many ways.
fn not_counted(failure: Failure) -> Failure {
    match failure {
        Failure::Lasting(RegistryError::Unavailable(_)) => Failure::Lasting(RegistryError::Missing),
        other => other,
    }
}

/// The entries of an index of referrers.
///
/// # Errors
/// It is none, in words.
pub(crate) fn referrers_of(index: &[u8]) -> Result<Vec<Descriptor>, String> {
    let index: serde_json::Value = serde_json::from_slice(index).map_err(|_| "its list of referrers is no JSON")?;
    let entries = index["manifests"].as_array().ok_or("its list of referrers is no image index")?;
    // Entries of other tools need not be readable here.
    Ok(entries.iter().filter_map(|entry| serde_json::from_value(entry.clone()).ok()).collect())
}

/// Where a list goes on (RFC 8288); on the same host, as whoever asks may be known there.
fn next_page(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut next = links.filter_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|it| matches!(it.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| from.join(target).ok()).flatten()
    });
    next.find(|next| next.origin() == from.origin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_where_its_link_leads_on_the_same_host() {
        let from = Url::parse("https://r.example/v2/a/b/referrers/sha256:0").unwrap();
        let next = |link: &str| next_page(&HeaderMap::from_iter([(LINK, link.parse().unwrap())]), &from);
        let second = "https://r.example/v2/a/b/referrers/sha256:0?last=1";
        assert_eq!(
            next("</v2/a/b/referrers/sha256:0?last=1>; rel=\"next\"").map(String::from).as_deref(),
            Some(second)
        );
        assert_eq!(next("</first>; rel=first, <?last=1>; rel=next").map(String::from).as_deref(), Some(second));
        for none in ["</v2>; rel=\"prev\"", "<https://evil.example/v2>; rel=\"next\"", "next", ""] {
            assert_eq!(next(none), None, "{none}");
        }
    }
}
