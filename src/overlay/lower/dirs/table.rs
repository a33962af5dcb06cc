//! What is known of the files of a stack: where each was found.
//!
//! An entry stays while it is kept, because the kernel knows the file, or something below it is. One
//! that was only passed by is dropped when the table has doubled twice since.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::LowerId;
use crate::overlay::lower::dirs::merge::Part;
use crate::overlay::node::give_room_back;

/// The table keeps room for so many files.
const LEAST_ROOM: usize = 1024;

/// Where a file is.
#[derive(Clone, Debug)]
pub(super) enum At {
    /// A directory: its part of each layer, top first.
    Dir(Arc<[Part]>),
    /// Another file, in the part of its directory of this layer.
    File {
        /// The layer.
        layer: u16,
        /// What it is on the disk.
        kind: Kind,
        /// It has other names.
        has_links: bool,
        /// Where its content is, if another layer has that (`metacopy`).
        data: Option<Arc<(u16, OsString)>>,
    },
}

#[derive(Debug)]
struct Entry {
    at: At,
    names: Vec<(LowerId, Box<OsStr>)>,
    /// Entries whose first name is in this directory.
    children: u32,
    /// How often it is kept.
    kept: u32,
    /// It was asked for since the last sweep.
    used: bool,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<LowerId, Entry>,
    swept_at: usize,
}

/// The files of a stack that are known.
#[derive(Debug)]
pub(super) struct Table(Mutex<Entries>);

impl Table {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) fn add_root(&self, id: LowerId, parts: Vec<Part>) {
        let at = At::Dir(parts.into());
        let entry = Entry { at, names: Vec::new(), children: 0, kept: 1, used: true };
        self.0.lock().by_id.insert(id, entry);
    }

    /// Notes that a file was found under a name.
    pub(super) fn add(&self, id: LowerId, dir: LowerId, name: &OsStr, at: At) {
        let mut entries = self.0.lock();
        entries.sweep();
        if let Some(entry) = entries.by_id.get_mut(&id) {
            entry.used = true;
            let known = entry.names.iter().any(|(other, known)| *other == dir && **known == *name);
            if !known && !entry.names.is_empty() {
                entry.names.push((dir, name.into()));
            }
            return;
        }
        let names = vec![(dir, Box::from(name))];
        entries.by_id.insert(id, Entry { at, names, children: 0, kept: 0, used: true });
        if let Some(dir) = entries.by_id.get_mut(&dir) {
            dir.children += 1;
        }
    }

    /// Tells whether no file but the one with this name has a number.
    pub(super) fn is_free_for(&self, id: LowerId, dir: LowerId, name: &OsStr) -> bool {
        let entries = self.0.lock();
        let known = entries.by_id.get(&id).and_then(|entry| entry.names.first());
        known.is_none_or(|(other, known)| *other == dir && **known == *name)
    }

    pub(super) fn at(&self, id: LowerId) -> Result<At> {
        let mut entries = self.0.lock();
        let entry = entries.by_id.get_mut(&id).ok_or(Error::Stale(id.0))?;
        entry.used = true;
        Ok(entry.at.clone())
    }

    /// Returns the name by which a file was found first.
    pub(super) fn name(&self, id: LowerId) -> Result<(LowerId, OsString)> {
        let entries = self.0.lock();
        let name = entries.by_id.get(&id).and_then(|entry| entry.names.first());
        name.map(|(dir, name)| (*dir, name.to_os_string())).ok_or(Error::Stale(id.0))
    }

    pub(super) fn names(&self, id: LowerId) -> Result<Vec<(LowerId, OsString)>> {
        let entries = self.0.lock();
        let entry = entries.by_id.get(&id).ok_or(Error::Stale(id.0))?;
        Ok(entry.names.iter().map(|(dir, name)| (*dir, name.to_os_string())).collect())
    }

    pub(super) fn keep(&self, id: LowerId) {
        if let Some(entry) = self.0.lock().by_id.get_mut(&id) {
            entry.kept += 1;
        }
    }

    pub(super) fn forget(&self, id: LowerId) {
        let mut entries = self.0.lock();
        if let Some(entry) = entries.by_id.get_mut(&id).filter(|entry| !entry.names.is_empty()) {
            entry.kept = entry.kept.saturating_sub(1);
            entry.used = false;
            entries.drop_unused(id);
        }
    }

    /// Returns how many files are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().by_id.len()
    }
}

impl Entries {
    /// Drops an entry that nobody needs, and those above it that nobody else does.
    fn drop_unused(&mut self, id: LowerId) {
        let mut at = id;
        while let Some(entry) = self.by_id.get(&at) {
            if entry.kept > 0 || entry.used || entry.children > 0 {
                return;
            }
            let Some(entry) = self.by_id.remove(&at) else { return };
            let Some((dir, _)) = entry.names.first() else { return };
            at = *dir;
            if let Some(dir) = self.by_id.get_mut(&at) {
                dir.children = dir.children.saturating_sub(1);
            }
            give_room_back(&mut self.by_id, LEAST_ROOM);
        }
    }

    /// Drops what was not asked for since the last time; called when the table has doubled.
    fn sweep(&mut self) {
        if self.by_id.len() < 2 * self.swept_at.max(LEAST_ROOM) {
            return;
        }
        let unused: Vec<_> = self
            .by_id
            .iter_mut()
            .filter_map(|(id, entry)| {
                let used = std::mem::take(&mut entry.used);
                (!used && entry.kept == 0 && entry.children == 0).then_some(*id)
            })
            .collect();
        for id in unused {
            self.drop_unused(id);
        }
        self.swept_at = self.by_id.len();
    }
}
