//! What a registry has, without pulling it.

use crate::image::{CONFIG_LIMIT_BYTES, ImageConfig, Parsed, Platform, Reference};
use crate::registry::RawManifest;
use crate::service::Strata;
use crate::service::error::{Error, Result};
use crate::store::read_limited;

/// A manifest as a registry has it.
#[derive(Clone, Debug)]
pub struct RemoteManifest {
    /// Its name, by which it was asked for, with a digest where it is one of several.
    pub reference: Reference,
    /// Its digest.
    pub digest: crate::digest::Digest,
    /// Its media type.
    pub media_type: String,
    /// What it is for.
    pub platform: Option<Platform>,
    /// The document.
    pub bytes: Vec<u8>,
}

impl Strata {
    /// Returns what a registry has under a name: a manifest or an index.
    pub fn remote_manifest(&self, reference: &Reference) -> Result<RemoteManifest> {
        let reference = reference.tag_or_latest();
        let raw =
            self.registry()?.resolve(&reference).map_err(|error| missing(&reference, error))?;
        remote(reference, raw, None)
    }

    /// Returns the manifests of images that a registry has under a name, each with its platform.
    pub fn remote_manifests(&self, reference: &Reference) -> Result<Vec<RemoteManifest>> {
        let top = self.remote_manifest(reference)?;
        match Parsed::parse(&top.bytes, Some(&top.media_type))? {
            Parsed::Index(index) => {
                let each = index.manifests.into_iter().map(|descriptor| {
                    let name = top.reference.with_digest(descriptor.digest);
                    let raw = self.registry()?.manifest(&top.reference, descriptor.digest)?;
                    remote(name, raw, descriptor.platform)
                });
                each.collect()
            }
            Parsed::Manifest(manifest) => {
                let reader = self.registry()?.blob(&top.reference, &manifest.config, 0)?;
                let bytes = read_limited(reader, CONFIG_LIMIT_BYTES)?;
                // What is no image has no platform.
                let platform = ImageConfig::parse(&bytes).ok().map(|config| config.platform());
                Ok(vec![RemoteManifest { platform, ..top }])
            }
        }
    }
}

fn remote(
    reference: Reference,
    raw: RawManifest,
    platform: Option<Platform>,
) -> Result<RemoteManifest> {
    let parsed = Parsed::parse(&raw.bytes, raw.media_type.as_deref())?;
    let own = match &parsed {
        Parsed::Manifest(manifest) => manifest.media_type.clone(),
        Parsed::Index(index) => index.media_type.clone(),
    };
    let media_type = own.or(raw.media_type).unwrap_or_default();
    Ok(RemoteManifest { reference, digest: raw.digest, media_type, platform, bytes: raw.bytes })
}

/// Says of a manifest that is not there what docker says.
fn missing(reference: &Reference, error: crate::registry::Error) -> Error {
    match error {
        crate::registry::Error::ManifestUnknown { .. }
        | crate::registry::Error::RepositoryUnknown { .. } => {
            Error::NoManifest(reference.to_string())
        }
        other => other.into(),
    }
}
