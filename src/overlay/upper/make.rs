//! Making files: in place where nothing is in the way and one call makes all of it, else elsewhere and then
//! moved. So whatever has a name is whole, also when the server dies.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::upper::owner::{Changed, STAND_IN};
use crate::overlay::upper::{Mark, Meta, Owners, Upper};
use crate::sys::{self, Errno, RenameFlags, SetXattr, Stat, XattrTarget, mode, open_flags};

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum New<'a> {
    /// An empty regular file.
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link that holds this.
    Symlink(&'a OsStr),
    /// The same, kept as a file with a mark if links can have none.
    MarkedSymlink(&'a OsStr),
    /// A FIFO, a socket or a device with this number.
    Node(Kind, u64),
}

impl New<'_> {
    fn kind(&self) -> (Kind, u64) {
        match self {
            Self::File => (Kind::Regular, 0),
            Self::Directory => (Kind::Directory, 0),
            Self::Symlink(_) | Self::MarkedSymlink(_) => (Kind::Symlink, 0),
            Self::Node(kind, device) => (*kind, *device),
        }
    }
}

/// A file that is made and has no place yet.
#[derive(Debug)]
pub(crate) struct Temporary {
    /// Its name in the work directory; none if it has no name at all.
    name: Option<OsString>,
    /// The file: open for reading and writing if it is a regular one, else `O_PATH`.
    pub(crate) fd: OwnedFd,
}

/// What takes permissions away from a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    /// The caller's umask.
    Bits(u32),
    /// The default ACL of the directory.
    Acl,
}

impl Mask {
    const fn apply(self, meta: Meta) -> Meta {
        match self {
            Self::Bits(umask) => Meta { mode: meta.mode & !umask, ..meta },
            Self::Acl => meta,
        }
    }
}

const DEFAULT_ACL: &str = "system.posix_acl_default";

impl Upper {
    /// Makes a file under a name that the upper does not have; returns it with the attributes that it
    /// shows.
    ///
    /// # Errors
    /// `EEXIST` when the upper has the name.
    pub(crate) fn make_in_place(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        new: New<'_>,
        meta: Meta,
        mask: Mask,
    ) -> Result<(OwnedFd, Stat)> {
        if !self.is_made_whole(new, meta) {
            return self.make_and_name(dir, name, new, meta, mask);
        }
        let meta = mask.apply(meta);
        let fd = self.make_raw(dir, name, new, meta)?;
        match self.finish(fd.as_fd(), new, meta, mask) {
            Ok(stat) => Ok((fd, stat)),
            Err(error) => {
                self.withdraw(dir, name, new);
                Err(error)
            }
        }
    }

    /// Tells whether the call that makes a file gives it all that it is to have.
    fn is_made_whole(&self, new: New<'_>, meta: Meta) -> bool {
        let is_device = matches!(new, New::Node(Kind::Character, 0));
        self.owners() == Owners::Native
            && (meta.uid, meta.gid) == sys::effective_ids()
            && meta.mode & (mode::SET_UID | mode::SET_GID) == 0
            && !is_device
    }

    /// Makes a file that has no name before it has all that it is to have.
    fn make_and_name(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        new: New<'_>,
        meta: Meta,
        mask: Mask,
    ) -> Result<(OwnedFd, Stat)> {
        let kind = new.kind();
        let fd = self.make_then_name(dir, name, new, meta, mask)?;
        let stat = sys::fstat(fd.as_fd())?;
        let mut meta = mask.apply(meta);
        if mask == Mask::Acl {
            meta.mode = meta.mode & 0o7000 | stat.mode & 0o777;
        }
        Ok((fd, self.shown_as_made(stat, kind, meta)))
    }

    fn make_then_name(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        new: New<'_>,
        meta: Meta,
        mask: Mask,
    ) -> Result<OwnedFd> {
        if matches!(new, New::File) {
            match self.make_nameless(dir, meta, mask) {
                Ok(fd) => {
                    sys::link_fd(fd.as_fd(), dir, name)?;
                    return Ok(fd);
                }
                Err(Error::Sys(error)) if has_no_nameless(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let aside = self.make_aside(dir, new, meta, mask)?;
        self.place_new(&aside, dir, name)?;
        Ok(aside.fd)
    }

    /// Makes a file in the work directory, as it would be made in `dir`.
    pub(crate) fn make_aside(
        &self,
        dir: BorrowedFd<'_>,
        new: New<'_>,
        meta: Meta,
        mask: Mask,
    ) -> Result<Temporary> {
        let acl = match mask {
            Mask::Acl => self.default_acl(dir)?,
            Mask::Bits(_) => None,
        };
        let Some(acl) = acl else {
            return self.make_temporary(new, mask.apply(meta), Mask::Bits(0));
        };
        // The file system hands the default ACL down, so the file is made where there is one.
        let name = self.temporary_name();
        let nursery = self.temporary_name();
        sys::make_dir(self.work(), &nursery, 0o700)?;
        let target = XattrTarget::At(self.work(), &nursery);
        sys::set_xattr(target, DEFAULT_ACL.as_ref(), &acl, SetXattr::Any)?;
        let inside = sys::open(self.work(), &nursery, open_flags::DIRECTORY, 0)?;
        let fd = self.make_raw(inside.as_fd(), &name, new, meta)?;
        self.finish(fd.as_fd(), new, meta, Mask::Acl)?;
        sys::rename(inside.as_fd(), &name, self.work(), &name, RenameFlags::empty())?;
        sys::remove_dir(self.work(), &nursery)?;
        Ok(Temporary { name: Some(name), fd })
    }

    /// Makes a regular file without a name, as it would be made in `dir`.
    pub(crate) fn make_nameless(
        &self,
        dir: BorrowedFd<'_>,
        meta: Meta,
        mask: Mask,
    ) -> Result<OwnedFd> {
        let meta = mask.apply(meta);
        let fd = sys::open_tmpfile(dir, self.raw_mode(Kind::Regular, meta))?;
        self.finish(fd.as_fd(), New::File, meta, mask)?;
        Ok(fd)
    }

    /// Makes a file for a copy from the lower, with exactly this owner and mode. A regular file has
    /// no name yet, if the file system can do that.
    pub(crate) fn make_copy(&self, new: New<'_>, meta: Meta) -> Result<Temporary> {
        if matches!(new, New::File)
            && let Some(fd) = self.open_nameless()?
        {
            self.finish(fd.as_fd(), new, meta, Mask::Bits(0))?;
            return Ok(Temporary { name: None, fd });
        }
        self.make_temporary(new, meta, Mask::Bits(0))
    }

    /// Makes a file in the work directory.
    fn make_temporary(&self, new: New<'_>, meta: Meta, mask: Mask) -> Result<Temporary> {
        let name = self.temporary_name();
        let fd = self.make_raw(self.work(), &name, new, meta)?;
        self.finish(fd.as_fd(), new, meta, mask)?;
        Ok(Temporary { name: Some(name), fd })
    }

    /// Opens a regular file without a name; none where the file system cannot.
    pub(crate) fn open_nameless(&self) -> Result<Option<OwnedFd>> {
        match sys::open_tmpfile(self.work(), 0o600) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if has_no_nameless(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a file a name that the upper does not have.
    ///
    /// # Errors
    /// `EEXIST` when the upper has the name; the file is gone then.
    pub(crate) fn place_new(
        &self,
        file: &Temporary,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<()> {
        match &file.name {
            None => Ok(sys::link_fd(file.fd.as_fd(), dir, name)?),
            Some(from) => {
                let flags = RenameFlags::RENAME_NOREPLACE;
                self.or_discard(from, sys::rename(self.work(), from, dir, name, flags))
            }
        }
    }

    /// Lets a file that gets no place lose its name.
    pub(crate) fn forget_name(&self, file: &Temporary) -> Result<()> {
        file.name.as_ref().map_or(Ok(()), |name| self.discard(name))
    }

    /// Puts a file in the place of another one, which is deleted with all below it.
    pub(crate) fn exchange(
        &self,
        file: &Temporary,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<()> {
        let Some(from) = &file.name else {
            return Err(Error::Invalid("a file without a name cannot be exchanged"));
        };
        let flags = RenameFlags::RENAME_EXCHANGE;
        self.or_discard(from, sys::rename(self.work(), from, dir, name, flags))?;
        self.let_go(from);
        Ok(())
    }

    /// Gives an open file a name that another one has.
    pub(crate) fn link_over(
        &self,
        file: BorrowedFd<'_>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<()> {
        let aside = self.temporary_name();
        sys::link_fd(file, self.work(), &aside)?;
        let flags = RenameFlags::empty();
        self.or_discard(&aside, sys::rename(self.work(), &aside, dir, name, flags))
    }

    /// Gives a file a name that is a whiteout in the upper.
    pub(crate) fn place_over_whiteout(
        &self,
        file: &Temporary,
        is_dir: bool,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<()> {
        let Some(from) = &file.name else {
            return self.link_over(file.fd.as_fd(), dir, name);
        };
        if !is_dir {
            let flags = RenameFlags::empty();
            return self.or_discard(from, sys::rename(self.work(), from, dir, name, flags));
        }
        // A directory cannot replace a device, but the two can change places.
        self.exchange(file, dir, name)
    }

    /// Deletes a file that did not get a place.
    pub(super) fn or_discard(&self, from: &OsStr, result: sys::Result<()>) -> Result<()> {
        if result.is_err() {
            self.let_go(from);
        }
        Ok(result?)
    }

    /// Deletes what is in the work directory and nobody needs, after something has been done that its
    /// failing does not undo.
    pub(crate) fn let_go(&self, name: &OsStr) {
        if let Err(error) = self.discard(name) {
            tracing::warn!("{error}; the next mount clears it");
        }
    }

    /// Makes a file with the type and roughly the mode that it shall have.
    fn make_raw(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        new: New<'_>,
        meta: Meta,
    ) -> Result<OwnedFd> {
        let (kind, _) = new.kind();
        if self.is_kept_as_regular(new, meta) {
            return self.make_marked(dir, name, new);
        }
        let mode = self.raw_mode(kind, meta);
        match new {
            New::File => return create_file(dir, name, mode),
            New::Directory => sys::make_dir(dir, name, mode)?,
            New::Symlink(target) | New::MarkedSymlink(target) => sys::symlink(target, dir, name)?,
            New::Node(kind @ Kind::Character, 0) => {
                sys::make_node(dir, name, kind.mode() | mode, STAND_IN)?;
                self.namespace().set(XattrTarget::At(dir, name), Mark::Device, b"0:0")?;
            }
            New::Node(kind, device) => sys::make_node(dir, name, kind.mode() | mode, device)?,
        }
        Ok(sys::open_path(dir, name)?)
    }

    /// Returns the mode with which a file is made before it gets its own.
    fn raw_mode(&self, kind: Kind, meta: Meta) -> u32 {
        meta.mode & 0o1777 | self.always(kind)
    }

    /// Makes a regular file that stands for one of another type; what a link holds is its content.
    fn make_marked(&self, dir: BorrowedFd<'_>, name: &OsStr, new: New<'_>) -> Result<OwnedFd> {
        let fd = create_file(dir, name, 0o600)?;
        if let New::Symlink(target) | New::MarkedSymlink(target) = new {
            let mut file = File::from(fd);
            file.write_all(target.as_bytes())?;
            return Ok(file.into());
        }
        Ok(fd)
    }

    /// Gives a file that was just made its owner and what is missing of its mode; returns the attributes
    /// that it shows.
    fn finish(&self, fd: BorrowedFd<'_>, new: New<'_>, meta: Meta, mask: Mask) -> Result<Stat> {
        let stat = sys::fstat(fd)?;
        let mut meta = meta;
        if mask == Mask::Acl {
            // The ACL has decided about the permissions; only the special bits are ours.
            meta.mode = meta.mode & 0o7000 | stat.mode & 0o777;
        }
        let stat = match self.set_meta(fd, &stat, new.kind(), meta)? {
            Changed::Yes => sys::fstat(fd)?,
            Changed::No => stat,
        };
        Ok(self.shown_as_made(stat, new.kind(), meta))
    }

    /// Tells whether files that are made in a directory get its default ACL, in place of what the umask
    /// leaves.
    pub(crate) fn has_default_acl(&self, dir: BorrowedFd<'_>) -> Result<bool> {
        Ok(self.default_acl(dir)?.is_some())
    }

    fn default_acl(&self, dir: BorrowedFd<'_>) -> Result<Option<Vec<u8>>> {
        if self.owners().are_marks() {
            return Ok(None);
        }
        Ok(sys::xattr_if_set(XattrTarget::Fd(dir), DEFAULT_ACL.as_ref())?)
    }

    /// Removes a file that could not be finished.
    fn withdraw(&self, dir: BorrowedFd<'_>, name: &OsStr, new: New<'_>) {
        let removed = match new {
            New::Directory => sys::remove_dir(dir, name),
            _ => sys::unlink(dir, name),
        };
        if let Err(error) = removed {
            tracing::warn!("{error}");
        }
    }
}

/// Tells whether a file system says that it has no files without a name.
fn has_no_nameless(error: &sys::Error) -> bool {
    matches!(error.errno(), Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL)
}

fn create_file(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<OwnedFd> {
    Ok(sys::open(dir, name, open_flags::CREATE_NEW, mode)?)
}
