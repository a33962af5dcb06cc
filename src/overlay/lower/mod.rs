//! What the overlay asks of the read-only tree below it, and the two trees that there are: the merged
//! layers of an image, and a stack of plain directories.

mod chain;
mod dirs;

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::layer::{self, Kind};
use crate::overlay::error::Result;
use crate::sys::Time;

pub use chain::ChainLower;
pub use dirs::{DirsLower, Links, LowerDirs};

/// A file or directory of the lower tree; the same one always has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LowerId(pub u64);

/// A file of the lower that was found under a name. It stays known for as long as somebody has this,
/// whatever the kernel forgets meanwhile.
#[derive(Clone, Debug)]
pub struct LowerFound {
    /// Which file.
    pub id: LowerId,
    _held: Option<Arc<dyn Held>>,
}

/// What keeps a file known until it is dropped.
pub(crate) trait Held: Debug + Send + Sync {}

impl LowerFound {
    /// Returns a file that is known anyway.
    pub(crate) const fn known(id: LowerId) -> Self {
        Self { id, _held: None }
    }

    /// Returns a file that `held` keeps known.
    pub(crate) const fn kept_by(held: Arc<dyn Held>, id: LowerId) -> Self {
        Self { id, _held: Some(held) }
    }
}

/// An entry of a lower directory.
#[derive(Clone, Copy, Debug)]
pub struct LowerEntry<'a> {
    /// Which file.
    pub id: LowerId,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: &'a OsStr,
    /// The position after this entry.
    pub next: u64,
}

/// The attributes of a lower file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowerAttr {
    /// File type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names; of a directory 2 and its subdirectories, or 1 where they are not counted.
    pub nlink: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
}

impl From<layer::Attr> for LowerAttr {
    fn from(attr: layer::Attr) -> Self {
        Self {
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            rdev: attr.rdev,
            size: attr.size,
            blocks: attr.size.div_ceil(512),
            // A layer holds one time.
            atime: attr.mtime,
            mtime: attr.mtime,
            ctime: attr.mtime,
        }
    }
}

/// The content of a lower file.
#[derive(Clone, Debug)]
pub enum LowerFile {
    /// It is short and in memory.
    Bytes(Arc<[u8]>),
    /// It is an open file.
    File(Arc<File>),
}

impl LowerFile {
    /// Reads at an offset into all of `buffer` or to the end of the file, and tells how much.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let rest = bytes.get(start..).unwrap_or_default();
                let len = rest.len().min(buffer.len());
                for (place, byte) in buffer.iter_mut().zip(rest) {
                    *place = *byte;
                }
                Ok(len)
            }
            Self::File(file) => read_fully(file, buffer, offset),
        }
    }
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_fully(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// A read-only tree that never changes.
pub trait Lower: Debug + Send + Sync {
    /// Returns a name of the whole tree that no other tree has, if there is one.
    fn tree_id(&self) -> Option<[u8; 32]> {
        None
    }

    /// Returns the sha256 of a regular file's content, where it is known without reading that.
    fn content_digest(&self, _: LowerId) -> Result<Option<[u8; 32]>> {
        Ok(None)
    }

    /// Tells whether opening a file checks its content, so that opening it again means something.
    fn verifies(&self) -> bool {
        false
    }

    /// Returns the root directory.
    fn root(&self) -> LowerId;

    /// Tells whether a number is that of a file of this tree that is known.
    fn contains(&self, id: LowerId) -> bool;

    /// Returns the number of a file that is only in the upper, from its inode there: no file of this
    /// tree has it.
    fn number_of_upper(&self, inode: u64) -> u64;

    /// Tells whether [`Lower::names`] gives every name that a file has, and not only those by which
    /// it was looked up.
    fn knows_all_names(&self) -> bool;

    /// Tells whether a file may have names that [`Lower::names`] does not give, so that its copy has to
    /// be found by its number.
    fn needs_index(&self) -> bool;

    /// Returns what a file is; cheaper than its attributes.
    fn kind(&self, id: LowerId) -> Result<Kind>;

    /// Returns the attributes of a file.
    fn attr(&self, id: LowerId) -> Result<LowerAttr>;

    /// Returns what has this name in a directory.
    ///
    /// # Errors
    /// [`crate::overlay::Error::Refused`] for a name that is there and leads elsewhere by a mark
    /// that is not to be followed.
    fn lookup(&self, dir: LowerId, name: &OsStr) -> Result<Option<LowerFound>>;

    /// Gives the entries of a directory to `sink`, from a position on, without `.` and `..`; the
    /// beginning is 0. Positions stay valid for ever. A file is known only when it is looked up.
    fn entries(
        &self,
        dir: LowerId,
        from: u64,
        sink: &mut dyn FnMut(LowerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()>;

    /// Returns what a symbolic link holds.
    fn read_link(&self, id: LowerId) -> Result<OsString>;

    /// Returns all extended attributes of a file.
    fn xattrs(&self, id: LowerId) -> Result<Vec<(OsString, Vec<u8>)>>;

    /// Opens the content of a regular file.
    fn open(&self, id: LowerId) -> Result<LowerFile>;

    /// Returns a file at an absolute path that nothing shows and that only gives its content.
    fn content_at(&self, path: &OsStr) -> Result<Option<LowerFound>>;

    /// Returns the names of a file: the directory, and the name in it. The root has none.
    fn names(&self, id: LowerId) -> Result<Vec<(LowerId, OsString)>>;

    /// Tells whether a file has names that [`Lower::names`] may not give.
    fn has_unknown_names(&self, id: LowerId) -> Result<bool>;

    /// Keeps a file that is known so, for as long as somebody has what is returned.
    fn hold(&self, id: LowerId) -> LowerFound;

    /// Does the same for a file that may be known or not; none if it is not.
    fn hold_if_known(&self, id: LowerId) -> Option<LowerFound>;

    /// Keeps a file known until it is forgotten as often as it was kept.
    fn keep(&self, id: LowerId);

    /// Takes back one [`Lower::keep`].
    fn forget(&self, id: LowerId);
}
