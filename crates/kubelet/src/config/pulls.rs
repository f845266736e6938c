//! How images are pulled: the fields and flags about it come in, [`PullOptions`] go out.
//!
//! Reads the configuration of credential providers and nothing else.

use std::path::{Path, PathBuf};

use decide::pulled::{AllowedImages, VerificationPolicy};

use super::resolve::invalid;
use super::{ConfigError, KubeletConfiguration};
use crate::flags::KubeletFlags;
use crate::pulls::{Providers, PullOptions, PullRate};

pub(super) fn options(
    flags: &KubeletFlags,
    configuration: &KubeletConfiguration,
    root_dir: &Path,
    home: Option<PathBuf>,
) -> Result<PullOptions, ConfigError> {
    Ok(PullOptions {
        parallel: parallel(configuration)?,
        rate: PullRate {
            per_second: configuration.registry_pull_qps.unwrap_or_default(),
            burst: configuration.registry_burst.unwrap_or_default(),
        },
        verification: verification(configuration)?,
        login_directories: PullOptions::default_login_directories(root_dir, home),
        providers: providers(flags)?,
        ..PullOptions::beneath(root_dir)
    })
}

/// One after the other, unless that is switched off.
fn parallel(configuration: &KubeletConfiguration) -> Result<Option<usize>, ConfigError> {
    let serial = configuration.serialize_image_pulls.unwrap_or(true);
    match (serial, configuration.max_parallel_image_pulls) {
        (_, Some(0)) => Err(invalid("maxParallelImagePulls", 0, "it must be at least 1")),
        (true, Some(most)) if most > 1 => {
            Err(invalid("maxParallelImagePulls", most, "it must be 1 while serializeImagePulls is true"))
        }
        (true, _) => Ok(Some(1)),
        (false, most) => Ok(most.map(|most| usize::try_from(most).unwrap_or(usize::MAX))),
    }
}

fn verification(configuration: &KubeletConfiguration) -> Result<VerificationPolicy, ConfigError> {
    const POLICY: &str = "imagePullCredentialsVerificationPolicy";
    const ALLOWLIST: &str = "preloadedImagesVerificationAllowlist";
    let name = configuration.image_pull_credentials_verification_policy.as_deref().unwrap_or_default();
    let patterns = configuration.preloaded_images_verification_allowlist.iter().flatten();
    let allowed = patterns.map(|text| AllowedImages::parse(text).map_err(|message| invalid(ALLOWLIST, text, message)));
    let allowed: Vec<AllowedImages> = allowed.collect::<Result<_, _>>()?;
    if !allowed.is_empty() && name != "NeverVerifyAllowlistedImages" {
        let message = format!("it is read only where {POLICY} is NeverVerifyAllowlistedImages");
        return Err(invalid(ALLOWLIST, format!("{} entries", allowed.len()), message));
    }
    match name {
        "NeverVerify" => Ok(VerificationPolicy::NeverVerify),
        "NeverVerifyPreloadedImages" => Ok(VerificationPolicy::NeverVerifyPreloadedImages),
        "NeverVerifyAllowlistedImages" => Ok(VerificationPolicy::NeverVerifyAllowlistedImages(allowed)),
        "AlwaysVerify" => Ok(VerificationPolicy::AlwaysVerify),
        other => Err(invalid(
            POLICY,
            other,
            "the policies are NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages and AlwaysVerify",
        )),
    }
}

fn providers(flags: &KubeletFlags) -> Result<Providers, ConfigError> {
    match (&flags.image_credential_provider_config, &flags.image_credential_provider_bin_dir) {
        (None, None) => Ok(Providers::default()),
        (Some(config), Some(programs)) => Ok(Providers::read(config, programs)?),
        _ => Err(ConfigError::Refused(
            "--image-credential-provider-config and --image-credential-provider-bin-dir go together".to_owned(),
        )),
    }
}
