//! The upper: a real directory that keeps what was changed, in the kernel overlayfs' own form.
//!
//! Files lie where the union shows them. A whiteout is a character device 0/0, or an empty file
//! with a mark where such a device cannot be made; marks are in `marks`. Changes are prepared in the
//! work directory and moved into place in one step, so a crash leaves either state and at most
//! something in the work directory, which the next mount clears.
//!
//! Two ways to keep owners: *native*, with privilege, files have them; *mapped*, without, files
//! belong to the user and a mark says the rest. Nothing here knows of the lower.

mod make;
pub(crate) mod marks;
mod owner;
mod volatile;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

pub(crate) use crate::overlay::upper::make::{Mask, New, Temporary};
pub(crate) use crate::overlay::upper::marks::{KeptLinks, Mark, Marks, Namespace, check_name};
pub(crate) use crate::overlay::upper::owner::Meta;

use crate::overlay::error::{Error, Result};
use crate::overlay::upper::volatile::Volatile;
use crate::overlay::{Sync, UpperDirs, Writes};
use crate::sys::{self, Errno, RenameFlags, Stat, XattrTarget, open_flags};

/// How owners are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// Files have them.
    #[default]
    Native,
    /// A mark says them; files that it says nothing of belong to root.
    Mapped,
    /// The same, in a mark that only the privileged can write.
    Guarded,
}

impl Owners {
    /// Returns the namespace of the marks that say them; none where files have them.
    pub(crate) const fn namespace(self) -> Option<Namespace> {
        match self {
            Self::Native => None,
            Self::Mapped => Some(Namespace::Mapped),
            Self::Guarded => Some(Namespace::Guarded),
        }
    }

    /// Tells whether marks say them.
    pub(crate) const fn are_marks(self) -> bool {
        self.namespace().is_some()
    }
}

/// Whether the upper is used or only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is changed; nobody else may.
    Change,
    /// It is read, perhaps while another process changes it.
    Inspect,
}

/// What a process that changes an upper hands to the one that goes on with it.
#[derive(Debug)]
pub struct HeldUpper {
    /// The lock on the work directory.
    pub lock: OwnedFd,
    /// The directory in which changes are prepared. It is as old as the mount, so that it is told of all
    /// that could not be written since.
    pub work: OwnedFd,
}

/// A directory that keeps changes.
#[derive(Debug)]
pub(crate) struct Upper {
    root: Arc<OwnedFd>,
    root_inode: u64,
    work: OwnedFd,
    /// Files of a lower that does not know all their names, by number; opened when one is met.
    index: Option<Arc<OwnedFd>>,
    /// Held so that nobody else mounts the same upper; a `flock` on the work directory.
    lock: Option<OwnedFd>,
    owners: Owners,
    namespace: Namespace,
    whiteouts_are_devices: bool,
    rename_whiteout_works: AtomicBool,
    /// The whiteout that was made last. The next ones are further names of it.
    whiteout: Mutex<Option<Arc<OwnedFd>>>,
    /// What is made durable.
    sync: Sync,
    volatile: Volatile,
    writes: Writes,
    next_temporary: AtomicU64,
}

/// What a name of the upper is.
#[derive(Debug)]
pub(crate) enum Child {
    /// The upper says nothing of it.
    Nothing,
    /// It is gone.
    Whiteout,
    /// It is there.
    There(Stat),
}

impl Child {
    /// Tells whether it is a directory.
    pub(crate) const fn is_dir(&self) -> bool {
        matches!(self, Self::There(stat) if stat.is_dir())
    }
}

const WORK_NAME: &str = "work";
const INDEX_NAME: &str = "strata-index";

impl Upper {
    /// Opens an upper and its work directory, which must be on one file system.
    ///
    /// # Errors
    /// [`Error::Setup`] says what is wrong with the directories.
    pub(crate) fn open(dirs: UpperDirs<'_>, purpose: Purpose) -> Result<Self> {
        let UpperDirs { upper, work, owners, writes, .. } = dirs;
        let mut opened = Self::open_both(dirs)?;
        if purpose == Purpose::Change {
            opened.lock = Some(lock(&opened.work, work)?);
            opened.prepare_work()?;
            opened.mark_volatile(work)?;
            opened.probe(upper, owners)?;
        } else if owners == Some(Owners::Guarded) {
            (opened.owners, opened.namespace) = (Owners::Guarded, Namespace::Guarded);
        } else if owners == Some(Owners::Native)
            && (writes.user_marks || sys::effective_ids().0 != 0)
        {
            opened.namespace = Namespace::User;
        } else if owners == Some(Owners::Mapped) || sys::effective_ids().0 != 0 {
            (opened.owners, opened.namespace) = (Owners::Mapped, Namespace::Mapped);
        }
        Ok(opened)
    }

    /// Opens an upper that another process changes, to go on with it. What it holds it hands over: the
    /// lock and the directory in which changes are prepared.
    pub(crate) fn take_over(dirs: UpperDirs<'_>, held: HeldUpper) -> Result<Self> {
        let mut opened = Self::open_both(dirs)?;
        (opened.lock, opened.work) = (Some(held.lock), held.work);
        opened.take_over_mark();
        opened.probe(dirs.upper, dirs.owners)?;
        Ok(opened)
    }

    /// Closes what can be opened again.
    pub(crate) fn close_kept(&self) {
        drop(self.whiteout.lock().take());
    }

    /// Returns what a process that goes on with the upper needs.
    pub(crate) fn held(&self) -> Option<[BorrowedFd<'_>; 2]> {
        self.lock.as_ref().map(|lock| [lock.as_fd(), self.work.as_fd()])
    }

    /// Opens both directories.
    fn open_both(dirs: UpperDirs<'_>) -> Result<Self> {
        let UpperDirs { upper, work, sync, writes, .. } = dirs;
        let setup = |path: &Path| {
            let path = path.display().to_string();
            move |error: sys::Error| Error::Setup(format!("directory {path}: {error}"))
        };
        let root = sys::open_dir_path(upper).map_err(setup(upper))?;
        let work_dir = sys::open_dir_path(work).map_err(setup(work))?;
        let (stat, work_stat) = (sys::fstat(root.as_fd())?, sys::fstat(work_dir.as_fd())?);
        if stat.dev != work_stat.dev {
            return Err(Error::Setup(format!(
                "{} and {} must be on one file system",
                upper.display(),
                work.display()
            )));
        }
        Ok(Self {
            root: Arc::new(root),
            root_inode: stat.ino,
            work: work_dir,
            index: None,
            lock: None,
            owners: Owners::Native,
            namespace: Namespace::Trusted,
            whiteouts_are_devices: true,
            rename_whiteout_works: AtomicBool::new(true),
            whiteout: Mutex::default(),
            sync,
            volatile: Volatile::default(),
            writes,
            next_temporary: AtomicU64::new(u64::from_le_bytes(sys::random_bytes()?) >> 1),
        })
    }

    /// Opens the index beside the directory in which changes are prepared.
    pub(crate) fn open_index(&mut self, work: &Path) -> Result<()> {
        let (dir, name) = (sys::open_dir_path(work)?, OsStr::new(INDEX_NAME));
        if self.child_stat(dir.as_fd(), name)?.is_none() {
            if !self.is_for_change() {
                return Ok(());
            }
            sys::make_dir(dir.as_fd(), name, 0o700)?;
        }
        self.index = Some(Arc::new(sys::open(dir.as_fd(), name, open_flags::DIRECTORY, 0)?));
        Ok(())
    }

    /// Where a crash came while a file of the index got a link, notes how many more names are shown: links
    /// that it gets from now on count.
    pub(crate) fn settle_links(&self) -> Result<()> {
        let Some(index) = self.index.as_ref().map(AsFd::as_fd) else { return Ok(()) };
        for name in sys::DirStream::new(index)?.names()? {
            let at = XattrTarget::At(index, &name);
            if let Some(kept @ KeptLinks::All(_)) = self.marks(index, &name)?.links
                && let Some(stat) = self.child_stat(index, &name)?
            {
                let text = KeptLinks::More(kept.more_than(stat.nlink)).text();
                self.namespace.set(at, Mark::Links, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Tells whether there is an index.
    pub(crate) const fn has_index(&self) -> bool {
        self.index.is_some()
    }

    /// Returns where the index has the file with a number.
    pub(crate) fn in_index(&self, number: u64) -> Result<(Arc<OwnedFd>, OsString)> {
        let index = self.index.as_ref().ok_or(Error::Stale(number))?;
        Ok((Arc::clone(index), format!("{number:x}").into()))
    }

    /// Returns what the index has under a number.
    pub(crate) fn indexed(&self, number: u64) -> Result<Option<(Stat, Marks)>> {
        if !self.has_index() {
            return Ok(None);
        }
        let (index, name) = self.in_index(number)?;
        match self.child_stat(index.as_fd(), &name)? {
            Some(stat) => Ok(Some((stat, self.marks(index.as_fd(), &name)?))),
            None => Ok(None),
        }
    }

    /// Makes the directory in which changes are prepared, and clears it of what a crash has left.
    fn prepare_work(&mut self) -> Result<()> {
        let name = OsStr::new(WORK_NAME);
        if self.child_stat(self.work.as_fd(), name)?.is_none() {
            sys::make_dir(self.work.as_fd(), name, 0o700)?;
        }
        self.work = sys::open(self.work.as_fd(), name, open_flags::DIRECTORY, 0)?;
        self.clear_work()
    }

    /// Clears the directory in which changes are prepared of what was not finished.
    pub(crate) fn clear_work(&self) -> Result<()> {
        for left in sys::DirStream::new(self.work.as_fd())?.names()? {
            // What else is there, the union finishes.
            if left.as_encoded_bytes().starts_with(b"#") {
                self.discard(&left)?;
            }
        }
        Ok(())
    }

    /// Finds out what the file system of the upper can do.
    fn probe(&mut self, upper: &Path, owners: Option<Owners>) -> Result<()> {
        let probe = self.temporary_name();
        let work = self.work.as_fd();
        sys::make_dir(work, &probe, 0o700)?;
        let target = XattrTarget::At(work, &probe);
        let native = match owners {
            Some(owners) => owners == Owners::Native,
            None => sys::effective_ids().0 == 0,
        };
        if owners == Some(Owners::Guarded) {
            if !Namespace::Guarded.works_on(target) {
                sys::remove_dir(work, &probe)?;
                return Err(Error::Setup(format!(
                    "owners cannot be kept in security.fuseoverlayfs.override_stat on the file system \
                     of {}, which takes privilege and such attributes",
                    upper.display()
                )));
            }
            (self.owners, self.namespace) = (Owners::Guarded, Namespace::Guarded);
        } else if native && !self.writes.user_marks && Namespace::Trusted.works_on(target) {
            (self.owners, self.namespace) = (Owners::Native, Namespace::Trusted);
        } else if owners == Some(Owners::Native) && Namespace::User.works_on(target) {
            (self.owners, self.namespace) = (Owners::Native, Namespace::User);
        } else if owners != Some(Owners::Native) && Namespace::Mapped.works_on(target) {
            (self.owners, self.namespace) = (Owners::Mapped, Namespace::Mapped);
        } else {
            sys::remove_dir(work, &probe)?;
            return Err(Error::Setup(format!(
                "the file system of {} has no extended attributes, which a writable layer needs; \
                 put it on another one, such as ext4, xfs, btrfs or tmpfs",
                upper.display()
            )));
        }
        sys::remove_dir(work, &probe)?;
        match sys::make_node(work, &probe, sys::mode::CHARACTER, 0) {
            Ok(()) => sys::unlink(work, &probe)?,
            Err(error) if matches!(error.errno(), Errno::EPERM | Errno::EINVAL) => {
                self.whiteouts_are_devices = false;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Returns how owners are kept.
    pub(crate) const fn owners(&self) -> Owners {
        self.owners
    }

    /// Returns below which names marks are.
    pub(crate) const fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// Returns the inode of the root of the upper.
    pub(crate) const fn root_inode(&self) -> u64 {
        self.root_inode
    }

    /// Tells whether the upper is changed, not only looked at.
    pub(crate) const fn is_for_change(&self) -> bool {
        self.lock.is_some()
    }

    /// Returns the root of the upper.
    pub(crate) fn root(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.root)
    }

    /// Returns which marks are written.
    pub(crate) const fn writes(&self) -> Writes {
        self.writes
    }

    /// Returns what a name of an upper directory is.
    pub(crate) fn child(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        xattr_whiteouts: bool,
    ) -> Result<Child> {
        let Some(stat) = self.child_stat(dir, name)? else { return Ok(Child::Nothing) };
        let target = XattrTarget::At(dir, name);
        Ok(match self.namespace.is_whiteout(&stat, xattr_whiteouts, target)? {
            true => Child::Whiteout,
            false => Child::There(stat),
        })
    }

    fn child_stat(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>> {
        match sys::stat_if_exists(dir, name) {
            Err(error) if error.errno() == Errno::ENAMETOOLONG => Err(Error::NameTooLong),
            other => Ok(other?),
        }
    }

    /// Tells whether whiteouts are devices, and not attributes of empty files.
    pub(crate) const fn whiteouts_are_devices(&self) -> bool {
        self.whiteouts_are_devices
    }

    /// Reads the marks of an open file.
    pub(crate) fn marks_of_fd(&self, fd: BorrowedFd<'_>) -> Result<Marks> {
        self.namespace.read(XattrTarget::Fd(fd))
    }

    /// Returns the names in the work directory that begin with this.
    pub(crate) fn unfinished(&self, prefix: &str) -> Result<Vec<OsString>> {
        let mut names = sys::DirStream::new(self.work.as_fd())?.names()?;
        names.retain(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
        Ok(names)
    }

    /// Reads the marks of a name.
    pub(crate) fn marks(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Marks> {
        self.namespace.read(XattrTarget::At(dir, name))
    }

    /// Hides a name that the upper does not have.
    ///
    /// # Errors
    /// `EEXIST` when the upper has it.
    pub(crate) fn make_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        self.expect_whiteouts(dir)?;
        if self.link_whiteout(dir, name)? {
            return Ok(());
        }
        let whiteout = self.whiteout_aside()?;
        let flags = RenameFlags::RENAME_NOREPLACE;
        self.or_discard(&whiteout, sys::rename(self.work.as_fd(), &whiteout, dir, name, flags))
    }

    /// Hides a name that the upper has of what is not a directory, in one step.
    pub(crate) fn replace_by_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        self.expect_whiteouts(dir)?;
        let whiteout = self.whiteout_aside()?;
        let flags = RenameFlags::empty();
        self.or_discard(&whiteout, sys::rename(self.work.as_fd(), &whiteout, dir, name, flags))
    }

    /// Gives the whiteout that there is another name; tells whether that could be done. A file system
    /// allows so many names of one file (`EMLINK`), or of a device none, and one that has lost all of
    /// them gets no new one (`ENOENT`).
    fn link_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
        let Some(whiteout) = self.whiteout.lock().clone() else { return Ok(false) };
        match sys::link_fd(whiteout.as_fd(), dir, name) {
            Ok(()) => Ok(true),
            Err(error)
                if matches!(
                    error.errno(),
                    Errno::ENOENT | Errno::EMLINK | Errno::EPERM | Errno::EOPNOTSUPP
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the name that a whiteout has in the work directory.
    fn whiteout_aside(&self) -> Result<OsString> {
        let (work, name) = (self.work.as_fd(), self.temporary_name());
        if self.link_whiteout(work, &name)? {
            return Ok(name);
        }
        if self.whiteouts_are_devices {
            sys::make_node(work, &name, sys::mode::CHARACTER, 0)?;
        } else {
            sys::make_node(work, &name, sys::mode::REGULAR | 0o600, 0)?;
            self.namespace.set(XattrTarget::At(work, &name), Mark::Whiteout, b"y")?;
        }
        *self.whiteout.lock() = Some(Arc::new(sys::open_path(work, &name)?));
        Ok(name)
    }

    /// Says of a directory that will have whiteouts what they are, if they are not devices.
    fn expect_whiteouts(&self, dir: BorrowedFd<'_>) -> Result<()> {
        if self.whiteouts_are_devices { Ok(()) } else { self.expect_xattr_whiteouts(dir) }
    }

    /// Says of a directory that its whiteouts are attributes of empty files. An opaque directory needs
    /// no whiteouts and stays what it is.
    pub(crate) fn expect_xattr_whiteouts(&self, dir: BorrowedFd<'_>) -> Result<()> {
        let target = XattrTarget::Fd(dir);
        let marks = self.namespace.read(target)?;
        if marks.opaque || marks.xattr_whiteouts {
            return Ok(());
        }
        self.namespace.set(target, Mark::Opaque, b"x")
    }

    /// Moves a file and leaves a whiteout in its place, in one step; tells whether the file system
    /// could.
    pub(crate) fn rename_leaves_whiteout(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        new_dir: BorrowedFd<'_>,
        new_name: &OsStr,
    ) -> Result<bool> {
        if !self.whiteouts_are_devices || !self.rename_whiteout_works.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match sys::rename(dir, name, new_dir, new_name, RenameFlags::RENAME_WHITEOUT) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Errno::EINVAL => {
                self.rename_whiteout_works.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a name out of the upper, and hides it if `hide` says so, in one step. What had the
    /// name is then in the work directory, under the name that is returned.
    pub(crate) fn take_out(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        hide: Hide,
    ) -> Result<OsString> {
        let taken = self.temporary_name();
        let work = self.work.as_fd();
        if hide == Hide::No {
            sys::rename(dir, name, work, &taken, RenameFlags::empty())?;
            return Ok(taken);
        }
        if self.rename_leaves_whiteout(dir, name, work, &taken)? {
            return Ok(taken);
        }
        self.expect_whiteouts(dir)?;
        let whiteout = self.whiteout_aside()?;
        sys::rename(work, &whiteout, dir, name, RenameFlags::RENAME_EXCHANGE)?;
        Ok(whiteout)
    }

    /// Returns the directory in which changes are prepared.
    pub(crate) fn work(&self) -> BorrowedFd<'_> {
        self.work.as_fd()
    }

    /// Returns a name that nothing in the work directory has.
    pub(crate) fn temporary_name(&self) -> OsString {
        format!("#{:x}", self.next_temporary.fetch_add(1, Ordering::Relaxed)).into()
    }

    /// Deletes what has a name in the work directory, with all below it.
    ///
    /// Directories below are moved up beside it first, so that depth costs neither stack nor
    /// descriptors.
    pub(crate) fn discard(&self, name: &OsStr) -> Result<()> {
        let work = self.work.as_fd();
        let mut pending = vec![name.to_owned()];
        while let Some(name) = pending.pop() {
            if unlink_unless_dir(work, &name)? {
                continue;
            }
            let dir = sys::open(work, &name, open_flags::DIRECTORY, 0)?;
            for child in sys::DirStream::new(dir.as_fd())?.names()? {
                if !unlink_unless_dir(dir.as_fd(), &child)? {
                    let moved = self.temporary_name();
                    sys::rename(dir.as_fd(), &child, work, &moved, RenameFlags::empty())?;
                    pending.push(moved);
                }
            }
            sys::remove_dir(work, &name)?;
        }
        Ok(())
    }
}

/// Takes a name away from what is not a directory; tells whether it was none.
fn unlink_unless_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
    match sys::unlink(dir, name) {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Errno::EISDIR => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a name stays hidden when what had it is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hide {
    /// The lower has it too.
    Yes,
    /// It does not.
    No,
}

/// Takes the work directory for this process.
fn lock(work: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let lock = sys::reopen(work.as_fd(), open_flags::DIRECTORY)?;
    if sys::try_lock_exclusive(lock.as_fd())? {
        return Ok(lock);
    }
    Err(Error::InUse(path.to_owned()))
}
