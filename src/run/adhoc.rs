//! `wasklet run FILE.wasm`: an ad-hoc pod around one file.
//!
//! Comes in: what stands on the command line. Goes out: an ordinary Pod object, as a manifest would have held it. Never
//! here: a way around the kubelet; what this pod may do, any pod may.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// `--env K=V`; `--env K` takes the value from our own environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Env {
    name: String,
    value: String,
}

impl std::str::FromStr for Env {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value = std::env::var(text);
                (text, value.with_context(|| format!("{text} is not in the environment; write {text}=VALUE"))?)
            }
        };
        ensure!(!name.is_empty(), "the name before = is missing");
        Ok(Self { name: name.to_owned(), value })
    }
}

/// `--annotation NAME=VALUE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Annotation {
    name: String,
    value: String,
}

impl std::str::FromStr for Annotation {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) = text.split_once('=').context("write NAME=VALUE")?;
        ensure!(!name.is_empty(), "the name before = is missing");
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// `--volume HOST:GUEST[:ro]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    host: PathBuf,
    guest: String,
    read_only: bool,
}

impl std::str::FromStr for Volume {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut parts = text.split(':');
        let (Some(host), Some(guest)) = (parts.next(), parts.next()) else {
            bail!("write HOST:GUEST or HOST:GUEST:ro");
        };
        let read_only = match parts.next() {
            None | Some("rw") => false,
            Some("ro") => true,
            Some(other) => bail!("{other:?} is not a mode; write ro or rw"),
        };
        ensure!(parts.next().is_none(), "write HOST:GUEST or HOST:GUEST:ro");
        ensure!(!host.is_empty(), "the host directory is missing");
        ensure!(guest.starts_with('/'), "the guest path {guest:?} must be absolute");
        let host = std::path::absolute(host).with_context(|| format!("host directory {host}"))?;
        ensure!(host.is_dir(), "{} is not a directory", host.display());
        Ok(Self { host, guest: guest.to_owned(), read_only })
    }
}

/// `--publish [IP:]HOST_PORT:PORT`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    host_ip: Option<IpAddr>,
    host_port: u16,
    port: u16,
}

impl std::str::FromStr for Publish {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wrong = "write HOST_PORT:PORT or IP:HOST_PORT:PORT";
        let (rest, port) = text.rsplit_once(':').context(wrong)?;
        let (host_ip, host_port) = match rest.rsplit_once(':') {
            Some((ip, host_port)) => {
                let ip = ip.trim_start_matches('[').trim_end_matches(']');
                (Some(ip.parse().with_context(|| format!("{ip:?} is not an address; {wrong}"))?), host_port)
            }
            None => (None, rest),
        };
        let number = |text: &str| match text.parse::<u16>() {
            Ok(0) | Err(_) => bail!("{text:?} is not a port (1 to 65535); {wrong}"),
            Ok(port) => Ok(port),
        };
        Ok(Self { host_ip, host_port: number(host_port)?, port: number(port)? })
    }
}

/// What stands around the file on the command line.
pub(crate) struct Adhoc<'a> {
    pub(crate) file: &'a Path,
    pub(crate) image: &'a str,
    pub(crate) args: &'a [String],
    pub(crate) env: &'a [Env],
    pub(crate) volumes: &'a [Volume],
    pub(crate) publish: &'a [Publish],
    pub(crate) annotations: &'a [Annotation],
}

impl Adhoc<'_> {
    /// The pod, of one container, that runs once.
    pub(crate) fn pod(&self) -> Value {
        let name = pod_name(self.file);
        let volume = |index: usize| format!("volume-{index}");
        let named = |(index, given): (usize, &Volume)| json!({ "name": volume(index), "hostPath": { "path": given.host, "type": "Directory" } });
        let mounted = |(index, given): (usize, &Volume)| json!({ "name": volume(index), "mountPath": given.guest, "readOnly": given.read_only });
        let port = |given: &Publish| {
            let mut port = json!({ "containerPort": given.port, "hostPort": given.host_port });
            if let Some(ip) = given.host_ip {
                port["hostIP"] = json!(ip.to_string());
            }
            port
        };
        let annotations: BTreeMap<_, _> = self.annotations.iter().map(|given| (&given.name, &given.value)).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "annotations": annotations },
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": name,
                    "image": self.image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": self.args,
                    "env": self.env.iter().map(|env| json!({ "name": env.name, "value": env.value })).collect::<Vec<_>>(),
                    "volumeMounts": self.volumes.iter().enumerate().map(mounted).collect::<Vec<_>>(),
                    "ports": self.publish.iter().map(port).collect::<Vec<_>>(),
                    "stdin": true,
                    "stdinOnce": true,
                }],
                "volumes": self.volumes.iter().enumerate().map(named).collect::<Vec<_>>(),
            },
        })
    }
}

/// A name that Kubernetes takes (a DNS label), near to the file's.
pub(crate) fn pod_name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let label: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "wasm".to_owned() } else { label.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: std::str::FromStr<Err = anyhow::Error>>(text: &str, words: &str) {
        let error = text.parse::<T>().err().map(|error| format!("{error:#}"));
        let error = error.unwrap_or_else(|| panic!("{text:?} was taken"));
        assert!(error.contains(words), "{text:?} gave {error:?}, wanted {words:?}");
    }

    #[test]
    fn wrong_words_are_refused_with_the_way_out() {
        check::<Env>("=x", "name before = is missing");
        check::<Env>("NOT_SET_ANYWHERE_HERE", "write NOT_SET_ANYWHERE_HERE=VALUE");
        check::<Annotation>("name", "write NAME=VALUE");
        check::<Annotation>("=x", "name before = is missing");
        check::<Volume>("/tmp", "HOST:GUEST");
        check::<Volume>("/tmp:data", "must be absolute");
        check::<Volume>("/tmp:/data:rx", "ro or rw");
        check::<Volume>("/no/such/dir:/data", "is not a directory");
        check::<Publish>("8080", "HOST_PORT:PORT");
        check::<Publish>("0:80", "1 to 65535");
        check::<Publish>("elsewhere:80:80", "not an address");
    }

    #[test]
    fn a_publish_may_name_an_address() {
        let publish: Publish = "[::1]:8080:80".parse().unwrap();
        assert_eq!(publish, Publish { host_ip: Some("::1".parse().unwrap()), host_port: 8080, port: 80 });
    }

    #[test]
    fn any_file_name_makes_a_pod_name() {
        for (file, name) in [("a/Hello_World.wasm", "hello-world"), ("ä.wasm", "wasm"), ("x", "x"), ("-.wasm", "wasm")]
        {
            assert_eq!(pod_name(Path::new(file)), name, "{file}");
        }
    }
}
