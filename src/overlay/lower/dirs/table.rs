//! What is known of the files of a stack: where each was found.
//!
//! An entry stays while it is kept, because the kernel knows the file or somebody works with it, or
//! something below it is.
//!
//! A kernel knows very many files, so an entry is small and lies in a row with the others: an index
//! of their places finds it. What few files have is in tables of its own.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use parking_lot::RwLock;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::LowerId;
use crate::overlay::lower::dirs::merge::Part;
use crate::overlay::lower::dirs::name::Name;
use crate::overlay::node::give_room_back;

/// A table keeps room for so many files.
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

/// A file that is known, the root apart.
#[derive(Debug)]
struct Entry {
    id: LowerId,
    /// The name by which it was found first.
    dir: LowerId,
    name: Name,
    /// How often it is kept.
    kept: u16,
    layer: u16,
    kind: Kind,
    has_links: bool,
}

#[derive(Debug)]
struct Dir {
    parts: Arc<[Part]>,
    /// Names of entries that are in it.
    children: u32,
}

#[derive(Debug, Default)]
struct Entries {
    list: Vec<Entry>,
    /// Where in the list an entry is, by its number.
    places: HashTable<u32>,
    hasher: RandomState,
    dirs: HashMap<LowerId, Dir>,
    /// Names but the first.
    more_names: HashMap<LowerId, Vec<(LowerId, OsString)>>,
    /// Contents that another layer has.
    data: HashMap<LowerId, Arc<(u16, OsString)>>,
}

/// The files of a stack that are known.
#[derive(Debug)]
pub(super) struct Table(RwLock<Entries>);

impl Table {
    pub(super) fn new() -> Self {
        Self(RwLock::default())
    }

    pub(super) fn add_root(&self, id: LowerId, parts: Vec<Part>) {
        self.0.write().dirs.insert(id, Dir { parts: parts.into(), children: 0 });
    }

    /// Notes that a file was found under a name, and keeps it.
    pub(super) fn add(&self, id: LowerId, dir: LowerId, name: &OsStr, at: At) {
        let mut entries = self.0.write();
        match entries.get(id) {
            Some(entry) if entry.is_called(dir, name) => {}
            Some(_) => entries.add_name(id, dir, name),
            None if entries.dirs.contains_key(&id) => {}
            None => entries.insert(id, dir, name, at),
        }
        entries.keep(id);
    }

    /// Tells whether no file but the one with this name has a number.
    pub(super) fn is_free_for(&self, id: LowerId, dir: LowerId, name: &OsStr) -> bool {
        self.0.read().get(id).is_none_or(|entry| entry.is_called(dir, name))
    }

    pub(super) fn at(&self, id: LowerId) -> Result<At> {
        let entries = self.0.read();
        if let Some(entry) = entries.get(id).filter(|entry| entry.kind != Kind::Directory) {
            let Entry { layer, kind, has_links, .. } = *entry;
            let data = entries.data.get(&id).cloned();
            return Ok(At::File { layer, kind, has_links, data });
        }
        let dir = entries.dirs.get(&id).ok_or(Error::Stale(id.0))?;
        Ok(At::Dir(Arc::clone(&dir.parts)))
    }

    /// Returns the name by which a file was found first.
    pub(super) fn name(&self, id: LowerId) -> Result<(LowerId, OsString)> {
        let entries = self.0.read();
        let entry = entries.get(id).ok_or(Error::Stale(id.0))?;
        Ok((entry.dir, entry.name.as_os_str().to_owned()))
    }

    pub(super) fn names(&self, id: LowerId) -> Result<Vec<(LowerId, OsString)>> {
        let entries = self.0.read();
        let Some(entry) = entries.get(id) else {
            // The root has none.
            return entries.dirs.get(&id).map(|_| Vec::new()).ok_or(Error::Stale(id.0));
        };
        let mut names = vec![(entry.dir, entry.name.as_os_str().to_owned())];
        names.extend(entries.more_names.get(&id).into_iter().flatten().cloned());
        Ok(names)
    }

    /// Keeps a file once more, if it is known; tells whether it is.
    pub(super) fn keep(&self, id: LowerId) -> bool {
        self.0.write().keep(id)
    }

    /// Undoes one [`Table::keep`]; tells whether the file is not known any more.
    pub(super) fn forget(&self, id: LowerId) -> bool {
        let mut entries = self.0.write();
        let Some(entry) = entries.get_mut(id) else { return false };
        // What was kept more often than there is room to count stays.
        if entry.kept < u16::MAX {
            entry.kept = entry.kept.saturating_sub(1);
        }
        entries.drop_unused(id)
    }

    /// Returns how many files are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.read().list.len()
    }
}

impl Entry {
    fn is_called(&self, dir: LowerId, name: &OsStr) -> bool {
        self.dir == dir && self.name.as_os_str() == name
    }
}

impl Entries {
    fn get(&self, id: LowerId) -> Option<&Entry> {
        self.list.get(self.place(id)?)
    }

    fn get_mut(&mut self, id: LowerId) -> Option<&mut Entry> {
        let place = self.place(id)?;
        self.list.get_mut(place)
    }

    fn keep(&mut self, id: LowerId) -> bool {
        let Some(entry) = self.get_mut(id) else { return false };
        entry.kept = entry.kept.saturating_add(1);
        true
    }

    fn place(&self, id: LowerId) -> Option<usize> {
        let is_it = |place: &u32| self.is_at(id, *place);
        self.places.find(self.hasher.hash_one(id), is_it).map(|place| *place as usize)
    }

    fn is_at(&self, id: LowerId, place: u32) -> bool {
        self.list.get(place as usize).is_some_and(|entry| entry.id == id)
    }

    fn insert(&mut self, id: LowerId, dir: LowerId, name: &OsStr, at: At) {
        // As many entries would fill 200 GB.
        let Ok(place) = u32::try_from(self.list.len()) else { return };
        let (layer, kind, has_links) = match at {
            At::Dir(parts) => {
                self.dirs.insert(id, Dir { parts, children: 0 });
                (0, Kind::Directory, false)
            }
            At::File { layer, kind, has_links, data } => {
                self.data.extend(data.map(|data| (id, data)));
                (layer, kind, has_links)
            }
        };
        self.list.push(Entry { id, dir, name: Name::new(name), kept: 0, layer, kind, has_links });
        let Self { list, places, hasher, .. } = self;
        places.insert_unique(hasher.hash_one(id), place, |place| hash_at(list, hasher, *place));
        self.count_child(dir);
    }

    /// Notes another name of a file.
    fn add_name(&mut self, id: LowerId, dir: LowerId, name: &OsStr) {
        let more = self.more_names.entry(id).or_default();
        if !more.iter().any(|(other, known)| *other == dir && known == name) {
            more.push((dir, name.to_owned()));
            self.count_child(dir);
        }
    }

    fn count_child(&mut self, dir: LowerId) {
        if let Some(dir) = self.dirs.get_mut(&dir) {
            dir.children += 1;
        }
    }

    /// Takes an entry out; the last of the list takes its place. Adds the directories of its names to
    /// `above`.
    fn remove(&mut self, id: LowerId, above: &mut Vec<LowerId>) -> Option<()> {
        let Self { list, places, hasher, .. } = self;
        let is_it = |place: &u32| list.get(*place as usize).is_some_and(|entry| entry.id == id);
        let found = places.find_entry(hasher.hash_one(id), is_it).ok()?;
        let (place, _) = found.remove();
        let last = u32::try_from(list.len() - 1).unwrap_or(u32::MAX);
        if place != last
            && let Some(moved) = places.find_mut(hash_at(list, hasher, last), |at| *at == last)
        {
            *moved = place;
        }
        let entry = list.swap_remove(place as usize);
        self.dirs.remove(&id);
        self.data.remove(&id);
        let more = self.more_names.remove(&id).unwrap_or_default();
        for dir in more.into_iter().map(|(dir, _)| dir).chain([entry.dir]) {
            if let Some(dir) = self.dirs.get_mut(&dir) {
                dir.children = dir.children.saturating_sub(1);
            }
            above.push(dir);
        }
        Some(())
    }

    /// Drops an entry that nobody needs, and those above it that nobody else does; tells whether it
    /// did.
    fn drop_unused(&mut self, id: LowerId) -> bool {
        let (mut pending, mut has_dropped) = (vec![id], false);
        while let Some(id) = pending.pop() {
            let is_kept = self.get(id).is_none_or(|entry| entry.kept > 0);
            let is_parent = self.dirs.get(&id).is_some_and(|dir| dir.children > 0);
            if !is_kept && !is_parent {
                has_dropped |= self.remove(id, &mut pending).is_some();
            }
        }
        if has_dropped {
            self.give_room_back();
        }
        has_dropped
    }

    fn give_room_back(&mut self) {
        let used = self.list.len().max(LEAST_ROOM);
        if self.list.capacity() > 4 * used {
            self.list.shrink_to(2 * used);
            let Self { list, places, hasher, .. } = self;
            places.shrink_to(2 * used, |place| hash_at(list, hasher, *place));
        }
        give_room_back(&mut self.dirs, LEAST_ROOM);
        give_room_back(&mut self.more_names, LEAST_ROOM);
        give_room_back(&mut self.data, LEAST_ROOM);
    }
}

/// Returns the hash of the number of the entry at a place.
fn hash_at(list: &[Entry], hasher: &RandomState, place: u32) -> u64 {
    list.get(place as usize).map_or(0, |entry| hasher.hash_one(entry.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 48);
    }

    #[test]
    fn files_are_found_by_their_numbers_while_others_come_and_go() {
        let table = Table::new();
        let (root, dir) = (LowerId(1), LowerId(2));
        table.add_root(root, Vec::new());
        table.add(dir, root, "dir".as_ref(), At::Dir(Arc::from([])));
        let file = |layer| At::File { layer, kind: Kind::Regular, has_links: false, data: None };
        let name = |number: u16| OsString::from(format!("{number}-{}", "x".repeat(number.into())));
        for round in 0..4 {
            for number in 3..100 {
                let id = LowerId(number.into());
                table.add(id, dir, &name(number), file(number));
            }
            assert!(!table.forget(dir), "files in it are known");
            for number in 3..100 {
                let id = LowerId(number.into());
                assert_eq!(table.names(id).unwrap(), [(dir, name(number))]);
                let At::File { layer, .. } = table.at(id).unwrap() else { panic!("{number}") };
                assert_eq!(layer, number);
                let is_dropped = table.forget(id);
                assert!(is_dropped && table.at(id).is_err(), "{number}");
            }
            assert!(table.at(dir).is_err(), "nothing is in it any more: round {round}");
            table.add(dir, root, "dir".as_ref(), At::Dir(Arc::from([])));
        }
        assert!(table.names(root).unwrap().is_empty());
    }

    #[test]
    fn memory_is_given_back() {
        let table = Table::new();
        table.add_root(LowerId(1), Vec::new());
        let at = || At::File { layer: 0, kind: Kind::Fifo, has_links: false, data: None };
        for number in 2..50_000 {
            table.add(LowerId(number), LowerId(1), number.to_string().as_ref(), at());
        }
        for number in 2..50_000 {
            assert!(table.forget(LowerId(number)));
        }
        let entries = table.0.read();
        assert!(entries.list.capacity() <= 4 * LEAST_ROOM, "{}", entries.list.capacity());
        assert!(entries.places.capacity() <= 8 * LEAST_ROOM, "{}", entries.places.capacity());
    }
}
