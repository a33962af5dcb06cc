//! Copying the content of a file: by sharing blocks where the file system can, else inside the
//! kernel, holes left out.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::sys::{self, Errno};

/// After so much of a file the disk is told to begin with it, in bytes: so it works while the rest is made,
/// and who waits for it at the end waits for a part.
pub(crate) const WRITE_BACK_STEP: u64 = 8 << 20;

/// When what is copied goes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteBack {
    /// While the rest is copied: it is synced next.
    Early,
    /// When the kernel wants: nobody waits for it.
    Late,
}

/// Copies the first `len` bytes of a file into an empty one, which has that length then.
///
/// # Errors
/// `EIO` when the file ends before.
pub(crate) fn copy_content(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    len: u64,
    write_back: WriteBack,
) -> sys::Result<()> {
    if sys::clone_range(from, 0, 0, to, 0).is_ok() {
        return sys::truncate_fd(to, len);
    }
    sys::truncate_fd(to, len)?;
    let mut at = 0;
    while let Some(start) = sys::seek_data(from, at)?.filter(|start| *start < len) {
        let end = sys::seek_hole(from, start)?.unwrap_or(len).min(len);
        copy_data(from, to, start..end, write_back)?;
        at = end;
    }
    Ok(())
}

fn copy_data(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    data: Range<u64>,
    write_back: WriteBack,
) -> sys::Result<()> {
    let mut at = data.start;
    while at < data.end {
        let step = data.end.min(at.saturating_add(WRITE_BACK_STEP));
        let len = usize::try_from(step - at).unwrap_or(0);
        match sys::copy_range(from, at, to, at, len) {
            Ok(0) => return Err(sys::Error::new("copy_file_range: a file ends early", Errno::EIO)),
            Ok(copied) => at += copied as u64,
            Err(error) if error.errno() == Errno::EINTR => continue,
            // Another file system, or one that cannot.
            Err(error)
                if matches!(
                    error.errno(),
                    Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP
                ) =>
            {
                copy_through(sys::dup(from)?, sys::dup(to)?, at, step)?;
                at = step;
            }
            Err(error) => return Err(error),
        }
        if write_back == WriteBack::Early && at < data.end {
            sys::begin_write_back(to);
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Returns a file of three pieces of data with holes between, and its bytes.
    fn with_holes(to: &mut File) -> Vec<u8> {
        let step = usize::try_from(WRITE_BACK_STEP).unwrap();
        let mut bytes = vec![0; 5 * step];
        for (start, len) in [(0, step + 4096), (2 * step, 2 * step), (5 * step - 7, 7)] {
            for (byte, number) in bytes[start..start + len].iter_mut().zip((1..=251).cycle()) {
                *byte = number;
            }
            to.write_all_at(&bytes[start..start + len], start as u64).unwrap();
        }
        bytes
    }

    fn read(mut file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_copy_has_the_content_and_the_holes_whenever_it_goes_to_the_disk() {
        let mut from = tempfile::tempfile().unwrap();
        let bytes = with_holes(&mut from);
        for write_back in [WriteBack::Early, WriteBack::Late] {
            let to = tempfile::tempfile().unwrap();
            copy_content(from.as_fd(), to.as_fd(), bytes.len() as u64, write_back).unwrap();
            assert!(read(&to) == bytes, "{write_back:?}");
            let taken = to.metadata().unwrap().blocks() * 512;
            assert!(taken < bytes.len() as u64, "{write_back:?}: {taken} bytes are taken");
        }
    }

    #[test]
    fn a_part_is_copied_through_memory_from_where_it_is() {
        let mut from = tempfile::tempfile().unwrap();
        let bytes = with_holes(&mut from);
        let to = tempfile::tempfile().unwrap();
        let (start, end) = (4095, WRITE_BACK_STEP + 4095);
        let [source, copy] = [&from, &to].map(|file| sys::dup(file.as_fd()).unwrap());
        copy_through(source, copy, start, end).unwrap();
        let copied = read(&to);
        let end = usize::try_from(end).unwrap();
        assert_eq!(copied.len(), end);
        assert!(copied[..4095].iter().all(|byte| *byte == 0));
        assert!(copied[4095..] == bytes[4095..end]);
    }
}
