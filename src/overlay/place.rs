//! Places: where a file of the union is, and how to reach it in the upper.
//!
//! A file of the upper is reached by the descriptor of its directory and its name, and is only
//! believed to be the one that was meant when its inode number agrees: a name may have moved on
//! meanwhile. Directories are kept open, the least used are closed. A file that lost the names by
//! which it could be found is reached by its pin.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lru::LruCache;
use parking_lot::Mutex;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::{LowerFound, LowerId};
use crate::overlay::node::{Name, Node};
use crate::overlay::notes::Pin;
use crate::overlay::{Ino, Overlay};
use crate::sys::{self, Errno, Stat, XattrTarget, open_flags};

/// How many directories of the upper are kept open.
const OPEN_DIRS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// How often a name may move away before a file counts as lost.
const TRIES: usize = 16;

/// Where a file is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In the lower, as it always was.
    Lower(LowerFound),
    /// It has a node, which says.
    Node(Arc<Node>),
}

/// How a file of the upper is reached.
#[derive(Debug)]
pub(crate) enum Located {
    /// By its name in a directory.
    At(Arc<OwnedFd>, OsString),
    /// By a descriptor of its own.
    Pinned(Arc<OwnedFd>),
    /// By its content, which is open.
    Open(Arc<File>),
}

impl Located {
    pub(crate) fn stat(&self) -> sys::Result<Stat> {
        match self {
            Self::At(dir, name) => sys::stat(dir.as_fd(), name),
            Self::Pinned(fd) => sys::fstat(fd.as_fd()),
            Self::Open(file) => sys::fstat(file.as_fd()),
        }
    }

    pub(crate) fn target(&self) -> XattrTarget<'_> {
        match self {
            Self::At(dir, name) => XattrTarget::At(dir.as_fd(), name),
            Self::Pinned(fd) => XattrTarget::Fd(fd.as_fd()),
            Self::Open(file) => XattrTarget::Fd(file.as_fd()),
        }
    }

    fn open_path(&self) -> sys::Result<OwnedFd> {
        match self {
            Self::At(dir, name) => sys::open_path(dir.as_fd(), name),
            Self::Pinned(fd) => sys::dup(fd.as_fd()),
            Self::Open(file) => sys::dup(file.as_fd()),
        }
    }
}

/// Directories of the upper that are open.
#[derive(Debug)]
pub(crate) struct DirCache(Mutex<LruCache<Ino, Arc<OwnedFd>>>);

impl DirCache {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(OPEN_DIRS)))
    }

    fn get(&self, ino: Ino) -> Option<Arc<OwnedFd>> {
        self.0.lock().get(&ino).cloned()
    }

    fn insert(&self, ino: Ino, fd: &Arc<OwnedFd>) {
        // What falls out is closed after the lock is gone.
        drop(self.0.lock().push(ino, Arc::clone(fd)));
    }

    /// Closes a directory that is going away.
    pub(crate) fn remove(&self, ino: Ino) {
        drop(self.0.lock().pop(&ino));
    }
}

impl Overlay {
    /// Returns the number of a lower file.
    pub(crate) fn ino_of(&self, id: LowerId) -> Ino {
        if id == self.lower.root() { Ino::ROOT } else { Ino(id.0.wrapping_add(1)) }
    }

    /// Returns the number of a file that comes from nowhere but the upper.
    pub(crate) fn upper_ino(&self, inode: u64) -> Ino {
        Ino(self.lower.number_of_upper(inode).wrapping_add(1))
    }

    /// Returns a number that no file has, for one whose own is taken.
    pub(crate) fn spare_ino(&self) -> Ino {
        Ino(self.next_spare.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns where the file with a number is.
    pub(crate) fn place(&self, ino: Ino) -> Result<Place> {
        if ino == Ino::ROOT {
            return Ok(Place::Node(Arc::clone(&self.root)));
        }
        if self.upper.is_some()
            && let Some(node) = self.nodes.get(ino)
        {
            return Ok(Place::Node(node));
        }
        if self.again.is_some() && !self.nodes.knows(ino) {
            return self.place_again(ino);
        }
        match ino.0.checked_sub(1).map(LowerId).filter(|id| self.lower.contains(*id)) {
            // The kernel knows it for as long as it asks.
            Some(id) => Ok(Place::Lower(LowerFound::known(id))),
            None => Err(Error::Stale(ino.0)),
        }
    }

    /// Returns where a lower file is that the union shows.
    pub(crate) fn place_of(&self, found: LowerFound) -> Place {
        let node = self.upper.as_ref().and_then(|_| self.nodes.get(self.ino_of(found.id)));
        match node {
            Some(node) => Place::Node(node),
            None if found.id == self.lower.root() => Place::Node(Arc::clone(&self.root)),
            None => Place::Lower(found),
        }
    }

    /// Returns the number of the file at a place.
    pub(crate) fn ino(&self, place: &Place) -> Ino {
        match place {
            Place::Lower(found) => self.ino_of(found.id),
            Place::Node(node) => node.ino,
        }
    }

    /// Returns what the file at a place is.
    pub(crate) fn kind(&self, place: &Place) -> Result<Kind> {
        match place {
            Place::Lower(found) => self.lower.kind(found.id),
            Place::Node(node) => Ok(node.kind),
        }
    }

    /// Returns the node of the file at a place, which gets one if it has none.
    pub(crate) fn node(&self, place: &Place) -> Result<Arc<Node>> {
        let found = match place {
            Place::Node(node) => return Ok(Arc::clone(node)),
            Place::Lower(found) => found,
        };
        let (kind, ino) = (self.kind(place)?, self.ino_of(found.id));
        let make = || Node::new(ino, kind, Some(self.lower.hold(found.id)), Default::default());
        Ok(self.nodes.get_or_make(ino, make))
    }

    /// Opens a directory of the upper, as a place to start from.
    pub(crate) fn dir_fd(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.open_dir(node)? {
            return Ok(fd);
        }
        // Up to a directory that is open, then down again. A name that moves meanwhile leads to
        // another inode, and the walk begins anew.
        for _ in 0..TRIES {
            let mut above = vec![(Arc::clone(node), None::<Name>)];
            let mut fd = loop {
                let Some((last, name_of_last)) = above.last_mut() else {
                    return Err(Error::Stale(node.ino.0));
                };
                let name = last.state.lock().names.first().cloned();
                let name = name.ok_or(Error::Stale(last.ino.0))?;
                *name_of_last = Some(name.clone());
                match self.open_dir(&name.dir)? {
                    Some(fd) => break fd,
                    None => above.push((name.dir, None)),
                }
            };
            let mut found = true;
            for (dir, name) in above.iter().rev() {
                let Some(name) = name else { break };
                match self.open_below(&fd, &name.name, dir)? {
                    Some(below) => fd = below,
                    None => {
                        found = false;
                        break;
                    }
                }
            }
            if found {
                return Ok(fd);
            }
        }
        Err(Error::Stale(node.ino.0))
    }

    /// Returns the descriptor of a directory that is open.
    fn open_dir(&self, node: &Arc<Node>) -> Result<Option<Arc<OwnedFd>>> {
        if node.ino == Ino::ROOT {
            return Ok(Some(self.writable_or_seen()?.root()));
        }
        if let Some(fd) = self.dirs.get(node.ino) {
            return Ok(Some(fd));
        }
        Ok(node.state.lock().pin.as_ref().map(Pin::fd))
    }

    fn open_below(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        node: &Arc<Node>,
    ) -> Result<Option<Arc<OwnedFd>>> {
        let fd = match sys::open(dir.as_fd(), name, open_flags::DIRECTORY_PATH, 0) {
            Ok(fd) => Arc::new(fd),
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if Some(sys::fstat(fd.as_fd())?.ino) != node.state.lock().upper {
            return Ok(None);
        }
        self.dirs.insert(node.ino, &fd);
        Ok(Some(fd))
    }

    /// Calls `with` on a file of the upper until it gives an answer; none is for a name that
    /// turned out to lead elsewhere.
    fn locate<T>(
        &self,
        node: &Arc<Node>,
        with: impl Fn(Located) -> sys::Result<Option<T>>,
    ) -> Result<T> {
        if let Some(file) = node.open_upper()
            && let Some(answer) = with(Located::Open(file))?
        {
            return Ok(answer);
        }
        for _ in 0..TRIES {
            let (pin, name, indexed) = {
                let state = node.state.lock();
                let pin = state.pin.as_ref().map(Pin::fd);
                (pin, state.names.first().cloned(), state.more_links.is_some())
            };
            let located = match (name, pin) {
                (_, Some(pin)) => Located::Pinned(pin),
                (Some(name), None) => Located::At(self.dir_fd(&name.dir)?, name.name),
                (None, None) if indexed => {
                    let id = node.lower.ok_or(Error::Stale(node.ino.0))?;
                    let (index, name) = self.writable_or_seen()?.in_index(id.0)?;
                    Located::At(index, name)
                }
                (None, None) if node.ino == Ino::ROOT => {
                    Located::Pinned(self.writable_or_seen()?.root())
                }
                (None, None) => break,
            };
            match with(located) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(error) if error.errno() == Errno::ENOENT => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Stale(node.ino.0))
    }

    /// Returns the attributes that a file of the upper has, without what marks say, and how to reach
    /// it.
    pub(crate) fn raw_stat(&self, node: &Arc<Node>) -> Result<(Stat, Located)> {
        let upper = node.state.lock().upper;
        self.locate(node, |located| {
            let stat = located.stat()?;
            Ok((Some(stat.ino) == upper).then_some((stat, located)))
        })
    }

    /// Opens a file of the upper as a place, and returns its attributes, without what
    /// marks say.
    pub(crate) fn open_node(&self, node: &Arc<Node>) -> Result<(OwnedFd, Stat)> {
        let upper = node.state.lock().upper;
        self.locate(node, |located| {
            let fd = located.open_path()?;
            let stat = sys::fstat(fd.as_fd())?;
            Ok((Some(stat.ino) == upper).then_some((fd, stat)))
        })
    }

    /// Keeps hold of a file that is about to lose the last name by which it can be found.
    pub(crate) fn pin(&self, node: &Arc<Node>) -> Result<()> {
        if node.state.lock().pin.is_none() {
            let (fd, stat) = self.open_node(node)?;
            let pin = self.new_pin((node.ino, node.kind, node.lower), stat.ino, fd)?;
            node.state.lock().pin = Some(pin);
        }
        Ok(())
    }
}
