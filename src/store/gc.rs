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

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::digest::{ChainId, DiffId, Digest};
use crate::store::Store;
use crate::store::containers::remove_tree;
use crate::store::download::remove_empty;
use crate::store::error::{Error, Result, layer_error};
use crate::store::files::{ensure_dir, list, open_lock, remove_if_exists, rename_if_exists};
use crate::store::lease::{Claim, is_live, live_claims, remove_nameless};
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
        self.sweep_staging()?;
        let candidates = self.candidates()?;
        let marks = self.mark()?;
        ensure_dir(&self.layout().trash())?;
        let mut moved = HashSet::new();
        for (sort, name) in candidates {
            if !marks.needs(sort, &name) && self.move_to_trash(sort, &name)? {
                moved.insert(sort.trashed(&name));
            }
        }
        // What an earlier collector left behind when it was killed is looked at again, too. What is
        // brought back may need more: a manifest its layers, a layer its objects.
        while self.restore_needed(&self.mark()?)? {}
        let collected = self.empty_trash(&moved)?;
        self.forget_gone()?;
        Ok(collected)
    }

    /// Brings an object back that the collector has moved aside; tells whether it did.
    pub(crate) fn bring_back(&self, digest: Digest) -> Result<bool> {
        let layout = self.layout();
        rename_if_exists(&layout.trashed_object(digest), &layout.object(digest))
    }

    /// Removes what dead processes have left in staging, unless a collector is about to.
    pub fn sweep(&self) -> Result<()> {
        match self.try_lock_gc()? {
            Some(_lock) => self.sweep_staging(),
            None => Ok(()),
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

    /// Removes what dead processes have left in staging, and a crash of the machine among containers.
    fn sweep_staging(&self) -> Result<()> {
        self.sweep_containers()?;
        remove_nameless(self)?;
        let dir = self.layout().staging();
        for name in list(&dir)? {
            let path = dir.join(&name);
            // A stage has the name of its lease. Single files, and containers that are being
            // made, are there for moments only; what was downloaded waits for the next pull.
            let dead = if name.contains('-') { is_old(&path) } else { !is_live(self, &name)? };
            if name.starts_with("download-") {
                remove_empty(&path)?;
            }
            if dead && path.is_dir() {
                remove_tree(&path)?;
            } else if dead {
                remove_if_exists(&path)?;
            }
        }
        Ok(())
    }

    fn candidates(&self) -> Result<Vec<(Sort, String)>> {
        let layout = self.layout();
        let mut found = Vec::new();
        let mut add = |sort, dir: &Path| -> Result<()> {
            found.extend(list(dir)?.into_iter().map(|name| (sort, name)));
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
        for (_, reference) in self.every_reference()? {
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

    fn move_to_trash(&self, sort: Sort, name: &str) -> Result<bool> {
        rename_if_exists(&self.place(sort, name), &self.trashed(sort, name))
    }

    /// Brings needed things back from the trash, and tells whether there were any.
    fn restore_needed(&self, marks: &Marks) -> Result<bool> {
        let mut any = false;
        for trashed in list(&self.layout().trash())? {
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

    /// Deletes what is in the trash; `moved` is what of it counts as collected, by its name there.
    fn empty_trash(&self, moved: &HashSet<String>) -> Result<Collected> {
        let mut collected = Collected::default();
        for trashed in list(&self.layout().trash())? {
            let path = self.layout().trash().join(&trashed);
            let Some((sort, name)) = parse_trashed(&trashed) else {
                remove_tree(&path)?;
                continue;
            };
            // Something else may have been where a file of this name should be.
            if path.is_dir() {
                remove_tree(&path)?;
                continue;
            }
            collected.bytes += disk_bytes(&path);
            if remove_if_exists(&path)? && moved.contains(&trashed) {
                collected.count(sort, name);
            }
        }
        Ok(collected)
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

/// Returns the bytes that a file takes on the disk; none if it is not there.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

/// Tells whether a file was last changed over a day ago.
fn is_old(path: &Path) -> bool {
    let changed = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    let age = changed.map(|changed| changed.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age.as_secs() > 24 * 3600)
}
