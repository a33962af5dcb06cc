//! Removing what nobody uses, and how much room there is to win.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::digest::Digest;
use crate::service::error::{Error, Result};
use crate::service::filter::{Filters, check_keys, duration, labels_fit, truth, untils, values};
use crate::service::{ContainerRow, ContainerStatus, ImageRow, Removed, Strata};
use crate::store::{Footprint, Image, Reclaim, RefName};

/// The filters of a removal of images.
const IMAGE_FILTERS: [&str; 7] =
    ["dangling", "until", "label", "label!", "reference", "unused-for", "keep-last"];
/// Those that only mean something for images with names.
const OF_NAMES: [&str; 2] = ["reference", "keep-last"];
/// The filters of a removal of containers.
const CONTAINER_FILTERS: [&str; 3] = ["until", "label", "label!"];

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Containers, by id.
    pub containers: Vec<String>,
    /// What became of images.
    pub images: Vec<Removed>,
    /// How many bytes the disk got back.
    pub bytes: u64,
}

/// How much room something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// How many there are.
    pub total: usize,
    /// How many are in use.
    pub active: usize,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes that the disk would give back when all goes that may.
    pub reclaimable: u64,
}

/// How much room everything takes.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Images.
    pub images: Room,
    /// Containers.
    pub containers: Room,
    /// Each image by name, with the room that it takes.
    pub image_rows: Vec<(ImageRow, Footprint)>,
    /// Each container, with the bytes that it has on the disk, snapshots included.
    pub container_rows: Vec<(ContainerRow, u64)>,
}

impl Strata {
    /// Keeps an image from every prune.
    pub fn pin(&self, image: &str) -> Result<()> {
        self.store.sweep()?;
        let (image, _, _lease) = self.lease_image(image)?;
        Ok(self.store.pin(image.digest)?)
    }

    /// Lets an image be pruned again.
    pub fn unpin(&self, text: &str) -> Result<()> {
        let (image, _) = self.find_image(text)?;
        match self.store.unpin(image.digest)? {
            true => Ok(()),
            false => Err(Error::NotPinned(text.to_owned())),
        }
    }

    /// Removes images that no container uses and that are not pinned: those without a tag, or `all`.
    pub fn prune_images(&self, all: bool, filters: &Filters) -> Result<Pruned> {
        check_keys(filters, &IMAGE_FILTERS)?;
        let all = all || truth(filters, "dangling")? == Some(false);
        if let Some(key) = OF_NAMES.iter().find(|key| !all && !values(filters, key).is_empty()) {
            return Err(Error::NeedsAll(key));
        }
        let mut removed = Vec::new();
        let mut gone: BTreeMap<Digest, Image> = BTreeMap::new();
        let mut bytes = 0;
        for row in self.prunable(all, filters)? {
            let image = match self.store.image(row.manifest) {
                // Somebody else has removed it since it was listed.
                Err(crate::store::Error::NoBlob(_)) => continue,
                other => other?,
            };
            if self.user_of(&image)?.is_some() {
                // A container was made of it this moment.
                continue;
            }
            let name = row.reference.map_or(RefName::Untagged(row.manifest), RefName::Named);
            bytes += self.remove_names(&image, &[name], &mut removed)?;
            let left = self.store.names_of(row.manifest)?;
            // Who was killed while it was losing its name has noted it as one without.
            if left.iter().all(|name| matches!(name, RefName::Untagged(_))) {
                bytes += self.remove_names(&image, &left, &mut removed)?;
                gone.insert(row.manifest, image);
            }
        }
        let collected = self.store.collect()?;
        for image in gone.values() {
            deleted(image, &collected, &mut removed);
        }
        bytes += collected.bytes;
        Ok(Pruned { images: removed, bytes, ..Pruned::default() })
    }

    /// Returns the names of images that a prune removes.
    fn prunable(&self, all: bool, filters: &Filters) -> Result<Vec<ImageRow>> {
        let now = jiff::Timestamp::now();
        let untils = untils(filters, now)?;
        let unused_for = values(filters, "unused-for").into_iter().map(|value| {
            let since = duration(value).and_then(|for_time| now.checked_sub(for_time).ok());
            since.ok_or_else(|| Error::FilterValue("unused-for".to_owned(), value.to_owned()))
        });
        let unused_since = unused_for.collect::<Result<Vec<_>>>()?;
        let kept = values(filters, "keep-last").last().map(|value| {
            let wrong = |_| Error::FilterValue("keep-last".to_owned(), (*value).to_owned());
            value.parse::<usize>().map_err(wrong)
        });
        let kept = kept.transpose()?;
        let patterns = values(filters, "reference");
        let pins = self.store.pins()?;
        let mut newer: HashMap<String, HashSet<Digest>> = HashMap::new();
        let mut rows = self.images()?;
        // Newest first, so that those before one of a repository are newer.
        rows.retain(|row| {
            let is_newest = row.reference.as_ref().is_some_and(|name| {
                let newer = newer.entry(name.repository()).or_default();
                newer.insert(row.manifest);
                kept.is_some_and(|kept| newer.len() <= kept)
            });
            let made = row.made();
            let used = self.store.last_use(row.manifest);
            row.containers == 0
                && !pins.contains(&row.manifest)
                && !is_newest
                && (all || row.is_untagged())
                && untils.iter().all(|until| made.is_some_and(|made| made < *until))
                && unused_since.iter().all(|since| used.is_none_or(|used| used < *since))
                && (patterns.is_empty() || patterns.iter().any(|pattern| row.is_named(pattern)))
                && labels_fit(filters, &row.labels)
        });
        Ok(rows)
    }

    /// Removes containers that are not mounted, with their changes.
    pub fn prune_containers(&self, filters: &Filters) -> Result<Pruned> {
        check_keys(filters, &CONTAINER_FILTERS)?;
        let untils = untils(filters, jiff::Timestamp::now())?;
        let mut pruned = Pruned { bytes: self.store.sweep_removed()?, ..Pruned::default() };
        let mut gone = Reclaim::default();
        for row in self.containers()? {
            let is_mounted = matches!(row.status, ContainerStatus::Mounted(_));
            let is_old = untils.iter().all(|until| row.created < *until);
            if is_mounted || !is_old || !labels_fit(filters, &row.labels) {
                continue;
            }
            let reclaim = self.store.reclaim(&row.id, row.manifest)?;
            let found = self.find_container(&row.id);
            match found.and_then(|container| self.remove_container(container, false)) {
                Ok(()) => {
                    pruned.containers.push(row.id);
                    gone.add(reclaim);
                }
                // It is in use since this moment.
                Err(Error::ContainerMounted { .. } | Error::NoContainer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        pruned.bytes += self.store.given_back(&gone)?;
        Ok(pruned)
    }

    /// Returns the room that containers take, and each with its bytes on the disk. What is not mounted may
    /// go.
    pub(crate) fn room_of_containers(&self) -> Result<(Room, Vec<(ContainerRow, u64)>)> {
        let (mut room, mut going) = (Room::default(), Reclaim::default());
        let mut rows = Vec::new();
        for row in self.containers()? {
            let reclaim = self.store.reclaim(&row.id, row.manifest)?;
            room.total += 1;
            room.bytes += reclaim.bytes();
            let is_mounted = matches!(row.status, ContainerStatus::Mounted(_));
            rows.push((row, reclaim.bytes()));
            match is_mounted {
                true => room.active += 1,
                false => going.add(reclaim),
            }
        }
        room.reclaimable = self.store.given_back(&going)?;
        Ok((room, rows))
    }

    /// Returns the bytes on the disk that images have, and that come back when all go that may.
    pub(crate) fn room_of_images(&self) -> Result<(u64, u64)> {
        let going = self.prunable(true, &Filters::default())?;
        let going = going.iter().map(|row| row.manifest).collect();
        Ok(self.store.room_of_images(&going)?)
    }

    /// Removes containers that are not mounted, then images that nobody uses.
    pub fn prune_system(&self, all: bool, filters: &Filters) -> Result<Pruned> {
        check_keys(filters, &CONTAINER_FILTERS)?;
        let containers = self.prune_containers(filters)?;
        let images = self.prune_images(all, filters)?;
        let bytes = containers.bytes + images.bytes;
        Ok(Pruned { containers: containers.containers, images: images.images, bytes })
    }

    /// Returns how much room everything takes.
    pub fn usage(&self) -> Result<Usage> {
        let rows = self.images()?;
        let in_use = rows.iter().map(|row| (row.manifest, row.containers > 0));
        let in_use: BTreeMap<_, _> = in_use.collect();
        let footprints = self.store.footprints(&in_use.keys().copied().collect())?;
        let of = |row: &ImageRow| footprints.get(&row.manifest).copied().unwrap_or_default();
        let (bytes, reclaimable) = self.room_of_images()?;
        let images = Room {
            total: in_use.len(),
            active: in_use.values().filter(|in_use| **in_use).count(),
            bytes,
            reclaimable,
        };
        let (containers, container_rows) = self.room_of_containers()?;
        let image_rows = rows.into_iter().map(|row| (row.clone(), of(&row))).collect();
        Ok(Usage { images, containers, image_rows, container_rows })
    }
}

/// Adds what was deleted of an image: itself, and its layers, by the ids of the stacks that they top.
pub(crate) fn deleted(
    image: &Image,
    collected: &crate::store::Collected,
    removed: &mut Vec<Removed>,
) {
    if !collected.blobs.contains(&image.digest) {
        // Something that runs uses it; it goes when that ends.
        return;
    }
    if collected.blobs.contains(&image.id()) {
        removed.push(Removed::Deleted(image.id()));
    }
    for top in (1..=image.layers().len()).rev() {
        let stack = &image.layers()[..top];
        if stack.last().is_some_and(|layer| collected.layers.contains(layer)) {
            removed.push(Removed::Deleted(crate::digest::ChainId::of(stack).0));
        }
    }
}
