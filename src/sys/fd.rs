//! Opening, and moving bytes between descriptors without passing them through this process.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AtFlags, FallocateFlags, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;
use nix::unistd::Whence;

use crate::sys::error::{check, check_raw};
use crate::sys::{Errno, Error, Result};

/// Opens `name` in `dir` without following a symbolic link.
pub fn open(dir: BorrowedFd<'_>, name: &OsStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    check(nix::fcntl::openat(dir, name, flags, Mode::from_bits_retain(mode)), || {
        format!("openat({}, {name:?}, {flags:?}, {mode:#o})", dir.as_raw_fd())
    })
}

/// Opens `name` in `dir` as a place (`O_PATH`), whatever it is, a symbolic link included.
pub fn open_path(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    open(dir, name, libc::O_PATH, 0)
}

/// Opens the directory at `path`, following symbolic links: for paths that a person gave.
pub fn open_dir_path(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    check(nix::fcntl::open(path, flags, Mode::empty()), || format!("open({path:?}, {flags:?})"))
}

/// Opens the file at `path` for reading, neither following a symbolic link in its last part nor
/// waiting for whoever is at the other end of a FIFO.
pub fn open_plain(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    check(nix::fcntl::open(path, flags, Mode::empty()), || format!("open({path:?}, {flags:?})"))
}

/// Opens the file at a path below `dir` for reading, without waiting for a writer. Symbolic links are
/// followed, but not out of `dir` (`EXDEV`); Linux 5.6 has this.
pub fn open_beneath(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    check(nix::fcntl::openat2(dir, path, OpenHow::new().flags(flags).resolve(resolve)), || {
        format!("openat2({}, {path:?}, {flags:?}, RESOLVE_BENEATH)", dir.as_raw_fd())
    })
}

/// Makes a file without a name in `dir` (`O_TMPFILE`), open for reading and writing.
pub fn open_tmpfile(dir: BorrowedFd<'_>, mode: u32) -> Result<OwnedFd> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    check(nix::fcntl::openat(dir, ".", flags, Mode::from_bits_retain(mode)), || {
        format!("openat({}, \".\", O_TMPFILE, {mode:#o})", dir.as_raw_fd())
    })
}

/// Opens what `fd` stands for once more, with other flags; `fd` may be an `O_PATH` descriptor.
pub fn reopen(fd: BorrowedFd<'_>, flags: i32) -> Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC;
    let path = proc_path(fd);
    check(nix::fcntl::open(path.as_str(), flags, Mode::empty()), || {
        format!("open({path:?}, {flags:?})")
    })
}

/// Returns the path in /proc that stands for `fd`.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Returns another descriptor for the same open file.
pub fn dup(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned()
        .map_err(|error| Error::from_io(format!("dup({})", fd.as_raw_fd()), &error))
}

/// Shares the blocks of `len` bytes of `from` with `to` (`FICLONERANGE`); 0 is to the end.
///
/// # Errors
/// `EOPNOTSUPP`, `EXDEV`, `EINVAL` or `ENOTTY` where the file system cannot.
pub fn clone_range(
    from: BorrowedFd<'_>,
    offset: u64,
    len: u64,
    to: BorrowedFd<'_>,
    to_offset: u64,
) -> Result<()> {
    let range = libc::file_clone_range {
        src_fd: i64::from(from.as_raw_fd()),
        src_offset: offset,
        src_length: len,
        dest_offset: to_offset,
    };
    // SAFETY: both descriptors are open for the length of the call, and `range` outlives it.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONERANGE, &raw const range) };
    check_raw(result, || format!("ioctl({}, FICLONERANGE, {})", to.as_raw_fd(), from.as_raw_fd()))
        .map(drop)
}

/// Copies up to `len` bytes inside the kernel (`copy_file_range`); 0 means the end of `from`.
pub fn copy_range(
    from: BorrowedFd<'_>,
    offset: u64,
    to: BorrowedFd<'_>,
    to_offset: u64,
    len: usize,
) -> Result<usize> {
    let (Ok(mut offset), Ok(mut to_offset)) = (i64::try_from(offset), i64::try_from(to_offset))
    else {
        return Err(Error::new("copy_file_range: offset", Errno::EOVERFLOW));
    };
    check(
        nix::fcntl::copy_file_range(from, Some(&mut offset), to, Some(&mut to_offset), len),
        || format!("copy_file_range({}, {}, {len})", from.as_raw_fd(), to.as_raw_fd()),
    )
}

/// Returns where data begins at or after `offset`; none when there is none.
pub fn seek_data(fd: BorrowedFd<'_>, offset: u64) -> Result<Option<u64>> {
    seek(fd, offset, Whence::SeekData, "SEEK_DATA")
}

/// Returns where a hole begins at or after `offset`; none when `offset` is past the end.
pub fn seek_hole(fd: BorrowedFd<'_>, offset: u64) -> Result<Option<u64>> {
    seek(fd, offset, Whence::SeekHole, "SEEK_HOLE")
}

fn seek(fd: BorrowedFd<'_>, offset: u64, whence: Whence, name: &str) -> Result<Option<u64>> {
    let call = || format!("lseek({}, {offset}, {name})", fd.as_raw_fd());
    let from = i64::try_from(offset).map_err(|_| Error::new(call(), Errno::EOVERFLOW))?;
    match nix::unistd::lseek(fd, from, whence) {
        Ok(at) => Ok(u64::try_from(at).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(Error::new(call(), errno)),
    }
}

/// The bits of [`allocate`] that take bytes away instead of reserving them.
pub fn punch_flags() -> i32 {
    libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_COLLAPSE_RANGE
}

/// Reserves or releases blocks (`fallocate`).
pub fn allocate(fd: BorrowedFd<'_>, mode: i32, offset: u64, len: u64) -> Result<()> {
    let call = || format!("fallocate({}, {mode:#x}, {offset}, {len})", fd.as_raw_fd());
    let (Ok(from), Ok(size)) = (i64::try_from(offset), i64::try_from(len)) else {
        return Err(Error::new(call(), Errno::EFBIG));
    };
    let flags = FallocateFlags::from_bits_retain(mode);
    check(nix::fcntl::fallocate(fd, flags, from, size), call)
}

/// Writes everything that the file system of `fd` holds back to the disk (`syncfs`).
pub fn sync_fs(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd();
    check(nix::unistd::syncfs(fd), || format!("syncfs({})", fd.as_raw_fd()))
}

/// Has the disk begin with what was written to a file, and waits for nothing (`sync_file_range`). Where that
/// cannot be, it begins later: who syncs the file waits for it, and is told what went wrong.
pub fn begin_write_back(fd: BorrowedFd<'_>) {
    // SAFETY: the call takes numbers, and the descriptor is open for its length.
    let result =
        unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    let call = || format!("sync_file_range({}, 0, 0, WRITE)", fd.as_raw_fd());
    if let Err(error) = check_raw(result, call) {
        tracing::debug!("{error}");
    }
}

/// Tells the error that writing a file back has met since `fd` was opened, or that nobody was told
/// before; each once. Nothing is written for it (`sync_file_range` that only waits).
///
/// # Errors
/// The error that was met: `EIO`, `ENOSPC` or `EDQUOT`.
pub fn check_written_back(fd: BorrowedFd<'_>) -> Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE;
    // SAFETY: the call takes numbers, and the descriptor is open for its length.
    let result = unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 1, flags) };
    let call = || format!("sync_file_range({}, 0, 1, WAIT_BEFORE)", fd.as_raw_fd());
    check_raw(result, call).map(drop)
}

/// The flag that makes a call act on the descriptor itself.
pub(crate) const EMPTY_PATH: AtFlags = AtFlags::AT_EMPTY_PATH;
