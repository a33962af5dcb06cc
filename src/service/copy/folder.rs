//! A directory that is written to by descriptors: of the host, or of a container's live mount.
//!
//! Each name is opened in the directory above it without following a link, so a path never leads
//! out, whatever is changed meanwhile.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use crate::layer::{Kind, TarMeta};
use crate::service::copy::source::{Content, belongs_to_file, each_piece};
use crate::service::copy::write::Place;
use crate::service::error::{Result, io_error};
use crate::sys::{self, Errno, RenameFlags, SetTime, SetXattr, XattrTarget, open_flags};

/// A directory, open.
pub(crate) struct Folder {
    pub(crate) root: OwnedFd,
    /// An owner that may not be given is left out.
    pub(crate) owners: Owners,
}

/// Whether owners must be as they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    Must,
    IfAllowed,
}

/// Permissions until a file is whole.
const OWNER_ONLY: u32 = 0o600;

impl Place for Folder {
    type Node = OwnedFd;

    fn root(&self) -> Result<OwnedFd> {
        Ok(sys::dup(self.root.as_fd())?)
    }

    fn child(&self, dir: &OwnedFd, name: &OsStr) -> Result<Option<(Kind, OwnedFd)>> {
        let fd = match sys::open_path(dir.as_fd(), name) {
            Err(error) if error.errno() == Errno::ENOENT => return Ok(None),
            other => other?,
        };
        let kind = Kind::of(sys::fstat(fd.as_fd())?.mode);
        Ok(Some((kind, fd)))
    }

    fn make(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        meta: &TarMeta,
        content: &mut dyn Content,
    ) -> Result<OwnedFd> {
        let dir = dir.as_fd();
        match meta.kind {
            Kind::Regular => {
                let fd = sys::open(dir, name, open_flags::CREATE_NEW, OWNER_ONLY)?;
                let file = File::from(fd);
                fill(&file, meta, content)?;
                return Ok(file.into());
            }
            Kind::Directory => sys::make_dir(dir, name, 0o700)?,
            Kind::Symlink => sys::symlink(OsStr::from_bytes(&meta.target), dir, name)?,
            kind => sys::make_node(dir, name, kind.mode() | OWNER_ONLY, meta.device)?,
        }
        Ok(sys::open_path(dir, name)?)
    }

    fn link(&self, node: &OwnedFd, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        Ok(sys::link_fd(node.as_fd(), dir.as_fd(), name)?)
    }

    fn describe(&self, node: &OwnedFd, meta: &TarMeta, owner: Option<(u32, u32)>) -> Result<()> {
        let fd = node.as_fd();
        if let Some((uid, gid)) = owner {
            match sys::chown(fd, Some(uid), Some(gid)) {
                Err(error) if self.owners == Owners::IfAllowed && error.errno() == Errno::EPERM => {
                }
                other => other?,
            }
        }
        for (name, value) in &meta.xattrs {
            self.set_xattr(fd, name, value)?;
        }
        if meta.kind != Kind::Symlink {
            sys::chmod(fd, meta.mode)?;
        }
        Ok(sys::set_times(fd, SetTime::Keep, SetTime::To(meta.mtime))?)
    }

    fn rename(&self, dir: &OwnedFd, from: &OsStr, to: &OsStr) -> Result<()> {
        Ok(sys::rename(dir.as_fd(), from, dir.as_fd(), to, RenameFlags::empty())?)
    }

    fn remove(&self, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        Ok(sys::unlink(dir.as_fd(), name)?)
    }
}

impl Folder {
    /// Sets an attribute, if it may be set.
    fn set_xattr(&self, fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<()> {
        // What else an image holds means something to its own machine only.
        if self.owners == Owners::IfAllowed && !belongs_to_file(name) {
            return Ok(());
        }
        match sys::set_xattr(XattrTarget::Fd(fd), OsStr::from_bytes(name), value, SetXattr::Any) {
            Err(error) if is_not_allowed(error.errno()) => {
                tracing::debug!("{error}");
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

/// Tells whether an error means that there are no such attributes here, or not for this caller.
pub(crate) const fn is_not_allowed(errno: Errno) -> bool {
    matches!(errno, Errno::EPERM | Errno::EOPNOTSUPP)
}

/// Writes a content; what it does not have becomes a hole.
fn fill(file: &File, meta: &TarMeta, content: &mut dyn Content) -> Result<()> {
    let end = each_piece(content, &mut |bytes, offset| {
        file.write_all_at(bytes, offset).map_err(io_error("write", "the content"))
    })?;
    Ok(sys::truncate_fd(file.as_fd(), meta.size.max(end))?)
}
