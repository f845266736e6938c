//! What the pulls of all pods share: their turns and pace, what the node itself can log in with, and who was given which
//! image before.
//!
//! Comes in: options. Goes out: turns, logins, records. Never here: what a pod has to show; see `effects::pull_secrets`.

mod docker_credentials;
mod exec;
mod node_logins;
mod provider;
mod rate;
mod records;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use decide::keyring::Keyring;
use decide::pulled::VerificationPolicy;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::Clock;
pub use docker_credentials::with_helper;
use node_logins::NodeLogins;
pub use provider::{ProviderError, Providers};
use rate::Pace;
pub use rate::PullRate;
pub use records::{Records, hash_of};

/// Records are small, and images go seldom.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// How images are pulled.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Images that may be pulled at once; `None` is without limit.
    pub parallel: Option<usize>,
    /// How often a registry is asked.
    pub rate: PullRate,
    /// Who must prove the right to an image that is here.
    pub verification: VerificationPolicy,
    /// Where it is kept who was given which image.
    pub records: PathBuf,
    /// Where the node's own Docker configuration may be, best first.
    pub login_directories: Vec<PathBuf>,
    /// Programs that know logins.
    pub providers: Providers,
}

impl PullOptions {
    /// The kubelet's defaults, beneath this root directory, with nothing of the node's to log in with.
    #[must_use]
    pub fn beneath(root: &std::path::Path) -> Self {
        Self {
            parallel: Some(1),
            rate: PullRate::UNLIMITED,
            verification: VerificationPolicy::default(),
            records: root.join("image_manager"),
            login_directories: Vec::new(),
            providers: Providers::default(),
        }
    }

    /// Where the kubelet looks for its Docker configuration: its root directory, the home, the file system's root.
    #[must_use]
    pub fn default_login_directories(root: &std::path::Path, home: Option<PathBuf>) -> Vec<PathBuf> {
        let home = home.map(|home| home.join(".docker"));
        [Some(root.to_owned()), home, Some(PathBuf::from("/.docker"))].into_iter().flatten().collect()
    }
}

/// What the pulls of all pods share.
pub struct Pulls {
    turns: Option<Semaphore>,
    pace: Pace,
    node: NodeLogins,
    providers: Providers,
    /// Who was given which image.
    pub records: Arc<Records>,
    /// Who must prove the right to an image that is here.
    pub verification: VerificationPolicy,
}

/// Logins of the node, and what to tell of those that are not to be had.
#[derive(Default)]
pub struct Logins {
    /// The logins.
    pub keyring: Keyring,
    /// Sentences for whoever is refused.
    pub hints: Vec<String>,
}

impl Pulls {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(options: PullOptions) -> Self {
        Self {
            turns: options.parallel.map(|count| Semaphore::new(count.max(1))),
            pace: Pace::new(options.rate),
            node: NodeLogins::new(options.login_directories),
            providers: options.providers,
            records: Arc::new(Records::new(options.records)),
            verification: options.verification,
        }
    }

    /// Forgets, now and then, who was given images that are not on the node any more. Runs until it is dropped.
    pub async fn forget_gone(self: Arc<Self>, runtime: cri::Client, clock: Clock) {
        loop {
            let began = clock.now();
            match runtime.list_images(None).await {
                Ok(images) => self.records.keep_only(images.into_iter().map(|image| image.id).collect(), began).await,
                Err(error) => tracing::debug!("records of pulls are kept: {error}: {}", error.message()),
            }
            tokio::time::sleep(FORGET_EVERY).await;
        }
    }

    /// Waits for its turn, which lasts as long as the permit is held.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        match &self.turns {
            // It is never closed.
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        }
    }

    /// Whether a registry may be asked now. The kubelet does not wait: the pull fails, and is tried again later.
    #[must_use]
    pub fn within_pace(&self) -> bool {
        self.pace.take()
    }

    /// What the node itself can log in with for this image, behind what is in `logins` already.
    pub async fn add_node_logins(&self, image: &str, logins: &mut Logins) {
        self.node.add(image, logins).await;
        self.providers.add(image, logins).await;
    }
}
