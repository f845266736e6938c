//! Images that are here already: whether the trust policy lets one be used now, whatever it was when it was pulled.
//!
//! What was found of its signatures before counts where it fits the policy; else they are looked for anew, as nobody in
//! particular. What that finds is remembered.

use super::error::PullError;
use super::{Inner, Puller};
use crate::credentials::Credentials;
use crate::describe;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::store::{Image, StoreError};
use crate::trust::Demand;

/// For whoever has an image that was never judged by this policy.
const WAY_OUT: &str =
    "it was pulled under another policy: pull it again (imagePullPolicy: Always, `wasklet image pull`)";

impl Puller {
    /// Whether an image of the store may be used under `name`; one that is an id of it stands for all its names, of which
    /// one must do.
    ///
    /// # Errors
    /// As those of [`Puller::pull`], [`PullError::Untrusted`] before all.
    pub async fn judge(&self, image: &Image, name: &str) -> Result<(), PullError> {
        let Some(policy) = &self.0.options.trust else { return Ok(()) };
        // A tag beside a digest says nothing.
        let asked = Reference::parse(name).ok();
        let asked = asked.map(|asked| asked.digest().map_or_else(|| asked.clone(), |digest| asked.at(digest)));
        let has = |name: &Reference| image.references.contains(name) || image.digests.contains(name);
        let names = match asked.filter(has) {
            Some(asked) => vec![asked],
            None => image.references.iter().chain(&image.digests).cloned().collect(),
        };
        let mut refused = None;
        for name in names {
            match self.0.judge(policy.demand(&name), image, &name).await {
                Ok(()) => return Ok(()),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused
            .unwrap_or(PullError::Store { image: Reference::parse(name)?, source: StoreError::BlobGone(image.id.0) }))
    }
}

impl Inner {
    async fn judge(
        &self,
        demand: Result<Demand<'_>, String>,
        image: &Image,
        name: &Reference,
    ) -> Result<(), PullError> {
        let Some(policy) = &self.options.trust else { return Ok(()) };
        let untrusted = |problem| PullError::Untrusted { image: name.clone(), rule: policy.name_for(name), problem };
        let signers = match demand.map_err(untrusted)? {
            Demand::Nothing => return Ok(()),
            Demand::Signature(signers) => signers,
        };
        let repository = name.name();
        let fits = |image: &Image| {
            image.verified.iter().any(|known| known.image == repository && signers.include(&known.signer))
        };
        if fits(image) {
            return Ok(());
        }
        // Whoever comes first looks, the others find what it found.
        let gate = self.gate(image.id.0);
        let _turn = gate.lock().await;
        let stored = |source| PullError::Store { image: name.clone(), source };
        match self.options.store.find_by_id(image.id).map_err(stored)? {
            Some(now) if fits(&now) => return Ok(()),
            Some(_) => {}
            None => return Err(stored(StoreError::BlobGone(image.id.0))),
        }
        let verified = self.look_anew(image, name, None).await.map_err(|error| match error {
            PullError::Untrusted { image, rule, problem } => {
                PullError::Untrusted { image, rule, problem: format!("{problem}; {WAY_OUT}") }
            }
            // Who may have signed it is not known, and so it is not signed.
            other => untrusted(format!("its signatures cannot be looked for: {}; {WAY_OUT}", other.message())),
        })?;
        if let Some(verified) = verified {
            self.options.store.verified(image.id, verified).map_err(stored)?;
        }
        Ok(())
    }

    async fn look_anew(
        &self,
        image: &Image,
        name: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Option<crate::trust::Verification>, PullError> {
        let same_repository = |pinned: &&Reference| pinned.name() == name.name();
        let targets = image.digests.iter().filter(same_repository).filter_map(Reference::digest);
        let mut digests: Vec<Digest> = Vec::new();
        for target in targets {
            digests.push(target);
            digests.extend(describe::manifest_of(&self.options.store, target).map(|(manifest, _)| manifest));
        }
        let source = self.source(name, credentials).await?;
        self.check_trust(&source, name, &digests).await
    }
}
