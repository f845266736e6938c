//! Making sure that an image is on the node and that the pod may have it, by its pull policy.
//!
//! Comes in: a container. Goes out: the image to create it from, or the kubelet's reason why there is none. Never here:
//! a second try, but with another login; the plan backs off.

use std::time::Instant;

use cri::client::CallError;
use cri::v1;
use decide::event::{Failure, Image, ImageOrigin};
use decide::keyring::{Fitting, Source};
use decide::names::ImageId;
use decide::pod::{Container, Pod, PullPolicy, VolumeSource};
use decide::pulled::{SecretProof, Verdict, verdict};
use decide::report;
use tonic::Code;

use super::{Effects, Say, pull_secrets};
use crate::pulls::hash_of;

/// What a pod can show for one image, best first.
struct Shown {
    logins: Vec<Fitting>,
    hints: Vec<String>,
}

impl Effects {
    /// The container's own image, and those of the volumes that it mounts.
    pub(super) async fn ensure_images(&self, pod: &Pod, container: &Container, say: Say<'_>) -> Result<Image, Failure> {
        for mount in &container.mounts {
            let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
            if let Some(VolumeSource::Image { reference, pull_policy }) = volume.map(|volume| &volume.source) {
                let image = self.ensure_image(pod, container, reference, *pull_policy, say).await?;
                say(match image.origin {
                    ImageOrigin::Present => report::image_present(reference, &container.name),
                    ImageOrigin::Pulled { took, waited, bytes } => {
                        report::pulled(reference, took, waited, bytes, &container.name)
                    }
                });
            }
        }
        self.ensure_image(pod, container, &container.image, container.pull_policy, say).await
    }

    async fn ensure_image(
        &self,
        pod: &Pod,
        container: &Container,
        image: &str,
        policy: PullPolicy,
        say: Say<'_>,
    ) -> Result<Image, Failure> {
        let spec =
            v1::ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..Default::default() };
        let present = self.image_status(&spec).await?.filter(|_| policy != PullPolicy::Always);
        let shown = match present {
            None if policy == PullPolicy::Never => return Err(never_pull(image)),
            None => None,
            Some(present) => {
                let (granted, shown) = self.may_have(pod, image, &present, say).await;
                if granted {
                    return Ok(found(image, &present, ImageOrigin::Present));
                }
                if policy == PullPolicy::Never {
                    return Err(never_pull(image));
                }
                shown
            }
        };
        let shown = match shown {
            Some(shown) => shown,
            None => self.shown(pod, image, say).await,
        };
        self.pull(container, spec, &shown, say).await
    }

    /// Whether a pod may have an image that is here, without asking its registry.
    async fn may_have(&self, pod: &Pod, name: &str, image: &v1::Image, say: Say<'_>) -> (bool, Option<Shown>) {
        let pulls = &self.pulls;
        let history = pulls.records.history(name, &image.id).await;
        if verdict(&pulls.verification, name, &history, &[]) == Verdict::Granted {
            return (true, None);
        }
        // Only now is it worth reading Secrets and asking plugins.
        let shown = self.shown(pod, name, say).await;
        let proofs: Vec<SecretProof> = shown.logins.iter().filter_map(proof).collect();
        match verdict(&pulls.verification, name, &history, &proofs) {
            Verdict::Granted => (true, None),
            Verdict::GrantedBy(proof) => {
                pulls.records.granted(name, &image.id, Some(proof), self.clock.now()).await;
                (true, None)
            }
            Verdict::Ask => (false, Some(shown)),
        }
    }

    async fn shown(&self, pod: &Pod, image: &str, say: Say<'_>) -> Shown {
        let (mut logins, missing) = pull_secrets::of_pod(&self.objects, pod).await;
        missing.into_iter().for_each(say);
        let of_secrets = logins.keyring.fitting(image);
        // Secrets come before what the node itself has, however specific that is.
        let mut node = crate::pulls::Logins::default();
        self.pulls.add_node_logins(image, &mut node).await;
        let of_node = node.keyring.fitting(image);
        logins.hints.append(&mut node.hints);
        Shown { logins: of_secrets.into_iter().chain(of_node).collect(), hints: logins.hints }
    }

    async fn pull(
        &self,
        container: &Container,
        spec: v1::ImageSpec,
        shown: &Shown,
        say: Say<'_>,
    ) -> Result<Image, Failure> {
        let (pulls, name) = (&self.pulls, spec.image.as_str());
        say(report::pulling(name, &container.name));
        let asked = Instant::now();
        let unrecorded =
            |error| Failure::new("ErrImagePull", format!("cannot record the pull of image {name}: {error}"));
        pulls.records.begin(name).await.map_err(unrecorded)?;
        let turn = pulls.turn().await;
        let began = Instant::now();
        let pulled = self.pull_with_logins(&spec, shown).await;
        drop(turn);
        let image = match pulled {
            Ok(proof) => match self.image_status(&spec).await {
                Ok(Some(image)) => Ok((image, proof)),
                Ok(None) => {
                    let message = format!("image \"{name}\" was pulled and is not on the node");
                    Err(Failure::new("ImageInspectError", message))
                }
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        };
        match image {
            Ok((image, proof)) => {
                pulls.records.pulled(name, &image.id, proof, self.clock.now()).await;
                let origin = ImageOrigin::Pulled { took: began.elapsed(), waited: asked.elapsed(), bytes: image.size };
                Ok(found(name, &image, origin))
            }
            Err(failure) => {
                pulls.records.failed(name).await;
                Err(failure)
            }
        }
    }

    /// Pulls with one login after the other until one is let in, and gives what that one proves.
    async fn pull_with_logins(&self, spec: &v1::ImageSpec, shown: &Shown) -> Result<Option<SecretProof>, Failure> {
        let tries: Vec<Option<&Fitting>> = match shown.logins.as_slice() {
            [] => vec![None],
            logins => logins.iter().map(Some).collect(),
        };
        let mut failed = None;
        for login in tries {
            if !self.pulls.within_pace() {
                return Err(Failure::new("ErrImagePull", "pull QPS exceeded"));
            }
            match self.runtime.pull_image(spec.clone(), login.map(auth), None).await {
                Ok(_) => return Ok(login.and_then(proof)),
                Err(error) => {
                    // Another login does not mend a name, a signature, or a registry that is not there.
                    let may_be_the_login = matches!(error.code(), Code::PermissionDenied | Code::Unauthenticated)
                        || (error.code() == Code::Unknown && marked(&error).is_none());
                    let failure = pull_failure(&spec.image, &error, &shown.hints);
                    if !may_be_the_login {
                        return Err(failure);
                    }
                    failed = Some(failure);
                }
            }
        }
        Err(failed.unwrap_or_else(|| Failure::new("ErrImagePull", "no login was tried")))
    }

    async fn image_status(&self, spec: &v1::ImageSpec) -> Result<Option<v1::Image>, Failure> {
        self.runtime.image_status(spec.clone()).await.map_err(|error| match error.code() {
            Code::InvalidArgument => invalid_name(&spec.image, &error),
            _ => Failure::new(
                "ImageInspectError",
                format!("Failed to inspect image \"{}\": {}", spec.image, error.message()),
            ),
        })
    }
}

fn never_pull(image: &str) -> Failure {
    let message = format!("Container image \"{image}\" is not present with pull policy of Never");
    Failure::new("ErrImageNeverPull", message)
}

/// What a login of a Secret proves; one of the node proves nothing of a pod.
fn proof(login: &Fitting) -> Option<SecretProof> {
    match &login.source {
        Source::Node => None,
        Source::Secret(secret) => Some(SecretProof { credential_hash: hash_of(&login.login), ..secret.clone() }),
    }
}

fn auth(login: &Fitting) -> v1::AuthConfig {
    v1::AuthConfig {
        username: login.login.username.clone(),
        password: login.login.password.clone(),
        identity_token: login.login.identity_token.clone(),
        registry_token: login.login.registry_token.clone(),
        ..Default::default()
    }
}

fn invalid_name(image: &str, error: &CallError) -> Failure {
    Failure::new("InvalidImageName", format!("Failed to apply default image tag \"{image}\": {}", error.message()))
}

/// The runtime marks the causes that have a reason of their own by a prefix, as CRI has it.
fn marked(error: &CallError) -> Option<(&'static str, &'static str, &str)> {
    let causes = [
        ("RegistryUnavailable", "the registry is unavailable"),
        ("SignatureValidationFailed", "the signature validation failed"),
    ];
    causes.into_iter().find_map(|(reason, words)| Some((reason, words, error.message().strip_prefix(reason)?)))
}

/// An image that is here and that the runtime's trust policy does not let a container be made of: the reason is a pull's.
pub(super) fn untrusted(image: &str, error: &CallError) -> Option<Failure> {
    let (reason, words, rest) = marked(error).filter(|(reason, ..)| *reason == "SignatureValidationFailed")?;
    Some(Failure::new(reason, format!("image {image} is not used because {words}{rest}")))
}

fn pull_failure(image: &str, error: &CallError, hints: &[String]) -> Failure {
    if error.code() == Code::InvalidArgument {
        return invalid_name(image, error);
    }
    match marked(error) {
        Some((reason, words, rest)) => {
            Failure::new(reason, format!("image pull failed for {image} because {words}{rest}"))
        }
        None => {
            let said = std::iter::once(error.message()).chain(hints.iter().map(String::as_str));
            Failure::new("ErrImagePull", said.collect::<Vec<_>>().join("; "))
        }
    }
}

fn found(name: &str, image: &v1::Image, origin: ImageOrigin) -> Image {
    let reference = image.repo_digests.first().unwrap_or(&image.id).clone();
    Image { name: name.to_owned(), id: ImageId::from(image.id.as_str()), reference, origin }
}
