//! A file in memory.

use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::{Error, Result};

/// A file mapped into memory, to be read. Nobody may make it shorter meanwhile: the process would get
/// SIGBUS.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the whole of a file, which must not be empty.
    pub fn new(file: BorrowedFd<'_>) -> Result<Self> {
        // SAFETY: the bytes are only read, and who calls keeps the file as long as it is.
        let map = unsafe { memmap2::Mmap::map(&file) };
        map.map(Self).map_err(|error| Error::from_io(format!("mmap({})", file.as_raw_fd()), &error))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
