//! What a guest may reach, in plain words, from what it imports.
//!
//! Pure tables. Where the functions of an interface are not known, all of them are taken to be imported: this list may
//! name too much, and never too little. What a guest is really given, its pod decides.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Format, Interface};

/// The module of WASI 0.1.
pub(super) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// A part of the world outside of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// The image's files and mounted volumes.
    Files,
    /// Connections and packets to others, and looking up their names.
    NetworkOut,
    /// Connections and packets from others.
    NetworkIn,
    /// HTTP requests to others.
    HttpOut,
    /// HTTP requests from others.
    HttpIn,
    /// What time it is, and waiting.
    Clocks,
    /// Random numbers.
    Random,
    /// Environment variables and arguments.
    Environment,
    /// Standard input, output and error.
    Stdio,
    /// Configuration of the host's.
    Config,
    /// Key-value stores of the host's.
    KeyValue,
    /// What is not part of WASI, by its name.
    Other,
}

impl Reach {
    /// All there are, in the order they are shown.
    pub const ALL: [Self; 12] = [
        Self::Files,
        Self::NetworkOut,
        Self::NetworkIn,
        Self::HttpOut,
        Self::HttpIn,
        Self::Clocks,
        Self::Random,
        Self::Environment,
        Self::Stdio,
        Self::Config,
        Self::KeyValue,
        Self::Other,
    ];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::NetworkOut => "network out",
            Self::NetworkIn => "network in",
            Self::HttpOut => "http out",
            Self::HttpIn => "http in",
            Self::Clocks => "clocks",
            Self::Random => "random",
            Self::Environment => "environment",
            Self::Stdio => "stdio",
            Self::Config => "config",
            Self::KeyValue => "key-value",
            Self::Other => "other",
        }
    }
}

/// One thing a guest may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Access {
    /// What.
    pub what: Reach,
    /// How, in plain words.
    pub how: Vec<String>,
}

/// An interface (without its version), the functions of it that matter (none: all do), what they reach, and how.
type Rule = (&'static str, &'static [&'static str], Reach, &'static str);

const TCP_OUT: &[&str] = &["[method]tcp-socket.start-connect", "[method]tcp-socket.connect"];
const TCP_IN: &[&str] = &["[method]tcp-socket.start-listen", "[method]tcp-socket.listen"];
const UDP_OUT: &[&str] =
    &["[method]outgoing-datagram-stream.send", "[method]udp-socket.connect", "[method]udp-socket.send"];
const UDP_IN: &[&str] = &["[method]udp-socket.start-bind", "[method]udp-socket.bind"];
/// What changes files or directories; opening may create or empty a file.
const WRITING: &[&str] = &[
    "[method]descriptor.append-via-stream",
    "[method]descriptor.create-directory-at",
    "[method]descriptor.link-at",
    "[method]descriptor.open-at",
    "[method]descriptor.remove-directory-at",
    "[method]descriptor.rename-at",
    "[method]descriptor.set-size",
    "[method]descriptor.set-times",
    "[method]descriptor.set-times-at",
    "[method]descriptor.symlink-at",
    "[method]descriptor.unlink-file-at",
    "[method]descriptor.write",
    "[method]descriptor.write-via-stream",
];
const PREVIEW1_WRITING: &[&str] = &[
    "fd_allocate",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "path_create_directory",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
];

/// For components. The first column of whole packages ends in `/`.
const RULES: [Rule; 33] = [
    ("wasi:filesystem/", &[], Reach::Files, "reads the directories it is given"),
    ("wasi:filesystem/types", WRITING, Reach::Files, "changes what is in them"),
    ("wasi:sockets/tcp", TCP_OUT, Reach::NetworkOut, "TCP connections"),
    ("wasi:sockets/tcp", TCP_IN, Reach::NetworkIn, "listens on TCP"),
    ("wasi:sockets/udp", UDP_OUT, Reach::NetworkOut, "UDP packets"),
    ("wasi:sockets/udp", UDP_IN, Reach::NetworkIn, "UDP packets"),
    ("wasi:sockets/types", TCP_OUT, Reach::NetworkOut, "TCP connections"),
    ("wasi:sockets/types", TCP_IN, Reach::NetworkIn, "listens on TCP"),
    ("wasi:sockets/types", UDP_OUT, Reach::NetworkOut, "UDP packets"),
    ("wasi:sockets/types", UDP_IN, Reach::NetworkIn, "UDP packets"),
    ("wasi:sockets/ip-name-lookup", &[], Reach::NetworkOut, "name lookup"),
    ("wasi:http/outgoing-handler", &[], Reach::HttpOut, "sends requests"),
    ("wasi:http/client", &[], Reach::HttpOut, "sends requests"),
    ("wasi:http/handler", &[], Reach::HttpOut, "hands requests on to another handler"),
    ("wasi:clocks/wall-clock", &[], Reach::Clocks, "the time of day"),
    ("wasi:clocks/system-clock", &[], Reach::Clocks, "the time of day"),
    ("wasi:clocks/monotonic-clock", &[], Reach::Clocks, "measures time and waits"),
    ("wasi:clocks/timezone", &[], Reach::Clocks, "the time zone"),
    ("wasi:random/", &[], Reach::Random, "random numbers"),
    ("wasi:cli/environment", &["get-environment"], Reach::Environment, "variables"),
    ("wasi:cli/environment", &["get-arguments"], Reach::Environment, "arguments"),
    ("wasi:cli/stdin", &[], Reach::Stdio, "reads standard input"),
    ("wasi:cli/stdout", &[], Reach::Stdio, "writes standard output"),
    ("wasi:cli/stderr", &[], Reach::Stdio, "writes standard error"),
    ("wasi:logging/", &[], Reach::Stdio, "writes log lines"),
    ("wasi:config/", &[], Reach::Config, "reads configuration"),
    ("wasi:keyvalue/", &[], Reach::KeyValue, "reads and writes key-value stores"),
    ("fermyon:spin/variables", &[], Reach::Config, "reads variables"),
    ("spin:variables/variables", &[], Reach::Config, "reads variables"),
    ("fermyon:spin/key-value", &[], Reach::KeyValue, "reads and writes key-value stores"),
    ("spin:key-value/key-value", &[], Reach::KeyValue, "reads and writes key-value stores"),
    ("wasi:tls/", &[], Reach::NetworkOut, "TLS"),
    ("wasi:blobstore/", &[], Reach::Other, "reads and writes blob stores"),
];

/// Interfaces by which a guest reaches nothing: its own end, streams of what it has, types, the terminal's size.
const HARMLESS: [&str; 6] =
    ["wasi:cli/exit", "wasi:cli/terminal-", "wasi:cli/types", "wasi:clocks/types", "wasi:http/types", "wasi:io/"];
/// As before: sockets by themselves, before anything is done with one.
const SOCKETS: &str = "wasi:sockets/";

/// For core modules: functions of WASI 0.1.
const PREVIEW1_RULES: [(&[&str], Reach, &str); 9] = [
    (
        &["fd_prestat_get", "fd_readdir", "path_filestat_get", "path_readlink", "path_open"],
        Reach::Files,
        "reads the directories it is given",
    ),
    (PREVIEW1_WRITING, Reach::Files, "changes what is in them"),
    (&["sock_accept", "sock_recv", "sock_send"], Reach::NetworkIn, "sockets it is given"),
    (&["clock_time_get"], Reach::Clocks, "the time of day"),
    (&["clock_time_get", "poll_oneoff"], Reach::Clocks, "measures time and waits"),
    (&["random_get"], Reach::Random, "random numbers"),
    (&["environ_get"], Reach::Environment, "variables"),
    (&["args_get"], Reach::Environment, "arguments"),
    (&["fd_read", "fd_write", "fd_pread", "fd_pwrite"], Reach::Stdio, "standard input, output and error"),
];

/// What these imports, and an HTTP handler among the exports, let a guest reach.
pub(super) fn of(format: Format, imports: &[Interface], exports: &[Interface]) -> Vec<Access> {
    let mut found: BTreeMap<Reach, BTreeSet<usize>> = BTreeMap::new();
    let mut words: Vec<String> = Vec::new();
    let mut add = |what: Reach, how: &str| {
        let at = words.iter().position(|word| word == how).unwrap_or_else(|| {
            words.push(how.to_owned());
            words.len() - 1
        });
        found.entry(what).or_default().insert(at);
    };
    for import in imports {
        match format {
            Format::Module if import.name == PREVIEW1 => {
                for (functions, what, how) in PREVIEW1_RULES {
                    if uses(import, functions) {
                        add(what, how);
                    }
                }
            }
            Format::Module => add(Reach::Other, &import.name),
            Format::Component => component_import(import, &mut add),
        }
    }
    let handles =
        |export: &Interface| matches!(unversioned(&export.name), "wasi:http/incoming-handler" | "wasi:http/handler");
    if exports.iter().any(handles) {
        add(Reach::HttpIn, "answers the requests that the node hands to it");
    }
    let plain = |at: BTreeSet<usize>| at.into_iter().map(|at| words[at].clone()).collect();
    found.into_iter().map(|(what, how)| Access { what, how: plain(how) }).collect()
}

fn component_import(import: &Interface, add: &mut impl FnMut(Reach, &str)) {
    let name = unversioned(&import.name);
    let mut known = name.starts_with(SOCKETS) || HARMLESS.iter().any(|harmless| name.starts_with(harmless));
    for (interface, functions, what, how) in RULES {
        let is_it = if interface.ends_with('/') { name.starts_with(interface) } else { name == interface };
        if !is_it {
            continue;
        }
        known = true;
        if uses(import, functions) {
            add(what, how);
        }
    }
    if !known {
        add(Reach::Other, &import.name);
    }
}

/// Whether one of these functions is imported; an interface that is imported for its types alone reaches nothing.
fn uses(import: &Interface, functions: &[&str]) -> bool {
    match &import.functions {
        None => true,
        Some(imported) if functions.is_empty() => !imported.is_empty(),
        Some(imported) => imported.iter().any(|it| functions.contains(&it.as_str())),
    }
}

fn unversioned(name: &str) -> &str {
    name.split_once('@').map_or(name, |(name, _)| name)
}
