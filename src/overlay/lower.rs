//! What the overlay asks of the read-only tree below it.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::layer::{Attr, Chain, Content, Kind, ROOT};
use crate::overlay::error::{Error, Result};

/// A file or directory of the lower tree; the same one always has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LowerId(pub u64);

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
    /// Returns the root directory.
    fn root(&self) -> LowerId;

    /// Returns a number that no [`LowerId`] reaches.
    fn id_limit(&self) -> u64;

    /// Returns the attributes of a file.
    fn attr(&self, id: LowerId) -> Result<Attr>;

    /// Returns what has this name in a directory.
    fn lookup(&self, dir: LowerId, name: &OsStr) -> Result<Option<LowerId>>;

    /// Gives the entries of a directory to `sink`, from a position on, without `.` and `..`; the
    /// beginning is 0. Positions stay valid for ever.
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

    /// Returns every name of a file: the directory, and the name in it. The root has none.
    fn names(&self, id: LowerId) -> Result<Vec<(LowerId, OsString)>>;
}

/// The merged layers of an image.
#[derive(Debug)]
pub struct ChainLower(Chain);

impl ChainLower {
    /// Returns the lower tree that a chain is.
    pub const fn new(chain: Chain) -> Self {
        Self(chain)
    }
}

fn inode(id: LowerId) -> Result<u32> {
    u32::try_from(id.0).map_err(|_| Error::Stale(id.0))
}

const fn id(inode: u32) -> LowerId {
    LowerId(inode as u64)
}

impl Lower for ChainLower {
    fn root(&self) -> LowerId {
        id(ROOT)
    }

    fn id_limit(&self) -> u64 {
        u64::from(self.0.inode_count())
    }

    fn attr(&self, id: LowerId) -> Result<Attr> {
        Ok(self.0.attr(inode(id)?)?)
    }

    fn lookup(&self, dir: LowerId, name: &OsStr) -> Result<Option<LowerId>> {
        Ok(self.0.lookup(inode(dir)?, name)?.map(id))
    }

    fn entries(
        &self,
        dir: LowerId,
        from: u64,
        sink: &mut dyn FnMut(LowerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let dir = inode(dir)?;
        let Ok(from) = u32::try_from(from) else { return Ok(()) };
        for position in from..self.0.entry_count(dir)? {
            let Some(entry) = self.0.entry(dir, position)? else { break };
            let entry = LowerEntry {
                id: id(entry.inode),
                kind: entry.kind,
                name: entry.name,
                next: u64::from(position) + 1,
            };
            if sink(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, id: LowerId) -> Result<OsString> {
        Ok(self.0.read_link(inode(id)?)?.to_owned())
    }

    fn xattrs(&self, id: LowerId) -> Result<Vec<(OsString, Vec<u8>)>> {
        let xattrs = self.0.xattrs(inode(id)?)?;
        Ok(xattrs.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect())
    }

    fn open(&self, id: LowerId) -> Result<LowerFile> {
        match self.0.content(inode(id)?)? {
            Content::Inline(bytes) => Ok(LowerFile::Bytes(bytes.into())),
            Content::Object(digest) => Ok(LowerFile::File(Arc::new(self.0.open_object(digest)?))),
        }
    }

    fn names(&self, id_of: LowerId) -> Result<Vec<(LowerId, OsString)>> {
        let names = self.0.names(inode(id_of)?)?;
        Ok(names.into_iter().map(|(dir, name)| (id(dir), name.to_owned())).collect())
    }
}
