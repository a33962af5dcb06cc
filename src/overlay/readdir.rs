//! Listing directories: the names of the lower that are not hidden, then those that only the upper
//! has.
//!
//! What the lower has keeps its position for ever, also when it is copied up or the directory comes
//! into the upper while it is read. The upper's names are taken when reading begins, so that an entry
//! has one position in one handle however the directory changes meanwhile.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::layer::Kind;
use crate::overlay::error::{Error, Result, if_there};
use crate::overlay::lower::{LowerFound, LowerId};
use crate::overlay::node::Node;
use crate::overlay::notes::{Fact, Note};
use crate::overlay::place::Place;
use crate::overlay::upper::Child;
use crate::overlay::{Attr, Ino, Overlay};
use crate::sys;

/// A directory that is being read.
#[derive(Debug, Default)]
struct OpenDir {
    names: Mutex<Option<Arc<UpperNames>>>,
    /// What is noted of them, and the file in which they are then.
    note: Mutex<Option<(Note, OwnedFd)>>,
}

impl OpenDir {
    /// Returns a file in memory with the names that were taken when reading began; none if none were.
    fn written_down(&self) -> Result<Option<File>> {
        let names = self.names.lock().clone();
        names.map(|names| names.write_down()).transpose()
    }
}

/// The number of a directory that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

/// Handles of one server have numbers of so many bits; above them is how many servers there were before.
const HANDLE_BITS: u32 = 40;

/// Directories that are being read.
#[derive(Debug)]
pub(crate) struct OpenDirs {
    next: AtomicU64,
    open: RwLock<HashMap<Fh, Arc<OpenDir>>>,
}

impl OpenDirs {
    pub(crate) fn new() -> Self {
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }

    fn add(&self, dir: OpenDir) -> Fh {
        let fh = Fh(self.next.fetch_add(1, Ordering::Relaxed));
        self.open.write().insert(fh, Arc::new(dir));
        fh
    }

    fn get(&self, fh: Fh) -> Result<Arc<OpenDir>> {
        self.open.read().get(&fh).cloned().ok_or(Error::BadHandle)
    }

    /// Gives numbers that none of so many earlier servers has given.
    pub(crate) fn begin(&self, servers: u64) {
        self.next.store(servers << HANDLE_BITS | 1, Ordering::Relaxed);
    }

    /// Has a number that an earlier server has given mean what is open here; returns what it means if
    /// another thread was quicker.
    fn adopt(&self, fh: Fh, dir: OpenDir) -> Arc<OpenDir> {
        Arc::clone(self.open.write().entry(fh).or_insert_with(|| Arc::new(dir)))
    }

    /// Gives every directory that is being read to `sink`, with a file in memory that has the names that
    /// were taken when reading began.
    pub(crate) fn each(&self, mut sink: impl FnMut(Fh, File) -> Result<()>) -> Result<()> {
        for (fh, dir) in &*self.open.read() {
            if let Some(file) = dir.written_down()? {
                sink(*fh, file)?;
            }
        }
        Ok(())
    }
}

/// The names that the upper has in a directory.
#[derive(Debug, Default)]
struct UpperNames {
    shown: Vec<OsString>,
    /// All of them, and whether they are shown: a whiteout is not. What the lower has under these
    /// names is hidden.
    all: HashMap<OsString, bool>,
    /// How often the directory had changed.
    version: u64,
}

impl UpperNames {
    /// Writes the names to a file in memory: those that are shown in their order, then the others; each
    /// with whether it is shown, and its length.
    fn write_down(&self) -> Result<File> {
        let hidden = self.all.iter().filter(|(_, is_shown)| !**is_shown).map(|(name, _)| name);
        let all = self.shown.iter().map(|name| (1, name)).chain(hidden.map(|name| (0, name)));
        let mut bytes = Vec::new();
        for (is_shown, name) in all {
            let len = u16::try_from(name.len()).map_err(|_| Error::NameTooLong)?;
            bytes.push(is_shown);
            bytes.extend(len.to_le_bytes());
            bytes.extend(name.as_bytes());
        }
        let mut file = File::from(sys::memory_file("listing")?);
        file.write_all(&bytes)?;
        Ok(file)
    }

    fn read_from(mut file: &File) -> Result<Self> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        // Whatever has changed since, names are looked up.
        let mut names = Self { version: u64::MAX, ..Self::default() };
        let mut rest = bytes.as_slice();
        while let Some(([is_shown, len @ ..], after)) = rest.split_first_chunk::<3>() {
            let len = u16::from_le_bytes(*len).into();
            let (name, after) = after.split_at_checked(len).ok_or(CUT)?;
            let name = OsString::from_vec(name.to_vec());
            if *is_shown == 1 {
                names.shown.push(name.clone());
            }
            names.all.insert(name, *is_shown == 1);
            rest = after;
        }
        Ok(names)
    }
}

const CUT: Error = Error::Invalid("a listing that was written down is cut short");

/// An entry of a listing.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Number of the inode.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Name.
    pub name: &'a OsStr,
    /// The position after this entry.
    pub next: u64,
    /// Attributes, if they were asked for; never for `.` and `..`, and what cannot be looked up.
    pub attr: Option<&'a Attr>,
}

/// What a listing gives besides names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadDir {
    /// Numbers and kinds.
    Names,
    /// Attributes. Each entry that was taken counts as looked up.
    Attributes,
}

/// Takes entries; breaks when it has no more room, and has not taken the entry then.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>;

const DOT: u64 = 0;
const DOT_DOT: u64 = 1;
const FIRST: u64 = 2;
/// Where the names begin that only the upper has: after any number of names of the lower, and within
/// what a program of 32 bits can hold.
const UPPER: u64 = 1 << 30;

impl Overlay {
    /// Opens a directory to read it.
    pub fn open_dir_handle(&self, ino: Ino) -> Result<Fh> {
        self.dir_place(ino)?;
        Ok(self.open_dirs.add(OpenDir::default()))
    }

    /// Closes a directory.
    pub fn close_dir(&self, fh: Fh) {
        if let Some(again) = &self.again {
            again.release(fh);
        }
        drop(self.open_dirs.open.write().remove(&fh));
    }

    /// Tells whether a directory is in the upper, so that the positions of its entries are those of
    /// one handle.
    pub fn is_in_upper(&self, ino: Ino) -> Result<bool> {
        match self.place(ino)? {
            Place::Node(node) => Ok(node.is_in_upper()),
            Place::Lower(_) => Ok(false),
        }
    }

    /// Gives the entries of a directory to `sink`, from a position on; 0 is the beginning. A tree
    /// that cannot be changed is read without a handle, too.
    pub fn read_dir(
        &self,
        ino: Ino,
        fh: Option<Fh>,
        position: u64,
        what: ReadDir,
        sink: Sink<'_>,
    ) -> Result<()> {
        let place = self.dir_place(ino)?;
        let names = match (fh, &place) {
            (Some(fh), Place::Node(node)) if node.is_in_upper() => {
                self.upper_names((fh, &*self.dir_handle(fh)?), node, position)?
            }
            (None, Place::Node(node)) if node.is_in_upper() => return Err(Error::BadHandle),
            _ => Arc::default(),
        };
        let listing = Listing { overlay: self, place: &place, names: &names, what };
        match listing.run(position, sink)? {
            ControlFlow::Continue(()) | ControlFlow::Break(()) => Ok(()),
        }
    }

    /// Returns all names in a directory and where they are, sorted by name.
    pub(crate) fn sorted_children(&self, place: &Place) -> Result<Vec<(OsString, Place)>> {
        let names = match place {
            Place::Node(node) if node.is_in_upper() => self.read_upper_names(node)?,
            _ => UpperNames::default(),
        };
        let mut children = Vec::new();
        for name in names.shown {
            if let Some(Some(child)) = if_there(self.child(place, &name))? {
                children.push((name, child));
            }
        }
        let lower = lower_of(place);
        let mut below = Vec::new();
        if let Some(lower) = lower {
            self.lower.entries(lower, 0, &mut |entry| {
                if !names.all.contains_key(entry.name) {
                    below.push(entry.name.to_owned());
                }
                ControlFlow::Continue(())
            })?;
        }
        for name in below {
            if let Some(child) = self.lower_child(lower, &name)? {
                children.push((name, child));
            }
        }
        children.sort_by(|(name, _), (other, _)| name.cmp(other));
        Ok(children)
    }

    /// Returns all names that the upper has in a directory, whiteouts too, sorted.
    pub(crate) fn sorted_upper_names(&self, node: &Arc<Node>) -> Result<Vec<OsString>> {
        let mut names: Vec<_> = self.read_upper_names(node)?.all.into_keys().collect();
        names.sort();
        Ok(names)
    }

    /// Tells whether a directory has no entries.
    pub(crate) fn is_empty(&self, place: &Place) -> Result<bool> {
        let names = match place {
            Place::Node(node) if node.is_in_upper() => self.read_upper_names(node)?,
            _ => UpperNames::default(),
        };
        if !names.shown.is_empty() {
            return Ok(false);
        }
        let mut empty = true;
        if let Some(lower) = lower_of(place) {
            self.lower.entries(lower, 0, &mut |entry| {
                if names.all.contains_key(entry.name) {
                    return ControlFlow::Continue(());
                }
                empty = false;
                ControlFlow::Break(())
            })?;
        }
        Ok(empty)
    }

    /// Returns what a handle means. One that an earlier server has given goes on with the names that were
    /// taken then.
    fn dir_handle(&self, fh: Fh) -> Result<Arc<OpenDir>> {
        let Some(again) = &self.again else { return self.open_dirs.get(fh) };
        if let Ok(dir) = self.open_dirs.get(fh) {
            return Ok(dir);
        }
        let dir = match again.take_listing(fh) {
            Some((note, file)) => {
                let names = UpperNames::read_from(&file)?;
                let (names, note) = (Some(Arc::new(names)), Some((note, file.into())));
                OpenDir { names: Mutex::new(names), note: Mutex::new(note) }
            }
            None => OpenDir::default(),
        };
        Ok(self.open_dirs.adopt(fh, dir))
    }

    fn upper_names(
        &self,
        (fh, dir): (Fh, &OpenDir),
        node: &Arc<Node>,
        position: u64,
    ) -> Result<Arc<UpperNames>> {
        let known = dir.names.lock().clone();
        if let Some(names) = known.filter(|_| position > 0) {
            return Ok(names);
        }
        let names = Arc::new(self.read_upper_names(node)?);
        if self.notes.is_some() {
            let file = names.write_down()?;
            let note = self.note(Fact::Listing { fh, fd: file.as_raw_fd() })?;
            let earlier = std::mem::replace(&mut *dir.note.lock(), note.zip(Some(file.into())));
            drop(earlier);
        }
        *dir.names.lock() = Some(Arc::clone(&names));
        Ok(names)
    }

    fn read_upper_names(&self, node: &Arc<Node>) -> Result<UpperNames> {
        let mut names = UpperNames::default();
        let state = {
            let state = node.state.lock();
            if state.gone {
                return Ok(names);
            }
            state.dir
        };
        names.version = state.version;
        let fd = self.dir_fd(node)?;
        let mut stream = sys::DirStream::new(&fd)?;
        while let Some(entry) = stream.next_entry()? {
            if entry.name == "." || entry.name == ".." {
                continue;
            }
            let shown = match Kind::of_dirent(entry.kind) {
                Some(Kind::Directory | Kind::Symlink | Kind::Fifo | Kind::Socket) => true,
                Some(Kind::Regular) if !state.xattr_whiteouts => true,
                _ => matches!(self.upper_child(node, entry.name)?, Child::There(_)),
            };
            if shown {
                names.shown.push(entry.name.to_owned());
            }
            names.all.insert(entry.name.to_owned(), shown);
        }
        Ok(names)
    }
}

/// Returns the lower part of a directory.
fn lower_of(place: &Place) -> Option<LowerId> {
    match place {
        Place::Lower(found) => Some(found.id),
        Place::Node(node) if node.state.lock().gone => None,
        Place::Node(node) => node.lower,
    }
}

/// Returns the entry of what is there and cannot be looked up: a name, of which the kernel asks when a
/// program does.
const fn refused(name: &OsStr, kind: Kind, next: u64) -> DirEntry<'_> {
    DirEntry { ino: Ino(u64::MAX), kind, name, next, attr: None }
}

/// One run through a listing.
struct Listing<'a> {
    overlay: &'a Overlay,
    place: &'a Place,
    names: &'a UpperNames,
    what: ReadDir,
}

impl Listing<'_> {
    fn run(&self, position: u64, sink: Sink<'_>) -> Result<ControlFlow<()>> {
        let own = self.overlay.ino(self.place);
        for (at, name, ino) in [(DOT, ".", own), (DOT_DOT, "..", self.parent(own))] {
            if position > at {
                continue;
            }
            let entry = DirEntry {
                ino,
                kind: Kind::Directory,
                name: name.as_ref(),
                next: at + 1,
                attr: None,
            };
            if sink(entry).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if position < UPPER && self.run_lower(position.saturating_sub(FIRST), sink)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.run_upper(position.saturating_sub(UPPER), sink)
    }

    fn run_upper(&self, from: u64, sink: Sink<'_>) -> Result<ControlFlow<()>> {
        let skipped = usize::try_from(from).unwrap_or(usize::MAX);
        for (name, next) in self
            .names
            .shown
            .iter()
            .skip(skipped)
            .zip(UPPER.saturating_add(from).saturating_add(1)..)
        {
            let in_lower = self.overlay.lower_has(lower_of(self.place), name)?;
            if !in_lower && self.give(name, None, next, sink)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn run_lower(&self, from: u64, sink: Sink<'_>) -> Result<ControlFlow<()>> {
        let Some(lower) = lower_of(self.place) else { return Ok(ControlFlow::Continue(())) };
        let mut result = Ok(ControlFlow::Continue(()));
        self.overlay.lower.entries(lower, from, &mut |entry| {
            let own = match self.names.all.get(entry.name) {
                Some(false) => return ControlFlow::Continue(()),
                Some(true) => None,
                None => Some((entry.id, entry.kind)),
            };
            result = self.give(entry.name, own, FIRST + entry.next, sink);
            match result {
                Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        })?;
        result
    }

    /// Gives one entry to the sink, if it is still there.
    fn give(
        &self,
        name: &OsStr,
        lower: Option<(LowerId, Kind)>,
        next: u64,
        sink: Sink<'_>,
    ) -> Result<ControlFlow<()>> {
        // An entry of the lower is what it was, unless the directory has changed.
        let unchanged = lower.filter(|_| !self.has_changed());
        let in_lower = |place| (place, None);
        let child = match unchanged {
            Some((id, _)) if self.what == ReadDir::Names => {
                Ok(Some(in_lower(self.overlay.place_of(LowerFound::known(id)))))
            }
            Some(_) => {
                let child = self.overlay.lower_child(lower_of(self.place), name);
                child.map(|child| child.map(in_lower))
            }
            None => self.overlay.child_seen(self.place, name, |_| true),
        };
        let (child, shown) = match child {
            Ok(Some(child)) => child,
            Ok(None) => return Ok(ControlFlow::Continue(())),
            Err(error) => {
                let kind = error.refused_kind().ok_or(error)?;
                return Ok(sink(refused(name, kind, next)));
            }
        };
        let kind = match unchanged {
            Some((_, kind)) => kind,
            None => self.overlay.kind(&child)?,
        };
        let ino = self.overlay.ino(&child);
        if self.what == ReadDir::Names {
            return Ok(sink(DirEntry { ino, kind, name, next, attr: None }));
        }
        let attr = self.overlay.attr_seen(&child, shown)?;
        let flow = sink(DirEntry { ino, kind, name, next, attr: Some(&attr) });
        if flow.is_continue() {
            self.overlay.remember(&child);
        }
        Ok(flow)
    }

    fn has_changed(&self) -> bool {
        match self.place {
            Place::Lower(_) => false,
            Place::Node(node) => node.state.lock().dir.version != self.names.version,
        }
    }

    fn parent(&self, own: Ino) -> Ino {
        let parent = match self.place {
            Place::Node(node) => match node.state.lock().names.first() {
                Some(name) => return name.dir.ino,
                None => node.lower,
            },
            Place::Lower(found) => Some(found.id),
        };
        // The kernel asks for no attributes of `..`, so a number that cannot be had does no harm.
        let names = parent.map(|id| self.overlay.lower.names(id));
        match names {
            Some(Ok(names)) => names.first().map_or(own, |(dir, _)| self.overlay.ino_of(*dir)),
            _ => own,
        }
    }
}
