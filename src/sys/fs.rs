//! Names and attributes: stat, make, link, remove, rename, change.
//!
//! Calls that change attributes take a descriptor that may be `O_PATH`, so that the caller can
//! look first at what it will change.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use crate::sys::Time;
use crate::sys::error::{check, check_raw};
use crate::sys::fd::{EMPTY_PATH, proc_path};
use crate::sys::{Errno, Error, Result};

pub use nix::fcntl::RenameFlags;

/// The attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// File type and permissions.
    pub mode: u32,
    /// Number of names.
    pub nlink: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device that a device node stands for.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred size of an access.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
    /// When it was made, if the file system knows.
    pub born: Option<Time>,
}

impl Stat {
    /// Tells whether this is a directory.
    pub const fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Tells whether this is a regular file.
    pub const fn is_regular(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// Tells whether this is a character device with the number 0/0: the kernel's whiteout.
    pub const fn is_whiteout_device(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR && self.rdev == 0
    }
}

impl From<libc::stat> for Stat {
    #[allow(clippy::useless_conversion, reason = "other architectures have narrower numbers")]
    fn from(stat: libc::stat) -> Self {
        let positive = |number: i64| u64::try_from(number).unwrap_or(0);
        let time = |secs, nanos| Time { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode,
            nlink: stat.st_nlink.into(),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev,
            size: positive(stat.st_size),
            blocks: positive(stat.st_blocks),
            blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            born: None,
        }
    }
}

impl From<libc::statx> for Stat {
    fn from(stat: libc::statx) -> Self {
        let time = |time: libc::statx_timestamp| Time { secs: time.tv_sec, nanos: time.tv_nsec };
        let was_told = |what: u32| stat.stx_mask & what != 0;
        Self {
            dev: libc::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            mode: stat.stx_mode.into(),
            nlink: stat.stx_nlink.into(),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            rdev: libc::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            blksize: stat.stx_blksize,
            atime: time(stat.stx_atime),
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            born: was_told(libc::STATX_BTIME).then(|| time(stat.stx_btime)),
        }
    }
}

/// Asks for attributes (`statx`); an empty name is `dir` itself.
fn statx(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<Stat> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` ends with NUL, and `stat` has room for what the call writes.
    let result =
        unsafe { libc::statx(dir.as_raw_fd(), name.as_ptr(), flags, mask, stat.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: the call has filled it in; it was zeros before, which is a value too.
    Ok(unsafe { stat.assume_init() }.into())
}

/// Returns the attributes of `name` in `dir`.
pub fn stat(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Stat> {
    check(stat_name(dir, name), || format!("statx({}, {name:?})", dir.as_raw_fd()))
}

fn stat_name(dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<Stat> {
    match CString::new(name.as_bytes()) {
        Ok(path) if !path.is_empty() => statx(dir, &path),
        Ok(_) => Err(Errno::ENOENT),
        Err(_) => Err(Errno::EINVAL),
    }
}

/// Returns the attributes of `name` in `dir`; none when there is no such name.
pub fn stat_if_exists(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>> {
    match stat_name(dir, name) {
        Err(Errno::ENOENT) => Ok(None),
        asked => check(asked.map(Some), || format!("statx({}, {name:?})", dir.as_raw_fd())),
    }
}

/// Returns the attributes of `name`, which may be a path, in `dir` as lstat(2) asks for them: without the
/// time when it was made, which the kernel does not keep for every file system.
pub fn lstat(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Stat> {
    check(lstat_if_there(dir, name), || format!("fstatat({}, {name:?})", dir.as_raw_fd()))
}

/// Tells whether there is a `name`, which may be a path, in `dir`.
pub fn exists(dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
    match lstat_if_there(dir, name) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(Error::new(format!("fstatat({}, {name:?})", dir.as_raw_fd()), errno)),
    }
}

fn lstat_if_there(dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<Stat> {
    nix::sys::stat::fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map(Stat::from)
}

/// Returns the attributes of what `fd` stands for.
pub fn fstat(fd: BorrowedFd<'_>) -> Result<Stat> {
    check(statx(fd, c""), || format!("statx({}, \"\")", fd.as_raw_fd()))
}

/// Makes a directory.
pub fn make_dir(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<()> {
    check(nix::sys::stat::mkdirat(dir, name, Mode::from_bits_retain(mode)), || {
        format!("mkdirat({}, {name:?}, {mode:#o})", dir.as_raw_fd())
    })
}

/// Makes a device node, FIFO, socket or empty regular file; `mode` has the type.
pub fn make_node(dir: BorrowedFd<'_>, name: &OsStr, mode: u32, device: u64) -> Result<()> {
    let kind = SFlag::from_bits_truncate(mode & libc::S_IFMT);
    let permissions = Mode::from_bits_truncate(mode & 0o7777);
    check(nix::sys::stat::mknodat(dir, name, kind, permissions, device), || {
        format!("mknodat({}, {name:?}, {mode:#o}, {device:#x})", dir.as_raw_fd())
    })
}

/// Makes a symbolic link that holds `target`.
pub fn symlink(target: &OsStr, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    check(nix::unistd::symlinkat(target, dir, name), || {
        format!("symlinkat({target:?}, {}, {name:?})", dir.as_raw_fd())
    })
}

/// Returns what the symbolic link `name` in `dir` holds.
pub fn read_link(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OsString> {
    check(nix::fcntl::readlinkat(dir, name), || {
        format!("readlinkat({}, {name:?})", dir.as_raw_fd())
    })
}

/// Returns what the symbolic link that the `O_PATH` descriptor `fd` stands for holds.
pub fn read_link_fd(fd: BorrowedFd<'_>) -> Result<OsString> {
    read_link(fd, OsStr::new(""))
}

/// Gives the file `name` in `dir` another name; a symbolic link is linked itself.
pub fn link(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    new_dir: BorrowedFd<'_>,
    new_name: &OsStr,
) -> Result<()> {
    check(nix::unistd::linkat(dir, name, new_dir, new_name, AtFlags::empty()), || {
        let (dir, new_dir) = (dir.as_raw_fd(), new_dir.as_raw_fd());
        format!("linkat({dir}, {name:?}, {new_dir}, {new_name:?})")
    })
}

/// Gives the file that `fd` stands for a name, even its first (`O_TMPFILE`).
pub fn link_fd(fd: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let path = proc_path(fd);
    let flags = AtFlags::AT_SYMLINK_FOLLOW;
    check(nix::unistd::linkat(nix::fcntl::AT_FDCWD, path.as_str(), dir, name, flags), || {
        format!("linkat({path:?}, {}, {name:?})", dir.as_raw_fd())
    })
}

/// Takes a name away from what is not a directory.
pub fn unlink(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    check(nix::unistd::unlinkat(dir, name, UnlinkatFlags::NoRemoveDir), || {
        format!("unlinkat({}, {name:?}, 0)", dir.as_raw_fd())
    })
}

/// Removes an empty directory.
pub fn remove_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    check(nix::unistd::unlinkat(dir, name, UnlinkatFlags::RemoveDir), || {
        format!("unlinkat({}, {name:?}, AT_REMOVEDIR)", dir.as_raw_fd())
    })
}

/// Renames (`renameat2`).
pub fn rename(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    new_dir: BorrowedFd<'_>,
    new_name: &OsStr,
    flags: RenameFlags,
) -> Result<()> {
    check(nix::fcntl::renameat2(dir, name, new_dir, new_name, flags), || {
        let (dir, new_dir) = (dir.as_raw_fd(), new_dir.as_raw_fd());
        format!("renameat2({dir}, {name:?}, {new_dir}, {new_name:?}, {flags:?})")
    })
}

/// Changes the permissions of what `fd` stands for, which is not a symbolic link.
pub fn chmod(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    let path = proc_path(fd);
    let flags = nix::sys::stat::FchmodatFlags::FollowSymlink;
    let bits = Mode::from_bits_truncate(mode & 0o7777);
    check(nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, path.as_str(), bits, flags), || {
        format!("chmod({path:?}, {mode:#o})")
    })
}

/// Changes owner or group, or both, of what `fd` stands for.
pub fn chown(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (owner, group) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    check(nix::unistd::fchownat(fd, "", owner, group, EMPTY_PATH), || {
        format!("fchownat({}, {uid:?}, {gid:?})", fd.as_raw_fd())
    })
}

/// What becomes of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// It stays.
    Keep,
    /// It becomes the present.
    Now,
    /// It becomes this.
    To(Time),
}

impl SetTime {
    const fn timespec(self) -> libc::timespec {
        match self {
            Self::Keep => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
            Self::Now => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
            Self::To(time) => libc::timespec { tv_sec: time.secs, tv_nsec: time.nanos as i64 },
        }
    }
}

/// Changes the times of what `fd` stands for.
pub fn set_times(fd: BorrowedFd<'_>, atime: SetTime, mtime: SetTime) -> Result<()> {
    let times = [atime.timespec(), mtime.timespec()];
    // SAFETY: the path is a literal with its NUL, and `times` has the two elements the call reads.
    let result = unsafe {
        libc::utimensat(fd.as_raw_fd(), c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH)
    };
    check_raw(result, || format!("utimensat({}, {atime:?}, {mtime:?})", fd.as_raw_fd())).map(drop)
}

/// Changes the length of the open file `fd`.
pub fn truncate_fd(fd: BorrowedFd<'_>, size: u64) -> Result<()> {
    let call = || format!("ftruncate({}, {size})", fd.as_raw_fd());
    let len = i64::try_from(size).map_err(|_| Error::new(call(), Errno::EFBIG))?;
    check(nix::unistd::ftruncate(fd, len), call)
}

/// The state of a file system.
#[derive(Clone, Copy, Debug)]
pub struct StatFs {
    /// Number that tells the kind of file system.
    pub magic: i64,
    /// Size of a block in bytes.
    pub block_size: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Blocks free to people without privilege.
    pub blocks_available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Longest name.
    pub name_max: u32,
}

/// Returns the state of the file system that holds `fd`.
pub fn statfs(fd: BorrowedFd<'_>) -> Result<StatFs> {
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `stat` is the memory of one `struct statfs`, which the call fills.
    let result = unsafe { libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr()) };
    check_raw(result, || format!("fstatfs({})", fd.as_raw_fd()))?;
    // SAFETY: the call returned 0, so it filled the whole structure.
    let stat = unsafe { stat.assume_init() };
    let narrow = |number: i64| u32::try_from(number).unwrap_or(4096);
    Ok(StatFs {
        magic: stat.f_type,
        block_size: narrow(stat.f_bsize),
        blocks: stat.f_blocks,
        blocks_free: stat.f_bfree,
        blocks_available: stat.f_bavail,
        files: stat.f_files,
        files_free: stat.f_ffree,
        name_max: narrow(stat.f_namelen),
    })
}
