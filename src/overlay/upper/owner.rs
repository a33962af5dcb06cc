//! Owners, modes and types of files in the upper, in files or in marks.

use std::os::fd::BorrowedFd;

use crate::layer::Kind;
use crate::overlay::error::Result;
use crate::overlay::upper::marks::{Marks, OverrideStat};
use crate::overlay::upper::{New, Owners, Upper};
use crate::sys::{self, Stat, XattrTarget, mode};

/// What a new file is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Permissions, without the type.
    pub(crate) mode: u32,
}

impl From<&Stat> for Meta {
    fn from(stat: &Stat) -> Self {
        Self { uid: stat.uid, gid: stat.gid, mode: stat.mode & mode::PERMISSIONS }
    }
}

/// The number of the device that, with a mark, stands for the device 0/0. Nothing has it: the major
/// number 0 is for file systems without a device.
pub(crate) const STAND_IN: u64 = 1;

/// Whether anything had to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Yes,
    No,
}

impl Upper {
    /// Returns the attributes that a file shows, from those that it has and its marks.
    pub(crate) fn shown(&self, stat: Stat, marks: &Marks) -> Stat {
        if self.owners() == Owners::Native {
            return if marks.device { Stat { rdev: 0, ..stat } } else { stat };
        }
        let Some(over) = marks.stat else {
            let (uid, gid) = sys::effective_ids();
            // What belongs to the user who serves it is root's in the image.
            let root_if = |id, own| if id == own { 0 } else { id };
            return Stat { uid: root_if(stat.uid, uid), gid: root_if(stat.gid, gid), ..stat };
        };
        over.apply(stat)
    }

    /// Returns the attributes that a file shows which was just made and has these.
    pub(crate) fn shown_as_made(
        &self,
        stat: Stat,
        (kind, device): (Kind, u64),
        meta: Meta,
    ) -> Stat {
        let is_special = !matches!(kind, Kind::Regular | Kind::Directory);
        let Meta { uid, gid, mode } = meta;
        let over = OverrideStat { uid, gid, mode, kind: is_special.then_some((kind, device)) };
        let is_marked = self.owners().are_marks() && Kind::of(stat.mode) != Kind::Symlink;
        let device = kind == Kind::Character && device == 0;
        let stat_of_mark = is_marked.then_some(over);
        self.shown(stat, &Marks { device, stat: stat_of_mark, ..Marks::default() })
    }

    /// Tells whether attributes of a file may be in marks.
    pub(crate) fn shows_marks(&self, stat: &Stat) -> bool {
        self.owners().are_marks() || Kind::of(stat.mode) == Kind::Character && stat.rdev == STAND_IN
    }

    /// Gives a file owner and permissions. `stat` is what it has, `kind` what it shows.
    pub(crate) fn set_meta(
        &self,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        (kind, device): (Kind, u64),
        meta: Meta,
    ) -> Result<Changed> {
        match self.owners() {
            Owners::Native => self.set_native(fd, stat, meta),
            Owners::Mapped | Owners::Guarded => self.set_mapped(fd, stat, (kind, device), meta),
        }
    }

    fn set_native(&self, fd: BorrowedFd<'_>, stat: &Stat, meta: Meta) -> Result<Changed> {
        let owner = (stat.uid != meta.uid).then_some(meta.uid);
        let group = (stat.gid != meta.gid).then_some(meta.gid);
        let mut has = stat.mode & mode::PERMISSIONS;
        let mut changed = Changed::No;
        if owner.is_some() || group.is_some() {
            changed = Changed::Yes;
            sys::chown(fd, owner, group)?;
            // chown(2) may take set-uid and set-gid away.
            if meta.mode & (mode::SET_UID | mode::SET_GID) != 0 {
                has = sys::fstat(fd)?.mode & mode::PERMISSIONS;
            }
        }
        if has != meta.mode && Kind::of(stat.mode) != Kind::Symlink {
            changed = Changed::Yes;
            sys::chmod(fd, meta.mode)?;
        }
        Ok(changed)
    }

    fn set_mapped(
        &self,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        (kind, device): (Kind, u64),
        meta: Meta,
    ) -> Result<Changed> {
        let real_kind = Kind::of(stat.mode);
        if real_kind == Kind::Symlink {
            // It cannot have marks, and needs none: it is root's, like every link that has none.
            return Ok(Changed::No);
        }
        let real_mode = meta.mode & 0o777 | self.always(real_kind);
        let special = !matches!(kind, Kind::Regular | Kind::Directory);
        let over = OverrideStat {
            uid: meta.uid,
            gid: meta.gid,
            mode: meta.mode,
            kind: special.then_some((kind, device)),
        };
        self.namespace().set_stat(XattrTarget::Fd(fd), &over)?;
        if stat.mode & mode::PERMISSIONS != real_mode {
            sys::chmod(fd, real_mode)?;
        }
        Ok(Changed::Yes)
    }

    /// Returns permissions that a file always has: one with marks those that its real owner, who serves
    /// it, cannot do without.
    pub(crate) const fn always(&self, kind: Kind) -> u32 {
        match (self.owners(), kind) {
            (Owners::Native, _) => 0,
            (_, Kind::Directory) => 0o700,
            (_, _) => 0o600,
        }
    }

    /// Tells whether a file is kept as a regular file with a mark.
    pub(crate) fn is_kept_as_regular(&self, new: New<'_>, meta: Meta) -> bool {
        match (self.owners(), new) {
            (Owners::Native, _) | (_, New::File | New::Directory) => false,
            // A link of root's that comes from nowhere and has one name needs no mark.
            (_, New::Symlink(_)) => meta.uid != 0 || meta.gid != 0,
            (_, New::MarkedSymlink(_) | New::Node(..)) => true,
        }
    }
}
