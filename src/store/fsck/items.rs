//! What a check reads through: documents, indexes, recipes, contents, snapshots; what was checked
//! longest ago comes first, and of that what lies first on the disk.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::digest::{ChainId, DiffId, Digest};
use crate::store::error::Result;
use crate::store::files::list_if_there;
use crate::store::fsck::checked::{Key, version_of};
use crate::store::fsck::known::KnownImage;
use crate::store::fsck::{Check, Part};
use crate::store::walk::walk;

/// Something to be read through.
#[derive(Clone, Debug)]
pub struct Item {
    pub(crate) what: What,
    /// Whether something needs it, so that it must be there.
    pub(crate) is_needed: bool,
    /// So much is read.
    pub(crate) size_bytes: u64,
    key: Key,
    version: u64,
    /// When it was last found to be sound.
    last: u64,
    ino: u64,
}

/// What an item is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Blob(Digest),
    /// With the size that the index of a layer says.
    Object(Digest, Option<u64>),
    Index(DiffId),
    Recipe(DiffId),
    Chain(ChainId),
    /// What index, recipe and objects make together.
    Tar(DiffId),
    /// The files of a snapshot, by container and name.
    Snapshot(String, String),
}

impl Item {
    /// Returns how many bytes are read to check it.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns the part that it is; a snapshot is many.
    pub(crate) fn part(&self) -> Option<Part> {
        Some(match &self.what {
            What::Blob(blob) => Part::Blob(*blob),
            What::Object(object, _) => Part::Object(*object),
            What::Index(layer) => Part::Index(*layer),
            What::Recipe(layer) => Part::Recipe(*layer),
            What::Chain(chain) => Part::Chain(*chain),
            What::Tar(layer) => Part::Tar(*layer),
            What::Snapshot(..) => return None,
        })
    }

    /// Returns which of all items it is, and whether something is known to need it.
    pub const fn name(&self) -> (u8, Digest, bool) {
        (self.key.0, self.key.1, self.is_needed)
    }

    /// Returns that, and which version of it this is.
    pub(crate) const fn seen(&self) -> (Key, u64) {
        (self.key, self.version)
    }
}

impl Check {
    /// Returns the documents of images, and the indexes and recipes of layers.
    pub fn documents(&self) -> Result<Vec<Item>> {
        let layout = self.store.layout();
        let mut items = Vec::new();
        for (blob, is_needed) in self.blobs()? {
            self.add(&mut items, What::Blob(blob), b'b', blob, is_needed, &layout.blob(blob));
        }
        for (layer, is_needed) in self.all_layers()? {
            let (index, recipe) = (layout.layer_index(layer), layout.layer_recipe(layer));
            self.add(&mut items, What::Index(layer), b'l', layer.0, is_needed, &index);
            self.add(&mut items, What::Recipe(layer), b'r', layer.0, is_needed, &recipe);
        }
        for (chain, is_needed) in self.chains()? {
            let path = layout.chain(chain);
            self.add(&mut items, What::Chain(chain), b'c', chain.0, is_needed, &path);
        }
        Ok(in_order(items))
    }

    /// Returns the contents of files, in layers and in snapshots.
    pub fn contents(&self) -> Result<Vec<Item>> {
        let layout = self.store.layout();
        let mut items = Vec::new();
        let mut sizes = self.sizes()?;
        if self.scope.is_none() {
            for shard in list_if_there(&layout.objects())? {
                let dir = layout.objects().join(&shard);
                for object in named(&dir, "")? {
                    let size = sizes.remove(&object);
                    let what = What::Object(object, size);
                    self.add(
                        &mut items,
                        what,
                        b'o',
                        object,
                        size.is_some(),
                        &dir.join(object.hex()),
                    );
                }
            }
        }
        for (object, size) in sizes {
            let what = What::Object(object, Some(size));
            self.add(&mut items, what, b'o', object, true, &layout.object(object));
        }
        for id in self.known.containers.keys() {
            for name in self.store.snapshot_names(id)? {
                self.add_snapshot(&mut items, id, &name);
            }
        }
        Ok(in_order(items))
    }

    /// Returns the layers, to see whether what is kept of each makes its tar.
    pub fn tars(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for (layer, _) in self.all_layers()? {
            let path = self.store.layout().layer_index(layer);
            // What cannot be opened was told.
            let Some(index) = self.known.index(&self.store, layer) else { continue };
            self.add(&mut items, What::Tar(layer), b't', layer.0, false, &path);
            if let Some(item) = items.last_mut().filter(|item| item.what == What::Tar(layer)) {
                item.size_bytes = index.tar_len();
            }
        }
        Ok(in_order(items))
    }

    /// Adds an item, unless a check that this one goes on with has done it.
    fn add(
        &self,
        items: &mut Vec<Item>,
        what: What,
        kind: u8,
        digest: Digest,
        is_needed: bool,
        path: &Path,
    ) {
        let metadata = fs::symlink_metadata(path).ok();
        if metadata.is_none() && !is_needed {
            // It is gone since it was listed.
            return;
        }
        let key = (kind, digest);
        let version = metadata.as_ref().map_or(0, version_of);
        let size = metadata.as_ref().map_or(0, |metadata| metadata.len());
        let is_wrong = matches!(what, What::Object(_, Some(expected)) if expected != size);
        if metadata.is_some() && !is_wrong && self.checked.is_done(key, version) {
            return;
        }
        let ino = metadata.map_or(0, |metadata| metadata.ino());
        let last = self.checked.last(key);
        items.push(Item { what, is_needed, size_bytes: size, key, version, last, ino });
    }

    fn add_snapshot(&self, items: &mut Vec<Item>, id: &str, name: &str) {
        let upper = self.store.snapshot_upper(id, name);
        let (mut size_bytes, mut ino) = (0, 0);
        let walked = walk(&upper, &mut |path, stat| {
            size_bytes += if stat.is_regular() { stat.size } else { 0 };
            if path.as_os_str().is_empty() {
                ino = stat.ino;
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = walked {
            // Whoever checks it meets the same.
            tracing::debug!("{}: {error}", upper.display());
        }
        let key = (b's', Digest::of(format!("{id}/{name}").as_bytes()));
        if !self.checked.is_done(key, ino) {
            let what = What::Snapshot(id.to_owned(), name.to_owned());
            let (version, last) = (ino, self.checked.last(key));
            items.push(Item { what, is_needed: true, size_bytes, key, version, last, ino });
        }
    }

    /// Returns all blobs, and whether an image needs them. What a registry has under a name, when that
    /// is not the manifest, nobody needs.
    fn blobs(&self) -> Result<Vec<(Digest, bool)>> {
        let config = |image: &KnownImage| image.config.as_ref().map(|config| config.digest);
        let images = self.known.checked();
        let needed: BTreeSet<_> = images
            .clone()
            .flat_map(|image| [Some(image.manifest), config(image)])
            .flatten()
            .collect();
        let mut blobs: BTreeSet<_> = images.flat_map(|image| image.targets.clone()).collect();
        blobs.extend(&needed);
        if self.scope.is_none() {
            blobs.extend(named(&self.store.layout().blobs(), "")?);
        }
        Ok(blobs.into_iter().map(|blob| (blob, needed.contains(&blob))).collect())
    }

    /// Returns all layers, and whether an image needs them.
    fn all_layers(&self) -> Result<Vec<(DiffId, bool)>> {
        let needed = self.known.layers();
        let mut layers = needed.clone();
        if self.scope.is_none() {
            for suffix in [".idx", ".tar"] {
                let found = named(&self.store.layout().layers(), suffix)?;
                layers.extend(found.into_iter().map(DiffId));
            }
        }
        Ok(layers.into_iter().map(|layer| (layer, needed.contains(&layer))).collect())
    }

    fn chains(&self) -> Result<Vec<(ChainId, bool)>> {
        let needed: BTreeSet<_> = self.known.checked().filter_map(KnownImage::chain).collect();
        let mut chains = needed.clone();
        if self.scope.is_none() {
            let found = named(&self.store.layout().chains(), ".idx")?;
            chains.extend(found.into_iter().map(ChainId));
        }
        Ok(chains.into_iter().map(|chain| (chain, needed.contains(&chain))).collect())
    }

    /// Returns the objects that layers of images need, with their sizes.
    fn sizes(&self) -> Result<HashMap<Digest, u64>> {
        let mut sizes = HashMap::new();
        for layer in self.known.layers() {
            // What is damaged was told, and what is set apart needs nothing.
            let Some(index) = self.known.index(&self.store, layer) else { continue };
            for number in 0..index.object_count() as u64 {
                if let Ok((object, size)) = index.object(number) {
                    sizes.insert(object, size);
                }
            }
        }
        Ok(sizes)
    }

    /// Returns an item for a part that is looked at alone.
    pub(crate) fn item_of(&self, part: &Part) -> Option<Item> {
        let layout = self.store.layout();
        let (what, kind, digest, path) = match part {
            Part::Blob(blob) => (What::Blob(*blob), b'b', *blob, layout.blob(*blob)),
            Part::Object(object) => (
                What::Object(*object, self.size_of(*object)),
                b'o',
                *object,
                layout.object(*object),
            ),
            Part::Index(layer) | Part::Apart(layer) => {
                (What::Index(*layer), b'l', layer.0, layout.layer_index(*layer))
            }
            Part::Recipe(layer) => {
                (What::Recipe(*layer), b'r', layer.0, layout.layer_recipe(*layer))
            }
            Part::Tar(layer) => (What::Tar(*layer), b't', layer.0, layout.layer_index(*layer)),
            Part::Chain(chain) => (What::Chain(*chain), b'c', chain.0, layout.chain(*chain)),
            _ => return None,
        };
        let metadata = fs::symlink_metadata(path).ok();
        Some(Item {
            what,
            is_needed: !self.known.images_with(&self.store, part).is_empty(),
            size_bytes: metadata.as_ref().map_or(0, |metadata| metadata.len()),
            key: (kind, digest),
            version: metadata.as_ref().map_or(0, version_of),
            last: 0,
            ino: 0,
        })
    }

    /// Returns the size that the layers say an object has.
    fn size_of(&self, object: Digest) -> Option<u64> {
        let found = self.known.layers_with(&self.store, object).into_iter().find_map(|layer| {
            let index = self.known.index(&self.store, layer)?;
            let objects = (0..index.object_count() as u64).map(|number| index.object(number));
            objects.filter_map(std::result::Result::ok).find(|(digest, _)| *digest == object)
        });
        found.map(|(_, size)| size)
    }
}

fn in_order(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by_key(|item| (item.last, item.ino));
    items
}

/// Returns the digests that are names in a directory, with this behind them.
fn named(dir: &Path, suffix: &str) -> Result<Vec<Digest>> {
    let digest = |name: &String| Digest::from_hex(name.strip_suffix(suffix)?).ok();
    Ok(list_if_there(dir)?.iter().filter_map(digest).collect())
}

/// Returns where something is that a check reads.
pub(crate) fn path_of(check: &Check, what: &What) -> PathBuf {
    let layout = check.store.layout();
    match what {
        What::Blob(blob) => layout.blob(*blob),
        What::Object(object, _) => layout.object(*object),
        What::Index(layer) | What::Tar(layer) => layout.layer_index(*layer),
        What::Recipe(layer) => layout.layer_recipe(*layer),
        What::Chain(chain) => layout.chain(*chain),
        What::Snapshot(id, name) => check.store.snapshot_upper(id, name),
    }
}
