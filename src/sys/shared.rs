//! Memory that a process shares with those that it forks: what one has written the next one reads,
//! however the first has ended.

use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::error::{check, check_raw};
use crate::sys::{Errno, Result};

/// The least that memory is given out by; larger pages are multiples of it.
const PAGE: usize = 4096;

/// Memory that is zero at first and takes room only where it was written.
#[derive(Debug)]
pub struct SharedMemory {
    at: NonNull<c_void>,
    len: usize,
}

// SAFETY: the memory belongs to nobody but this value, and no thread has a special part in it.
unsafe impl Send for SharedMemory {}
// SAFETY: with a shared reference it is only used as atomic numbers.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes memory of so many bytes, or a little more.
    pub fn new(bytes: usize) -> Result<Self> {
        let len = bytes.max(1).next_multiple_of(PAGE);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses a place where nothing is.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        let call = || format!("mmap({len}, MAP_SHARED)");
        let result = if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at) };
        let at = NonNull::new(check(result, call)?).ok_or(Errno::ENOMEM);
        Ok(Self { at: check(at, call)?, len })
    }

    /// Returns it as numbers.
    pub const fn words(&self) -> &[AtomicU64] {
        let words = self.at.cast::<AtomicU64>();
        // SAFETY: the memory lies at a multiple of a page, is as long, and lives as long as `self`;
        // every bit pattern is a number, and other processes change it as atomic numbers too.
        unsafe { std::slice::from_raw_parts(words.as_ptr(), self.len / size_of::<AtomicU64>()) }
    }

    /// Returns it as bytes.
    pub const fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: nobody else in this process has a reference; of the processes that share the memory,
        // one at a time uses it so.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr().cast(), self.len) }
    }

    /// Has all of it be there now, and stay if this process may keep so much.
    pub fn hold(&self) {
        for word in self.words().iter().step_by(PAGE / size_of::<AtomicU64>()) {
            word.fetch_or(0, Ordering::Relaxed);
        }
        // SAFETY: the memory is ours.
        let locked = unsafe { libc::mlock(self.at.as_ptr(), self.len) };
        if let Err(error) = check_raw(locked, || format!("mlock({})", self.len)) {
            tracing::debug!("{error}");
        }
    }
}

/// Returns a new file that is in memory only, without a name.
pub fn memory_file(name: &str) -> Result<OwnedFd> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    check(nix::sys::memfd::memfd_create(name, flags), || format!("memfd_create({name:?})"))
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the memory is ours, and nobody can have a reference to it any more.
        unsafe { libc::munmap(self.at.as_ptr(), self.len) };
    }
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
