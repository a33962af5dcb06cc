//! What each layer of a stack holds, and what of the layers below it hides.
//!
//! The layers are put on a tree in memory one after the other; what is in the tree before and after
//! tells what has become invisible. A file with several names counts once and is hidden with its
//! last name.

use crate::layer::Kind;
use crate::layer::error::Result;
use crate::layer::format as f;
use crate::layer::format::WHITEOUT;
use crate::layer::index::Index;
use crate::layer::merge::apply;
use crate::layer::tree::{ROOT, Tree};

/// What a layer holds and hides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Names in the layer: files, directories that it describes, and what it says is gone.
    pub entries: u64,
    /// Files of lower layers, without directories, that are not seen any more.
    pub hidden_files: u64,
    /// The sizes of these, of regular files alone.
    pub hidden_bytes: u64,
}

/// Returns what each of the layers, bottom first, holds and hides.
pub fn account(layers: &[Index]) -> Result<Vec<Account>> {
    let mut tree = Tree::new();
    let mut accounts = Vec::new();
    let mut seen = Sum::default();
    for (number, layer) in layers.iter().enumerate() {
        apply(layers, number, &mut tree)?;
        let own = Sum::of_layer(layer)?;
        let now = Sum::of_tree(&tree);
        accounts.push(Account {
            entries: entries(layer)?,
            hidden_files: (seen.files + own.files).saturating_sub(now.files),
            hidden_bytes: seen.bytes.saturating_add(own.bytes).saturating_sub(now.bytes),
        });
        seen = now;
    }
    Ok(accounts)
}

fn entries(layer: &Index) -> Result<u64> {
    let mut count = 0;
    for number in 0..layer.dirent_count() {
        let (entry, _) = layer.dirent(number)?;
        if entry.inode == WHITEOUT || !layer.inode(entry.inode)?.has(f::FLAG_IMPLICIT) {
            count += 1;
        }
    }
    Ok(count)
}

/// How many files there are, without directories, and how large they are together.
#[derive(Clone, Copy, Default)]
struct Sum {
    files: u64,
    bytes: u64,
}

impl Sum {
    fn of_layer(layer: &Index) -> Result<Self> {
        let mut sum = Self::default();
        for number in 0..layer.inode_count() {
            let record = layer.inode(number)?;
            if !record.is_dir() && !record.has(f::FLAG_LOWER_LINK) {
                sum.add(&record);
            }
        }
        Ok(sum)
    }

    fn of_tree(tree: &Tree) -> Self {
        let mut sum = Self::default();
        let mut known = vec![false; tree.inode_count()];
        let mut pending = vec![ROOT];
        while let Some(dir) = pending.pop() {
            for entry in tree.children(dir) {
                if tree.is_dir(entry) {
                    pending.push(entry);
                    continue;
                }
                let is_known = known.get_mut(tree.inode_of(entry) as usize);
                if let (Some(is_known), Some(record)) = (is_known, tree.record(entry))
                    && !std::mem::replace(is_known, true)
                {
                    sum.add(record);
                }
            }
        }
        sum
    }

    fn add(&mut self, record: &f::InodeRecord) {
        self.files += 1;
        if Kind::of(record.mode) == Kind::Regular {
            self.bytes = self.bytes.saturating_add(record.size);
        }
    }
}
