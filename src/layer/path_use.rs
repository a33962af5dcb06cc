//! Which paths a stack of layers holds more than once, and what they take.
//!
//! The layers are put on a tree in memory one after the other. What is new in the tree after a layer
//! is what the layer writes; what is in it no more is what the layer removes, whether by a whiteout,
//! by an opaque directory, or by a file in the place of a directory. Directories have no size and do
//! not count.

use std::collections::{BTreeMap, HashSet};

use crate::layer::error::Result;
use crate::layer::index::Index;
use crate::layer::merge::apply;
use crate::layer::tree::{EntryId, InodeId, ROOT, Tree};

/// A path, and the layers that write or remove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathUse {
    /// From the root, without a leading slash.
    pub path: Vec<u8>,
    /// How many layers write or remove it.
    pub layers: u64,
    /// The sum of its sizes in bytes. Only the contents of regular files have a size, and of several
    /// names of a file only the first.
    pub bytes: u64,
    /// The smallest of its sizes in bytes; where a layer removes it that is 0.
    pub least_bytes: u64,
}

/// Returns what each path takes in the layers, bottom first, that write or remove it, sorted by path.
pub fn path_uses(layers: &[Index]) -> Result<Vec<PathUse>> {
    let mut tree = Tree::new();
    let mut uses: BTreeMap<Vec<u8>, PathUse> = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut counted = HashSet::new();
    for number in 0..layers.len() {
        apply(layers, number, &mut tree)?;
        let now = files(&tree);
        let gone = seen.difference(&now).map(|entry| (tree.path(*entry), None));
        let new = now.difference(&seen).map(|entry| (tree.path(*entry), Some(*entry)));
        // What is removed and written again is written.
        let told: BTreeMap<Vec<u8>, Option<EntryId>> = gone.chain(new).collect();
        for (path, entry) in told {
            let size = entry.map_or(0, |entry| own_size(&tree, entry, &mut counted));
            let known = uses.entry(path.clone()).or_insert(PathUse {
                path,
                layers: 0,
                bytes: 0,
                least_bytes: size,
            });
            known.layers += 1;
            known.bytes = known.bytes.saturating_add(size);
            known.least_bytes = known.least_bytes.min(size);
        }
        seen = now;
    }
    Ok(uses.into_values().collect())
}

/// Returns the entries that are no directories.
fn files(tree: &Tree) -> HashSet<EntryId> {
    let mut found = HashSet::new();
    let mut pending = vec![ROOT];
    while let Some(dir) = pending.pop() {
        for entry in tree.children(dir) {
            if tree.is_dir(entry) {
                pending.push(entry);
            } else {
                found.insert(entry);
            }
        }
    }
    found
}

/// Returns the size of a regular file that no other name has counted.
fn own_size(tree: &Tree, entry: EntryId, counted: &mut HashSet<InodeId>) -> u64 {
    match tree.record(entry) {
        Some(record) if record.is_regular() && counted.insert(tree.inode_of(entry)) => record.size,
        _ => 0,
    }
}
