//! What an upper changes: its entries, told from what the lower has under the same names.
//!
//! Only the upper is walked, perhaps while another process changes it: what has gone when it is looked
//! at is not told, and whoever needs one state of it has to see that nothing has changed meanwhile. A
//! directory that is new to the lower in its place (made anew over one that is gone, or moved there)
//! comes with all that it shows.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::layer::{Kind, join_path};
use crate::overlay::Overlay;
use crate::overlay::error::{Result, if_there};
use crate::overlay::item::Item;
use crate::overlay::lower::{LowerAttr, LowerId};
use crate::overlay::node::Node;
use crate::overlay::place::Place;
use crate::overlay::upper::Child;

/// A change of one name.
#[derive(Debug)]
pub struct Change<'a> {
    /// Path from the root, without a leading slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ChangeKind<'a>,
}

/// What a change is.
#[derive(Debug)]
pub enum ChangeKind<'a> {
    /// The lower has the name, and it is gone.
    Deleted,
    /// The lower has nothing under the name.
    Added(Item<'a>),
    /// The lower has something under the name.
    Modified {
        /// What is there now.
        item: Item<'a>,
        /// What the lower has.
        lower: LowerAttr,
        /// It is a directory that shows nothing of what the lower has in it.
        opaque: bool,
        /// It is a directory and just as the lower has it; perhaps something in it has changed.
        unchanged: bool,
    },
}

/// Takes changes.
pub(crate) type ChangeSink<'a, 'b, E> = &'b mut dyn FnMut(Change<'a>) -> std::result::Result<(), E>;

impl Overlay {
    /// Gives every change to `sink`, sorted by path: a directory before what is in it.
    pub fn changes<'a, E: From<crate::overlay::Error>>(
        &'a self,
        sink: ChangeSink<'a, '_, E>,
    ) -> std::result::Result<(), E> {
        if self.upper.is_none() {
            return Ok(());
        }
        let mut pending = self.merged_changes(&self.root, b"")?;
        pending.reverse();
        while let Some((change, descend)) = pending.pop() {
            let path = change.path.clone();
            sink(change)?;
            let below = match descend {
                Descend::No => continue,
                Descend::Merged(node) => self.merged_changes(&node, &path),
                Descend::Whole(place) => self.whole(&place, &path),
            };
            let mut below = if_there(below)?.unwrap_or_default();
            below.reverse();
            pending.append(&mut below);
        }
        Ok(())
    }

    /// Returns the changes of a directory that the lower has in the same place.
    fn merged_changes(&self, dir: &Arc<Node>, path: &[u8]) -> Result<Vec<(Change<'_>, Descend)>> {
        let mut changes = Vec::new();
        for name in self.sorted_upper_names(dir)? {
            let below = self.lower_lookup(dir.lower, &name)?.map(|found| found.id);
            let path = join_path(path, name.as_bytes());
            match self.upper_child(dir, &name)? {
                // It was removed meanwhile, or hides nothing.
                Child::Nothing => {}
                Child::Whiteout => {
                    if below.is_some() {
                        changes.push((Change { path, kind: ChangeKind::Deleted }, Descend::No));
                    }
                }
                Child::There(stat) => {
                    let node = self.node_in_upper(dir, &name, stat)?;
                    changes.extend(if_there(self.changed(path, node, below))?);
                }
            }
        }
        Ok(changes)
    }

    fn changed(
        &self,
        path: Vec<u8>,
        node: Arc<Node>,
        below: Option<LowerId>,
    ) -> Result<(Change<'_>, Descend)> {
        let is_dir = node.kind == Kind::Directory;
        let merged = is_dir && below.is_some() && node.lower == below;
        let place = Place::Node(Arc::clone(&node));
        let descend = match (is_dir, merged) {
            (false, _) => Descend::No,
            (true, true) => Descend::Merged(node),
            (true, false) => Descend::Whole(place.clone()),
        };
        let item = self.item(place);
        let kind = match below {
            None => ChangeKind::Added(item),
            Some(id) => {
                let lower = self.lower.attr(id)?;
                let was_dir = Kind::of(lower.mode) == Kind::Directory;
                let unchanged = merged && self.is_unchanged(&item, id)?;
                let opaque = is_dir && was_dir && !merged;
                ChangeKind::Modified { item, lower, opaque, unchanged }
            }
        };
        Ok((Change { path, kind }, descend))
    }

    /// Tells whether the root directory itself has other attributes than the lower's.
    pub fn root_has_changed(&self) -> Result<bool> {
        Ok(!self.is_unchanged(&self.root(), self.lower.root())?)
    }

    /// Tells whether a directory has the attributes that the lower one has.
    fn is_unchanged(&self, item: &Item<'_>, id: LowerId) -> Result<bool> {
        let (now, was) = (item.attr()?, self.lower.attr(id)?);
        if (now.mode, now.uid, now.gid, now.mtime) != (was.mode, was.uid, was.gid, was.mtime) {
            return Ok(false);
        }
        let mut xattrs = self.lower.xattrs(id)?;
        xattrs.sort();
        Ok(item.xattrs()? == xattrs)
    }

    /// Returns all that a directory shows, as additions.
    fn whole(&self, place: &Place, path: &[u8]) -> Result<Vec<(Change<'_>, Descend)>> {
        let mut changes = Vec::new();
        for (name, child) in self.sorted_children(place)? {
            let descend = match self.kind(&child)? {
                Kind::Directory => Descend::Whole(child.clone()),
                _ => Descend::No,
            };
            let kind = ChangeKind::Added(self.item(child));
            changes.push((Change { path: join_path(path, name.as_bytes()), kind }, descend));
        }
        Ok(changes)
    }

    /// Returns the names that the lower has in a directory that the union shows nothing of, sorted.
    pub fn hidden_by(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let dir = self.lower_at(Some(self.lower.root()), OsStr::from_bytes(path))?;
        let Some(dir) = dir else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        self.lower.entries(dir.id, 0, &mut |entry| {
            names.push(entry.name.as_bytes().to_vec());
            std::ops::ControlFlow::Continue(())
        })?;
        names.sort();
        Ok(names)
    }
}

/// What comes after a change.
enum Descend {
    /// It has nothing below it.
    No,
    /// The changes in a directory of both.
    Merged(Arc<Node>),
    /// All that a directory shows.
    Whole(Place),
}
