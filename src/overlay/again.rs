//! Going on after another server: finding again what the kernel knows and this process does not.
//!
//! The kernel goes on with numbers that it was told by a server that has died. Where a file is that has
//! one, the lower says, or else the upper when all of it is walked, once for all files. What neither
//! says was noted (`notes`). A file is known from then on as if it had been looked up; how often the
//! kernel was told of it before nobody knows, so it is known until the kernel forgets it, be it once.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::handle::Extent;
use crate::overlay::lower::{LowerFound, LowerId};
use crate::overlay::node::{Node, Nodes, Numbered, State};
use crate::overlay::notes::{Fact, Note, Notes, Pin};
use crate::overlay::open::FileCache;
use crate::overlay::place::{DirCache, Place};
use crate::overlay::readdir::Fh;
use crate::overlay::{Ino, Overlay, SPARE};
use crate::sys::{self, Errno};

/// How long what was found in walking is kept when nobody asks for it.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How often is walked for one file: what is renamed meanwhile may not be met.
const WALKS: usize = 8;
/// Numbers that the servers before have given to files whose own are taken have so many bits.
const SPARE_BITS: u32 = 40;

/// What an earlier server knew and this one was not asked for yet.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// Names of files of the upper, by their numbers.
    upper: Mutex<Found<Ino>>,
    /// Names of files of a lower that does not know them, by their numbers.
    lower: Mutex<Found<LowerId>>,
    /// Held by who walks through the lower.
    walking: Mutex<()>,
    /// Numbers that the places of files do not say, by inodes of the upper.
    numbers: Mutex<HashMap<u64, (Ino, Note)>>,
    /// Listings that are read.
    listings: Mutex<HashMap<Fh, (Note, File)>>,
}

/// Where files were when all were looked at: a directory and a name in it, several where there are.
pub(crate) type Names<T> = HashMap<T, Vec<(T, Box<OsStr>)>>;

/// What was found in walking, for as long as it is asked for.
#[derive(Debug)]
struct Found<T>(Option<(Arc<Names<T>>, Instant)>);

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Found<T> {
    fn get(&mut self) -> Option<Arc<Names<T>>> {
        let (names, asked) = self.0.as_mut()?;
        *asked = Instant::now();
        Some(Arc::clone(names))
    }

    fn put(&mut self, names: Names<T>) -> Arc<Names<T>> {
        let names = Arc::new(names);
        self.0 = Some((Arc::clone(&names), Instant::now()));
        names
    }

    fn tidy(&mut self) {
        if self.0.as_ref().is_some_and(|(_, asked)| asked.elapsed() > KEPT_FOR) {
            self.0 = None;
        }
    }
}

impl Again {
    /// Returns the number of a file with this inode in the upper, if its place does not say it.
    pub(crate) fn number(&self, inode: u64) -> Option<Ino> {
        self.numbers.lock().get(&inode).map(|(ino, _)| *ino)
    }

    /// Forgets which file has a number.
    pub(crate) fn forget_number(&self, ino: Ino) {
        self.numbers.lock().retain(|_, (other, _)| *other != ino);
    }

    /// Returns the names that were taken for a handle of an earlier server.
    pub(crate) fn take_listing(&self, fh: Fh) -> Option<(Note, File)> {
        self.listings.lock().remove(&fh)
    }

    /// Gives every fact that nobody has asked for yet to `sink`, with its descriptor.
    pub(crate) fn each_left(
        &self,
        mut sink: impl FnMut(Fact, Option<BorrowedFd<'_>>) -> Result<()>,
    ) -> Result<()> {
        for (inode, (ino, _)) in &*self.numbers.lock() {
            sink(Fact::Number { ino: *ino, inode: *inode }, None)?;
        }
        for (fh, (_, file)) in &*self.listings.lock() {
            sink(Fact::Listing { fh: *fh, fd: 0 }, Some(file.as_fd()))?;
        }
        Ok(())
    }

    /// Notes that a handle is closed.
    pub(crate) fn release(&self, fh: Fh) {
        drop(self.take_listing(fh));
    }

    /// Notes that the kernel forgets a file.
    pub(crate) fn forget(&self, ino: Ino) {
        self.forget_number(ino);
        self.upper.lock().tidy();
        self.lower.lock().tidy();
    }
}

impl Overlay {
    /// Has what the disk does not tell written down, for a process that goes on after this one. To be
    /// called before a process is forked that serves.
    pub fn keep_notes(&mut self, notes: Arc<Notes>) {
        self.notes = Some(notes);
        // What is open now stays open in every process, so nothing may be that one of them would close.
        self.forget_everything();
    }

    /// Begins to serve, after those that have served before: only one process does at a time.
    pub fn begin(&mut self) -> Result<()> {
        let Some(notes) = self.notes.clone() else { return Ok(()) };
        let servers = notes.begin();
        self.servers = servers;
        self.open_dirs.begin(servers);
        self.next_spare.store(SPARE | servers << SPARE_BITS, Ordering::Relaxed);
        if servers > 0 { self.go_on(&notes) } else { self.find_redirected_if_any() }
    }

    fn forget_everything(&mut self) {
        self.redirected.get_mut().clear();
        let (ino, kind, lower) = (Ino::ROOT, Kind::Directory, self.root.lower);
        let (root, lower) =
            (std::mem::take(&mut *self.root.state.lock()), lower.map(LowerFound::known));
        self.nodes = Nodes::new();
        self.root = self.nodes.get_or_make(ino, || Node::new(ino, kind, lower, root));
        self.files = FileCache::new();
        self.dirs = DirCache::new();
        if let Some(upper) = &self.upper {
            upper.close_kept();
        }
    }

    fn go_on(&mut self, notes: &Arc<Notes>) -> Result<()> {
        let again = Again::default();
        if let Some(names) = self.found.take() {
            again.upper.lock().put(names);
        }
        self.again = Some(again);
        let upper = self.upper.as_ref().filter(|upper| upper.is_for_change());
        if let Some(upper) = upper {
            // What the other one was about to do, nobody will finish.
            upper.clear_work()?;
        }
        for (fact, note) in notes.take_over() {
            if let Err(error) = self.restore(fact, note) {
                tracing::warn!("{fact:?} cannot be made out any more: {error}");
            }
        }
        self.find_redirected_if_any()?;
        if self.changeable().is_ok() { self.finish_links() } else { Ok(()) }
    }

    fn restore(&self, fact: Fact, note: Note) -> Result<()> {
        let Some(again) = &self.again else { return Ok(()) };
        let open = || fact.fd().and_then(sys::inherit).ok_or(Error::BadHandle);
        match fact {
            Fact::Pinned { ino, kind, inode, lower, .. } => {
                self.restore_pinned((ino, kind, lower), inode, note, open()?)
            }
            Fact::Gone { ino, kind } => self.restore_gone(ino, kind, note),
            Fact::Number { ino, inode } => {
                drop(again.numbers.lock().insert(inode, (ino, note)));
                Ok(())
            }
            Fact::Lost => {
                if let Some(upper) = &self.upper {
                    upper.note_loss(&"before the last server has died");
                }
                // It stays so.
                std::mem::forget(note);
                Ok(())
            }
            Fact::Listing { fh, .. } => {
                let listing = File::from(open()?);
                drop(again.listings.lock().insert(fh, (note, listing)));
                Ok(())
            }
        }
    }

    /// Makes a file known again that had lost its names, or was about to.
    fn restore_pinned(
        &self,
        (ino, kind, lower): (Ino, Kind, Option<LowerId>),
        inode: u64,
        note: Note,
        file: OwnedFd,
    ) -> Result<()> {
        let upper = self.changeable()?;
        let stat = sys::fstat(file.as_fd())?;
        if stat.ino != inode {
            return Err(Error::Stale(ino.0));
        }
        let marks = upper.marks_of_fd(file.as_fd())?;
        let more_links = match lower.map(|id| upper.indexed(id.0)).transpose()?.flatten() {
            Some((indexed, marks)) if indexed.ino == inode => {
                Some(marks.links.map_or(0, |kept| kept.more_than(stat.nlink)))
            }
            Some(_) | None => None,
        };
        let found = match lower {
            Some(id) => self.find_in_lower(id)?.or_else(|| Some(LowerFound::known(id))),
            None => None,
        };
        let own = self.upper_ino(inode);
        let by_place = lower.map_or(own, |id| self.ino_of(id));
        let state = State {
            upper: Some(inode),
            gone: stat.nlink == 0 && more_links.is_none(),
            content_in_lower: marks.metacopy && lower.is_some(),
            more_links,
            generation: self.generation(ino, &stat),
            pin: Some(Pin::new(Some(note), file)),
            // If it is otherwise, that was noted too.
            number: if ino == by_place { Numbered::ByPlace } else { Numbered::Otherwise(None) },
            ..State::default()
        };
        let node = self.nodes.get_or_make(ino, || Node::new(ino, kind, found, state));
        self.know(&Place::Node(node));
        Ok(())
    }

    /// Makes a file of the lower known again that had lost its names, or was about to.
    fn restore_gone(&self, ino: Ino, kind: Kind, note: Note) -> Result<()> {
        let id = LowerId(ino.0.wrapping_sub(1));
        let Some(found) = self.find_in_lower(id)? else { return Ok(()) };
        if self.nodes.get(ino).is_some() {
            return Ok(());
        }
        let is_shown = match kind {
            Kind::Directory => self.dir_of_lower(id)?.is_some(),
            _ => self.by_lower_names(ino)?.is_some(),
        };
        if is_shown {
            return Ok(());
        }
        let (gone_note, lower_links) = (Some(note), Some(0));
        let state = State { gone: true, gone_note, lower_links, ..State::default() };
        let node = self.nodes.get_or_make(ino, || Node::new(ino, kind, Some(found), state));
        self.know(&Place::Node(node));
        Ok(())
    }

    /// Notes that the kernel knows a file, which it was told of by an earlier server.
    pub(crate) fn know(&self, place: &Place) {
        if self.again.is_none() || !self.counts_lookups() {
            return;
        }
        let (ino, node, lower) = match place {
            Place::Lower(found) => (self.ino_of(found.id), None, Some(found.id)),
            Place::Node(node) => (node.ino, Some(node), node.lower),
        };
        if ino == Ino::ROOT || !self.nodes.know(ino, node) {
            return;
        }
        if let Some(id) = lower {
            self.lower.keep(id);
        }
    }

    /// Returns where the file is that the kernel knows by a number.
    pub(crate) fn place_again(&self, ino: Ino) -> Result<Place> {
        let place = self.find_again(ino)?;
        self.know(&place);
        Ok(place)
    }

    fn find_again(&self, ino: Ino) -> Result<Place> {
        let found = match ino.0.checked_sub(1).map(LowerId) {
            Some(id) => self.find_in_lower(id)?,
            None => None,
        };
        if let Some(found) = found {
            if self.upper.is_none() {
                return Ok(Place::Lower(found));
            }
            if let Some(place) = unless_gone(self.by_lower_names(ino))? {
                return Ok(place);
            }
        }
        let Some(again) = self.again.as_ref().filter(|_| self.upper.is_some()) else {
            return Err(Error::Stale(ino.0));
        };
        let found = again.upper.lock().get();
        if let Some(names) = found
            && let Some(place) = self.at_found(&names, ino)?
        {
            return Ok(place);
        }
        for _ in 0..WALKS {
            let walked = self.walk_upper()?;
            let names = again.upper.lock().put(walked);
            if let Some(place) = self.at_found(&names, ino)? {
                return Ok(place);
            }
        }
        Err(Error::Stale(ino.0))
    }

    /// Returns what has a number, if it is where it was found, by way of the directories above it.
    fn at_found(&self, names: &Names<Ino>, ino: Ino) -> Result<Option<Place>> {
        let Some(path) = path_of(names, ino, |dir| self.known_dir(dir)) else { return Ok(None) };
        let (mut place, path) = path;
        for (ino, name) in path.into_iter().rev() {
            match unless_gone(self.child_if_any(&place, &name))? {
                Some(child) if self.ino(&child) == ino => place = child,
                Some(_) | None => return Ok(None),
            }
        }
        Ok(Some(place))
    }

    fn known_dir(&self, ino: Ino) -> Option<Place> {
        let root = (ino == Ino::ROOT).then(|| Arc::clone(&self.root));
        root.or_else(|| self.nodes.get(ino)).map(Place::Node)
    }

    /// Returns the names of all that the upper has.
    fn walk_upper(&self) -> Result<Names<Ino>> {
        let mut names = Names::new();
        let mut pending = vec![Place::Node(Arc::clone(&self.root))];
        while let Some(dir) = pending.pop() {
            let own = self.ino(&dir);
            // Others rename and remove meanwhile.
            let below = unless_gone(self.names_to_search(&dir, Extent::Upper).map(Some))?;
            for name in below.into_iter().flatten() {
                let Some(child) = unless_gone(self.child_if_any(&dir, &name))? else { continue };
                names.entry(self.ino(&child)).or_default().push((own, name.into_boxed_os_str()));
                if self.kind(&child)? == Kind::Directory {
                    pending.push(child);
                }
            }
        }
        Ok(names)
    }

    /// Returns the file of the lower with this number, known or not; none if there is none.
    pub(crate) fn find_in_lower(&self, id: LowerId) -> Result<Option<LowerFound>> {
        let known = self.lower.hold_if_known(id);
        let Some(again) = self.again.as_ref().filter(|_| !self.lower.knows_all_names()) else {
            return Ok(known);
        };
        if known.is_some() {
            return Ok(known);
        }
        // One walks for all.
        let walking = again.walking.lock();
        let found = again.lower.lock().get();
        let names = match found {
            Some(names) => names,
            None => {
                let walked = self.walk_lower()?;
                again.lower.lock().put(walked)
            }
        };
        drop(walking);
        self.look_up_all(&names, id)
    }

    /// Looks a file of the lower up under all its names; returns it if it has any.
    fn look_up_all(&self, names: &Names<LowerId>, id: LowerId) -> Result<Option<LowerFound>> {
        let mut found = None;
        for (dir, name) in names.get(&id).into_iter().flatten() {
            let known = |dir| self.lower.hold_if_known(dir);
            let Some((mut at, path)) = path_of(names, *dir, known) else { continue };
            for (_, name) in path.into_iter().rev() {
                match self.lower.lookup(at.id, &name)? {
                    Some(below) => at = below,
                    None => return Ok(found),
                }
            }
            let child = self.lower.lookup(at.id, name)?;
            found = found.or(child.filter(|child| child.id == id));
        }
        Ok(found)
    }

    /// Returns the names of all files of the lower.
    fn walk_lower(&self) -> Result<Names<LowerId>> {
        let mut names = Names::new();
        let mut pending = vec![LowerFound::known(self.lower.root())];
        while let Some(dir) = pending.pop() {
            let mut below = Vec::new();
            self.lower.entries(dir.id, 0, &mut |entry| {
                names.entry(entry.id).or_default().push((dir.id, Box::<OsStr>::from(entry.name)));
                if entry.kind == Kind::Directory {
                    below.push(entry.name.to_owned());
                }
                ControlFlow::Continue(())
            })?;
            for name in below {
                pending.extend(self.lower_lookup_if_any(dir.id, &name)?);
            }
        }
        Ok(names)
    }

    fn lower_lookup_if_any(&self, dir: LowerId, name: &OsStr) -> Result<Option<LowerFound>> {
        match self.lower.lookup(dir, name) {
            Err(error) if error.refused_kind().is_some() => Ok(None),
            other => other,
        }
    }
}

/// Returns nothing where what was to be looked at has been renamed or removed by now.
fn unless_gone<T>(found: Result<Option<T>>) -> Result<Option<T>> {
    match found {
        Err(error) if matches!(error.errno(), Errno::ESTALE | Errno::ENOENT | Errno::ENOTDIR) => {
            Ok(None)
        }
        other => other,
    }
}

/// Returns the way to what has a number, last name first, from a directory that is known.
fn path_of<T: Copy + Eq + std::hash::Hash, P>(
    names: &Names<T>,
    number: T,
    known: impl Fn(T) -> Option<P>,
) -> Option<(P, Vec<(T, OsString)>)> {
    let (mut at, mut path) = (number, Vec::new());
    loop {
        if let Some(place) = known(at) {
            return Some((place, path));
        }
        let (dir, name) = names.get(&at)?.first()?;
        path.push((at, name.to_os_string()));
        at = *dir;
        // A way that leads in a circle is none.
        if path.len() > names.len() {
            return None;
        }
    }
}
