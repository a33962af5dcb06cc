//! Commands to `/dev/fuse` beside requests and answers.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::Result;
use crate::sys::error::check_raw;

/// `struct fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// What the commands of the device begin with.
const MAGIC: u32 = 229;
const BACKING_OPEN: libc::Ioctl = libc::_IOW::<BackingMap>(MAGIC, 1);
const BACKING_CLOSE: libc::Ioctl = libc::_IOW::<u32>(MAGIC, 2);

/// Gives the kernel a file that it may read and write itself for files of the mount
/// (`FUSE_DEV_IOC_BACKING_OPEN`); returns a number. `file` may be an `O_PATH` descriptor.
///
/// # Errors
/// `EPERM` without the privilege, or when passthrough was not agreed on; `ELOOP` for a file of a file
/// system that stands on others itself.
pub fn open_backing(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<i32> {
    let map = BackingMap { fd: file.as_raw_fd(), flags: 0, padding: 0 };
    // SAFETY: the kernel reads the structure while the call lasts.
    let number = unsafe { libc::ioctl(device.as_raw_fd(), BACKING_OPEN, &raw const map) };
    check_raw(number, || format!("FUSE_DEV_IOC_BACKING_OPEN({})", file.as_raw_fd()))
}

/// Takes the number of such a file back (`FUSE_DEV_IOC_BACKING_CLOSE`).
///
/// # Errors
/// `ENOENT` when there is no such number.
pub fn close_backing(device: BorrowedFd<'_>, number: i32) -> Result<()> {
    let number = number.cast_unsigned();
    // SAFETY: the kernel reads the number while the call lasts.
    let closed = unsafe { libc::ioctl(device.as_raw_fd(), BACKING_CLOSE, &raw const number) };
    check_raw(closed, || format!("FUSE_DEV_IOC_BACKING_CLOSE({number})")).map(drop)
}
