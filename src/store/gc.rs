//! Collecting what nobody needs any more.
//!
//! What is needed is what references, containers and live leases lead to. The collector never
//! holds anybody up, and never takes what is in use:
//!
//! 1. list what there is; 2. mark what is needed; 3. move the rest to `trash/`; 4. mark again, and
//!    bring back what has been claimed meanwhile; 5. delete the trash.
//!
//! Whoever begins to use a thing claims it first and looks for it after. If the claim came before
//! step 4, the thing is brought back; if it came later, its maker did not find it and makes it
//! again. In each marking the leases are read before the containers and the references: a thing
//! whose lease ends has a reference by then. One collector works at a time. Where what is needed
//! cannot be known, because a reference, a document of an image or an index is damaged, nothing is
//! taken at all: the check (`strata fsck`) mends it with what is still there.
//!
//! A disk without room may have none for another name in the trash. What is there then goes through
//! steps 4 and 5 before the rest is moved: each round is a collection of its own, of what the first
//! marking has left.
//!
//! Chains, layers and blobs are moved before objects, and that they are gone is durable before an object
//! is deleted. So after a crash no index is there without its objects.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::digest::{ChainId, DiffId, Digest};
use crate::store::Store;
use crate::store::containers::remove_tree;
use crate::store::download::{DOWNLOAD, remove_unwanted};
use crate::store::error::{Error, Result, layer_error};
use crate::store::files::{
    TEMPORARY, ensure_dir, is_old, list, list_if_there, open_if_locked, open_lock,
    remove_if_exists, rename_if_exists, sync_dir,
};
use crate::store::lease::{Claim, is_live, live_claims, remove_dead};
use crate::store::reclaim::Reclaim;
use crate::store::refs::Ref;
use crate::sys;

/// What a collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers.
    pub layers: Vec<DiffId>,
    /// Manifests, configurations and other blobs.
    pub blobs: Vec<Digest>,
    /// How many objects.
    pub objects: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

/// What is needed.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Manifests whose image is marked; the blob of a manifest may be marked without it.
    images: HashSet<Digest>,
    blobs: HashSet<Digest>,
    layers: HashSet<DiffId>,
    chains: HashSet<Digest>,
    objects: HashSet<Digest>,
}

/// Kinds of files that are moved to the trash, by the name that they have there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Blob,
    Chain,
    Layer,
    Object,
}

impl Store {
    /// Removes everything that no reference, container or running process needs.
    pub fn collect(&self) -> Result<Collected> {
        let _lock = self.lock_gc()?;
        let swept = self.sweep_dead()? + self.finish_removing()?;
        ensure_dir(&self.layout().trash())?;
        let mut unneeded = VecDeque::from(self.candidates()?);
        let marks = self.mark()?;
        unneeded.retain(|(sort, name)| !marks.needs(*sort, name));
        let mut collected = Collected { bytes: swept, ..Collected::default() };
        loop {
            let (moved, stopped) = self.move_to_trash(&mut unneeded);
            // What an earlier collector left behind when it was killed is looked at again, too. What is
            // brought back may need more: a manifest its layers, a layer its objects.
            while self.restore_needed(&self.mark()?)? {}
            let is_emptied = self.empty_trash(&moved, &mut collected)?;
            match stopped {
                Some(error) if !is_emptied || !error.is_no_room() => return Err(error),
                Some(_) => {}
                None => break,
            }
        }
        self.forget_gone()?;
        Ok(collected)
    }

    /// Returns the bytes on the disk that images take, with their names and what is left of those that are
    /// gone; and how many of them come back when the names of some images go and the rest is collected.
    pub fn room_of_images(&self, going: &HashSet<Digest>) -> Result<(u64, u64)> {
        let names = self.room_of_names()?;
        let left = self.left_bytes();
        let (mut bytes, mut unneeded) = (names.bytes() + left, names.bytes_of(going) + left);
        let marks = self.mark_without(going);
        for (sort, name) in self.candidates()? {
            let found = disk_bytes(&self.place(sort, &name));
            bytes += found;
            match &marks {
                Ok(marks) if !marks.needs(sort, &name) => unneeded += found,
                _ => {}
            }
        }
        match marks {
            Ok(_) => Ok((bytes, unneeded)),
            Err(error) => {
                tracing::warn!("{error}; nothing can be collected");
                Ok((bytes, 0))
            }
        }
    }

    /// Returns the bytes of what killed commands were making or removing, which goes with the next sweep;
    /// none while somebody collects.
    fn left_bytes(&self) -> u64 {
        let look = || -> Result<u64> {
            let Some(_lock) = self.try_lock_gc()? else { return Ok(0) };
            let (staging, trash) = (self.layout().staging(), self.layout().trash());
            let mut bytes = 0;
            for name in list_if_there(&staging)? {
                if !name.contains('-') && !is_live(self, &name)? {
                    bytes += Reclaim::below(&staging.join(name))?.own_bytes();
                }
            }
            for name in list_if_there(&trash)? {
                bytes += Reclaim::below(&trash.join(name))?.own_bytes();
            }
            Ok(bytes)
        };
        look().unwrap_or_else(|error| {
            tracing::warn!("{error}");
            0
        })
    }

    /// Brings an object back that the collector has moved aside; tells whether it did.
    pub(crate) fn bring_back(&self, digest: Digest) -> Result<bool> {
        let layout = self.layout();
        rename_if_exists(&layout.trashed_object(digest), &layout.object(digest))
    }

    /// Removes what dead processes were making or removing, unless a collector is about to.
    pub fn sweep(&self) -> Result<()> {
        match self.try_lock_gc()? {
            Some(_lock) => self.sweep_dead().map(drop),
            None => Ok(()),
        }
    }

    /// Does the same, and removes what is left of containers that somebody has not finished removing.
    /// Returns the bytes that the disk gets back.
    pub fn sweep_removed(&self) -> Result<u64> {
        match self.try_lock_gc()? {
            Some(_lock) => Ok(self.sweep_dead()? + self.finish_removing()?),
            None => Ok(0),
        }
    }

    pub(crate) fn try_lock_gc(&self) -> Result<Option<File>> {
        let file = open_lock(&self.layout().gc_lock())?;
        Ok(sys::try_lock_exclusive(file.as_fd())?.then_some(file))
    }

    pub(crate) fn lock_gc(&self) -> Result<File> {
        let file = open_lock(&self.layout().gc_lock())?;
        sys::lock_exclusive(file.as_fd())?;
        Ok(file)
    }

    /// Removes what dead processes were making, their leases, and what they have not finished removing;
    /// and what a crash of the machine has left among containers. Returns the bytes that the disk gets back.
    fn sweep_dead(&self) -> Result<u64> {
        self.sweep_containers()?;
        let mut bytes = 0;
        let dir = self.layout().staging();
        for name in list_if_there(&dir)? {
            let path = dir.join(&name);
            // A stage has the name of its lease.
            if !name.contains('-') {
                if !is_live(self, &name)? {
                    bytes += own_bytes(&path);
                    remove_tree(&path)?;
                }
                continue;
            }
            let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
            if is_file && name.starts_with(TEMPORARY) {
                drop(open_if_locked(&path)?);
            } else if is_file && name.starts_with(DOWNLOAD) {
                remove_unwanted(&path)?;
            } else if is_old(&path)? {
                bytes += own_bytes(&path);
                remove_tree(&path)?;
            }
        }
        remove_dead(self)?;
        let trash = self.layout().trash();
        // Nobody brings back what is not of the collector's.
        let others =
            list_if_there(&trash)?.into_iter().filter(|name| parse_trashed(name).is_none());
        for path in others.map(|name| trash.join(name)) {
            bytes += own_bytes(&path);
            remove_tree(&path)?;
        }
        Ok(bytes)
    }

    /// Returns what there is, in the order in which it may go: an index before what it needs, its recipe
    /// (`.tar` comes after `.idx`) and its objects.
    fn candidates(&self) -> Result<Vec<(Sort, String)>> {
        let layout = self.layout();
        let mut found = Vec::new();
        let mut add = |sort, dir: &Path| -> Result<()> {
            let mut names = list(dir)?;
            names.sort();
            found.extend(names.into_iter().map(|name| (sort, name)));
            Ok(())
        };
        add(Sort::Chain, &layout.chains())?;
        add(Sort::Layer, &layout.layers())?;
        add(Sort::Blob, &layout.blobs())?;
        for shard in list(&layout.objects())? {
            let shard = layout.objects().join(shard);
            if shard.is_dir() {
                add(Sort::Object, &shard)?;
            }
        }
        Ok(found)
    }

    fn mark(&self) -> Result<Marks> {
        self.mark_without(&HashSet::new())
    }

    /// Marks what would be needed if some images had no name.
    fn mark_without(&self, nameless: &HashSet<Digest>) -> Result<Marks> {
        let mut marks = Marks::default();
        for claim in live_claims(self)? {
            match claim {
                Claim::Blob(digest) => drop(marks.blobs.insert(digest)),
                Claim::Chain(digest) => drop(marks.chains.insert(digest)),
                Claim::Object(digest) => drop(marks.objects.insert(digest)),
                Claim::Layer(digest) => drop(marks.layers.insert(DiffId(digest))),
                Claim::Image(digest) => self.mark_image(digest, &mut marks)?,
            }
        }
        for container in self.every_container()? {
            self.mark_image(container.manifest, &mut marks)?;
        }
        let named = |reference: &Ref| !nameless.contains(&reference.manifest);
        for (_, reference) in self.every_reference()?.into_iter().filter(|(_, to)| named(to)) {
            marks.blobs.extend(reference.target);
            self.mark_image(reference.manifest, &mut marks)?;
        }
        self.mark_all_objects(&mut marks)?;
        Ok(marks)
    }

    /// Marks the objects of the layers that are marked.
    ///
    /// # Errors
    /// The index of a layer is damaged: what it needs is not known.
    pub(crate) fn mark_all_objects(&self, marks: &mut Marks) -> Result<()> {
        marks.layers.iter().try_for_each(|layer| self.mark_objects(*layer, &mut marks.objects))
    }

    /// Returns the files that are marked.
    pub(crate) fn files_of(&self, marks: &Marks) -> Vec<PathBuf> {
        let layout = self.layout();
        let mut paths: Vec<_> = marks.blobs.iter().map(|blob| layout.blob(*blob)).collect();
        paths.extend(marks.chains.iter().map(|chain| layout.chain(ChainId(*chain))));
        paths.extend(marks.objects.iter().map(|object| layout.object(*object)));
        for layer in &marks.layers {
            paths.push(layout.layer_index(*layer));
            paths.push(layout.layer_recipe(*layer));
            paths.push(layout.layer_sources(*layer));
        }
        paths
    }

    /// Marks what an image needs.
    ///
    /// # Errors
    /// A document of it is damaged: what it needs is not known.
    pub(crate) fn mark_image(&self, manifest: Digest, marks: &mut Marks) -> Result<()> {
        if !marks.images.insert(manifest) {
            return Ok(());
        }
        marks.blobs.insert(manifest);
        match self.image(manifest) {
            Ok(image) => {
                marks.blobs.insert(image.id());
                marks.layers.extend(image.layers());
                marks.chains.insert(image.chain_id().0);
            }
            // Somebody claimed or names what is not there (any more): nothing to keep.
            Err(error @ (Error::NoBlob(_) | Error::Image { .. })) => tracing::debug!("{error}"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn mark_objects(&self, layer: DiffId, objects: &mut HashSet<Digest>) -> Result<()> {
        let index = match self.layer(layer) {
            Ok(index) => index,
            // What is left of one that was set apart is kept for who wants it back.
            Err(Error::SetApart { .. }) => match self.layer_set_apart(layer) {
                Ok(index) => index,
                Err(error) => {
                    tracing::debug!("{error}");
                    return Ok(());
                }
            },
            Err(error @ Error::NoLayer(_)) => {
                tracing::debug!("{error}");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for number in 0..index.object_count() as u64 {
            let path = self.layout().layer_index(layer);
            objects.insert(index.object(number).map_err(layer_error(&path))?.0);
        }
        Ok(())
    }

    /// Moves things to the trash, and takes them off the list. Returns the names that they have there,
    /// and what has kept the rest from being moved.
    fn move_to_trash(
        &self,
        unneeded: &mut VecDeque<(Sort, String)>,
    ) -> (HashSet<String>, Option<Error>) {
        let mut moved = HashSet::new();
        while let Some((sort, name)) = unneeded.front() {
            match rename_if_exists(&self.place(*sort, name), &self.trashed(*sort, name)) {
                Ok(true) => drop(moved.insert(sort.trashed(name))),
                Ok(false) => {}
                Err(error) => return (moved, Some(error)),
            }
            unneeded.pop_front();
        }
        (moved, None)
    }

    /// Brings needed things back from the trash, and tells whether there were any.
    fn restore_needed(&self, marks: &Marks) -> Result<bool> {
        let mut any = false;
        let mut trashed = list(&self.layout().trash())?;
        // The other way round: objects and recipes before indexes.
        trashed.sort();
        for trashed in trashed.into_iter().rev() {
            if let Some((sort, name)) = parse_trashed(&trashed)
                && marks.needs(sort, name)
            {
                let place = self.place(sort, name);
                // It may have been made again meanwhile; either is whole.
                any |= rename_if_exists(&self.trashed(sort, name), &place)?;
            }
        }
        Ok(any)
    }

    /// Deletes what is in the trash, and tells whether there was anything; `moved` is what of it counts as
    /// collected, by its name there.
    fn empty_trash(&self, moved: &HashSet<String>, collected: &mut Collected) -> Result<bool> {
        let trashed = list(&self.layout().trash())?;
        if trashed.is_empty() {
            return Ok(false);
        }
        let layout = self.layout();
        for dir in [layout.chains(), layout.layers(), layout.blobs()] {
            sync_dir(&dir)?;
        }
        for trashed in trashed {
            let path = self.layout().trash().join(&trashed);
            let Some((sort, name)) = parse_trashed(&trashed) else {
                remove_tree(&path)?;
                continue;
            };
            // Something else may have been where a file of this name should be.
            if path.is_dir() {
                collected.bytes += own_bytes(&path);
                remove_tree(&path)?;
                continue;
            }
            collected.bytes += disk_bytes(&path);
            if remove_if_exists(&path)? && moved.contains(&trashed) {
                collected.count(sort, name);
            }
        }
        Ok(true)
    }

    fn place(&self, sort: Sort, name: &str) -> PathBuf {
        let layout = self.layout();
        match sort {
            Sort::Blob => layout.blobs().join(name),
            Sort::Chain => layout.chains().join(name),
            Sort::Layer => layout.layers().join(name),
            Sort::Object => layout.objects().join(name.get(..2).unwrap_or_default()).join(name),
        }
    }

    fn trashed(&self, sort: Sort, name: &str) -> PathBuf {
        self.layout().trash().join(sort.trashed(name))
    }
}

impl Sort {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Chain => "chain",
            Self::Layer => "layer",
            Self::Object => "object",
        }
    }

    /// Returns the name that a file has in the trash.
    fn trashed(self, name: &str) -> String {
        format!("{}-{name}", self.prefix())
    }
}

fn parse_trashed(name: &str) -> Option<(Sort, &str)> {
    let (prefix, name) = name.split_once('-')?;
    let sorts = [Sort::Blob, Sort::Chain, Sort::Layer, Sort::Object];
    let sort = sorts.into_iter().find(|sort| sort.prefix() == prefix)?;
    Some((sort, name))
}

impl Marks {
    /// Marks blobs alone.
    pub(crate) fn add_blobs<'a>(&mut self, blobs: impl Iterator<Item = &'a Digest>) {
        self.blobs.extend(blobs);
    }

    /// Tells whether the file with this name must stay. Files whose names say nothing may go.
    fn needs(&self, sort: Sort, name: &str) -> bool {
        let (hex, suffix) = name.split_once('.').unwrap_or((name, ""));
        let Ok(digest) = Digest::from_hex(hex) else { return false };
        match sort {
            Sort::Blob => self.blobs.contains(&digest),
            Sort::Chain => suffix == "idx" && self.chains.contains(&digest),
            Sort::Layer => self.layers.contains(&DiffId(digest)),
            Sort::Object => self.objects.contains(&digest),
        }
    }
}

impl Collected {
    fn count(&mut self, sort: Sort, name: &str) {
        let (hex, suffix) = name.split_once('.').unwrap_or((name, ""));
        let Ok(digest) = Digest::from_hex(hex) else { return };
        match sort {
            Sort::Layer if suffix == "idx" => self.layers.push(DiffId(digest)),
            Sort::Blob => self.blobs.push(digest),
            Sort::Object => self.objects += 1,
            Sort::Layer | Sort::Chain => {}
        }
    }
}

/// Returns the bytes that the disk gives back when what is at a path goes, for who removes it in any case.
pub(crate) fn own_bytes(path: &Path) -> u64 {
    Reclaim::below(path).map_or_else(
        |error| {
            tracing::debug!("{error}");
            0
        },
        |found| found.own_bytes(),
    )
}

/// Returns the bytes that a file takes on the disk; none if it is not there.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_a_download_that_somebody_is_at_stays_however_old_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let digest = Digest::of(b"x");
        let path = store.layout().staging().join(format!("{DOWNLOAD}{}", digest.hex()));
        let download = store.download(digest, 8 << 20, || ()).unwrap();
        let is_swept_when_old = || {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
            store.sweep().unwrap();
            !path.exists()
        };
        fs::write(&path, "what has arrived").unwrap();
        assert!(!is_swept_when_old());
        drop(download);
        // The next pull goes on with it, for a day.
        fs::write(&path, "what has arrived").unwrap();
        store.sweep().unwrap();
        assert!(path.exists());
        assert!(is_swept_when_old());
    }

    #[test]
    fn what_needs_something_goes_before_it_and_comes_back_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let hex = "0".repeat(64);
        let layout = store.layout();
        for path in [
            layout.layers().join(format!("{hex}.tar")),
            layout.layers().join(format!("{hex}.src")),
            layout.layers().join(format!("{hex}.idx")),
            layout.objects().join("00").join(&hex),
            layout.blobs().join(&hex),
            layout.chains().join(format!("{hex}.idx")),
        ] {
            fs::write(path, "").unwrap();
        }
        let names = |found: &[(Sort, String)]| -> Vec<_> {
            found.iter().map(|(sort, name)| sort.trashed(name)).collect()
        };
        let going = names(&store.candidates().unwrap());
        let at = |name: &str| going.iter().position(|other| other.contains(name)).unwrap();
        let layer = at("layer-0000");
        assert!(going[layer].ends_with(".idx"), "{going:?}");
        assert!(at("chain") < layer && layer < at(".tar") && layer < at("object"), "{going:?}");
        let mut trashed: Vec<_> = going.clone();
        trashed.sort();
        trashed.reverse();
        let back = |name: &str| trashed.iter().position(|other| other.ends_with(name)).unwrap();
        let index = format!("layer-{hex}.idx");
        assert!(back(".tar") < back(&index) && back(&format!("object-{hex}")) < back(&index));
    }
}
