//! Saving: images of the store as an archive.
//!
//! The layers are what they were before they came: their tars, bit for bit, uncompressed. So the
//! manifest of an image whose layers were compressed is written anew; the image keeps its id.

use std::io::{Read, Write};

use crate::archive::{self, SavedImage};
use crate::digest::DiffId;
use crate::image::{
    Compression, Descriptor, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Platform, Reference,
    layer_compression,
};
use crate::service::Strata;
use crate::service::error::{Error, Result, io_error};
use crate::service::resolve::FoundBy;
use crate::store::{Image, Lease, RefName};

/// What to save.
#[derive(Clone, Debug)]
pub struct SaveRequest {
    /// The images: by name, by id, or all tags of a repository.
    pub images: Vec<String>,
    /// The platform that they must be for; any if it is not said.
    pub platform: Option<Platform>,
}

/// An image with the names under which it is saved, and what keeps it.
struct Wanted {
    image: Image,
    names: Vec<Reference>,
    _lease: Lease,
}

impl Strata {
    /// Writes images as one archive. Nothing is written before all of them are found.
    pub fn save(&self, request: &SaveRequest, out: impl Write) -> Result<()> {
        let mut wanted: Vec<Wanted> = Vec::new();
        for text in &request.images {
            for (image, name, lease) in self.find_to_save(text)? {
                check_platform(&image, text, request.platform.as_ref())?;
                let known = wanted.iter_mut().find(|known| known.image.id() == image.id());
                let names = match known {
                    Some(known) => &mut known.names,
                    None => {
                        wanted.push(Wanted { image, names: Vec::new(), _lease: lease });
                        &mut wanted.last_mut().expect("it was just put there").names
                    }
                };
                names.extend(name.filter(|name| !names.contains(name)));
            }
        }
        let images: Vec<_> = wanted.iter().map(|one| self.saved(one)).collect::<Result<_>>()?;
        let mut layer = |layer| -> std::io::Result<Box<dyn Read>> {
            Ok(Box::new(self.store.layer_tar(layer).map_err(std::io::Error::other)?))
        };
        let mut out = archive::write(&images, out, &mut layer).map_err(saving)?;
        out.flush().map_err(io_error("write", "the archive"))
    }

    /// Returns what a person means: a repository stands for all its tags, as with docker.
    fn find_to_save(&self, text: &str) -> Result<Vec<(Image, Option<Reference>, Lease)>> {
        let mut found = Vec::new();
        for name in self.tags_of(text)? {
            let (image, _, lease) = self.lease_image(&name.to_string())?;
            found.push((image, Some(name), lease));
        }
        if found.is_empty() {
            let one = self.lease_image(text);
            let (image, by, lease) = one.map_err(|error| match error {
                Error::NoImage(_) => Error::NoImage(text.to_owned()),
                error => error,
            })?;
            let name = match by {
                FoundBy::Name(name) if name.digest().is_none() => Some(name.tag_or_latest()),
                FoundBy::Name(_) | FoundBy::Id => None,
            };
            found.push((image, name, lease));
        }
        Ok(found)
    }

    /// Returns the tags of a repository; none if the text names something else.
    fn tags_of(&self, text: &str) -> Result<Vec<Reference>> {
        let repository = match text.parse::<Reference>() {
            Ok(name) if name.tag().is_none() && name.digest().is_none() => name.repository(),
            _ => return Ok(Vec::new()),
        };
        let tag = |(name, _)| match name {
            RefName::Named(name) if name.repository() == repository => {
                Some(name).filter(|name| name.tag().is_some())
            }
            _ => None,
        };
        Ok(self.store.references()?.into_iter().filter_map(tag).collect())
    }

    fn saved(&self, wanted: &Wanted) -> Result<SavedImage> {
        let image = &wanted.image;
        let len = |layer: &DiffId| Ok((*layer, self.store.layer(*layer)?.tar_len()));
        let layers: Vec<_> = image.layers().iter().map(len).collect::<Result<_>>()?;
        let (manifest_type, manifest_bytes) = manifest_to_save(image, &layers);
        Ok(SavedImage {
            names: wanted.names.clone(),
            manifest_bytes,
            manifest_type,
            config_bytes: image.config_bytes.clone(),
            platform: image.config.platform(),
            layers,
        })
    }
}

fn check_platform(image: &Image, text: &str, platform: Option<&Platform>) -> Result<()> {
    let actual = image.config.platform();
    match platform.filter(|wanted| !wanted.runs(&actual)) {
        None => Ok(()),
        Some(wanted) => Err(Error::OtherPlatform {
            reference: text.to_owned(),
            wanted: wanted.to_string(),
            actual: actual.to_string(),
        }),
    }
}

/// Returns the manifest for uncompressed layers: the image's own if its layers are.
fn manifest_to_save(image: &Image, layers: &[(DiffId, u64)]) -> (String, Vec<u8>) {
    let own = &image.manifest.layers;
    let is_plain = |(blob, (layer, _)): (&Descriptor, &(DiffId, u64))| {
        blob.digest == layer.0
            && matches!(layer_compression(&blob.media_type), Ok(Compression::None))
    };
    if own.len() == layers.len() && own.iter().zip(layers).all(is_plain) {
        let media_type = image.manifest.media_type.clone();
        return (
            media_type.unwrap_or_else(|| OCI_MANIFEST.to_owned()),
            image.manifest_bytes.clone(),
        );
    }
    let manifest = plain_manifest(image.id(), image.config_bytes.len() as u64, layers);
    let annotations = image.manifest.annotations.clone();
    (OCI_MANIFEST.to_owned(), Manifest { annotations, ..manifest }.to_bytes())
}

/// Returns the manifest of an image that has these layers, uncompressed.
pub(crate) fn plain_manifest(
    id: crate::digest::Digest,
    config_bytes: u64,
    layers: &[(DiffId, u64)],
) -> Manifest {
    let layer = |(layer, len): &(DiffId, u64)| Descriptor::new(OCI_LAYER, layer.0, *len);
    let config = Descriptor::new(OCI_CONFIG, id, config_bytes);
    Manifest::new(OCI_MANIFEST, config, layers.iter().map(layer).collect())
}

/// Tells what broke while an archive was written: a room below, or the writing.
fn saving(error: archive::Error) -> Error {
    let archive::Error::Io(error) = error else { return Error::Archive(error) };
    match Error::from(error) {
        Error::Layer(crate::layer::Error::Io(source)) => io_error("write", "the archive")(source),
        other => other,
    }
}
