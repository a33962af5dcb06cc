//! Copying the content of a file: by sharing blocks where the file system can, else inside the
//! kernel, holes left out.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::sys::{self, Errno};

/// Most that one call copies, so that a signal is heeded in time.
const STEP: u64 = 64 << 20;

/// Copies the first `len` bytes of a file into an empty one, which has that length then.
///
/// # Errors
/// `EIO` when the file ends before.
pub(crate) fn copy_content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: u64) -> sys::Result<()> {
    if sys::clone_range(from, 0, 0, to, 0).is_ok() {
        return sys::truncate_fd(to, len);
    }
    sys::truncate_fd(to, len)?;
    let mut at = 0;
    while let Some(start) = sys::seek_data(from, at)?.filter(|start| *start < len) {
        let end = sys::seek_hole(from, start)?.unwrap_or(len).min(len);
        copy_piece(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

fn copy_piece(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> sys::Result<()> {
    let mut at = start;
    while at < end {
        let len = usize::try_from((end - at).min(STEP)).unwrap_or(0);
        match sys::copy_range(from, at, to, at, len) {
            Ok(0) => return Err(sys::Error::new("copy_file_range: a file ends early", Errno::EIO)),
            Ok(copied) => at += copied as u64,
            Err(error) if error.errno() == Errno::EINTR => {}
            // Another file system, or one that cannot.
            Err(error)
                if matches!(
                    error.errno(),
                    Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP
                ) =>
            {
                return copy_through(sys::dup(from)?, sys::dup(to)?, at, end);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn copy_through(from: OwnedFd, to: OwnedFd, start: u64, end: u64) -> sys::Result<()> {
    let (from, to) = (File::from(from), File::from(to));
    let mut buffer = vec![0; 128 * 1024];
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let chunk = buffer.get_mut(..len).unwrap_or_default();
        from.read_exact_at(chunk, at).map_err(|error| sys::Error::from_io("pread", &error))?;
        to.write_all_at(chunk, at).map_err(|error| sys::Error::from_io("pwrite", &error))?;
        at += len as u64;
    }
    Ok(())
}
