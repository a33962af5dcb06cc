//! Mounts that sync nothing: what says so on the disk, and what is known to be lost.
//!
//! As in the kernel's overlayfs, once changes are known to be lost no later sync of the mount succeeds.
//! The kernel asks its file system whether writing back has failed since the mount. No system call tells
//! that without writing everything, so what is known here is what files say that are open when a
//! program syncs or closes them, what writing says, and at the end of the mount the file system.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::overlay::Sync;
use crate::overlay::error::{Error, Result};
use crate::overlay::upper::{Upper, WORK_NAME};
use crate::sys::{self, Errno};

const INCOMPAT_NAME: &str = "incompat";
const VOLATILE_NAME: &str = "incompat/volatile";

/// What there is to know of a mount that syncs nothing.
#[derive(Debug, Default)]
pub(super) struct Volatile {
    /// The work directory says that this mount is one.
    is_marked: bool,
    /// Changes were lost.
    has_lost: AtomicBool,
    /// The mount has ended.
    has_ended: AtomicBool,
}

impl Upper {
    /// Tells whether nothing is to be synced.
    pub(crate) fn is_volatile(&self) -> bool {
        self.sync != Sync::Always
    }

    /// Tells whether it matters that changes are lost though nothing is synced.
    pub(crate) fn remembers_losses(&self) -> bool {
        self.sync == Sync::Volatile
    }

    /// Asks an open file whether writing it back has failed.
    pub(crate) fn check_file(&self, file: &File) {
        // A sign that asking failed says nothing about the file.
        let checked = sys::check_written_back(file.as_fd());
        if let Err(error) = checked
            && matches!(error.errno(), Errno::EIO | Errno::ENOSPC | Errno::EDQUOT)
        {
            self.note_loss(&error);
        }
    }

    /// Notes that a file could not be written.
    pub(crate) fn note_failed_write(&self, error: &std::io::Error) {
        if error.raw_os_error() == Some(Errno::EIO as i32) {
            self.note_loss(error);
        }
    }

    /// Tells whether changes are known to be lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.volatile.has_lost.load(Ordering::Relaxed)
    }

    /// Notes that changes are lost.
    pub(crate) fn note_loss(&self, error: &dyn std::fmt::Display) {
        if self.remembers_losses() && !self.volatile.has_lost.swap(true, Ordering::Relaxed) {
            tracing::error!("changes are lost, and nothing can be synced any more: {error}");
        }
    }

    /// Answers who wants something synced.
    ///
    /// # Errors
    /// [`Error::Lost`] when changes were lost at any time since the mount.
    pub(crate) fn check_losses(&self) -> Result<()> {
        match self.has_lost() {
            true => Err(Error::Lost),
            false => Ok(()),
        }
    }

    /// Refuses the upper of a volatile mount that did not end well, and marks that of a new one.
    pub(super) fn mark_volatile(&mut self, work: &Path) -> Result<()> {
        let (dir, name) = (OsStr::new(INCOMPAT_NAME), OsStr::new(VOLATILE_NAME));
        if self.child_stat(self.work.as_fd(), name)?.is_some() {
            return Err(Error::Setup(format!(
                "{0} was mounted volatile and not unmounted, or not all could be written, so changes \
                 may be lost: begin anew, or remove {0}/{WORK_NAME}/{VOLATILE_NAME} if the machine has \
                 not crashed since",
                work.display()
            )));
        }
        if self.sync == Sync::Volatile {
            if self.child_stat(self.work.as_fd(), dir)?.is_none() {
                sys::make_dir(self.work.as_fd(), dir, 0o700)?;
            }
            sys::make_dir(self.work.as_fd(), name, 0o700)?;
            self.volatile.is_marked = true;
        }
        Ok(())
    }

    /// Takes over the mark of a mount that another process has served.
    pub(super) fn take_over_mark(&mut self) {
        self.volatile.is_marked = self.sync == Sync::Volatile;
    }

    /// Takes the mark away when all is on the disk.
    fn unmark_volatile(&self) -> Result<()> {
        self.check_losses()?;
        // This descriptor is as old as the mount: it is told of all that has failed since.
        sys::sync_fs(&self.work)?;
        sys::remove_dir(self.work.as_fd(), OsStr::new(VOLATILE_NAME))?;
        Ok(sys::remove_dir(self.work.as_fd(), OsStr::new(INCOMPAT_NAME))?)
    }
}

impl Upper {
    /// Puts the upper in order at the end of the mount.
    pub(crate) fn end(&self) {
        if self.volatile.is_marked
            && !self.volatile.has_ended.swap(true, Ordering::Relaxed)
            && let Err(error) = self.unmark_volatile()
        {
            tracing::warn!("{error}; the upper stays marked as volatile");
        }
    }
}

impl Drop for Upper {
    fn drop(&mut self) {
        self.end();
    }
}
