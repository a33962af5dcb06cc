//! What the methods for the requests share.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{FileHandle, INodeNo, RenameFlags, Request};

use crate::fuse::told::Told;
use crate::overlay::{Attr, Caller, Error, Fh, Ino, Kind, Overlay, Rename, Result};

/// The overlay as fuser calls it.
pub(crate) struct Requests {
    pub(crate) overlay: Overlay,
    /// On the file system whose state a tree without an upper shows.
    pub(crate) statfs_of: OwnedFd,
    pub(crate) checked: Checked,
    pub(crate) told: Arc<Told>,
}

/// Who checks what a program may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The kernel, by modes and ACLs.
    ByKernel,
    /// Nobody: whoever mounted the tree may do everything with it.
    ByNobody,
}

impl Requests {
    pub(crate) fn new(overlay: Overlay, statfs_of: OwnedFd, checked: Checked) -> Self {
        Self { overlay, statfs_of, checked, told: Arc::new(Told::new()) }
    }

    /// Returns what notes who was told of directories.
    pub(crate) fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told)
    }

    /// Returns attributes that were read when there were `changes` as a request is to be told them:
    /// those of a directory as they are now.
    pub(crate) fn current(&self, attr: Attr, changes: u64, request: &Request) -> Attr {
        let may_change = attr.kind() == Kind::Directory && !self.overlay.is_read_only();
        if may_change && self.told.tell(attr.ino, request, changes) {
            return self.overlay.getattr(attr.ino).unwrap_or(attr);
        }
        attr
    }

    /// Does what changes names of a directory.
    pub(crate) fn change<T>(
        &self,
        dir: INodeNo,
        request: &Request,
        work: impl FnOnce(Ino) -> Result<T>,
    ) -> Result<T> {
        let done = work(ino(dir));
        self.told.changed(ino(dir), request);
        done
    }
}

/// Returns what a rename is to do.
pub(crate) fn rename_how(flags: RenameFlags) -> Result<Rename> {
    match flags {
        flags if flags.is_empty() => Ok(Rename::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(Rename::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(Rename::Exchange),
        _ => Err(Error::Invalid("these flags of rename are not known")),
    }
}

/// Returns the number of a file.
pub(crate) const fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

/// Returns the handle that a request names; a tree that cannot be changed has none.
pub(crate) fn handle(handle: FileHandle) -> Option<Fh> {
    (handle.0 != 0).then_some(Fh(handle.0))
}

/// Returns who makes a request.
pub(crate) fn caller(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), umask }
}
