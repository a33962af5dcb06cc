//! Writing an answer: a header, then structures, bytes or the entries of a listing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use zerocopy::{Immutable, IntoBytes};

use crate::fuse::abi::{Dirent, OutHeader};
use crate::overlay::{Error, Result};
use crate::sys::Errno;

const HEADER: usize = size_of::<OutHeader>();
/// The entries of a listing lie at multiples of this.
const ALIGNMENT: usize = 8;

/// The answer to one request, in the memory that it is sent from.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Answer<'a> {
    /// Begins an answer in a buffer, which has room for the longest one.
    pub(crate) const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: HEADER }
    }

    /// Adds a structure.
    pub(crate) fn put(&mut self, value: &(impl IntoBytes + Immutable)) -> Result<()> {
        self.bytes(value.as_bytes())
    }

    /// Adds bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let room = self.room().get_mut(..bytes.len()).ok_or(Error::TooSmall)?;
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// Adds up to `size` bytes that `fill` writes; it tells how many they are.
    pub(crate) fn fill(
        &mut self,
        size: u32,
        fill: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        let room = self.room().get_mut(..size as usize).ok_or(Error::TooSmall)?;
        self.len += fill(room)?.min(size as usize);
        Ok(())
    }

    /// Adds an entry of a listing, with what comes before it in one with attributes; tells whether
    /// there was room for it among `size` bytes.
    pub(crate) fn entry(
        &mut self,
        size: u32,
        attributes: &[u8],
        (ino, next, kind): (u64, u64, u32),
        name: &OsStr,
    ) -> bool {
        let name = name.as_bytes();
        let Ok(namelen) = u32::try_from(name.len()) else { return false };
        let dirent = Dirent { ino, off: next, namelen, kind };
        let len = attributes.len() + size_of_val(&dirent) + name.len();
        let padding = len.next_multiple_of(ALIGNMENT) - len;
        let padding = [0; ALIGNMENT].get(..padding).unwrap_or_default();
        let fits = self.len - HEADER + len + padding.len() <= size as usize;
        let parts = [attributes, dirent.as_bytes(), name, padding];
        fits && parts.into_iter().all(|part| self.bytes(part).is_ok())
    }

    fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.len..).unwrap_or_default()
    }

    /// Returns the bytes to send for a request, whose operation had this result.
    pub(crate) fn finish(self, unique: u64, result: std::result::Result<(), Errno>) -> &'a [u8] {
        let (len, error) = match result {
            Ok(()) => (self.len, 0),
            Err(errno) => (HEADER, -(errno as i32)),
        };
        let bytes = self.buffer.get_mut(..len).unwrap_or_default();
        let header = OutHeader { len: u32::try_from(len).unwrap_or(u32::MAX), error, unique };
        if let Some(start) = bytes.first_chunk_mut::<HEADER>() {
            start.copy_from_slice(header.as_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_its_length_and_number_and_an_error_nothing_else() {
        let mut buffer = [0xff; 64];
        let mut answer = Answer::new(&mut buffer);
        answer.put(&3_u64).unwrap();
        answer.fill(8, |room| Ok(room.len() - 5)).unwrap();
        let bytes = answer.finish(7, Ok(())).to_vec();
        assert_eq!(bytes[..16], [27, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..24], 3_u64.to_ne_bytes());
        assert_eq!(bytes.len(), 27);
        let mut answer = Answer::new(&mut buffer);
        answer.put(&3_u64).unwrap();
        let bytes = answer.finish(8, Err(Errno::ENOENT)).to_vec();
        assert_eq!(bytes[..8], [16, 0, 0, 0, 254, 255, 255, 255]);
        assert_eq!(bytes.len(), 16);
    }

    #[test]
    fn nothing_is_written_past_the_room_that_there_is() {
        let mut buffer = [0; 16 + 72];
        let mut answer = Answer::new(&mut buffer);
        // 24 bytes, the name, and zeros to a multiple of eight.
        assert!(answer.entry(64, &[], (1, 1, 8), "abc".as_ref()));
        assert!(answer.entry(64, &[], (2, 2, 8), "abcdefgh".as_ref()));
        assert!(!answer.entry(64, &[], (3, 3, 8), "a".as_ref()));
        assert!(answer.bytes(&[0; 9]).is_err());
        assert!(answer.fill(9, |_| Ok(0)).is_err());
        assert_eq!(answer.finish(1, Ok(())).len(), 16 + 64);
    }
}
