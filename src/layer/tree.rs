//! A tree in memory that grows and changes: a layer while its tar is read, a chain while its layers
//! are put on each other.
//!
//! Entries and inodes are numbers into two arrays; nothing is freed before the whole. A removed
//! entry is only taken out of its directory: what hangs below it is then unreachable, and the
//! writer, which starts at the root, never meets it. About 110 bytes an entry.
//!
//! A tree may begin as a chain that there is. Then the numbers of inodes go on from those of the chain,
//! and a directory's entries are read from it when somebody wants one of them; of the others the chain
//! itself is asked by the writer.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::layer::error::{Error, Result};
use crate::layer::format::{FLAG_OPAQUE, InodeRecord, WHITEOUT};
use crate::layer::index::Index;
use crate::layer::limits::{Excess, LINK_STEPS_MAX, LINKS_MAX, Limits};

/// Number of an entry; 0 is the root.
pub(crate) type EntryId = u32;
/// Number of an inode in this tree; [`WHITEOUT`] stands for none.
pub(crate) type InodeId = u32;

/// The root's entry.
pub(crate) const ROOT: EntryId = 0;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    parent: EntryId,
    name: u32,
    name_len: u8,
    removed: bool,
    /// A directory of the base, whose entries have not been read.
    unread: bool,
    inode: InodeId,
    first_child: EntryId,
    next_sibling: EntryId,
}

/// A tree that changes.
#[derive(Debug)]
pub(crate) struct Tree {
    names: Vec<u8>,
    entries: Vec<Entry>,
    inodes: Vec<InodeRecord>,
    by_name: HashTable<EntryId>,
    /// Hashes names with a key of this run: a layer must not be able to choose names that all have
    /// the same place in the table.
    hasher: RandomState,
    limits: Limits,
    /// The chain that the tree began as.
    base: Option<Arc<Index>>,
    /// Parts of targets of symbolic links that have been walked.
    link_steps: Cell<u64>,
}

/// Gives the target of a symbolic link.
pub(crate) type ReadLink<'a> = &'a dyn Fn(&InodeRecord) -> Result<Vec<u8>>;

impl Tree {
    /// Returns a tree of a root directory that nobody has described.
    pub(crate) fn new() -> Self {
        Self::within(Limits::NONE)
    }

    /// Returns the same, which grows no further than these limits.
    pub(crate) fn within(limits: Limits) -> Self {
        let root = Entry {
            parent: ROOT,
            name: 0,
            name_len: 0,
            removed: false,
            unread: false,
            inode: 0,
            first_child: NONE,
            next_sibling: NONE,
        };
        Self {
            names: Vec::new(),
            entries: vec![root],
            inodes: vec![InodeRecord::IMPLICIT_DIRECTORY],
            by_name: HashTable::new(),
            hasher: RandomState::new(),
            limits,
            base: None,
            link_steps: Cell::new(0),
        }
    }

    /// Returns a tree that begins as a chain.
    pub(crate) fn over(base: Arc<Index>) -> Result<Self> {
        let mut tree = Self::new();
        tree.inodes =
            (0..base.inode_count()).map(|inode| base.inode(inode)).collect::<Result<_>>()?;
        if let Some(root) = tree.entries.get_mut(ROOT as usize) {
            root.unread = true;
        }
        tree.base = Some(base);
        Ok(tree)
    }

    /// Makes room for so many entries, to begin with.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.entries.reserve(count);
        self.inodes.reserve(count);
        let Self { by_name, entries, names, hasher, .. } = self;
        by_name.reserve(count, |id| hash_of(entries, names, hasher, *id));
    }

    /// Returns how many inodes were ever made.
    pub(crate) fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// Returns the inode number of an entry.
    pub(crate) fn inode_of(&self, entry: EntryId) -> InodeId {
        self.entry(entry).inode
    }

    /// Returns the inode of an entry; none for a whiteout.
    pub(crate) fn record(&self, entry: EntryId) -> Option<&InodeRecord> {
        self.inode(self.entry(entry).inode)
    }

    /// Returns the inode with this number; none for a whiteout.
    pub(crate) fn inode(&self, inode: InodeId) -> Option<&InodeRecord> {
        self.inodes.get(inode as usize)
    }

    /// Changes the inode of an entry; a whiteout has none and stays.
    pub(crate) fn update(&mut self, entry: EntryId, change: impl FnOnce(&mut InodeRecord)) {
        let inode = self.entry(entry).inode;
        self.update_inode(inode, change);
    }

    /// Changes an inode.
    pub(crate) fn update_inode(&mut self, inode: InodeId, change: impl FnOnce(&mut InodeRecord)) {
        if let Some(record) = self.inodes.get_mut(inode as usize) {
            change(record);
        }
    }

    /// Tells whether an entry is a directory.
    pub(crate) fn is_dir(&self, entry: EntryId) -> bool {
        self.record(entry).is_some_and(InodeRecord::is_dir)
    }

    /// Tells whether an entry is a whiteout.
    pub(crate) fn is_whiteout(&self, entry: EntryId) -> bool {
        self.entry(entry).inode == WHITEOUT
    }

    /// Returns the name of an entry.
    pub(crate) fn name(&self, entry: EntryId) -> &[u8] {
        let entry = self.entry(entry);
        let start = entry.name as usize;
        self.names.get(start..start + usize::from(entry.name_len)).unwrap_or_default()
    }

    /// Returns the path of an entry, also of a removed one, without a leading slash.
    pub(crate) fn path(&self, mut entry: EntryId) -> Vec<u8> {
        let mut parts = Vec::new();
        while entry != ROOT {
            parts.push(self.name(entry));
            entry = self.entry(entry).parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Returns the entry `name` of a directory, whiteouts included.
    pub(crate) fn child(&mut self, dir: EntryId, name: &[u8]) -> Result<Option<EntryId>> {
        self.read(dir)?;
        Ok(self.known_child(dir, name))
    }

    /// Does the same in a directory whose entries are all in the tree.
    fn known_child(&self, dir: EntryId, name: &[u8]) -> Option<EntryId> {
        let same = |id: &EntryId| self.entry(*id).parent == dir && self.name(*id) == name;
        self.by_name.find(self.hasher.hash_one((dir, name)), same).copied()
    }

    /// Tells whether the entries of a directory are those of the chain that the tree began as, and are not
    /// in the tree.
    pub(crate) fn is_unread(&self, dir: EntryId) -> bool {
        self.entry(dir).unread
    }

    /// Returns the chain that the tree began as.
    pub(crate) fn base(&self) -> Option<Arc<Index>> {
        self.base.clone()
    }

    /// Reads the entries of a directory from the base, if that was not done before.
    fn read(&mut self, dir: EntryId) -> Result<()> {
        let Some(base) = self.base().filter(|_| self.is_unread(dir)) else { return Ok(()) };
        self.forget_base(dir);
        for entry in base.entries(self.inode_of(dir))? {
            let (entry, inode, name) = entry?;
            let id = self.put_link(dir, name, entry.inode)?;
            if let Some(entry) = self.entries.get_mut(id as usize) {
                entry.unread = inode.is_dir();
            }
        }
        Ok(())
    }

    /// What the base has in a directory is not asked for from here on.
    fn forget_base(&mut self, dir: EntryId) {
        if let Some(entry) = self.entries.get_mut(dir as usize) {
            entry.unread = false;
        }
    }

    /// Returns the entries of a directory that are in the tree, in no order.
    pub(crate) fn children(&self, dir: EntryId) -> impl Iterator<Item = EntryId> {
        let mut next = self.entry(dir).first_child;
        std::iter::from_fn(move || {
            while next != NONE {
                let id = next;
                next = self.entry(id).next_sibling;
                if !self.entry(id).removed {
                    return Some(id);
                }
            }
            None
        })
    }

    /// Makes a new inode.
    pub(crate) fn add_inode(&mut self, record: InodeRecord) -> Result<InodeId> {
        let inode = small(self.inodes.len(), "files")?;
        self.inodes.push(record);
        Ok(inode)
    }

    /// Makes a new entry, with an inode of its own, in place of one with that name.
    pub(crate) fn put(
        &mut self,
        dir: EntryId,
        name: &[u8],
        record: InodeRecord,
    ) -> Result<EntryId> {
        let inode = self.add_inode(record)?;
        self.put_link(dir, name, inode)
    }

    /// Makes a new entry for an inode that there is, in place of one with that name.
    pub(crate) fn put_link(
        &mut self,
        dir: EntryId,
        name: &[u8],
        inode: InodeId,
    ) -> Result<EntryId> {
        if let Some(old) = self.child(dir, name)? {
            self.remove(old);
        }
        self.check_room(name)?;
        let id = small(self.entries.len(), "names")?;
        let name_len = u8::try_from(name.len()).map_err(|_| Error::TooMany("bytes in a name"))?;
        let start = small(self.names.len(), "bytes of names")?;
        self.names.extend_from_slice(name);
        let next_sibling = self.entry(dir).first_child;
        self.entries.push(Entry {
            parent: dir,
            name: start,
            name_len,
            removed: false,
            unread: false,
            inode,
            first_child: NONE,
            next_sibling,
        });
        if let Some(dir) = self.entries.get_mut(dir as usize) {
            dir.first_child = id;
        }
        let hash = self.hasher.hash_one((dir, name));
        let Self { by_name, entries, names, hasher, .. } = self;
        by_name.insert_unique(hash, id, |other| hash_of(entries, names, hasher, *other));
        Ok(id)
    }

    /// Checks that one more entry is allowed. Those that were removed count: they are in memory.
    fn check_room(&self, name: &[u8]) -> Result<()> {
        let limits = self.limits;
        let counts = [
            (Excess::Entries, self.entries.len(), limits.entries),
            (Excess::Names, self.names.len() + name.len(), limits.text_bytes()),
        ];
        match counts.into_iter().find(|(_, found, most)| *found as u64 > *most) {
            Some((what, found, most)) => Err(Error::Limit { what, found: found as u64, most }),
            None => Ok(()),
        }
    }

    /// Gives an entry another inode.
    pub(crate) fn set_inode(&mut self, entry: EntryId, inode: InodeId) {
        if let Some(entry) = self.entries.get_mut(entry as usize) {
            entry.inode = inode;
        }
    }

    /// Takes an entry, and all below it, out of the tree.
    pub(crate) fn remove(&mut self, entry: EntryId) {
        let parent = self.entry(entry).parent;
        let hash = self.hasher.hash_one((parent, self.name(entry)));
        if let Ok(found) = self.by_name.find_entry(hash, |id| *id == entry) {
            found.remove();
        }
        if let Some(entry) = self.entries.get_mut(entry as usize) {
            entry.removed = true;
        }
    }

    /// Takes all entries of a directory out of the tree.
    pub(crate) fn clear(&mut self, dir: EntryId) {
        self.forget_base(dir);
        let children: Vec<_> = self.children(dir).collect();
        for child in children {
            self.remove(child);
        }
    }

    /// Walks from the root along `path`, as opening it would: symbolic links are followed and never
    /// lead out of the root. Directories that are missing are made, without a description.
    ///
    /// Returns none where something that is not a directory is in the way.
    pub(crate) fn make_dirs<'a>(
        &mut self,
        path: impl IntoIterator<Item = &'a [u8]>,
        read_link: ReadLink<'_>,
    ) -> Result<Option<EntryId>> {
        let mut at = ROOT;
        for name in path {
            let implicit = InodeRecord::IMPLICIT_DIRECTORY;
            at = match self.child(at, name)? {
                None => self.put(at, name, implicit)?,
                // What the whiteout hides stays hidden.
                Some(entry) if self.is_whiteout(entry) => {
                    let flags = implicit.flags | FLAG_OPAQUE;
                    self.put(at, name, InodeRecord { flags, ..implicit })?
                }
                Some(entry) => match self.follow(entry, read_link)? {
                    Some(dir) => dir,
                    None => return Ok(None),
                },
            };
        }
        Ok(Some(at))
    }

    /// Returns the directory that an entry is or leads to; none if it leads to none.
    pub(crate) fn follow(
        &mut self,
        entry: EntryId,
        read_link: ReadLink<'_>,
    ) -> Result<Option<EntryId>> {
        let mut at = self.entry(entry).parent;
        let mut pending = vec![Step::Entry(entry)];
        let mut links = 0;
        while let Some(step) = pending.pop() {
            let entry = match step {
                Step::Entry(entry) => Some(entry),
                Step::Name(name) => {
                    self.count_link_step()?;
                    match name.as_slice() {
                        b"" | b"." => continue,
                        b".." => {
                            at = self.entry(at).parent;
                            continue;
                        }
                        name => self.child(at, name)?,
                    }
                }
            };
            let Some((entry, record)) = entry.and_then(|id| Some((id, self.record(id)?))) else {
                return Ok(None);
            };
            if record.is_dir() {
                at = entry;
            } else if record.is_symlink() && links < LINKS_MAX {
                links += 1;
                let target = read_link(record)?;
                if target.starts_with(b"/") {
                    at = ROOT;
                }
                let parts = target.split(|byte| *byte == b'/').rev();
                pending.extend(parts.map(|part| Step::Name(part.to_vec())));
            } else {
                return Ok(None);
            }
        }
        Ok(Some(at))
    }

    /// Counts a part of a link's target. Forty links of two thousand parts each are walked in a moment,
    /// but not for each of a million entries.
    fn count_link_step(&self) -> Result<()> {
        let steps = self.link_steps.get() + 1;
        self.link_steps.set(steps);
        if steps > LINK_STEPS_MAX {
            return Err(Error::TooMany("parts of symbolic links on the way to entries"));
        }
        Ok(())
    }

    /// Returns the entry at `path`, symbolic links followed on the way but not at its end.
    pub(crate) fn find(
        &mut self,
        path: &[&[u8]],
        read_link: ReadLink<'_>,
    ) -> Result<Option<EntryId>> {
        let Some((last, dirs)) = path.split_last() else { return Ok(Some(ROOT)) };
        let mut at = ROOT;
        for name in dirs {
            let Some(entry) = self.child(at, name)? else { return Ok(None) };
            match self.follow(entry, read_link)? {
                Some(dir) => at = dir,
                None => return Ok(None),
            }
        }
        Ok(self.child(at, last)?.filter(|entry| !self.is_whiteout(*entry)))
    }

    /// Returns the entry with this number.
    #[allow(clippy::indexing_slicing, reason = "numbers of entries come from this tree alone")]
    fn entry(&self, id: EntryId) -> &Entry {
        &self.entries[id as usize]
    }
}

/// Returns the hash of the place of an entry.
fn hash_of(entries: &[Entry], names: &[u8], hasher: &RandomState, id: EntryId) -> u64 {
    entries.get(id as usize).map_or(0, |entry| {
        let start = entry.name as usize;
        let end = start + usize::from(entry.name_len);
        hasher.hash_one((entry.parent, names.get(start..end).unwrap_or_default()))
    })
}

/// A part of a path that is still to be walked.
enum Step {
    Entry(EntryId),
    Name(Vec<u8>),
}

/// Returns a count as the index holds it.
fn small(count: usize, what: &'static str) -> Result<u32> {
    match u32::try_from(count) {
        Ok(number) if number < WHITEOUT => Ok(number),
        _ => Err(Error::TooMany(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::format::name_hash;
    use crate::sys::mode;

    fn parts(path: &str) -> Vec<&[u8]> {
        path.split('/').filter(|part| !part.is_empty()).map(str::as_bytes).collect()
    }

    /// A symbolic link whose target is in this table at `data`.
    const TARGETS: [&str; 6] = ["b", "/a/b", "../../..", "loop", "nowhere", "/"];

    fn link(target: u64) -> InodeRecord {
        InodeRecord {
            mode: mode::SYMLINK | 0o777,
            data: target,
            flags: 0,
            ..InodeRecord::IMPLICIT_DIRECTORY
        }
    }

    fn read_link(record: &InodeRecord) -> Result<Vec<u8>> {
        Ok(TARGETS[usize::try_from(record.data).unwrap()].as_bytes().to_vec())
    }

    #[test]
    fn directories_are_made_once_and_found_again() {
        let mut tree = Tree::new();
        let made = tree.make_dirs(parts("a/b/c"), &read_link).unwrap().unwrap();
        assert_eq!(tree.make_dirs(parts("a/b/c"), &read_link).unwrap(), Some(made));
        assert_eq!(tree.find(&parts("a/b/c"), &read_link).unwrap(), Some(made));
        assert_eq!(tree.path(made), b"a/b/c");
        assert_eq!(tree.find(&parts("a/x"), &read_link).unwrap(), None);
    }

    #[test]
    fn links_are_followed_and_never_lead_out() {
        let mut tree = Tree::new();
        let b = tree.make_dirs(parts("a/b"), &read_link).unwrap().unwrap();
        let a = tree.find(&parts("a"), &read_link).unwrap().unwrap();
        tree.put(a, b"to-b", link(0)).unwrap();
        tree.put(ROOT, b"abs", link(1)).unwrap();
        tree.put(b, b"up", link(2)).unwrap();
        tree.put(ROOT, b"loop", link(3)).unwrap();
        tree.put(ROOT, b"dead", link(4)).unwrap();
        tree.put(b, b"root", link(5)).unwrap();
        for (path, found) in [
            ("a/to-b", Some(b)),
            ("abs", Some(b)),
            ("a/b/up", Some(ROOT)),
            ("abs/up/a", Some(a)),
            ("abs/root/a", Some(a)),
            ("loop", None),
            ("dead", None),
        ] {
            let dir = tree.make_dirs(parts(path), &read_link).unwrap();
            assert_eq!(dir, found, "{path}");
        }
    }

    #[test]
    fn what_is_removed_is_gone_with_all_below_it() {
        let mut tree = Tree::new();
        tree.make_dirs(parts("a/b/c"), &read_link).unwrap();
        let a = tree.find(&parts("a"), &read_link).unwrap().unwrap();
        tree.remove(a);
        assert_eq!(tree.find(&parts("a/b"), &read_link).unwrap(), None);
        assert_eq!(tree.children(ROOT).count(), 0);
        tree.make_dirs(parts("a"), &read_link).unwrap();
        assert_eq!(tree.find(&parts("a/b"), &read_link).unwrap(), None);
    }

    #[test]
    fn a_name_put_twice_is_there_once() {
        let mut tree = Tree::new();
        for target in 0..3 {
            tree.put(ROOT, b"name", link(target)).unwrap();
        }
        assert_eq!(tree.children(ROOT).count(), 1);
        let entry = tree.child(ROOT, b"name").unwrap().unwrap();
        assert_eq!(tree.record(entry).unwrap().data, 2);
    }

    #[test]
    fn links_are_not_followed_for_ever() {
        let mut tree = Tree::new();
        tree.make_dirs(parts("a/b"), &read_link).unwrap();
        tree.put(ROOT, b"abs", link(1)).unwrap();
        // The target has three parts, the first of them empty.
        tree.link_steps.set(LINK_STEPS_MAX - 4);
        assert!(tree.make_dirs(parts("abs"), &read_link).unwrap().is_some());
        let error = tree.make_dirs(parts("abs"), &read_link).unwrap_err();
        assert!(matches!(error, Error::TooMany(_)), "{error}");
    }

    /// Returns 2^17 names that have the same hash, by which an index sorts them.
    fn names_of_one_hash() -> Vec<Vec<u8>> {
        let fold = |hash: u32, bytes: &[u8]| {
            bytes
                .iter()
                .fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
        };
        let mut names = vec![Vec::new()];
        for _ in 0..17 {
            // Two blocks that lead from where all of them are to the same place.
            let start = name_hash(&names[0]);
            let mut seen = std::collections::HashMap::new();
            let (one, two) = (0_u32..)
                .find_map(|number| {
                    let block = format!("{number:05x}").into_bytes();
                    let other = seen.insert(fold(start, &block), block.clone());
                    other.map(|other| (other, block))
                })
                .unwrap();
            let with = |block: &[u8]| -> Vec<Vec<u8>> {
                names.iter().map(|name| [&name[..], block].concat()).collect()
            };
            names = [with(&one), with(&two)].concat();
        }
        names
    }

    #[test]
    fn regression_names_of_one_hash_are_found_as_quickly_as_others() {
        let names = names_of_one_hash();
        assert_eq!(name_hash(&names[0]), name_hash(&names[77_777]));
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut tree = Tree::new();
            for name in &names {
                tree.put(ROOT, name, link(0)).unwrap();
            }
            done.send(tree.children(ROOT).count())
        });
        // With all of them in one place of the table it is a matter of many minutes.
        let count = is_done.recv_timeout(std::time::Duration::from_secs(180));
        assert_eq!(count.expect("names of one hash are looked at one by one"), 1 << 17);
    }
}
