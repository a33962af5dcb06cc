//! The union: what a path means and what changing it does.
//!
//! An [`Overlay`] shows a read-only tree (the [`Lower`]) with the changes of a directory (the upper)
//! over it. It speaks of inodes by number and of directories and names, as the kernel's VFS does,
//! and knows neither FUSE nor where its layers came from. One file holds each operation, as in the
//! kernel's `fs/overlayfs`:
//!
//! | here | kernel | what |
//! |---|---|---|
//! | `lookup` | `namei.c` | where a name is |
//! | `handle` | `export.c` | what has a number |
//! | `again`, `notes`, `attempt`, `carry` | | going on after another server |
//! | `readdir` | `readdir.c` | merging listings |
//! | `create`, `remove`, `rename` | `dir.c` | changing names |
//! | `copy_up` | `copy_up.c` | making a lower file writable |
//! | `index` | `copy_up.c`, `util.c` | lower files whose names are not all known |
//! | `attr`, `privilege`, `xattr` | `inode.c`, `xattrs.c` | attributes |
//! | `open`, `file` | `file.c` | contents |
//! | `upper` | `super.c`, `util.c` | the directory that keeps changes |
//!
//! Rules that hold everywhere: a lower file is never written; data belongs to the inode, not to the
//! handle; nothing is copied before it must be; no lock is held over anybody else's copying.
//! `docs/semantics.md` says what a program may rely on, `node` says the lock order.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a crash leaves a dead mount under somebody's program"
)]

mod again;
mod attempt;
mod attr;
mod carry;
mod changes;
mod copy_up;
mod create;
mod error;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handle;
mod ids;
mod index;
mod item;
mod lookup;
mod lower;
mod node;
mod notes;
mod open;
mod place;
mod privilege;
mod readdir;
mod remove;
mod rename;
#[cfg(test)]
mod tests;
mod upper;
mod xattr;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;

use crate::overlay::again::Again;
use crate::overlay::node::{Node, Nodes, State};
use crate::overlay::open::FileCache;
use crate::overlay::readdir::OpenDirs;
use crate::overlay::upper::Upper;
use crate::sys::{self, Time};

pub use crate::layer::{Kind, Verify};
pub use crate::sys::SetXattr;
pub use attempt::{Attempt, MEMO_WORDS, Memo};
pub use attr::SetAttr;
pub use carry::Carried;
pub use changes::{Change, ChangeKind};
pub use create::{Caller, NewFile};
pub use error::{Error, Result};
pub use file::Seek;
pub use ids::{IdMap, IdRange, Ids};
pub use item::{Item, ItemReader};
pub use lower::{
    ChainLower, DirsLower, Links, Lower, LowerAttr, LowerDirs, LowerEntry, LowerFile, LowerFound,
    LowerId,
};
pub use notes::{Fact, Notes};
pub use readdir::{DirEntry, Fh, ReadDir};
pub use rename::Rename;
pub use upper::{HeldUpper, Owners, Purpose};

/// The number of an inode; the root has 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

/// The attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Number.
    pub ino: Ino,
    /// File type and permissions.
    pub mode: u32,
    /// Number of names; of a directory 2 and its subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred size of an access in bytes.
    pub block_size: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
    /// What tells the inode from others that had or will have its number; 0 if no other ever has.
    pub generation: u32,
}

impl Attr {
    /// Returns what the inode is.
    pub const fn kind(&self) -> Kind {
        Kind::of(self.mode)
    }
}

/// Where changes are kept.
#[derive(Clone, Copy, Debug)]
pub struct UpperDirs<'a> {
    /// The directory with the changes.
    pub upper: &'a Path,
    /// A directory beside it, on the same file system, in which they are prepared.
    pub work: &'a Path,
    /// What is made durable.
    pub sync: Sync,
    /// How owners are kept; none is as the process may: native with privilege, else mapped.
    pub owners: Option<Owners>,
    /// Which marks are written that not every reader of an upper follows.
    pub writes: Writes,
}

/// What is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// What programs ask to sync, and every copy of a file before it gets a name.
    Always,
    /// Nothing: faster, and undefined after a crash of the machine.
    Never,
    /// Nothing, and the upper is refused after a mount that did not end well, as the kernel's overlayfs
    /// does it: a directory in the work directory says so.
    Volatile,
}

/// Marks that make changes cheap and that a reader of the upper must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writes {
    /// What marks that lead to another path of the lower are good for.
    pub redirects: Redirects,
    /// A change of attributes does not copy the content.
    pub metacopy: bool,
    /// Marks are below `user.overlay.`, also where they could be below `trusted.overlay.`.
    pub user_marks: bool,
}

impl Writes {
    /// All of them.
    pub const ALL: Self = Self { redirects: Redirects::Made, metacopy: true, user_marks: false };
}

/// What becomes of marks that lead to another path of the lower (`redirect`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redirects {
    /// A directory of the lower is renamed by one.
    #[default]
    Made,
    /// Renaming a directory of the lower is `EXDEV`; marks that are there are followed.
    Followed,
    /// The same, and what has a mark that leads somewhere is `EPERM`.
    Refused,
}

/// A read-only tree with changes over it.
#[derive(Debug)]
pub struct Overlay {
    lower: Box<dyn Lower>,
    upper: Option<Upper>,
    root: Arc<Node>,
    nodes: Nodes,
    open_dirs: OpenDirs,
    files: FileCache,
    dirs: place::DirCache,
    /// Directories that are not where the lower has them: what is below them finds its way by these.
    redirected: Mutex<HashMap<Ino, Arc<Node>>>,
    /// The next number for a file whose own is taken.
    next_spare: AtomicU64,
    ids: Ids,
    /// Where is written down what the disk does not tell, if anybody wants to know.
    notes: Option<Arc<Notes>>,
    /// What an earlier server has left, if there was one.
    again: Option<Again>,
    /// It is written down that changes are lost.
    lost_is_noted: AtomicBool,
    /// Where it has said that files are.
    found: Option<again::Names<Ino>>,
    /// How many servers there were before this one.
    servers: u64,
    /// Files have no extended attributes that a program could see.
    no_xattrs: bool,
}

/// Numbers from here on belong to no file of the lower or the upper.
const SPARE: u64 = 1 << 63;

impl Overlay {
    /// Returns a tree that cannot be changed.
    pub fn read_only(lower: Box<dyn Lower>) -> Self {
        Self::new(lower, None)
    }

    /// Returns a tree whose changes are kept in `dirs`.
    ///
    /// # Errors
    /// [`Error::Setup`] when the directories cannot be used, or another mount uses them.
    pub fn writable(lower: Box<dyn Lower>, dirs: UpperDirs<'_>) -> Result<Self> {
        let overlay = Self::with_upper(lower, dirs, Purpose::Change)?;
        overlay.finish_links()?;
        Ok(overlay)
    }

    /// Returns a tree whose changes another process keeps in `dirs` until this one goes on with it. Nothing
    /// is changed before [`Overlay::begin`].
    ///
    /// # Errors
    /// [`Error::Setup`] when the directories cannot be used.
    pub fn held(lower: Box<dyn Lower>, dirs: UpperDirs<'_>, held: HeldUpper) -> Result<Self> {
        // Renamed directories are found when the other process has stopped: it changes them until then.
        Self::over(lower, Upper::take_over(dirs, held)?, dirs.work)
    }

    /// Returns a tree to look at, with the changes that another process may be making.
    pub fn inspect(lower: Box<dyn Lower>, dirs: UpperDirs<'_>) -> Result<Self> {
        Self::with_upper(lower, dirs, Purpose::Inspect)
    }

    /// Makes an empty upper show what the lower shows: its root gets the lower root's attributes.
    pub fn prepare(lower: &dyn Lower, dirs: UpperDirs<'_>) -> Result<()> {
        let upper = Upper::open(dirs, Purpose::Change)?;
        copy_up::prepare_root(lower, &upper)
    }

    fn with_upper(lower: Box<dyn Lower>, dirs: UpperDirs<'_>, purpose: Purpose) -> Result<Self> {
        let overlay = Self::over(lower, Upper::open(dirs, purpose)?, dirs.work)?;
        overlay.find_redirected_if_any()?;
        Ok(overlay)
    }

    fn over(lower: Box<dyn Lower>, mut upper: Upper, work: &Path) -> Result<Self> {
        if lower.needs_index() {
            upper.open_index(work)?;
        }
        Ok(Self::new(lower, Some(upper)))
    }

    /// Finds the directories that are not where the lower has them, if the upper says that there are any.
    fn find_redirected_if_any(&self) -> Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        let marks = upper.marks_of_fd(upper.root().as_fd())?;
        let follows = upper.writes().redirects != Redirects::Refused;
        if marks.redirects && follows { self.find_redirected() } else { Ok(()) }
    }

    fn new(lower: Box<dyn Lower>, upper: Option<Upper>) -> Self {
        let nodes = Nodes::new();
        let state = State { upper: upper.as_ref().map(Upper::root_inode), ..State::default() };
        let lower_root = lower.root();
        let root = nodes.get_or_make(Ino::ROOT, || {
            Node::new(Ino::ROOT, Kind::Directory, Some(LowerFound::known(lower_root)), state)
        });
        Self {
            lower,
            upper,
            root,
            nodes,
            open_dirs: OpenDirs::new(),
            files: FileCache::new(),
            dirs: place::DirCache::new(),
            redirected: Mutex::default(),
            next_spare: AtomicU64::new(SPARE),
            ids: Ids::default(),
            notes: None,
            again: None,
            lost_is_noted: AtomicBool::new(false),
            found: None,
            servers: 0,
            no_xattrs: false,
        }
    }

    /// Shows owners by a mapping.
    #[must_use]
    pub fn with_ids(mut self, ids: Ids) -> Self {
        self.ids = ids;
        self
    }

    /// Shows no extended attributes, and takes none.
    #[must_use]
    pub const fn without_xattrs(mut self) -> Self {
        self.no_xattrs = true;
        self
    }

    /// Returns what a process that goes on with the upper needs: the lock and the directory of
    /// [`HeldUpper`]; nothing where nothing is changed.
    pub fn held_upper(&self) -> Option<[BorrowedFd<'_>; 2]> {
        self.upper.as_ref().and_then(Upper::held)
    }

    /// Puts the tree in order when it is not mounted any more. Everything stays open.
    pub fn end(&self) {
        if let Some(upper) = &self.upper {
            upper.end();
        }
    }

    /// Tells whether the tree cannot be changed.
    pub const fn is_read_only(&self) -> bool {
        self.upper.is_none()
    }

    /// Returns how the upper keeps owners; none without an upper.
    pub fn owners(&self) -> Option<Owners> {
        self.upper.as_ref().map(Upper::owners)
    }

    /// Returns the upper.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] when there is none.
    fn changeable(&self) -> Result<&Upper> {
        self.upper.as_ref().filter(|upper| upper.is_for_change()).ok_or(Error::ReadOnly)
    }

    /// Notes that the kernel forgets an inode that it was told of `count` times; tells whether it
    /// does not know it any more.
    pub fn forget(&self, ino: Ino, count: u64) -> bool {
        if !self.counts_lookups() || ino == Ino::ROOT {
            return false;
        }
        let (is_unknown, node) = self.nodes.forget(ino, count);
        if let Some(again) = self.again.as_ref().filter(|_| !self.nodes.knows(ino)) {
            again.forget(ino);
        }
        if !is_unknown {
            return false;
        }
        self.close_kept(ino);
        let lower = match &node {
            Some(node) => node.lower,
            None => ino.0.checked_sub(1).map(LowerId),
        };
        if let Some(id) = lower {
            self.lower.forget(id);
        }
        drop(node);
        if self.nodes.has_forgotten_many() {
            sys::return_freed_memory();
        }
        true
    }

    /// Tells whether it matters which files the kernel knows: what the index of an image says is there
    /// whether anybody knows it or not.
    fn counts_lookups(&self) -> bool {
        self.upper.is_some() || !self.lower.knows_all_names()
    }
}
