//! Memory that a process shares with those that it forks: what one has written the next one reads,
//! however the first has ended.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::error::{check, check_raw};
use crate::sys::{Errno, Result};

/// The least that memory is given out by; larger pages are multiples of it.
const PAGE: usize = 4096;

/// Memory that was mapped for reading and writing, shared, and goes with this value.
#[derive(Debug)]
pub(super) struct Mapping {
    at: NonNull<c_void>,
    len: usize,
}

// SAFETY: the memory belongs to nobody but this value, and no thread has a special part in it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a file, or of none, with these flags; `at` is where it is wished, or 0.
    pub(super) fn new(
        file: Option<BorrowedFd<'_>>,
        at: usize,
        len: usize,
        flags: i32,
    ) -> Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_SHARED);
        let (hint, fd) =
            (std::ptr::without_provenance_mut(at), file.map_or(-1, |fd| fd.as_raw_fd()));
        // SAFETY: the kernel puts it where nothing is: nobody gives a flag that says otherwise.
        let at = unsafe { libc::mmap(hint, len, protection, flags, fd, 0) };
        let call = || format!("mmap({hint:?}, {len}, MAP_SHARED)");
        let result = if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at) };
        let at = NonNull::new(check(result, call)?).ok_or(Errno::ENOMEM);
        Ok(Self { at: check(at, call)?, len })
    }

    pub(super) const fn at(&self) -> NonNull<c_void> {
        self.at
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Returns it as bytes.
    pub(super) const fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory is ours, as long as that, and nobody else in this process has a reference;
        // of the processes that share it, one at a time uses it so.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr().cast(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the memory is ours, and nobody can have a reference to it any more.
        unsafe { libc::munmap(self.at.as_ptr(), self.len) };
    }
}

/// Memory that is zero at first and takes room only where it was written.
#[derive(Debug)]
pub struct SharedMemory(Mapping);

// SAFETY: with a shared reference it is only used as atomic numbers.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes memory of so many bytes, or a little more.
    pub fn new(bytes: usize) -> Result<Self> {
        let len = bytes.max(1).next_multiple_of(PAGE);
        Ok(Self(Mapping::new(None, 0, len, libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)?))
    }

    /// Returns it as numbers.
    pub const fn words(&self) -> &[AtomicU64] {
        let words = self.0.at().cast::<AtomicU64>();
        // SAFETY: the memory lies at a multiple of a page, is as long, and lives as long as `self`;
        // every bit pattern is a number, and other processes change it as atomic numbers too.
        unsafe { std::slice::from_raw_parts(words.as_ptr(), self.0.len() / size_of::<AtomicU64>()) }
    }

    /// Returns it as bytes.
    pub const fn bytes(&mut self) -> &mut [u8] {
        self.0.bytes()
    }

    /// Has all of it be there now, and stay if this process may keep so much.
    pub fn hold(&self) {
        for word in self.words().iter().step_by(PAGE / size_of::<AtomicU64>()) {
            word.fetch_or(0, Ordering::Relaxed);
        }
        // SAFETY: the memory is ours.
        let locked = unsafe { libc::mlock(self.0.at().as_ptr(), self.0.len()) };
        if let Err(error) = check_raw(locked, || format!("mlock({})", self.0.len())) {
            tracing::debug!("{error}");
        }
    }
}

/// Returns a new file that is in memory only, without a name.
pub fn memory_file(name: &str) -> Result<OwnedFd> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    check(nix::sys::memfd::memfd_create(name, flags), || format!("memfd_create({name:?})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_keeps_what_is_written() {
        let mut memory = SharedMemory::new(PAGE + 1).unwrap();
        assert_eq!(memory.bytes().len(), 2 * PAGE);
        memory.hold();
        assert!(memory.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
        memory.words()[1].store(7, Ordering::Relaxed);
        assert_eq!(memory.bytes()[8..16], 7_u64.to_ne_bytes());
    }
}
