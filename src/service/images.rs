//! Images: listing, naming, removing.

use std::collections::BTreeMap;

use crate::digest::{ChainId, DiffId, Digest};
use crate::image::Reference;
use crate::service::Strata;
use crate::service::error::{Error, Result};
use crate::service::resolve::FoundBy;
use crate::store::{Image, Mounted, Ref, RefName};

/// A name of an image, or an image without one.
#[derive(Clone, Debug)]
pub struct ImageRow {
    /// Its name; none if it has none.
    pub reference: Option<Reference>,
    /// What registries have under the name.
    pub digest: Option<Digest>,
    /// Its id.
    pub id: Digest,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// Size of all files of its layers in bytes.
    pub size: u64,
}

/// What happened to an image that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It lost a name.
    Untagged(String),
    /// Something was deleted: the image, or a layer by the id of the stack that it topped.
    Deleted(Digest),
}

impl Strata {
    /// Returns all images by name, newest first.
    pub fn images(&self) -> Result<Vec<ImageRow>> {
        let mut known: BTreeMap<Digest, Option<(Image, u64)>> = BTreeMap::new();
        let mut rows = Vec::new();
        for (name, to) in self.store.references()? {
            let image = known.entry(to.manifest).or_insert_with(|| self.sized(to.manifest));
            let Some((image, size)) = image else { continue };
            let reference = match name {
                RefName::Named(reference) => Some(reference),
                RefName::Untagged(_) => None,
            };
            rows.push(ImageRow {
                reference,
                digest: to.target,
                id: image.id(),
                created: image.config.created.clone(),
                size: *size,
            });
        }
        rows.sort_by_key(|row| std::cmp::Reverse(time_of(row.created.as_deref())));
        Ok(rows)
    }

    /// Returns an image and its size; a damaged one must not hide the others.
    fn sized(&self, manifest: Digest) -> Option<(Image, u64)> {
        match self.store.image(manifest) {
            Ok(image) => {
                let size = self.size(&image);
                Some((image, size))
            }
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }

    /// Returns the size of all files in the layers of an image; what is missing counts nothing.
    pub(crate) fn size(&self, image: &Image) -> u64 {
        let size = |layer: &DiffId| match self.store.layer(*layer) {
            Ok(index) => index.content_len(),
            Err(error) => {
                tracing::warn!("{error}");
                0
            }
        };
        image.layers().iter().map(size).sum()
    }

    /// Gives an image another name.
    pub fn tag(&self, image: &str, reference: &Reference) -> Result<()> {
        let (image, by, _lease) = self.lease_image(image)?;
        let same_repository = |other: &Reference| other.repository() == reference.repository();
        let target = match by {
            FoundBy::Name(name) if same_repository(&name) => {
                self.find_named(&name)?.and_then(|found| found.target)
            }
            _ => None,
        };
        let to = Ref { manifest: image.digest, target, updated: jiff::Timestamp::now() };
        Ok(self.store.set_reference(&RefName::Named(reference.tag_or_latest()), &to)?)
    }

    /// Removes a name of an image, and the image with its last name.
    pub fn remove_image(&self, text: &str, force: bool) -> Result<Vec<Removed>> {
        let (image, by) = self.find_image(text)?;
        let mut removed = Vec::new();
        match by {
            FoundBy::Name(name) => self.untag(&image, &name, force, &mut removed)?,
            FoundBy::Id => self.untag_all(&image, force, &mut removed)?,
        }
        self.delete_if_unused(&image, &mut removed)?;
        Ok(removed)
    }

    fn untag(
        &self,
        image: &Image,
        name: &Reference,
        force: bool,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        let names = self.store.names_of(image.digest)?;
        let last = names.len() <= 1 || self.other_tags(&names, name).is_empty();
        if last
            && let Some((container, _)) = self.user_of(image)?
            && !force
        {
            return Err(Error::UsedByContainer {
                name: name.tag_or_latest().familiar(),
                container: short(&container.id),
                image: image.id().short(),
            });
        }
        let mut gone = vec![RefName::Named(name.tag_or_latest())];
        if last {
            gone = names;
        }
        self.remove_names(image, &gone, removed)
    }

    /// Removes every name of an image that was named by its id.
    fn untag_all(&self, image: &Image, force: bool, removed: &mut Vec<Removed>) -> Result<()> {
        let names = self.store.names_of(image.digest)?;
        let mut repositories: Vec<_> = names
            .iter()
            .filter_map(|name| match name {
                RefName::Named(reference) => Some(reference.repository()),
                RefName::Untagged(_) => None,
            })
            .collect();
        repositories.sort();
        repositories.dedup();
        if repositories.len() > 1 && !force {
            return Err(Error::SeveralNames(image.id().short()));
        }
        if let Some((container, mounted)) = self.user_of(image)? {
            let (how, state, forced) = if mounted {
                ("cannot be forced", "running", false)
            } else {
                ("must be forced", "stopped", force)
            };
            if !forced {
                let (image, container) = (image.id().short(), short(&container.id));
                return Err(Error::InUse { image, how, state, container });
            }
        }
        self.remove_names(image, &names, removed)
    }

    fn remove_names(
        &self,
        image: &Image,
        names: &[RefName],
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        let mut digests: BTreeMap<String, String> = BTreeMap::new();
        for name in names {
            let found = self.store.reference(name)?;
            self.store.remove_reference(name)?;
            let RefName::Named(reference) = name else { continue };
            removed.push(Removed::Untagged(reference.familiar()));
            if let Some(target) = found.and_then(|found| found.target)
                && reference.tag().is_some()
            {
                let text = format!("{}@{target}", reference.familiar_name());
                digests.insert(reference.repository(), text);
            }
        }
        // A digest goes with the last tag of its repository.
        let left = self.store.names_of(image.digest)?;
        for (repository, text) in digests {
            let still = left.iter().any(
                |name| matches!(name, RefName::Named(other) if other.repository() == repository),
            );
            if !still {
                removed.push(Removed::Untagged(text));
            }
        }
        Ok(())
    }

    /// Deletes what an image alone has needed, if nothing names or uses it any more.
    fn delete_if_unused(&self, image: &Image, removed: &mut Vec<Removed>) -> Result<()> {
        if !self.store.names_of(image.digest)?.is_empty() {
            return Ok(());
        }
        if self.user_of(image)?.is_some() {
            // A container keeps it; without a name it would be hard to find.
            let to = Ref { manifest: image.digest, target: None, updated: jiff::Timestamp::now() };
            return Ok(self.store.set_reference(&RefName::Untagged(image.digest), &to)?);
        }
        let collected = self.store.collect()?;
        if !collected.blobs.contains(&image.digest) {
            // Something that runs uses it; it goes when that ends.
            return Ok(());
        }
        if collected.blobs.contains(&image.id()) {
            removed.push(Removed::Deleted(image.id()));
        }
        for top in (1..=image.layers().len()).rev() {
            let stack = &image.layers()[..top];
            if stack.last().is_some_and(|layer| collected.layers.contains(layer)) {
                removed.push(Removed::Deleted(ChainId::of(stack).0));
            }
        }
        Ok(())
    }

    fn other_tags<'a>(&self, names: &'a [RefName], name: &Reference) -> Vec<&'a RefName> {
        let this = name.tag_or_latest().to_string();
        let other = |candidate: &&RefName| match candidate {
            RefName::Named(reference) => reference.tag().is_some() && reference.to_string() != this,
            RefName::Untagged(_) => false,
        };
        names.iter().filter(other).collect()
    }

    /// Returns a container that uses an image, and whether it is mounted.
    fn user_of(&self, image: &Image) -> Result<Option<(crate::store::Container, bool)>> {
        let mut found = None;
        for container in self.store.containers()? {
            if container.manifest != image.digest {
                continue;
            }
            let mounted = matches!(self.store.mounted(&container.id)?, Mounted::Alive(_));
            if mounted || found.is_none() {
                found = Some((container, mounted));
            }
            if mounted {
                break;
            }
        }
        Ok(found)
    }
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

fn time_of(created: Option<&str>) -> Option<jiff::Timestamp> {
    created.and_then(|text| text.parse().ok())
}
