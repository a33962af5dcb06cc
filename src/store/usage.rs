//! How much room images take on the disk.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::digest::Digest;
use crate::store::Store;
use crate::store::error::Result;
use crate::store::gc::{Marks, disk_bytes};

/// The room that an image or a snapshot takes, in bytes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// All that it needs.
    pub bytes: u64,
    /// What no other of its kind needs: deleting it alone gives so much back.
    pub unique_bytes: u64,
}

/// The room that images take, each and together, in bytes on the disk.
#[derive(Clone, Debug, Default)]
pub struct Footprints {
    /// Each image, by its manifest.
    pub images: BTreeMap<Digest, Footprint>,
    /// What they take together.
    pub bytes: u64,
    /// What those in use take together.
    pub used_bytes: u64,
}

/// What is known of a file of the store.
struct Counted {
    bytes: u64,
    /// How many images need it.
    images: u32,
    /// An image in use needs it.
    used: bool,
}

impl Store {
    /// Returns the room that images take. Of each is said whether it is in use.
    pub fn footprints(&self, manifests: &BTreeMap<Digest, bool>) -> Result<Footprints> {
        let mut files: HashMap<PathBuf, Counted> = HashMap::new();
        let mut needed = Vec::new();
        for (manifest, used) in manifests {
            let mut marks = Marks::default();
            let marked = self.mark_image(*manifest, &mut marks);
            // What cannot be read counts nothing.
            if let Err(error) = marked.and_then(|()| self.mark_all_objects(&mut marks)) {
                tracing::warn!("{error}");
            }
            let paths = self.files_of(&marks);
            for path in &paths {
                let new = || Counted { bytes: disk_bytes(path), images: 0, used: false };
                let counted = files.entry(path.clone()).or_insert_with(new);
                counted.images += 1;
                counted.used |= used;
            }
            needed.push((*manifest, paths));
        }
        let footprint = |paths: Vec<PathBuf>| {
            let counted = paths.iter().filter_map(|path| files.get(path));
            counted.fold(Footprint::default(), |sum, file| Footprint {
                bytes: sum.bytes + file.bytes,
                unique_bytes: sum.unique_bytes + if file.images == 1 { file.bytes } else { 0 },
            })
        };
        let images = needed.into_iter().map(|(manifest, paths)| (manifest, footprint(paths)));
        Ok(Footprints {
            images: images.collect(),
            bytes: files.values().map(|file| file.bytes).sum(),
            used_bytes: files.values().filter(|file| file.used).map(|file| file.bytes).sum(),
        })
    }
}
