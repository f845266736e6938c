//! Files that change all at once: the kubelet's atomic writer.
//!
//! ```text
//!   ..2026_11_23_15_04_05.2723118474/   one whole version
//!   ..data -> ..2026_11_23_15_04_05.…   swapped by one rename
//!   config.yaml -> ..data/config.yaml   what a guest opens; stays while the name stays
//! ```
//! Comes in: a directory and what it is to hold. Goes out: exactly that, visible as a whole at every moment. The work is a
//! list of steps, planned from what is there: a process that dies between any two of them leaves a whole version to be
//! read, and the next write removes what it left over. Nothing is written where nothing changed.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use decide::volume::{File, Payload};
use jiff::Timestamp;

use super::error::VolumeError;

/// Points to the version that is shown.
const DATA: &str = "..data";
/// Becomes [`DATA`].
const NEXT_DATA: &str = "..data_tmp";
/// Becomes what a guest opens.
const NEXT_LINK: &str = "..link_tmp";
/// Directories can be passed by everyone who gets as far as the volume.
const DIRECTORY_MODE: u32 = 0o755;

/// One step on the way from what is there to what is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    /// Makes the directory of a new version.
    Make { version: String },
    /// Writes one file of it.
    Write { version: String, path: &'a str, content: &'a File },
    /// Shows the new version in place of the old one.
    Swap { version: String },
    /// Makes the link that a guest opens.
    Show { name: String },
    /// Removes a link, an old version, or what a process that died left over.
    Remove { name: String },
}

/// Makes the directory hold exactly the payload. Says whether there was anything to do.
///
/// # Errors
/// The system refused a step. A whole version is visible nevertheless: the old one or the new one.
pub(super) fn write(directory: &Path, payload: &Payload) -> Result<bool, VolumeError> {
    let version = format!("{}{}", Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S."), rand::random::<u32>());
    let steps = plan(directory, payload, &version)?;
    for step in &steps {
        step.take(directory)?;
    }
    Ok(!steps.is_empty())
}

fn plan<'a>(directory: &Path, payload: &'a Payload, version: &str) -> Result<Vec<Step<'a>>, VolumeError> {
    let shown = shown(directory);
    let holds = match &shown {
        Some(shown) => holds(&directory.join(shown), payload)?,
        None => false,
    };
    let mut names = entries(directory)?;
    if shown.is_some() {
        names.remove(DATA);
    }
    // What a process that died left over goes first: it may be what fills the disk.
    let is_left_over = |name: &String| name.starts_with("..") && Some(name) != shown.as_ref();
    let mut steps: Vec<Step<'_>> =
        names.iter().filter(|name| is_left_over(name)).map(|name| Step::Remove { name: name.clone() }).collect();
    if !holds {
        let version = || version.to_owned();
        steps.push(Step::Make { version: version() });
        steps.extend(payload.iter().map(|(path, content)| Step::Write { version: version(), path, content }));
        steps.push(Step::Swap { version: version() });
    }
    let wanted: BTreeSet<String> = payload.keys().map(|path| first(path).to_owned()).collect();
    let is_shown = |name: &String| fs::read_link(directory.join(name)).is_ok_and(|target| target == target_of(name));
    steps.extend(wanted.iter().filter(|name| !is_shown(name)).map(|name| Step::Show { name: name.clone() }));
    let is_stale = |name: &&String| !name.starts_with("..") && !wanted.contains(*name);
    steps.extend(names.iter().filter(is_stale).map(|name| Step::Remove { name: name.clone() }));
    if !holds {
        steps.extend(shown.map(|name| Step::Remove { name }));
    }
    Ok(steps)
}

/// The version that is shown, if one is.
fn shown(directory: &Path) -> Option<String> {
    let target = fs::read_link(directory.join(DATA)).ok()?;
    let name = target.to_str()?;
    let is_version = name.starts_with("..") && name.len() > 2 && !name.contains('/') && name != DATA;
    let is_there = fs::symlink_metadata(directory.join(name)).is_ok_and(|found| found.is_dir());
    (is_version && is_there).then(|| name.to_owned())
}

/// Names of what is in the directory. One that is not UTF-8 is none of ours, and stays.
fn entries(directory: &Path) -> Result<BTreeSet<String>, VolumeError> {
    let failed = || VolumeError::at("list", directory);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(failed())? {
        names.extend(entry.map_err(failed())?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Whether the directory has exactly these files.
fn holds(version: &Path, payload: &Payload) -> Result<bool, VolumeError> {
    let mut left: Vec<PathBuf> = vec![version.to_owned()];
    let mut found = 0;
    while let Some(directory) = left.pop() {
        let failed = || VolumeError::at("list", &directory);
        for entry in fs::read_dir(&directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(failed())?);
            if kind.is_dir() {
                left.push(path);
                continue;
            }
            let relative = path.strip_prefix(version).ok().and_then(Path::to_str);
            match relative.and_then(|relative| payload.get(relative)) {
                Some(content) if kind.is_file() && has(&path, content).map_err(VolumeError::at("read", &path))? => {
                    found += 1;
                }
                _ => return Ok(false),
            }
        }
    }
    Ok(found == payload.len())
}

fn has(path: &Path, content: &File) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    let size = u64::try_from(content.bytes.len()).unwrap_or(u64::MAX);
    if found.len() != size || found.permissions().mode() & 0o7777 != content.mode {
        return Ok(false);
    }
    let mut bytes = Vec::with_capacity(content.bytes.len());
    match fs::File::open(path) {
        Ok(file) => file.take(size.saturating_add(1)).read_to_end(&mut bytes)?,
        // A mode that keeps even us from reading: it is written anew.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(bytes == content.bytes)
}

impl Step<'_> {
    fn take(&self, directory: &Path) -> Result<(), VolumeError> {
        let (step, path) = match self {
            Self::Make { version } => ("make directory", directory.join(version)),
            Self::Write { version, path, .. } => ("write", directory.join(version).join(path)),
            Self::Swap { .. } => ("swap", directory.join(DATA)),
            Self::Show { name } => ("link", directory.join(name)),
            Self::Remove { name } => ("remove", directory.join(name)),
        };
        let taken = match self {
            Self::Make { .. } => make(&path),
            Self::Write { version, path: relative, content } => write_file(&directory.join(version), relative, content),
            Self::Swap { version } => replace_link(directory, NEXT_DATA, Path::new(version), &path),
            Self::Show { name } => replace_link(directory, NEXT_LINK, &target_of(name), &path),
            Self::Remove { .. } => remove(&path),
        };
        taken.map_err(VolumeError::at(step, &path))
    }
}

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn target_of(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

fn make(directory: &Path) -> io::Result<()> {
    fs::create_dir(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))
}

fn write_file(version: &Path, path: &str, content: &File) -> io::Result<()> {
    for (at, _) in path.match_indices('/') {
        match make(&version.join(&path[..at])) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(version.join(path))?;
    file.write_all(&content.bytes)?;
    // After the content, and not left to the umask.
    file.set_permissions(Permissions::from_mode(content.mode))
}

/// One rename: there is no moment without the link.
fn replace_link(directory: &Path, next: &str, target: &Path, link: &Path) -> io::Result<()> {
    let next = directory.join(next);
    remove(&next)?;
    symlink(target, &next)?;
    match fs::rename(&next, link) {
        // Made for a container whose `subPath` was no file yet.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            remove(link)?;
            fs::rename(&next, link)
        }
        other => other,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
