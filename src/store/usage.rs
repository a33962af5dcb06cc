//! How much room images take on the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::store::Store;
use crate::store::error::Result;
use crate::store::gc::{Marks, disk_bytes};
use crate::store::refs::{read_ref, readable};

/// The room that an image or a snapshot takes, in bytes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// All that it needs.
    pub bytes: u64,
    /// What no other of its kind needs: deleting it alone gives so much back.
    pub unique_bytes: u64,
}

/// What is known of a file of the store.
struct Counted {
    bytes: u64,
    /// How many images need it.
    images: u32,
}

/// The room that the names of images take.
#[derive(Debug, Default)]
pub(crate) struct RoomOfNames {
    /// Each record with the directories that are there for it, and its bytes, by the image.
    records: HashMap<Digest, Vec<(Vec<PathBuf>, u64)>>,
    /// Those that lead nowhere.
    others_bytes: u64,
    /// How many records are below each directory, and its bytes.
    dirs: HashMap<PathBuf, (usize, u64)>,
}

impl RoomOfNames {
    /// Returns the bytes of all.
    pub(crate) fn bytes(&self) -> u64 {
        let records = self.records.values().flatten().map(|(_, bytes)| bytes);
        let dirs = self.dirs.values().map(|(_, bytes)| bytes);
        records.chain(dirs).sum::<u64>() + self.others_bytes
    }

    /// Returns the bytes that come back when these images lose all their names.
    pub(crate) fn bytes_of<'a>(&self, images: impl IntoIterator<Item = &'a Digest>) -> u64 {
        let mut below: HashMap<&Path, usize> = HashMap::new();
        let mut sum = 0;
        for (dirs, bytes) in
            images.into_iter().filter_map(|image| self.records.get(image)).flatten()
        {
            sum += bytes;
            dirs.iter().for_each(|dir| *below.entry(dir).or_default() += 1);
        }
        let emptied = below.into_iter().filter_map(|(dir, count)| {
            self.dirs.get(dir).filter(|(all, _)| *all == count).map(|(_, bytes)| bytes)
        });
        sum + emptied.sum::<u64>()
    }
}

impl Store {
    /// Returns the room that each of some images takes, names included.
    pub fn footprints(&self, manifests: &BTreeSet<Digest>) -> Result<BTreeMap<Digest, Footprint>> {
        let names = self.room_of_names()?;
        let mut targets: HashMap<Digest, Vec<Digest>> = HashMap::new();
        for (_, to) in self.references()? {
            targets.entry(to.manifest).or_default().extend(to.target);
        }
        let mut files: HashMap<PathBuf, Counted> = HashMap::new();
        let mut needed = Vec::new();
        for manifest in manifests {
            let mut marks = Marks::default();
            let marked = self.mark_image(*manifest, &mut marks);
            // What cannot be read counts nothing.
            if let Err(error) = marked.and_then(|()| self.mark_all_objects(&mut marks)) {
                tracing::warn!("{error}");
            }
            marks.add_blobs(targets.get(manifest).into_iter().flatten());
            let paths = self.files_of(&marks);
            for path in &paths {
                let new = || Counted { bytes: disk_bytes(path), images: 0 };
                files.entry(path.clone()).or_insert_with(new).images += 1;
            }
            needed.push((*manifest, paths));
        }
        let footprint = |manifest: &Digest, paths: Vec<PathBuf>| {
            let counted = paths.iter().filter_map(|path| files.get(path));
            let own_bytes = names.bytes_of([manifest]);
            let start = Footprint { bytes: own_bytes, unique_bytes: own_bytes };
            counted.fold(start, |sum, file| Footprint {
                bytes: sum.bytes + file.bytes,
                unique_bytes: sum.unique_bytes + if file.images == 1 { file.bytes } else { 0 },
            })
        };
        let images = needed.into_iter();
        Ok(images.map(|(manifest, paths)| (manifest, footprint(&manifest, paths))).collect())
    }

    /// Returns the room that the names of images take.
    pub(crate) fn room_of_names(&self) -> Result<RoomOfNames> {
        let mut room = RoomOfNames::default();
        for (path, _) in self.ref_files()? {
            let dirs: Vec<_> = self.own_dirs(&path).map(Path::to_owned).collect();
            for dir in &dirs {
                let new = || (0, disk_bytes(dir));
                room.dirs.entry(dir.clone()).or_insert_with(new).0 += 1;
            }
            let bytes = disk_bytes(&path);
            match readable(read_ref(&path))?.flatten() {
                Some(to) => room.records.entry(to.manifest).or_default().push((dirs, bytes)),
                None => room.others_bytes += bytes,
            }
        }
        Ok(room)
    }
}
