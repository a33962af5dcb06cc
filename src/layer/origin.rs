//! Which layer last set a file: its content, and its attributes.
//!
//! A layer that changes the mode of a file holds its content again. So the layers are put on a tree
//! in memory one after the other, and after each the files are held against what they were before.

use std::collections::BTreeMap;

use crate::layer::Kind;
use crate::layer::error::{Error, Result};
use crate::layer::format as f;
use crate::layer::format::InodeRecord;
use crate::layer::index::Index;
use crate::layer::merge::apply;
use crate::layer::path::{components, join_path};
use crate::layer::tree::{EntryId, Tree};

/// Which layers have made a file what it is; the lowest layer is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// From the root, without a leading slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The layer that last changed its content, its target or its device; a directory has none.
    pub content: Option<usize>,
    /// The layer that last changed its permissions, owner or extended attributes, or the time of
    /// what is not a directory.
    pub attributes: usize,
}

/// How far below a path to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What is in the directory; of another file, the file.
    Entries,
    /// The file and all that is below it.
    All,
}

/// A file as a layer has left it.
#[derive(Clone, Copy)]
struct State {
    record: InodeRecord,
    content: usize,
    attributes: usize,
}

/// Returns which of the layers, bottom first, have made what is at a path; none if nothing is
/// there. Links on the way are followed, one at the end is not.
pub fn origins(layers: &[Index], path: &[u8], depth: Depth) -> Result<Option<Vec<Origin>>> {
    let path = components(path);
    let mut tree = Tree::new();
    let mut known = None;
    for number in 0..layers.len() {
        apply(layers, number, &mut tree)?;
        let before = known.unwrap_or_default();
        known = look(layers, number, &mut tree, &path, depth, &before)?;
    }
    let origin = |(path, state): (Vec<Vec<u8>>, State)| {
        let kind = Kind::of(state.record.mode);
        Origin {
            path: path.iter().fold(Vec::new(), |path, name| join_path(&path, name)),
            kind,
            content: (kind != Kind::Directory).then_some(state.content),
            attributes: state.attributes,
        }
    };
    Ok(known.map(|known| known.into_iter().map(origin).collect()))
}

/// Files by the names that lead to them, so that a directory comes right before what is in it.
type Known = BTreeMap<Vec<Vec<u8>>, State>;

/// Returns what is there after a layer was put on, told from what was there before.
fn look(
    layers: &[Index],
    number: usize,
    tree: &mut Tree,
    path: &[&[u8]],
    depth: Depth,
    before: &Known,
) -> Result<Option<Known>> {
    let mut now = Known::new();
    let read_link = |record: &InodeRecord| {
        let layer = layers.get(record.layer as usize).ok_or(Error::Damaged("layer number"))?;
        layer.link_target(record).map(<[u8]>::to_vec)
    };
    let Some(start) = tree.find(path, &read_link)? else { return Ok(None) };
    let names: Vec<Vec<u8>> = path.iter().map(|name| name.to_vec()).collect();
    let mut pending: Vec<(Vec<Vec<u8>>, EntryId)> = vec![(names.clone(), start)];
    while let Some((at, entry)) = pending.pop() {
        let is_start = at.len() == names.len();
        if tree.is_dir(entry) && (is_start || depth == Depth::All) {
            for child in tree.children(entry).filter(|child| !tree.is_whiteout(*child)) {
                let below = at.iter().cloned().chain([tree.name(child).to_vec()]);
                pending.push((below.collect(), child));
            }
            if is_start && depth == Depth::Entries {
                continue;
            }
        }
        let Some(record) = tree.record(entry).copied() else { continue };
        let state = match before.get(&at) {
            None => State { record, content: number, attributes: number },
            Some(old) => State {
                record,
                content: if has_same_content(layers, &old.record, &record)? {
                    old.content
                } else {
                    number
                },
                attributes: if has_same_attributes(layers, &old.record, &record)? {
                    old.attributes
                } else {
                    number
                },
            },
        };
        now.insert(at, state);
    }
    Ok(Some(now))
}

fn has_same_content(layers: &[Index], old: &InodeRecord, new: &InodeRecord) -> Result<bool> {
    let kind = Kind::of(new.mode);
    if kind != Kind::of(old.mode) || old.size != new.size {
        return Ok(false);
    }
    Ok(match kind {
        Kind::Character | Kind::Block => old.data == new.data,
        Kind::Symlink => {
            keeper(layers, old)?.link_target(old)? == keeper(layers, new)?.link_target(new)?
        }
        Kind::Regular => {
            let (one, two) = (keeper(layers, old)?, keeper(layers, new)?);
            match (old.has(f::FLAG_OBJECT), new.has(f::FLAG_OBJECT)) {
                (true, true) => one.object(old.data)? == two.object(new.data)?,
                (false, false) => inline(one, old)? == inline(two, new)?,
                _ => false,
            }
        }
        Kind::Directory | Kind::Fifo | Kind::Socket => true,
    })
}

fn inline<'a>(layer: &'a Index, record: &InodeRecord) -> Result<&'a [u8]> {
    if record.has(f::FLAG_INLINE) { layer.heap(record.data, record.size) } else { Ok(&[]) }
}

fn has_same_attributes(layers: &[Index], old: &InodeRecord, new: &InodeRecord) -> Result<bool> {
    let is_dir = new.is_dir();
    let is_same = (old.mode, old.uid, old.gid) == (new.mode, new.uid, new.gid)
        && (is_dir || old.mtime == new.mtime);
    let xattrs = |record: &InodeRecord| match record.xattrs {
        0 => Ok(Vec::new()),
        set => keeper(layers, record)?.xattrs(set),
    };
    Ok(is_same && xattrs(old)? == xattrs(new)?)
}

fn keeper<'a>(layers: &'a [Index], record: &InodeRecord) -> Result<&'a Index> {
    layers.get(record.layer as usize).ok_or(Error::Damaged("layer number"))
}
