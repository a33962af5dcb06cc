//! Where a file has its blocks on the disk (`FS_IOC_FIEMAP`).

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::Result;
use crate::sys::error::check_raw;

/// How many extents are asked for at once.
const AT_ONCE: usize = 128;

/// `FS_IOC_FIEMAP` of linux/fs.h: it reads and writes the 32 bytes of a `struct fiemap`.
const FS_IOC_FIEMAP: u64 = 0xc020_660b;

const LAST: u32 = 0x1;
/// There is no place yet, or none that could be told.
const NOWHERE: u32 = 0x2 | 0x4;
/// It is inside of what the file system notes of the file.
const INLINE: u32 = 0x200;
const SHARED: u32 = 0x2000;

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins on the disk; none if it has no blocks of its own there.
    pub physical: Option<u64>,
    /// Its length in bytes.
    pub len: u64,
    /// Another file, or another piece of this one, has the same blocks.
    pub is_shared: bool,
}

/// `struct fiemap_extent` of linux/fiemap.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    len: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

/// `struct fiemap` of linux/fiemap.h, with room for extents.
#[repr(C)]
struct RawMap {
    start: u64,
    len: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [RawExtent; AT_ONCE],
}

/// Returns some extents of a file from an offset on, and the offset at which to go on; none if these were
/// the last.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOTTY` where the file system does not tell.
pub fn extents(fd: BorrowedFd<'_>, start: u64) -> Result<(Vec<Extent>, Option<u64>)> {
    let mut map = RawMap {
        start,
        len: u64::MAX - start,
        flags: 0,
        mapped: 0,
        room: u32::try_from(AT_ONCE).unwrap_or(0),
        reserved: 0,
        extents: [RawExtent::default(); AT_ONCE],
    };
    // SAFETY: `map` outlives the call, which fills as many extents as `room` says; there are so many.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FIEMAP, &raw mut map) };
    check_raw(result, || format!("ioctl({}, FS_IOC_FIEMAP)", fd.as_raw_fd()))?;
    let mapped = usize::try_from(map.mapped).unwrap_or(0);
    let found = map.extents.get(..mapped).unwrap_or_default();
    let next = found.last().filter(|last| last.flags & LAST == 0);
    let extent = |raw: &RawExtent| Extent {
        physical: (raw.flags & (NOWHERE | INLINE) == 0).then_some(raw.physical),
        len: raw.len,
        is_shared: raw.flags & SHARED != 0,
    };
    Ok((
        found.iter().map(extent).collect(),
        next.and_then(|last| last.logical.checked_add(last.len)).filter(|next| *next > start),
    ))
}
