//! How much room images take on the disk.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::store::Store;
use crate::store::error::Result;
use crate::store::gc::{Marks, disk_bytes};

/// The room that an image takes, in bytes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// All that it needs.
    pub bytes: u64,
    /// What no other of the images needs: deleting it alone gives so much back.
    pub unique_bytes: u64,
}

impl Store {
    /// Returns the room that each of several images takes, and that they take together.
    pub fn footprints(&self, manifests: &[Digest]) -> Result<(Vec<Footprint>, u64)> {
        // Of each file, its bytes and how many of the images need it.
        let mut files: HashMap<PathBuf, (u64, u32)> = HashMap::new();
        let mut needed = Vec::new();
        for manifest in manifests {
            let mut marks = Marks::default();
            self.mark_image(*manifest, &mut marks);
            self.mark_all_objects(&mut marks);
            let paths = self.files_of(&marks);
            for path in &paths {
                let counted = files.entry(path.clone()).or_insert_with(|| (disk_bytes(path), 0));
                counted.1 += 1;
            }
            needed.push(paths);
        }
        let total = files.values().map(|(bytes, _)| bytes).sum();
        let footprint = |paths: Vec<PathBuf>| {
            let counted = paths.iter().filter_map(|path| files.get(path));
            counted.fold(Footprint::default(), |sum, (bytes, users)| Footprint {
                bytes: sum.bytes + bytes,
                unique_bytes: sum.unique_bytes + if *users == 1 { *bytes } else { 0 },
            })
        };
        Ok((needed.into_iter().map(footprint).collect(), total))
    }
}
