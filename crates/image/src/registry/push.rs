//! Pushing: blobs and a manifest come in, and are in the registry, or an error a user can act on goes out.
//!
//! Blobs that are there already are not sent. The manifest goes last, so that a tag never stands for half an image.
//! Pushes go to the registry itself, never to a mirror.

use std::path::PathBuf;

use bytes::Bytes;
use reqwest::{Method, Response, Url};
use tokio::sync::watch;

use super::ask::{Ask, Content};
use super::failure::{Failure, RegistryError};
use super::host::Host;
use super::tries::Tries;
use super::{Access, Registries, Session};
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::reference::Reference;

/// An image to push.
#[derive(Debug, Clone)]
pub struct Push {
    /// What the manifest names, in any order.
    pub blobs: Vec<PushBlob>,
    /// The manifest or index.
    pub manifest: Bytes,
    /// The manifest's media type.
    pub media_type: String,
}

/// A blob to push.
#[derive(Debug, Clone)]
pub struct PushBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Where it is.
    pub content: PushContent,
}

/// Where the content of a blob is.
#[derive(Debug, Clone)]
pub enum PushContent {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    File(PathBuf),
}

/// What a push has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushProgress {
    /// The registry has this blob already.
    Present(Digest),
    /// This blob of so many bytes is being sent.
    Sending(Digest, u64),
    /// So many bytes of it have gone out.
    SentBytes(Digest, u64),
    /// This blob is there now.
    Sent(Digest),
    /// The manifest is there now, and so the image.
    Done(Digest),
}

/// Why a push failed. The text holds no credentials and no URL.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PushError {
    /// The reference has a digest, and the image another one.
    #[error("{image}: cannot push an image of digest {actual} under another digest; push it under a tag")]
    Digest {
        /// Where it was to go.
        image: Reference,
        /// The image's digest.
        actual: Digest,
    },
    /// The registry answered 401 or 403, or its token service refused.
    #[error(
        "{image}: registry {} does not let us push: {}", image.registry(),
        if *with_credentials { "the credentials given for it are not accepted" } else { "no credentials were given (log in with a tool that writes ~/.docker/config.json)" }
    )]
    Unauthorized {
        /// Where it was to go.
        image: Reference,
        /// Whether there were credentials.
        with_credentials: bool,
    },
    /// The registry cannot be reached, or refuses.
    #[error("{image}: cannot push the {step} to registry {}: {cause}", image.registry())]
    Failed {
        /// Where it was to go.
        image: Reference,
        /// What was being pushed.
        step: String,
        /// What the network or the registry's status said.
        cause: String,
    },
}

impl Registries {
    /// Pushes an image, and returns its digest. `told` hears of each step.
    ///
    /// # Errors
    /// See [`PushError`]; blobs that were pushed before the error stay, no tag moves.
    pub async fn push(
        &self,
        image: &Reference,
        credentials: Option<&Credentials>,
        push: &Push,
        told: &(dyn Fn(PushProgress) + Send + Sync),
    ) -> Result<Digest, PushError> {
        let digest = Digest::of(&push.manifest);
        if image.digest().is_some_and(|asked| asked != digest) {
            return Err(PushError::Digest { image: image.clone(), actual: digest });
        }
        let setting_up = |error| failed(image, "image".to_owned(), error);
        let session = self.session(image, credentials, Access::Push).map_err(setting_up)?;
        let host = session.hosts.iter().find(|host| host.endpoint.is_own && host.endpoint.takes_pushes);
        let no_host = || RegistryError::Client("its hosts.toml gives the registry itself no capability for it".into());
        let host = host.ok_or_else(no_host).map_err(setting_up)?;
        for blob in &push.blobs {
            session
                .push_blob(host, blob, told)
                .await
                .map_err(|error| failed(image, format!("blob {}", blob.digest), error))?;
        }
        let pushed = session.push_manifest(host, image, push, digest).await;
        pushed.map_err(|error| failed(image, "manifest".to_owned(), error))?;
        told(PushProgress::Done(digest));
        Ok(digest)
    }
}

fn failed(image: &Reference, step: String, error: RegistryError) -> PushError {
    let image = image.clone();
    let cause = match error {
        RegistryError::Denied { with_credentials } => return PushError::Unauthorized { image, with_credentials },
        RegistryError::Missing => "it does not know the repository, or does not take pushes (HTTP 404)".to_owned(),
        RegistryError::Unavailable(cause) | RegistryError::Corrupt(cause) | RegistryError::Client(cause) => cause,
        RegistryError::TooLarge { .. } => "its answer is too long".to_owned(),
        RegistryError::Store(source) => source.to_string(),
    };
    PushError::Failed { image, step, cause }
}

impl Session {
    async fn push_blob(
        &self,
        host: &Host,
        blob: &PushBlob,
        told: &(dyn Fn(PushProgress) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let mut tries = Tries::new(self.limits, self.limits.tries);
        loop {
            let sending = tokio::time::timeout(self.limits.layer_timeout, push_blob_once(host, blob, told)).await;
            let slow =
                || Err(Failure::unavailable(format!("it took longer than {} s", self.limits.layer_timeout.as_secs())));
            match sending.unwrap_or_else(|_| slow()) {
                Ok(()) => return Ok(()),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    async fn push_manifest(
        &self,
        host: &Host,
        image: &Reference,
        push: &Push,
        digest: Digest,
    ) -> Result<(), RegistryError> {
        let name = if image.digest().is_some() { None } else { image.tag() };
        let name = name.map_or_else(|| digest.to_string(), str::to_owned);
        let content = Content::Bytes(push.media_type.clone(), push.manifest.clone());
        let ask = Ask { content: Some(content), ..Ask::new(Method::PUT, format!("manifests/{name}")) };
        let mut tries = Tries::new(self.limits, self.limits.tries);
        loop {
            let sent = tokio::time::timeout(self.limits.manifest_timeout, host.send(&ask)).await;
            match sent.unwrap_or_else(|_| Err(Failure::passing("it did not answer in time"))) {
                Ok(_) => return Ok(()),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }
}

async fn push_blob_once(
    host: &Host,
    blob: &PushBlob,
    told: &(dyn Fn(PushProgress) + Send + Sync),
) -> Result<(), Failure> {
    match host.send(&Ask::new(Method::HEAD, format!("blobs/{}", blob.digest))).await {
        Ok(_) => {
            told(PushProgress::Present(blob.digest));
            return Ok(());
        }
        // Some registries tell a 401 of what may be pushed and not read.
        Err(Failure::Lasting(RegistryError::Missing | RegistryError::Denied { .. })) => {}
        Err(failure) => return Err(failure),
    }
    let begun = host.send(&Ask::new(Method::POST, "blobs/uploads/")).await?;
    let mut place = upload_place(host, &begun)?;
    place.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
    told(PushProgress::Sending(blob.digest, blob.size_bytes));
    let content = match &blob.content {
        PushContent::Bytes(bytes) => Content::Bytes("application/octet-stream".to_owned(), bytes.clone()),
        PushContent::File(path) => Content::File(path.clone(), blob.size_bytes),
    };
    let (sent, mut seen) = watch::channel(0);
    let ask = Ask { content: Some(content), sent: Some(sent), ..Ask::to(Method::PUT, place) };
    let mut sending = std::pin::pin!(host.send(&ask));
    loop {
        tokio::select! {
            biased;
            done = &mut sending => {
                done?;
                break;
            }
            Ok(()) = seen.changed() => told(PushProgress::SentBytes(blob.digest, *seen.borrow_and_update())),
        }
    }
    told(PushProgress::SentBytes(blob.digest, *seen.borrow()));
    told(PushProgress::Sent(blob.digest));
    Ok(())
}

fn upload_place(host: &Host, begun: &Response) -> Result<Url, Failure> {
    host.location(begun, begun.url())
}
