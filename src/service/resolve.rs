//! From what a person types to an image or a container.

use crate::digest::{DiffId, Digest};
use crate::image::Reference;
use crate::service::Strata;
use crate::service::error::{Error, Result};
use crate::store::{Claim, Container, Image, Lease, Ref, RefName};

/// How an image was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FoundBy {
    /// By this name.
    Name(Reference),
    /// By its id.
    Id,
}

impl Strata {
    /// Returns the image with a name, an id, or an unambiguous beginning of an id. A name wins.
    pub(crate) fn find_image(&self, text: &str) -> Result<(Image, FoundBy)> {
        let parsed = text.parse::<Reference>();
        while let Ok(reference) = &parsed
            && let Some(found) = self.find_named(reference)?
        {
            let leads_there = |to: Option<Ref>| to.is_some_and(|to| to.manifest == found.manifest);
            match self.store.image(found.manifest) {
                // The name was taken from it before it could be read.
                Err(crate::store::Error::NoBlob(_))
                    if !leads_there(self.find_named(reference)?) => {}
                image => return Ok((image?, FoundBy::Name(reference.clone()))),
            }
        }
        let no_image = || Error::NoImage(with_default_tag(text));
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if !is_hex_prefix(prefix) {
            return Err(parsed.map_or_else(Error::ImageName, |_| no_image()));
        }
        let mut found: Vec<Image> = Vec::new();
        for image in self.all_images()? {
            let known = found.iter().any(|other| other.id() == image.id());
            if !known && image.id().hex().starts_with(prefix) {
                found.push(image);
            }
        }
        match found.len() {
            0 => Err(no_image()),
            1 => found.pop().map(|image| (image, FoundBy::Id)).ok_or_else(no_image),
            several => Err(Error::Ambiguous(text.to_owned(), several)),
        }
    }

    /// Returns where a name leads; a name with a digest also to an image that was pulled by tag.
    pub(crate) fn find_named(&self, reference: &Reference) -> Result<Option<Ref>> {
        let name = RefName::Named(reference.tag_or_latest());
        if let Some(found) = self.store.reference(&name)? {
            return Ok(Some(found));
        }
        let Some(digest) = reference.digest() else { return Ok(None) };
        let repository = reference.repository();
        let same = |(name, to): &(RefName, Ref)| match name {
            RefName::Named(other) => {
                other.repository() == repository
                    && (to.target == Some(digest) || to.manifest == digest)
            }
            RefName::Untagged(_) => false,
        };
        Ok(self.store.references()?.into_iter().find(same).map(|(_, to)| to))
    }

    /// Returns every image once, by manifest.
    pub(crate) fn all_images(&self) -> Result<Vec<Image>> {
        let mut manifests: Vec<Digest> =
            self.store.references()?.into_iter().map(|(_, to)| to.manifest).collect();
        manifests.extend(self.store.containers()?.into_iter().map(|c| c.manifest));
        manifests.sort();
        manifests.dedup();
        let mut images = Vec::new();
        for manifest in manifests {
            match self.store.image(manifest) {
                Ok(image) => images.push(image),
                // One damaged image must not hide the others.
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(images)
    }

    /// Finds an image and keeps it from being collected while the lease lives.
    pub(crate) fn lease_image(&self, text: &str) -> Result<(Image, FoundBy, Lease)> {
        let mut lease = self.store.lease()?;
        let (image, by) = self.find_image(text)?;
        lease.claim(Claim::Image(image.digest))?;
        // It may have been removed before it was claimed.
        if let FoundBy::Name(reference) = &by
            && self.find_named(reference)?.is_some_and(|to| to.manifest == image.digest)
        {
            return Ok((image, by, lease));
        }
        let (image, by) = self.find_image(text)?;
        lease.claim(Claim::Image(image.digest))?;
        Ok((image, by, lease))
    }

    /// Returns the container with a name, an id, or an unambiguous beginning of an id. A name wins.
    pub(crate) fn find_container(&self, text: &str) -> Result<Container> {
        let containers = self.store.containers()?;
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(found) = containers.iter().find(|c| c.name == name || c.id == name) {
            return Ok(found.clone());
        }
        let fits = |container: &&Container| is_hex_prefix(text) && container.id.starts_with(text);
        let found: Vec<_> = containers.iter().filter(fits).collect();
        match found.as_slice() {
            [] => Err(Error::NoContainer(text.to_owned())),
            [container] => Ok((*container).clone()),
            several => Err(Error::Ambiguous(text.to_owned(), several.len())),
        }
    }
}

fn is_hex_prefix(text: &str) -> bool {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(digit)
}

/// Returns the name as docker says it in its messages.
pub(crate) fn with_default_tag(text: &str) -> String {
    match text.parse::<Reference>() {
        Ok(reference) => reference.tag_or_latest().familiar(),
        Err(_) => text.to_owned(),
    }
}

/// Returns the image and the number of `IMAGE@NUMBER`: its lowest layers, so many. A digest after the
/// sign has a colon.
pub(crate) fn split_layer(text: &str) -> Option<(&str, usize)> {
    let (image, number) = text.rsplit_once('@')?;
    Some((image, number.parse().ok()?))
}

/// Returns the number of a layer, counted from 1 at the bottom; 0 is below all. What has only digits is
/// a number and no digest, or it would depend on the content which of them it is.
pub(crate) fn find_layer(image: &Image, name: &str, text: &str) -> Result<usize> {
    let count = image.layers().len();
    if let Ok(number) = text.parse::<usize>() {
        let none = || Error::NoLayer { image: name.to_owned(), layer: text.to_owned(), count };
        return if number <= count { Ok(number) } else { Err(none()) };
    }
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    let is_it = |(_, layer): &(usize, &DiffId)| layer.0.hex().starts_with(prefix);
    let found: Vec<_> = image.layers().iter().enumerate().filter(is_it).collect();
    match found.as_slice() {
        [(number, _)] if !prefix.is_empty() => Ok(number + 1),
        [_, _, ..] if !prefix.is_empty() => Err(Error::Ambiguous(text.to_owned(), found.len())),
        _ => Err(Error::NoLayer { image: name.to_owned(), layer: text.to_owned(), count }),
    }
}
