//! The node's own Docker configuration: `config.json`, or the older `.dockercfg`, in the first directory that has one.
//!
//! It is read for every pull, so that a changed file is seen; where it leaves a login to a credential helper, that is
//! asked. What cannot be read is passed over with a warning that says
//! nothing of its content.

use std::io;
use std::path::{Path, PathBuf};

use decide::keyring::{DockerConfig, Source};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::{Logins, with_helper};

/// Bytes; a Docker configuration has some kilobytes.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

pub(super) struct NodeLogins {
    directories: Vec<PathBuf>,
}

impl NodeLogins {
    pub(super) fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    pub(super) async fn add(&self, image: &str, logins: &mut Logins) {
        for (name, legacy) in [("config.json", false), (".dockercfg", true)] {
            for directory in &self.directories {
                let path = directory.join(name);
                let content = match read(&path).await {
                    Ok(Some(content)) => content,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::warn!(path = %path.display(), "the node's registry logins cannot be read: {error}");
                        continue;
                    }
                };
                let read = if legacy { DockerConfig::parse_legacy(&content) } else { DockerConfig::parse(&content) };
                match read {
                    Ok(config) => {
                        let (config, failed) = with_helper(config, image).await;
                        if let Some(failed) = failed {
                            tracing::warn!(path = %path.display(), "a login is not to be had: {failed}");
                            logins.hints.push(failed);
                        }
                        logins.keyring.add(config, &Source::Node);
                        return;
                    }
                    Err(error) => tracing::warn!(path = %path.display(), "no registry logins: {error}"),
                }
            }
        }
    }
}

async fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(CONFIG_BYTES_MAX).read_to_end(&mut content).await?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_file_that_can_be_read_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        for directory in [&first, &second] {
            std::fs::create_dir(directory).unwrap();
        }
        let node = NodeLogins::new(vec![first.clone(), second.clone()]);
        let found = async || {
            let mut logins = Logins::default();
            node.add("r.example/app:v1", &mut logins).await;
            let names = logins.keyring.fitting("r.example/app").into_iter().map(|one| one.login.username);
            (names.collect::<Vec<_>>(), logins.hints)
        };
        assert_eq!(found().await.0, [""; 0]);
        std::fs::write(second.join(".dockercfg"), r#"{"r.example": {"username": "old", "password": "p"}}"#).unwrap();
        assert_eq!(found().await.0, ["old"]);
        let modern = |name: &str| format!(r#"{{"auths": {{"r.example": {{"username": "{name}", "password": "p"}}}}}}"#);
        std::fs::write(second.join("config.json"), modern("second")).unwrap();
        assert_eq!(found().await.0, ["second"]);
        std::fs::write(first.join("config.json"), "not json").unwrap();
        assert_eq!(found().await.0, ["second"]);
        std::fs::write(first.join("config.json"), r#"{"credHelpers": {"r.example": "missing"}}"#).unwrap();
        let (names, hints) = found().await;
        assert!(names.is_empty() && hints[0].contains("docker-credential-missing for r.example"), "{hints:?}");
    }
}
