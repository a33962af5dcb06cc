//! A file mapped into memory, read only.
//!
//! Every file of the store is immutable once it has its name, so the bytes cannot change under a
//! reader. A file that somebody truncates all the same ends the process with SIGBUS; the length is
//! checked against the header when the map is made, which finds what was cut off before.
#![allow(unsafe_code, reason = "mapping a file is unsafe, and this is the one file that does it")]

use std::fs::File;
use std::io;
use std::ops::Deref;

/// The bytes of a file.
#[derive(Debug)]
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps the whole of `file`, which must not be empty.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the file belongs to the store, which never writes to a published file again.
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
