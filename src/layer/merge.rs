//! Putting layers on each other: the chain index that a mount maps.
//!
//! The layers are applied bottom first to one tree, as extracting them in order would, so the cost
//! is that of their entries together and nothing is left of the layers in a lookup. What OCI's
//! image-spec says of whiteouts holds: they hide what lower layers have, never what their own
//! layer has.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use crate::digest::{ChainId, DiffId};
use crate::layer::error::{Error, Result};
use crate::layer::format as f;
use crate::layer::format::{IndexKind, InodeRecord, WHITEOUT};
use crate::layer::index::Index;
use crate::layer::index_write::{Head, IndexWriter, Tables};
use crate::layer::limits::{Limits, PATH_BYTES_MAX};
use crate::layer::path::components;
use crate::layer::tree::{EntryId, InodeId, ROOT, Tree};

/// For so many entries room is made before they come.
const RESERVE_MAX: u64 = 1 << 20;

/// Writes the chain index of `layers`, bottom first, to an empty file. The entries of all of them
/// together, those too that others hide, are not more than `limits` allow.
///
/// # Errors
/// [`Error::LowerLink`] when a hard link of a layer leads to nothing in those below it,
/// [`Error::Limit`] when there are more entries than are allowed.
pub fn merge(layers: &[Index], limits: Limits, file: File) -> Result<File> {
    let mut tree = Tree::within(limits);
    // So many there are, if they are what they say; of those that are not, no more is taken than that.
    let entries = layers.iter().map(|layer| u64::from(layer.dirent_count())).sum::<u64>();
    tree.reserve(usize::try_from(entries.min(limits.entries).min(RESERVE_MAX)).unwrap_or(0));
    for number in 0..layers.len() {
        apply(layers, number, &mut tree)?;
    }
    finish(layers, tree, file)
}

/// Writes the same index, byte by byte, as [`merge`]; of all but the last of `layers` there is the chain
/// `base` already. What costs time is what the last layer has, and copying the tables of the base.
///
/// # Errors
/// [`Error::LowerLink`] when a hard link of the layer leads to nothing in the base.
pub fn merge_onto(base: Index, layers: &[Index], file: File) -> Result<File> {
    let top = layers.len().checked_sub(1).ok_or(Error::Damaged("a chain without layers"))?;
    if base.kind() != IndexKind::Chain || base.layer_count() != top {
        return Err(Error::Damaged("it is the chain of other layers"));
    }
    let mut tree = Tree::over(Arc::new(base))?;
    apply(layers, top, &mut tree)?;
    finish(layers, tree, file)
}

/// Writes the chain index of `layers`, which make this tree.
fn finish(layers: &[Index], mut tree: Tree, file: File) -> Result<File> {
    let ids: Vec<_> = layers.iter().map(|layer| DiffId(layer.id())).collect();
    let head = Head { kind: IndexKind::Chain, id: ChainId::of(&ids).0, tar_len: 0 };
    let tables = Tables { layers: ids, ..Tables::default() };
    IndexWriter::new(file)?.finish(head, &mut tree, &tables)
}

/// Puts the layer with this number on the tree that those below it make.
pub(crate) fn apply(layers: &[Index], number: usize, tree: &mut Tree) -> Result<()> {
    Apply { layers, number, tree, inodes: HashMap::new(), lower_links: Vec::new() }.run()
}

/// One layer being put on the tree.
struct Apply<'a> {
    layers: &'a [Index],
    number: usize,
    tree: &'a mut Tree,
    /// Inodes of the tree, by those of the layer that have several names.
    inodes: HashMap<u32, InodeId>,
    /// Entries that are links to lower layers, and where in the heap their targets are.
    lower_links: Vec<(EntryId, u64, u64)>,
}

impl<'a> Apply<'a> {
    fn run(mut self) -> Result<()> {
        let root = self.layer()?.inode(0)?;
        if !root.has(f::FLAG_IMPLICIT) {
            self.describe(ROOT, &root)?;
        }
        if root.has(f::FLAG_OPAQUE) {
            self.tree.clear(ROOT);
        }
        let layer = self.layer()?;
        // Whiteouts have no place of their own: directories that share them would make more of them than
        // there are.
        let mut left = layer.dirent_count();
        let mut pending = vec![((0, root), ROOT)];
        while let Some(((layer_dir, record), dir)) = pending.pop() {
            let (first, count) = record.dirents();
            left = left.checked_sub(count).ok_or(Error::Damaged("directories share entries"))?;
            for number in first..first.saturating_add(count) {
                let (entry, name) = layer.dirent(number)?;
                let inode = layer.listed((layer_dir, number), &entry)?;
                if let Some(subdir) = self.apply(dir, (entry.inode, inode), name)? {
                    pending.push(subdir);
                }
            }
        }
        self.resolve_lower_links()
    }

    fn layer(&self) -> Result<&'a Index> {
        self.layers.get(self.number).ok_or(Error::Damaged("layer number"))
    }

    /// Puts one entry on the tree; returns the pair of directories to go on with.
    fn apply(
        &mut self,
        dir: EntryId,
        (inode, record): (u32, Option<InodeRecord>),
        name: &[u8],
    ) -> Result<Option<((u32, InodeRecord), EntryId)>> {
        let Some(record) = record else {
            if let Some(hidden) = self.tree.child(dir, name)? {
                self.tree.remove(hidden);
            }
            return Ok(None);
        };
        if record.is_dir() {
            let target = self.apply_dir(dir, name, &record)?;
            return Ok(Some(((inode, record), target)));
        }
        if record.has(f::FLAG_LOWER_LINK) {
            let id = self.tree.put_link(dir, name, WHITEOUT)?;
            self.lower_links.push((id, record.data, record.size));
            return Ok(None);
        }
        if let Some(known) = self.inodes.get(&inode) {
            self.tree.put_link(dir, name, *known)?;
            return Ok(None);
        }
        let id = self.tree.put(dir, name, self.owned(record)?)?;
        if record.nlink > 1 {
            self.inodes.insert(inode, self.tree.inode_of(id));
        }
        Ok(None)
    }

    /// Puts a directory on the tree; returns where its entries go.
    fn apply_dir(&mut self, dir: EntryId, name: &[u8], record: &InodeRecord) -> Result<EntryId> {
        let implicit = record.has(f::FLAG_IMPLICIT);
        let opaque = record.has(f::FLAG_OPAQUE);
        let existing = self.tree.child(dir, name)?;
        if let Some(entry) = existing {
            if self.tree.is_dir(entry) {
                if opaque {
                    self.tree.clear(entry);
                }
                if !implicit {
                    self.describe(entry, record)?;
                }
                return Ok(entry);
            }
            // The layer names files below a symbolic link of a lower layer, but not the directory
            // itself: they belong where the link leads.
            if implicit
                && !opaque
                && let Some(target) = self.follow(entry)?
            {
                return Ok(target);
            }
        }
        let record = InodeRecord { flags: record.flags & f::FLAG_IMPLICIT, ..self.owned(*record)? };
        self.tree.put(dir, name, record)
    }

    /// Gives a directory of the tree the attributes that this layer says.
    fn describe(&mut self, entry: EntryId, record: &InodeRecord) -> Result<()> {
        let mut described = self.owned(*record)?;
        described.flags = 0;
        self.tree.update(entry, |old| *old = described);
        Ok(())
    }

    /// Returns an inode as the chain has it: it says which layer keeps its content.
    fn owned(&self, record: InodeRecord) -> Result<InodeRecord> {
        let layer = u32::try_from(self.number).map_err(|_| Error::TooMany("layers"))?;
        Ok(InodeRecord { layer, ..record })
    }

    fn follow(&mut self, entry: EntryId) -> Result<Option<EntryId>> {
        let layers = self.layers;
        self.tree.follow(entry, &|record| read_link(layers, record))
    }

    fn resolve_lower_links(self) -> Result<()> {
        let layer = self.layer()?;
        let Self { layers, tree, lower_links, .. } = self;
        for (entry, place, len) in lower_links {
            if len > PATH_BYTES_MAX as u64 {
                return Err(Error::Damaged("the target of a hard link is too long"));
            }
            let target = layer.heap(place, len)?;
            let path = components(target);
            let read_link = |record: &InodeRecord| read_link(layers, record);
            let found = tree.find(&path, &read_link)?;
            match found.filter(|found| !tree.is_dir(*found)) {
                Some(found) => tree.set_inode(entry, tree.inode_of(found)),
                None => {
                    return Err(Error::LowerLink {
                        path: String::from_utf8_lossy(&tree.path(entry)).into_owned(),
                        target: String::from_utf8_lossy(target).into_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

fn read_link(layers: &[Index], record: &InodeRecord) -> Result<Vec<u8>> {
    let layer = layers.get(record.layer as usize).ok_or(Error::Damaged("layer number"))?;
    layer.link_target(record).map(<[u8]>::to_vec)
}
