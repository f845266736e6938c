//! Which sandboxes and containers there are.
//!
//! In come those that were made, out they come by id, by the beginning of an id, by pod, or all. A container is in here
//! only as long as its sandbox is, so that none is ever left over. Not here: what state they are in; they know themselves.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Bound;
use std::sync::Arc;

use cri::names::{Map, POD_UID};

use crate::container::Container;
use crate::id::{ContainerId, SandboxId};
use crate::sandbox::Sandbox;
use crate::service::error::ServiceError;

/// The sandboxes and containers of a runtime.
#[derive(Default)]
pub(crate) struct Registry {
    sandboxes: BTreeMap<SandboxId, Entry>,
    containers: BTreeMap<ContainerId, Arc<Container>>,
    sandbox_names: BTreeMap<String, SandboxId>,
    /// Those that carry a pod's UID, by it: a kubelet asks for one pod's far more often than for all.
    pods: BTreeMap<String, OfPod>,
}

/// The ids of what carries one pod's UID.
#[derive(Default)]
struct OfPod {
    sandboxes: BTreeSet<SandboxId>,
    containers: BTreeSet<ContainerId>,
}

struct Entry {
    sandbox: Arc<Sandbox>,
    containers: BTreeMap<ContainerId, Arc<Container>>,
}

impl Registry {
    /// Takes a sandbox in, unless its name is taken.
    pub(crate) fn insert_sandbox(&mut self, sandbox: Arc<Sandbox>) -> Result<(), ServiceError> {
        match self.sandbox_names.entry(sandbox.spec.unique_name()) {
            btree_map::Entry::Occupied(taken) => {
                Err(ServiceError::NameTaken { name: taken.key().clone(), id: taken.get().to_string() })
            }
            btree_map::Entry::Vacant(free) => {
                free.insert(sandbox.id.clone());
                if let Some(uid) = sandbox.spec.labels.get(POD_UID) {
                    self.pods.entry(uid.clone()).or_default().sandboxes.insert(sandbox.id.clone());
                }
                self.sandboxes.insert(sandbox.id.clone(), Entry { sandbox, containers: BTreeMap::new() });
                Ok(())
            }
        }
    }

    /// Takes a container in, unless its sandbox is gone or has one of this name and attempt.
    pub(crate) fn insert_container(&mut self, container: Arc<Container>) -> Result<(), ServiceError> {
        let entry = self
            .sandboxes
            .get_mut(&container.sandbox_id)
            .ok_or_else(|| ServiceError::NoSandbox(container.sandbox_id.to_string()))?;
        let name = |container: &Container| (container.spec.name.clone(), container.spec.attempt);
        if let Some(other) = entry.containers.values().find(|other| name(other) == name(&container)) {
            let (name, attempt) = name(&container);
            return Err(ServiceError::NameTaken { name: format!("{name}_{attempt}"), id: other.id.to_string() });
        }
        entry.containers.insert(container.id.clone(), Arc::clone(&container));
        if let Some(uid) = container.spec.labels.get(POD_UID) {
            self.pods.entry(uid.clone()).or_default().containers.insert(container.id.clone());
        }
        self.containers.insert(container.id.clone(), container);
        Ok(())
    }

    /// Forgets a container.
    pub(crate) fn remove_container(&mut self, container: &Container) {
        self.containers.remove(&container.id);
        if let Some(entry) = self.sandboxes.get_mut(&container.sandbox_id) {
            entry.containers.remove(&container.id);
        }
        self.forget_of_pod(&container.spec.labels, |of_pod| of_pod.containers.remove(&container.id));
    }

    /// Forgets a sandbox that has no containers any more.
    pub(crate) fn remove_sandbox(&mut self, sandbox: &Sandbox) -> Result<(), ServiceError> {
        match self.sandboxes.get(&sandbox.id) {
            Some(entry) if !entry.containers.is_empty() => Err(ServiceError::StillHasContainers(sandbox.id.clone())),
            _ => {
                self.sandboxes.remove(&sandbox.id);
                self.sandbox_names.remove(&sandbox.spec.unique_name());
                self.forget_of_pod(&sandbox.spec.labels, |of_pod| of_pod.sandboxes.remove(&sandbox.id));
                Ok(())
            }
        }
    }

    fn forget_of_pod(&mut self, labels: &Map, forget: impl FnOnce(&mut OfPod) -> bool) {
        let Some(uid) = labels.get(POD_UID) else { return };
        if let Some(of_pod) = self.pods.get_mut(uid) {
            forget(of_pod);
            if of_pod.sandboxes.is_empty() && of_pod.containers.is_empty() {
                self.pods.remove(uid);
            }
        }
    }

    /// The sandbox that an id, or the beginning of one, names.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, ServiceError> {
        match named(&self.sandboxes, id)? {
            Some(entry) => Ok(Arc::clone(&entry.sandbox)),
            None => Err(ServiceError::NoSandbox(id.to_owned())),
        }
    }

    /// The container that an id, or the beginning of one, names.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, ServiceError> {
        match named(&self.containers, id)? {
            Some(container) => Ok(Arc::clone(container)),
            None => Err(ServiceError::NoContainer(id.to_owned())),
        }
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.sandboxes.values().map(|entry| Arc::clone(&entry.sandbox)).collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.values().cloned().collect()
    }

    /// Those that may carry all of these labels: of one pod if they name one, else all.
    pub(crate) fn sandboxes_with(&self, labels: &Map) -> Vec<Arc<Sandbox>> {
        let Some(uid) = labels.get(POD_UID) else { return self.sandboxes() };
        let ids = self.pods.get(uid).into_iter().flat_map(|of_pod| &of_pod.sandboxes);
        ids.filter_map(|id| self.sandboxes.get(id)).map(|entry| Arc::clone(&entry.sandbox)).collect()
    }

    /// The same of containers.
    pub(crate) fn containers_with(&self, labels: &Map) -> Vec<Arc<Container>> {
        let Some(uid) = labels.get(POD_UID) else { return self.containers() };
        let ids = self.pods.get(uid).into_iter().flat_map(|of_pod| &of_pod.containers);
        ids.filter_map(|id| self.containers.get(id)).cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &SandboxId) -> Vec<Arc<Container>> {
        self.sandboxes.get(sandbox).map(|entry| entry.containers.values().cloned().collect()).unwrap_or_default()
    }
}

/// What an id names: people and `crictl` write its beginning only.
fn named<'a, Id, T>(all: &'a BTreeMap<Id, T>, id: &str) -> Result<Option<&'a T>, ServiceError>
where
    Id: Ord + std::borrow::Borrow<str>,
{
    if id.is_empty() {
        return Ok(None);
    }
    let mut candidates = all
        .range::<str, _>((Bound::Included(id), Bound::Unbounded))
        .take_while(|(candidate, _)| (*candidate).borrow().starts_with(id));
    match (candidates.next(), candidates.next()) {
        (Some((found, _)), Some(_)) if found.borrow() != id => Err(ServiceError::AmbiguousId(id.to_owned())),
        (found, _) => Ok(found.map(|(_, value)| value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_names_it_if_it_is_the_only_one() {
        let all: BTreeMap<String, u8> = [("abc".to_owned(), 1), ("abd".to_owned(), 2), ("b".to_owned(), 3)].into();
        assert_eq!(named(&all, "abc").unwrap(), Some(&1));
        assert_eq!(named(&all, "b").unwrap(), Some(&3));
        assert!(matches!(named(&all, "ab"), Err(ServiceError::AmbiguousId(_))));
        for nobody in ["", "x", "abcd"] {
            assert_eq!(named(&all, nobody).unwrap(), None, "{nobody}");
        }
    }
}
