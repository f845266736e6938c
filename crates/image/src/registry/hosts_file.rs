//! containerd's `hosts.toml`: a registry's name and a directory come in, its hosts in their order go out.
//!
//! The format, the names of directories and the defaults are containerd's. Fields that are not known are refused, as a
//! mirror that is not what was meant is worse than none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use toml_edit::{DocumentMut, Item, TableLike};

use super::endpoint::{Endpoint, host_of_registry};
use super::failure::RegistryError;
use crate::reference::host_of;

/// Read for registries that have no directory of their own.
const DEFAULT: &str = "_default";

/// The hosts for `registry`, the registry's own last.
pub(super) fn endpoints(directory: &Path, registry: &str, plain: bool) -> Result<Vec<Endpoint>, RegistryError> {
    for name in names(registry) {
        let own = directory.join(&name);
        if !own.is_dir() {
            continue;
        }
        let path = own.join("hosts.toml");
        let of = Origin { directory: &own, registry, plain, is_default: name == DEFAULT };
        return match fs::read_to_string(&path) {
            Ok(text) => parse(&text, &of).map_err(|what| RegistryError::Client(format!("{}: {what}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => certificates(&of)
                .map_err(|error| RegistryError::Client(format!("cannot read {}: {error}", own.display()))),
            Err(error) => Err(RegistryError::Client(format!("cannot read {}: {error}", path.display()))),
        };
    }
    Ok(vec![Endpoint::of_registry(registry, plain)])
}

/// The directories that may be about a registry, best first. One with a port has two spellings.
fn names(registry: &str) -> Vec<String> {
    let host = host_of(registry);
    let port = registry[host.len()..].strip_prefix(':');
    let spelt = port.map(|port| format!("{host}_{port}_"));
    spelt.into_iter().chain([registry.to_owned(), DEFAULT.to_owned()]).collect()
}

/// Which file is read, and for whom.
struct Origin<'a> {
    directory: &'a Path,
    registry: &'a str,
    plain: bool,
    /// Whether it is everybody's, and not this registry's own.
    is_default: bool,
}

/// A directory without `hosts.toml`: Docker's way, where `*.crt` are authorities and `*.cert` with `*.key` are ours.
fn certificates(of: &Origin<'_>) -> io::Result<Vec<Endpoint>> {
    let mut endpoint = Endpoint::of_registry(of.registry, of.plain);
    let mut files: Vec<PathBuf> = fs::read_dir(of.directory)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for path in files {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => endpoint.tls.authorities.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                endpoint.tls.identity.get_or_insert((path, Some(key)));
            }
            _ => {}
        }
    }
    Ok(vec![endpoint])
}

fn parse(text: &str, of: &Origin<'_>) -> Result<Vec<Endpoint>, String> {
    let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    let mut endpoints = Vec::new();
    if let Some(hosts) = document.get("host") {
        let hosts = hosts.as_table_like().ok_or("host is no table")?;
        for (place, item) in hosts.iter() {
            let fields = item.as_table_like().ok_or_else(|| format!("host.\"{place}\" is no table"))?;
            let within = |what: String| format!("host.\"{place}\": {what}");
            let mut endpoint = read(place, fields, of, &[]).map_err(within)?;
            // A mirror is another host, whatever it is called; it gets no credentials of the registry.
            endpoint.is_own = endpoint.stands_for.is_none() && !of.is_default;
            endpoints.push(endpoint);
        }
    }
    let server = match document.get("server") {
        Some(server) => server.as_str().ok_or("server is no text")?.to_owned(),
        None => {
            let scheme = if of.plain { "http" } else { "https" };
            format!("{scheme}://{}", host_of_registry(of.registry))
        }
    };
    let mut own = read(&server, document.as_table(), of, &["server", "host"])?;
    own.is_own = own.stands_for.is_none() || !of.is_default;
    endpoints.push(own);
    Ok(endpoints)
}

fn read(place: &str, fields: &dyn TableLike, of: &Origin<'_>, besides: &[&str]) -> Result<Endpoint, String> {
    let mut endpoint = Endpoint::of_registry(of.registry, of.plain);
    let mut override_path = false;
    for (name, item) in fields.iter() {
        let wrong = |wanted: &str| format!("{name} must be {wanted}");
        match name {
            "capabilities" => capabilities(item, &mut endpoint)?,
            "ca" => {
                let paths = texts(item).ok_or_else(|| wrong("a path or a list of paths"))?;
                endpoint.tls.authorities = paths.into_iter().map(|path| of.directory.join(path)).collect();
            }
            "client" => endpoint.tls.identity = Some(identity(item, of.directory)?),
            "skip_verify" => endpoint.tls.skip_verify = item.as_bool().ok_or_else(|| wrong("true or false"))?,
            "override_path" => override_path = item.as_bool().ok_or_else(|| wrong("true or false"))?,
            "header" => endpoint.headers = headers(item)?,
            "dial_timeout" => {
                let timeout = item.as_str().and_then(duration);
                endpoint.connect_timeout = Some(timeout.ok_or_else(|| wrong("a time such as \"500ms\" or \"5s\""))?);
            }
            "proxy" => {
                let proxy = item.as_str().and_then(|proxy| Url::parse(proxy).ok());
                let proxy = proxy.filter(|proxy| matches!(proxy.scheme(), "http" | "https") && proxy.host().is_some());
                endpoint.proxy = Some(proxy.ok_or_else(|| wrong("an http or https URL"))?.to_string());
            }
            other if besides.contains(&other) => {}
            other => return Err(format!("the field {other} is not known")),
        }
    }
    let spelt = if place.contains("://") { place.to_owned() } else { format!("https://{place}") };
    let url = Url::parse(&spelt).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or_else(|| format!("{place:?} is no http or https URL"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err("a host's URL has no user and no query; header names an Authorization".to_owned());
    }
    let path = url.path().trim_end_matches('/');
    let path = if override_path || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
    let host = url.host_str().unwrap_or_default();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    endpoint.base = format!("{}://{authority}{path}", url.scheme());
    let is_registry = authority == host_of_registry(of.registry) || authority == of.registry;
    endpoint.stands_for = (!is_registry).then(|| of.registry.to_owned());
    Ok(endpoint)
}

fn capabilities(item: &Item, endpoint: &mut Endpoint) -> Result<(), String> {
    let names = texts(item).ok_or("capabilities must be a list of pull, resolve and push")?;
    (endpoint.pulls, endpoint.resolves, endpoint.takes_pushes) = (false, false, false);
    for name in names {
        match name.as_str() {
            "pull" => endpoint.pulls = true,
            "resolve" => endpoint.resolves = true,
            "push" => endpoint.takes_pushes = true,
            other => return Err(format!("the capability {other:?} is not known")),
        }
    }
    Ok(())
}

/// A path, a list of one, or a list of one pair of certificate and key. TLS shows one certificate to a server.
fn identity(item: &Item, directory: &Path) -> Result<(PathBuf, Option<PathBuf>), String> {
    let wrong = || "client must be one path, or one pair of paths of a certificate and its key".to_owned();
    let pair = match item.as_array() {
        Some(array) if array.len() == 1 => match array.get(0).and_then(toml_edit::Value::as_array) {
            Some(pair) => pair.iter().map(|path| path.as_str().map(str::to_owned)).collect(),
            None => texts(item),
        },
        Some(_) => None,
        None => texts(item),
    };
    match pair.ok_or_else(wrong)?.as_slice() {
        [certificate] => Ok((directory.join(certificate), None)),
        [certificate, key] if key.is_empty() => Ok((directory.join(certificate), None)),
        [certificate, key] => Ok((directory.join(certificate), Some(directory.join(key)))),
        _ => Err(wrong()),
    }
}

fn headers(item: &Item) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in item.as_table_like().ok_or("header must be a table")?.iter() {
        // What is wrong with a value is not said: it may be a secret.
        let wrong = || format!("header.{name} is no header");
        let parsed: HeaderName = name.parse().map_err(|_| wrong())?;
        for value in texts(values).ok_or_else(wrong)? {
            let mut value: HeaderValue = value.parse().map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.append(parsed.clone(), value);
        }
    }
    Ok(headers)
}

/// A text, or a list of texts.
fn texts(item: &Item) -> Option<Vec<String>> {
    match (item.as_str(), item.as_array()) {
        (Some(text), _) => Some(vec![text.to_owned()]),
        (None, Some(array)) => array.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        (None, None) => None,
    }
}

/// The part of Go's durations that a wait for a connection needs: a number of `ms`, `s` or `m`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
