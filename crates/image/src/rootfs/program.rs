//! Which wasm file a command means: `argv[0]` comes in, looked up as a Linux container would, the file and the whole argument
//! vector go out.
//!
//! A name with a slash is a path, from the working directory if it does not begin with one; another is looked for in each
//! directory of `PATH`. Links are followed within the root. A script names its interpreter in its first line. What the
//! file is, its content decided when it was unpacked, never its name; an executable bit is not asked for, as build tools
//! for wasm do not set one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{Index, Rootfs};
use crate::content::Wasm;

/// Where programs are looked for when nobody says where: what container runtimes set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The kernel reads as much of a script's first line, in bytes.
const INTERPRETER_LINE_MAX: u64 = 256;
/// Scripts whose interpreter is a script; the kernel, too, gives up.
const INTERPRETERS_MAX: usize = 4;
/// Its media type, where it has none of its own.
const WASM_IN_ROOTFS: &str = "application/wasm";

/// What a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The wasm file.
    pub wasm: Wasm,
    /// The argument vector. It is the command's own but for a script, whose interpreter and path come first.
    pub args: Vec<String>,
}

/// Why a command cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Neither the image nor the pod says what to run.
    #[error("no command specified: neither the image's entrypoint nor the container's command names a program")]
    NoCommand,
    /// There is no such file in the image.
    #[error("exec: {name:?}: no such file in the image{}", if *searched { ": not found in $PATH" } else { "" })]
    NotFound {
        /// What was to be run.
        name: String,
        /// Whether `PATH` was searched for it.
        searched: bool,
    },
    /// There is something else than a wasm file.
    #[error(
        "exec: {name:?}: exec format error: {} is {found}, and only WebAssembly runs here; an image for Linux needs a Linux node (nodeSelector kubernetes.io/os: linux)",
        path.display()
    )]
    NotWasm {
        /// What was to be run.
        name: String,
        /// What that is in the image.
        path: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// The image's files cannot be read.
    #[error("exec: {name:?}: cannot read {}", path.display())]
    Read {
        /// What was to be run.
        name: String,
        /// The file or directory on the node.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Rootfs {
    /// The program that the argument vector `args` runs, with `path` as its environment's `PATH` and `working_dir` as its
    /// working directory (`/` if it has none).
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn program(
        &self,
        args: &[String],
        path: Option<&str>,
        working_dir: Option<&str>,
    ) -> Result<Program, ProgramError> {
        let name = args.first().filter(|name| !name.is_empty()).ok_or(ProgramError::NoCommand)?;
        let read = |path: PathBuf| {
            let name = name.clone();
            move |source| ProgramError::Read { name, path, source }
        };
        let root = self.path();
        let root = root.canonicalize().map_err(read(root))?;
        let index = Index::read(&self.directory).map_err(read(self.directory.clone()))?;
        let mut args = args.to_vec();
        for _ in 0..INTERPRETERS_MAX {
            let search = Search { root: &root, path, working_dir };
            let (guest, real) = search.find(&args[0])?;
            let host = root.join(&real);
            if let Some(digest) = index.wasm.get(&real) {
                let wasm = Wasm { path: host, digest: *digest, media_type: WASM_IN_ROOTFS.to_owned() };
                return Ok(Program { wasm, args });
            }
            let begin = begin(&host).map_err(read(host))?;
            match interpreter(&begin) {
                Some(interpreter) => {
                    let script = guest.to_string_lossy().into_owned();
                    let after = args.drain(1..).collect::<Vec<_>>();
                    args = interpreter.into_iter().chain([script]).chain(after).collect();
                }
                None => {
                    let path = Path::new("/").join(real);
                    return Err(ProgramError::NotWasm { name: name.clone(), path, found: kind(&begin) });
                }
            }
        }
        let path = PathBuf::from(name);
        Err(ProgramError::NotWasm { name: name.clone(), path, found: "a script of too many interpreters" })
    }
}

struct Search<'a> {
    root: &'a Path,
    path: Option<&'a str>,
    working_dir: Option<&'a str>,
}

impl Search<'_> {
    /// The file of this name: its path as the guest says it, and its real path in the root.
    fn find(&self, name: &str) -> Result<(PathBuf, PathBuf), ProgramError> {
        let searched = !name.contains('/');
        let not_found = || ProgramError::NotFound { name: name.to_owned(), searched };
        if !searched {
            let guest = Path::new("/").join(self.working_dir.unwrap_or("/")).join(name);
            let real = self.file(&guest).ok_or_else(not_found)?;
            return Ok((guest, real));
        }
        let path = self.path.unwrap_or(DEFAULT_PATH);
        let candidates = path.split(':').filter(|directory| !directory.is_empty()).map(|directory| {
            let guest = Path::new("/").join(self.working_dir.unwrap_or("/")).join(directory).join(name);
            Some((guest.clone(), self.file(&guest)?))
        });
        candidates.flatten().next().ok_or_else(not_found)
    }

    /// The real path of a file, if one is there and is inside.
    fn file(&self, guest: &Path) -> Option<PathBuf> {
        let host = self.root.join(normal(guest)).canonicalize().ok()?;
        let real = host.strip_prefix(self.root).ok()?.to_owned();
        host.is_file().then_some(real)
    }
}

/// A guest's path relative to its root, without `..`, which never leads beyond it.
fn normal(guest: &Path) -> PathBuf {
    let mut parts: Vec<&OsStr> = Vec::new();
    for part in guest.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts.into_iter().collect()
}

fn begin(file: &Path) -> io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    File::open(file)?.take(INTERPRETER_LINE_MAX).read_to_end(&mut begin)?;
    Ok(begin)
}

/// The interpreter in a script's first line, with its one argument if it has any.
fn interpreter(begin: &[u8]) -> Option<Vec<String>> {
    let line = begin.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = OsString::from(OsStr::from_bytes(line)).into_string().ok()?;
    let mut words = line.trim().splitn(2, [' ', '\t']);
    let interpreter = words.next().filter(|word| !word.is_empty())?.to_owned();
    let argument = words.next().map(|argument| argument.trim().to_owned());
    Some([interpreter].into_iter().chain(argument).collect())
}

fn kind(begin: &[u8]) -> &'static str {
    match begin {
        [0x7f, b'E', b'L', b'F', ..] => "a Linux program (ELF)",
        [b'M', b'Z', ..] => "a Windows program",
        [] => "an empty file",
        _ => "no program",
    }
}
