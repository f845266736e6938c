//! Watches by name, shared by all pods that refer to the object, and the watches of all Services and of all RuntimeClasses.
//!
//! Comes in: watch events. Goes out: the newest object, or that there is none. A watch that fails is taken up again with a
//! growing, jittered pause, and meanwhile the last object is served.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

use decide::names::PodUid;
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{FIRST_ANSWER, ObjectError};

/// What is known of one object.
#[derive(Clone, Debug)]
pub(super) enum Seen<T> {
    /// The API server has not answered yet, or only with errors; the last one is kept.
    Nothing { error: Option<String> },
    /// It has: this is the object, or there is none.
    Object(Option<Arc<T>>),
}

type Key = (String, String);

/// Objects that can be watched by their name in a namespace.
pub(super) trait Watched:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<T> Watched for T where
    T: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// The watched objects of one kind.
pub(super) struct Shelf<T> {
    watches: HashMap<Key, Watch<T>>,
    pods: HashMap<PodUid, HashSet<Key>>,
}

struct Watch<T> {
    users: usize,
    seen: watch::Receiver<Seen<T>>,
    task: JoinHandle<()>,
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { watches: HashMap::new(), pods: HashMap::new() }
    }
}

impl<T> Shelf<T>
where
    T: Watched,
{
    /// From now on the pod refers to exactly these names.
    pub(super) fn set(
        &mut self,
        pod: &PodUid,
        namespace: &str,
        names: Vec<String>,
        client: &kube::Client,
        changed: &watch::Sender<u64>,
    ) {
        let wanted: HashSet<Key> = names.into_iter().map(|name| (namespace.to_owned(), name)).collect();
        let had = self.pods.get(pod).cloned().unwrap_or_default();
        for key in wanted.difference(&had) {
            let watch = self.watches.entry(key.clone()).or_insert_with(|| begin(client.clone(), key, changed.clone()));
            watch.users += 1;
        }
        for key in had.difference(&wanted) {
            self.release(key);
        }
        if wanted.is_empty() {
            self.pods.remove(pod);
        } else {
            self.pods.insert(pod.clone(), wanted);
        }
    }
}

impl<T> Shelf<T> {
    pub(super) fn forget(&mut self, pod: &PodUid) {
        for key in self.pods.remove(pod).unwrap_or_default() {
            self.release(&key);
        }
    }

    /// The watched object; none where no pod refers to it.
    pub(super) fn seen(&self, namespace: &str, name: &str) -> Option<watch::Receiver<Seen<T>>> {
        self.watches.get(&(namespace.to_owned(), name.to_owned())).map(|watch| watch.seen.clone())
    }

    fn release(&mut self, key: &Key) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        watch.users -= 1;
        if watch.users == 0 {
            self.watches.remove(key);
        }
    }
}

fn begin<T>(client: kube::Client, key: &Key, changed: watch::Sender<u64>) -> Watch<T>
where
    T: Watched,
{
    let (sender, seen) = watch::channel(Seen::Nothing { error: None });
    let api: kube::Api<T> = kube::Api::namespaced(client, &key.0);
    let named = watcher::Config::default().fields(&format!("metadata.name={}", key.1));
    let name = format!("{}/{}", key.0, key.1);
    let task = tokio::spawn(async move {
        let mut events = watcher(api, named).default_backoff().boxed();
        let mut listed = None;
        while let Some(event) = events.next().await {
            let object = match event {
                Ok(watcher::Event::Init) => {
                    listed = None;
                    continue;
                }
                Ok(watcher::Event::InitApply(object)) => {
                    listed = Some(Arc::new(object));
                    continue;
                }
                Ok(watcher::Event::InitDone) => listed.take(),
                Ok(watcher::Event::Apply(object)) => Some(Arc::new(object)),
                Ok(watcher::Event::Delete(_)) => None,
                Err(error) => {
                    tracing::debug!(kind = %T::kind(&()), name, "watching: {error}; trying again");
                    sender.send_if_modified(|seen| match seen {
                        Seen::Nothing { error: last } => {
                            *last = Some(error.to_string());
                            true
                        }
                        // What was seen is served on.
                        Seen::Object(_) => false,
                    });
                    continue;
                }
            };
            sender.send_replace(Seen::Object(object));
            changed.send_modify(|version| *version = version.wrapping_add(1));
        }
    });
    Watch { users: 0, seen, task }
}

/// Reads a watched object, or asks for one that is not watched.
pub(super) async fn read<T>(
    seen: Option<watch::Receiver<Seen<T>>>,
    client: &kube::Client,
    kind: &'static str,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<T>>, ObjectError>
where
    T: Watched,
{
    let name_of = || format!("{namespace}/{name}");
    let no_answer = || ObjectError::NoAnswer { kind, name: name_of() };
    let refused = |message| ObjectError::Refused { kind, name: name_of(), message };
    let Some(mut seen) = seen else {
        let api: kube::Api<T> = kube::Api::namespaced(client.clone(), namespace);
        return match timeout(FIRST_ANSWER, api.get_opt(name)).await {
            Ok(Ok(object)) => Ok(object.map(Arc::new)),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(_) => Err(no_answer()),
        };
    };
    // An error is no answer yet: a node may read an object only once the API server knows that a pod of it refers to that.
    let answered = timeout(FIRST_ANSWER, seen.wait_for(|seen| matches!(seen, Seen::Object(_)))).await;
    drop(answered);
    match &*seen.borrow() {
        Seen::Object(object) => Ok(object.clone()),
        Seen::Nothing { error: Some(message) } => Err(refused(message.clone())),
        Seen::Nothing { error: None } => Err(no_answer()),
    }
}

/// All objects of a kind in the cluster.
pub(super) struct WatchedAll<T>
where
    T: Resource<DynamicType = ()> + Clone + 'static,
{
    store: reflector::Store<T>,
    kinds: &'static str,
    task: JoinHandle<()>,
}

impl<T> Drop for WatchedAll<T>
where
    T: Resource<DynamicType = ()> + Clone + 'static,
{
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T> WatchedAll<T>
where
    T: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Begins to watch; `kinds` is what they are called in messages.
    pub(super) fn start(client: kube::Client, kinds: &'static str) -> Self {
        let (store, writer) = reflector::store();
        let events = watcher(kube::Api::<T>::all(client), watcher::Config::default()).default_backoff();
        let mut all = events.reflect(writer).boxed();
        let task = tokio::spawn(async move {
            while let Some(event) = all.next().await {
                if let Err(error) = event {
                    tracing::debug!("watching {kinds}: {error:#}; trying again");
                }
            }
        });
        Self { store, kinds, task }
    }

    pub(super) async fn all(&self) -> Result<Vec<Arc<T>>, ObjectError> {
        let no_answer = || ObjectError::NoAnswer { kind: self.kinds, name: "of the cluster".to_owned() };
        match timeout(FIRST_ANSWER, self.store.wait_until_ready()).await {
            Ok(Ok(())) => Ok(self.store.state()),
            _ => Err(no_answer()),
        }
    }
}
