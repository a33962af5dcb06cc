//! Images: listing, naming, removing.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{DiffId, Digest};
use crate::image::Reference;
use crate::service::Strata;
use crate::service::error::{Error, Result};
use crate::service::filter::{
    Filters, check_keys, check_pattern, fits, labels_fit, truth, untils, values,
};
use crate::service::prune::deleted;
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
    /// Size of its layers as a registry has them in bytes.
    pub content: u64,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// What it runs on: `linux/amd64`.
    pub platform: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How many containers use it.
    pub containers: usize,
}

/// The filters of a list of images.
const FILTERS: [&str; 7] = ["dangling", "label", "label!", "before", "since", "reference", "until"];

/// What happened to an image that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It lost a name.
    Untagged(String),
    /// Something was deleted: the image, or a layer by the id of the stack that it topped.
    Deleted(Digest),
}

impl ImageRow {
    /// Tells whether it has no tag.
    pub(crate) fn is_untagged(&self) -> bool {
        self.reference.as_ref().is_none_or(|name| name.tag().is_none())
    }

    /// Returns when it was made, if it says so.
    pub(crate) fn made(&self) -> Option<jiff::Timestamp> {
        time_of(self.created.as_deref())
    }

    /// Tells whether its name fits a pattern, with its tag or without.
    pub(crate) fn is_named(&self, pattern: &str) -> bool {
        let Some(name) = &self.reference else { return false };
        if let Ok(wanted) = pattern.parse::<Reference>()
            && name.repository() == wanted.repository()
        {
            return wanted.tag().is_none_or(|tag| name.tag() == Some(tag))
                && wanted.digest().is_none_or(|digest| name.digest() == Some(digest));
        }
        fits(pattern, &name.familiar()) || fits(pattern, &name.familiar_name())
    }
}

impl Strata {
    /// Returns the images that filters leave, by name, newest first.
    pub fn filtered_images(&self, filters: &Filters) -> Result<Vec<ImageRow>> {
        check_keys(filters, &FILTERS)?;
        let dangling = truth(filters, "dangling")?;
        let untils = untils(filters, jiff::Timestamp::now())?;
        let made = |name: &str| -> Result<Option<jiff::Timestamp>> {
            Ok(time_of(self.find_image(name)?.0.config.created.as_deref()))
        };
        let before = values(filters, "before").into_iter().map(made).collect::<Result<Vec<_>>>()?;
        let since = values(filters, "since").into_iter().map(made).collect::<Result<Vec<_>>>()?;
        let patterns = values(filters, "reference");
        patterns.iter().try_for_each(|pattern| check_pattern(pattern))?;
        let mut rows = self.images()?;
        rows.retain(|row| {
            let time = row.made();
            dangling.is_none_or(|wanted| wanted == row.is_untagged())
                && before.iter().all(|other| time < *other)
                && since.iter().all(|other| time > *other)
                && untils.iter().all(|until| time.is_some_and(|time| time < *until))
                && (patterns.is_empty() || patterns.iter().any(|pattern| row.is_named(pattern)))
                && labels_fit(filters, &row.labels)
        });
        Ok(rows)
    }

    /// Returns all images by name, newest first.
    pub fn images(&self) -> Result<Vec<ImageRow>> {
        let mut users: BTreeMap<Digest, usize> = BTreeMap::new();
        for container in self.store.containers()? {
            *users.entry(container.manifest).or_default() += 1;
        }
        let mut known: BTreeMap<Digest, Option<(Image, u64)>> = BTreeMap::new();
        let mut rows = Vec::new();
        let mut references = self.store.references()?;
        // An image is noted as nameless before its last name goes, and until after it has one again.
        let is_named = |(name, _): &(RefName, Ref)| matches!(name, RefName::Named(_));
        let named: BTreeSet<_> =
            references.iter().filter(|row| is_named(row)).map(|(_, to)| to.manifest).collect();
        references.retain(|row| is_named(row) || !named.contains(&row.1.manifest));
        for (name, to) in references {
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
                content: image.manifest.layers.iter().map(|layer| layer.size).sum(),
                manifest: image.digest,
                platform: image.config.platform().to_string(),
                labels: image.config.config.labels.clone(),
                containers: users.get(&image.digest).copied().unwrap_or(0),
            });
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.made()));
        Ok(rows)
    }

    /// Returns an image and its size; a damaged one must not hide the others.
    pub(crate) fn sized(&self, manifest: Digest) -> Option<(Image, u64)> {
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
        self.store.sweep()?;
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
        let (image, by) = match self.find_image(text) {
            Ok(found) => found,
            Err(error @ Error::Store(_)) => return self.remove_damaged(text, force, error),
            Err(error @ Error::NoImage(_)) => {
                // One that was interrupted has taken the name away already; the rest goes now. That there
                // is no such image is told in any case.
                if let Err(also) = self.store.collect() {
                    tracing::warn!("{also}");
                }
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        self.store.sweep()?;
        let mut removed = Vec::new();
        match by {
            FoundBy::Name(name) => {
                if self.forget_digest(&name, &mut removed)? {
                    return Ok(removed);
                }
                self.untag(&image, &name, force, &mut removed)?;
            }
            FoundBy::Id => self.untag_all(&image, force, &mut removed)?,
        }
        self.delete_if_unused(&image, &mut removed)?;
        Ok(removed)
    }

    /// Removes a name of an image that cannot be read, and with its last name what nothing else needs.
    fn remove_damaged(&self, text: &str, force: bool, error: Error) -> Result<Vec<Removed>> {
        let Ok(reference) = text.parse::<Reference>() else { return Err(error) };
        let reference = reference.tag_or_latest();
        let name = RefName::Named(reference.clone());
        let Some(to) = self.store.readable_reference(&name)? else { return Err(error) };
        let is_last = self.store.names_of(to.manifest)?.len() <= 1;
        let mut containers = self.store.containers()?.into_iter();
        let user = containers.find(|container| container.manifest == to.manifest);
        if let (true, Some(container), false) = (is_last, &user, force) {
            return Err(Error::UsedByContainer {
                name: reference.familiar(),
                container: short(&container.id),
                image: to.manifest.short(),
            });
        }
        if is_last && user.is_some() {
            self.store.set_reference(
                &RefName::Untagged(to.manifest),
                &Ref { target: None, ..to.clone() },
            )?;
        }
        self.store.remove_reference(&name)?;
        let mut removed = vec![Removed::Untagged(reference.familiar())];
        if is_last && user.is_none() {
            self.store.collect()?;
            removed.push(Removed::Deleted(to.manifest));
        }
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
        self.keep_for_container(image, &mut gone)?;
        self.remove_names(image, &gone, removed).map(drop)
    }

    /// Sees to it that an image that a container uses is never without any name: before it loses the last
    /// one it is noted as an image without.
    fn keep_for_container(&self, image: &Image, gone: &mut Vec<RefName>) -> Result<()> {
        let is_last = self.store.names_of(image.digest)?.iter().all(|name| gone.contains(name));
        if !is_last || self.user_of(image)?.is_none() {
            return Ok(());
        }
        gone.retain(|name| matches!(name, RefName::Named(_)));
        match gone.first() {
            Some(name) => {
                let to =
                    Ref { manifest: image.digest, target: None, updated: jiff::Timestamp::now() };
                Ok(self.store.keep_nameless(name, &to)?)
            }
            None => Ok(()),
        }
    }

    /// Removes every name of an image that was named by its id. What force cannot change is told
    /// first, as docker does.
    fn untag_all(&self, image: &Image, force: bool, removed: &mut Vec<Removed>) -> Result<()> {
        let names = self.store.names_of(image.digest)?;
        let user = self.user_of(image)?;
        let in_use = |container: &crate::store::Container, how, state| Error::InUse {
            image: image.id().short(),
            how,
            state,
            container: short(&container.id),
        };
        if let Some((container, true)) = &user {
            return Err(in_use(container, "cannot be forced", "running"));
        }
        if !force && !is_single(&names) {
            return Err(Error::SeveralNames(image.id().short()));
        }
        if let (Some((container, false)), false) = (&user, force) {
            return Err(in_use(container, "must be forced", "stopped"));
        }
        let mut gone = names;
        self.keep_for_container(image, &mut gone)?;
        self.remove_names(image, &gone, removed).map(drop)
    }

    /// Removes a name with a digest under which nothing is stored: the tags of its repository no
    /// longer know what the registry has. Returns whether it was such a name.
    fn forget_digest(&self, name: &Reference, removed: &mut Vec<Removed>) -> Result<bool> {
        let Some(digest) = name.digest() else { return Ok(false) };
        if self.store.reference(&RefName::Named(name.tag_or_latest()))?.is_some() {
            return Ok(false);
        }
        for (stored, to) in self.store.references()? {
            let RefName::Named(other) = &stored else { continue };
            if other.repository() == name.repository() && to.target == Some(digest) {
                self.store.set_reference(&stored, &Ref { target: None, ..to })?;
            }
        }
        removed.push(Removed::Untagged(format!("{}@{digest}", name.familiar_name())));
        Ok(true)
    }

    /// Takes names from an image, all of them where none is said. It stays, without a name at last.
    pub fn untag_only(&self, text: &str, names: &[Reference]) -> Result<()> {
        self.store.sweep()?;
        let (image, _, _lease) = self.lease_image(text)?;
        let own = self.store.names_of(image.digest)?;
        let mut gone = Vec::new();
        for name in names {
            let name = RefName::Named(name.tag_or_latest());
            match (own.contains(&name), name) {
                (true, name) => gone.push(name),
                (false, RefName::Named(name)) => {
                    return Err(Error::OtherName { name: name.familiar(), image: text.to_owned() });
                }
                (false, RefName::Untagged(_)) => {}
            }
        }
        if names.is_empty() {
            gone = own.iter().filter(|name| matches!(name, RefName::Named(_))).cloned().collect();
        }
        if own.iter().all(|name| gone.contains(name)) {
            // Before the last name goes, so that nothing is collected.
            let to = Ref { manifest: image.digest, target: None, updated: jiff::Timestamp::now() };
            self.store.set_reference(&RefName::Untagged(image.digest), &to)?;
        }
        for name in &gone {
            self.store.remove_reference(name)?;
        }
        Ok(())
    }

    /// Removes names of an image. Returns the bytes that the disk gets back.
    pub(crate) fn remove_names(
        &self,
        image: &Image,
        names: &[RefName],
        removed: &mut Vec<Removed>,
    ) -> Result<u64> {
        let mut digests: BTreeMap<String, String> = BTreeMap::new();
        let mut bytes = 0;
        for name in names {
            let found = self.store.reference(name)?;
            bytes += self.store.take_reference(name)?.unwrap_or(0);
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
        Ok(bytes)
    }

    /// Deletes what an image alone has needed, if nothing names or uses it any more.
    fn delete_if_unused(&self, image: &Image, removed: &mut Vec<Removed>) -> Result<()> {
        if !self.store.names_of(image.digest)?.is_empty() {
            return Ok(());
        }
        if self.user_of(image)?.is_some() {
            // A container was made of it this moment; without a name it would be hard to find.
            let to = Ref { manifest: image.digest, target: None, updated: jiff::Timestamp::now() };
            return Ok(self.store.set_reference(&RefName::Untagged(image.digest), &to)?);
        }
        deleted(image, &self.store.collect()?, removed);
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
    pub(crate) fn user_of(&self, image: &Image) -> Result<Option<(crate::store::Container, bool)>> {
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

/// Tells whether names are one tag at most, and digests in the same repository.
fn is_single(names: &[RefName]) -> bool {
    let named = names.iter().filter_map(|name| match name {
        RefName::Named(reference) => Some(reference),
        RefName::Untagged(_) => None,
    });
    let repositories: BTreeSet<_> = named.clone().map(Reference::repository).collect();
    repositories.len() <= 1 && named.filter(|name| name.tag().is_some()).count() <= 1
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

fn time_of(created: Option<&str>) -> Option<jiff::Timestamp> {
    created.and_then(|text| text.parse().ok())
}
