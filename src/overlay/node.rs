//! Nodes: what the overlay knows of a file beyond what the lower says of it.
//!
//! A file that is only in the lower needs no node: its number is all. A node is made when the file
//! is in the upper, is open for changing, or has lost its name. It is reached from the table while
//! the kernel knows the file, and from the nodes of what is below it, because where a file is in the
//! upper is said by its directory's node and a name.
//!
//! Lock order: `Node::change` of a file before that of its directory, and of two unrelated files by
//! number; then `Node::state`, which is held for moments, never across a system call, and never two
//! at once.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::layer::Kind;
use crate::overlay::Ino;
use crate::overlay::lower::{LowerFound, LowerId};
use crate::overlay::notes::{Note, Pin};
use crate::overlay::open::{Content, OpenFile};

/// A file that the overlay must remember.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its number.
    pub(crate) ino: Ino,
    /// What it is.
    pub(crate) kind: Kind,
    /// Of a directory: what is merged below it. Of another file: where it comes from.
    pub(crate) lower: Option<LowerId>,
    /// Keeps that known.
    _found: Option<LowerFound>,
    /// Held while the file is copied up or its names change.
    pub(crate) change: Mutex<()>,
    pub(crate) state: Mutex<State>,
}

/// What changes about a node.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Its inode in the upper; none while it is only in the lower.
    pub(crate) upper: Option<u64>,
    /// Names that it is known to have in the upper.
    pub(crate) names: Vec<Name>,
    /// It has no name any more, in the upper or the lower.
    pub(crate) gone: bool,
    /// Its content is still in the lower, though it is in the upper.
    pub(crate) content_in_lower: bool,
    /// The file itself, for one that has lost the names by which it could be found.
    pub(crate) pin: Option<Pin>,
    /// What is noted of one of the lower that is gone.
    pub(crate) gone_note: Option<Note>,
    /// It has another number than its place says.
    pub(crate) number: Numbered,
    /// It is in the index: a file of the lower whose names are not all known. This many more names
    /// than the upper file has links does the union show.
    pub(crate) more_links: Option<i64>,
    /// It is neither set-uid nor set-gid; false if that is not known.
    pub(crate) has_no_set_ids: bool,
    /// It is in the upper and has no `security.capability`; false if that is not known.
    pub(crate) has_no_capability: bool,
    /// What tells it from earlier files of the upper with its number; 0 for one of the lower.
    pub(crate) generation: u32,
    /// Its content, while somebody has it open.
    pub(crate) file: Weak<OpenFile>,
    /// How many names a lower file of several still has, once it was counted.
    pub(crate) lower_links: Option<u32>,
    /// Of a directory: how its marks are, and how many more subdirectories it has than the lower.
    pub(crate) dir: DirState,
}

/// What new files get from the directory that they are made in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heritage {
    /// Its mode, and its group, which they get if that has set-gid.
    pub(crate) mode: u32,
    pub(crate) gid: u32,
    /// It has a default access control list.
    pub(crate) acl: bool,
}

/// Whether the number of a file is the one that its place says.
#[derive(Debug, Default)]
pub(crate) enum Numbered {
    /// It is.
    #[default]
    ByPlace,
    /// It is not, and that is noted, if anybody wants to know.
    Otherwise(#[allow(dead_code, reason = "it is had, not read")] Option<Note>),
}

impl Numbered {
    /// Tells whether it is known that the place says another number.
    pub(crate) const fn is_noted(&self) -> bool {
        matches!(self, Self::Otherwise(_))
    }
}

/// What a directory in the upper is like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DirState {
    /// What new files get from it; none until it was asked for.
    pub(crate) heritage: Option<Heritage>,
    /// Its whiteouts are attributes of empty files.
    pub(crate) xattr_whiteouts: bool,
    /// It has no lower directory, but files that come from the lower.
    pub(crate) impure: bool,
    /// Subdirectories that are shown less those of the lower; none until they are counted.
    pub(crate) more_subdirs: Option<i64>,
    /// How often its names or attributes have changed.
    pub(crate) version: u64,
}

/// A name of a file in the upper.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) dir: Arc<Node>,
    pub(crate) name: OsString,
}

impl Node {
    /// Returns a node of a file with this state.
    pub(crate) fn new(ino: Ino, kind: Kind, found: Option<LowerFound>, state: State) -> Self {
        let lower = found.as_ref().map(|found| found.id);
        let (change, state) = (Mutex::new(()), Mutex::new(state));
        Self { ino, kind, lower, _found: found, change, state }
    }

    /// Tells whether the file is in the upper.
    pub(crate) fn is_in_upper(&self) -> bool {
        self.state.lock().upper.is_some()
    }

    /// Returns its file in the upper, if its content is there and somebody has it open.
    pub(crate) fn open_upper(&self) -> Option<Arc<File>> {
        let file = self.state.lock().file.upgrade()?;
        match &*file.content.read() {
            Content::Upper(upper) => Some(Arc::clone(upper)),
            Content::Lower(_) => None,
        }
    }

    /// Adds a name, if it is not known yet.
    pub(crate) fn add_name(&self, dir: &Arc<Self>, name: &OsStr) {
        let names = &mut self.state.lock().names;
        if !names.iter().any(|known| known.dir.ino == dir.ino && known.name == name) {
            names.push(Name { dir: Arc::clone(dir), name: name.to_owned() });
        }
    }

    /// Takes a name away; tells whether another one is known.
    pub(crate) fn remove_name(&self, dir: &Self, name: &OsStr) -> bool {
        let removed;
        let left = {
            let names = &mut self.state.lock().names;
            let at = names.iter().position(|known| known.dir.ino == dir.ino && known.name == name);
            removed = at.map(|at| names.swap_remove(at));
            !names.is_empty()
        };
        // The directory's node may go with its last child; not while the state is locked.
        drop(removed);
        left
    }

    /// Notes that a name of the directory has changed, and how many subdirectories the union shows more
    /// in it by that.
    pub(crate) fn changed(&self, subdirs: i64) {
        let dir = &mut self.state.lock().dir;
        dir.version += 1;
        dir.more_subdirs = dir.more_subdirs.map(|more| more + subdirs);
    }

    /// Notes that attributes of the file are about to change, or have changed.
    pub(crate) fn attributes_change(&self) {
        let mut state = self.state.lock();
        state.has_no_set_ids = false;
        state.has_no_capability = false;
        state.dir.version += 1;
        state.dir.heritage = None;
    }

    /// Returns how many subdirectories a directory has more when it has this file.
    pub(crate) fn counts(&self) -> i64 {
        i64::from(self.kind == Kind::Directory)
    }

    /// Notes that whiteouts in the directory may be attributes of empty files.
    pub(crate) fn note_whiteouts(&self, are_xattrs: bool) {
        self.state.lock().dir.xattr_whiteouts |= are_xattrs;
    }
}

/// How the table has a node.
#[derive(Debug)]
enum Held {
    /// The kernel knows the file.
    Strong(Arc<Node>),
    /// It does not, but something below it is known.
    Weak(Weak<Node>),
}

impl Held {
    fn get(&self) -> Option<Arc<Node>> {
        match self {
            Self::Strong(node) => Some(Arc::clone(node)),
            Self::Weak(node) => node.upgrade(),
        }
    }
}

const SHARDS: usize = 64;
/// A shard keeps room for so many numbers.
const LEAST_ROOM: usize = 16;

/// All numbers that the kernel knows, and the nodes of those that have one.
#[derive(Debug)]
pub(crate) struct Nodes {
    shards: [Mutex<Shard>; SHARDS],
    /// How many files the kernel knows.
    known: AtomicUsize,
    /// How many it has forgotten since they last were many.
    forgotten: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    /// How often the kernel was told of a file and has not forgotten it. Most files have no more here.
    lookups: HashMap<Ino, u64>,
    nodes: HashMap<Ino, Held>,
    /// Nodes when weak ones that lead nowhere were last removed.
    swept_at: usize,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        let (known, forgotten) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { shards: std::array::from_fn(|_| Mutex::default()), known, forgotten }
    }

    /// Returns the node of a number, if it has one.
    pub(crate) fn get(&self, ino: Ino) -> Option<Arc<Node>> {
        self.shard(ino).lock().nodes.get(&ino)?.get()
    }

    /// Returns the node of a number, made by `make` if it has none.
    pub(crate) fn get_or_make(&self, ino: Ino, make: impl FnOnce() -> Node) -> Arc<Node> {
        let mut shard = self.shard(ino).lock();
        if let Some(node) = shard.nodes.get(&ino).and_then(Held::get) {
            return node;
        }
        shard.sweep();
        let node = Arc::new(make());
        let held = match shard.lookups.contains_key(&ino) {
            true => Held::Strong(Arc::clone(&node)),
            false => Held::Weak(Arc::downgrade(&node)),
        };
        shard.nodes.insert(ino, held);
        node
    }

    /// Returns all nodes.
    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        let all = |shard: &Mutex<Shard>| -> Vec<_> {
            shard.lock().nodes.values().filter_map(Held::get).collect()
        };
        self.shards.iter().flat_map(all).collect()
    }

    /// Counts that the kernel is told of a file; tells whether it did not know it.
    pub(crate) fn remember(&self, ino: Ino, node: Option<&Arc<Node>>) -> bool {
        self.count(&mut self.shard(ino).lock(), ino, node)
    }

    /// Notes that the kernel knows a file, if nothing was known of that; tells whether so.
    pub(crate) fn know(&self, ino: Ino, node: Option<&Arc<Node>>) -> bool {
        let shard = &mut self.shard(ino).lock();
        !shard.lookups.contains_key(&ino) && self.count(shard, ino, node)
    }

    fn count(&self, shard: &mut Shard, ino: Ino, node: Option<&Arc<Node>>) -> bool {
        let lookups = shard.lookups.entry(ino).or_default();
        *lookups += 1;
        let is_new = *lookups == 1;
        self.known.fetch_add(usize::from(is_new), Ordering::Relaxed);
        if let Some(node) = node.cloned().or_else(|| shard.nodes.get(&ino)?.get()) {
            shard.nodes.insert(ino, Held::Strong(node));
        }
        is_new
    }

    /// Tells whether the kernel is known to know a file.
    pub(crate) fn knows(&self, ino: Ino) -> bool {
        self.shard(ino).lock().lookups.contains_key(&ino)
    }

    /// Counts that the kernel forgets a file `count` times; tells whether it does not know it any
    /// more, and what node the file had.
    pub(crate) fn forget(&self, ino: Ino, count: u64) -> (bool, Option<Arc<Node>>) {
        let mut shard = self.shard(ino).lock();
        let Some(lookups) = shard.lookups.get_mut(&ino) else { return (false, None) };
        *lookups = lookups.saturating_sub(count);
        if *lookups > 0 {
            return (false, None);
        }
        shard.lookups.remove(&ino);
        self.known.fetch_sub(1, Ordering::Relaxed);
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        let node = shard.nodes.remove(&ino).and_then(|held| held.get());
        if let Some(node) = node.as_ref().filter(|node| Arc::strong_count(node) > 1) {
            shard.nodes.insert(ino, Held::Weak(Arc::downgrade(node)));
        }
        give_room_back(&mut shard.lookups, LEAST_ROOM);
        give_room_back(&mut shard.nodes, LEAST_ROOM);
        // A node may take the node of its directory, in the same shard, along: the caller drops it.
        (true, node)
    }

    /// Tells whether the kernel has forgotten as many files as it still knows, since this was last so.
    pub(crate) fn has_forgotten_many(&self) -> bool {
        let many = self.known.load(Ordering::Relaxed).max(SHARDS * LEAST_ROOM);
        let forgotten = self.forgotten.load(Ordering::Relaxed);
        let (to, order) = (0, Ordering::Relaxed);
        forgotten >= many && self.forgotten.compare_exchange(forgotten, to, order, order).is_ok()
    }

    /// Returns how many numbers are known.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Returns for how many numbers there is room.
    #[cfg(test)]
    fn room(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().room()).sum()
    }

    #[allow(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 64")]
    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        &self.shards[(ino.0 % SHARDS as u64) as usize]
    }
}

impl Shard {
    /// Removes nodes that are gone, each time that the table has doubled.
    fn sweep(&mut self) {
        if self.nodes.len() < 2 * self.swept_at.max(LEAST_ROOM) {
            return;
        }
        self.nodes.retain(|_, held| match held {
            Held::Weak(node) => node.strong_count() > 0,
            Held::Strong(_) => true,
        });
        self.swept_at = self.nodes.len();
        give_room_back(&mut self.nodes, LEAST_ROOM);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lookups.len().max(self.nodes.len())
    }

    #[cfg(test)]
    fn room(&self) -> usize {
        self.lookups.capacity() + self.nodes.capacity()
    }
}

/// Gives memory of a table back when most of its entries have gone, but for room for `least`.
pub(crate) fn give_room_back<K: Eq + Hash, V>(table: &mut HashMap<K, V>, least: usize) {
    let used = table.len().max(least);
    if table.capacity() > 4 * used {
        table.shrink_to(2 * used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ino: u64) -> Node {
        Node::new(Ino(ino), Kind::Directory, None, State::default())
    }

    #[test]
    fn a_number_is_known_until_it_is_forgotten_as_often_as_told() {
        let nodes = Nodes::new();
        nodes.remember(Ino(5), None);
        nodes.remember(Ino(5), None);
        nodes.forget(Ino(5), 1);
        assert_eq!(nodes.len(), 1);
        nodes.forget(Ino(5), 1);
        assert_eq!(nodes.len(), 0);
        nodes.forget(Ino(5), 1);
    }

    #[test]
    fn a_directory_stays_while_something_below_it_is_known() {
        let nodes = Nodes::new();
        let dir = nodes.get_or_make(Ino(2), || node(2));
        nodes.remember(Ino(2), Some(&dir));
        let child = nodes.get_or_make(Ino(3), || node(3));
        nodes.remember(Ino(3), Some(&child));
        child.add_name(&dir, "child".as_ref());
        let held = Arc::downgrade(&dir);
        drop((dir, child));
        nodes.forget(Ino(2), 1);
        assert!(nodes.get(Ino(2)).is_some());
        nodes.forget(Ino(3), 1);
        assert!(held.upgrade().is_none());
        assert!(nodes.get(Ino(2)).is_none());
    }

    #[test]
    fn what_is_walked_and_dropped_leaves_no_growth() {
        let nodes = Nodes::new();
        for round in 0..20 {
            for ino in 0..5_000 {
                let ino = Ino(round * 5_000 + ino);
                // Found while its path was walked, and told to nobody.
                drop(nodes.get_or_make(ino, || node(ino.0)));
            }
        }
        assert!(nodes.len() < 64 * 130, "{} entries are left", nodes.len());
    }

    #[test]
    fn regression_what_is_forgotten_gives_its_room_back() {
        let nodes = Nodes::new();
        for ino in 0..100_000 {
            assert!(nodes.remember(Ino(ino), None));
        }
        assert!(nodes.room() >= 100_000);
        for ino in 0..100_000 {
            assert!(nodes.forget(Ino(ino), 1).0);
        }
        assert!(nodes.room() < 64 * 512, "room for {} entries is left", nodes.room());
    }
}
