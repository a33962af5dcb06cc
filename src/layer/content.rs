//! Where the contents of a layer's files go: small ones into the index, others into objects.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crate::digest::{Digest, Hasher};
use crate::layer::copy::WRITE_BACK_STEP;
use crate::layer::error::Result;
use crate::layer::format::INLINE_MAX;
use crate::layer::index_write::IndexWriter;
use crate::layer::limits::{Limits, SPARSE_MAX};
use crate::layer::sparse::Segment;
use crate::sys;

/// Up to this size an object is made in memory, so that one that is known already costs no write.
const BUFFER_MAX: u64 = 1 << 20;
/// So much of larger ones is read and hashed at once: what a processor's cache holds.
const CHUNK: usize = 128 * 1024;
/// So much of larger ones is written at once, each piece at a multiple of its length. What one call writes the
/// kernel keeps in as few and as large folios as it can, and it maps the more at once the larger they are.
/// A processor's cache holds it still, so that writing it costs no more than writing less.
const PIECE: usize = 512 * 1024;

/// Takes the contents of files that are not kept in the index.
pub trait ObjectSink {
    /// Returns up to which size a content is kept in the index, in bytes.
    fn inline_max(&self) -> u64 {
        INLINE_MAX
    }

    /// Returns how much of one layer is taken.
    fn limits(&self) -> Limits {
        Limits::NONE
    }

    /// Is told that about so many bytes of the layer come to the disk next, and refuses them where
    /// they have no room.
    fn make_room(&mut self, _len_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    /// Stores bytes whose digest is known.
    fn put(&mut self, digest: Digest, bytes: &[u8]) -> io::Result<()>;

    /// Makes an empty file for an object whose digest is not known yet.
    fn begin(&mut self) -> io::Result<File>;

    /// Makes the written file the object with this digest.
    fn commit(&mut self, file: File, digest: Digest) -> io::Result<()>;
}

/// Where a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// In the heap, at this offset.
    Inline(u64),
    /// In the object with this number.
    Object(u64),
}

/// Reads the next bytes of a content into all of the buffer.
type Read<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<()>;

/// Stores contents and numbers the objects.
pub(crate) struct Contents<'a> {
    sink: &'a mut dyn ObjectSink,
    objects: Vec<(Digest, u64)>,
    numbers: HashMap<Digest, u64>,
    buffer: Vec<u8>,
}

impl<'a> Contents<'a> {
    pub(crate) fn new(sink: &'a mut dyn ObjectSink) -> Self {
        Self { sink, objects: Vec::new(), numbers: HashMap::new(), buffer: Vec::new() }
    }

    /// Sees to it that there is room for more of the layer on the disk.
    pub(crate) fn make_room(&mut self, len_bytes: u64) -> Result<()> {
        Ok(self.sink.make_room(len_bytes)?)
    }

    /// Stores a content of `size` bytes, of which `segments` are read and the rest are zeros.
    ///
    /// Returns none when the zeros are too many to be hashed.
    pub(crate) fn store(
        &mut self,
        size: u64,
        segments: &[Segment],
        read: Read<'_>,
        index: &mut IndexWriter,
    ) -> Result<Option<Stored>> {
        let stored: u64 = segments.iter().map(|piece| piece.len).sum();
        if size > SPARSE_MAX && stored < size {
            return Ok(None);
        }
        if size > BUFFER_MAX {
            return self.stream(size, segments, read).map(Some);
        }
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        bytes.resize(usize::try_from(size).unwrap_or(0), 0);
        for piece in segments {
            let start = usize::try_from(piece.offset).unwrap_or(0);
            let len = usize::try_from(piece.len).unwrap_or(0);
            read(bytes.get_mut(start..start + len).unwrap_or_default())?;
        }
        let stored = if size <= self.sink.inline_max() {
            Stored::Inline(index.heap(&bytes)?)
        } else {
            let digest = Digest::of(&bytes);
            if !self.numbers.contains_key(&digest) {
                self.sink.put(digest, &bytes)?;
            }
            self.number(digest, size)
        };
        self.buffer = bytes;
        Ok(Some(stored))
    }

    /// Returns the objects, by number.
    pub(crate) fn into_objects(self) -> Vec<(Digest, u64)> {
        self.objects
    }

    fn stream(&mut self, size: u64, segments: &[Segment], read: Read<'_>) -> Result<Stored> {
        let file = self.sink.begin()?;
        let mut hasher = Hasher::default();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(PIECE, 0);
        let mut at = 0;
        for segment in segments {
            hash_zeros(&mut hasher, segment.offset - at);
            at = segment.offset;
            let end = segment.offset + segment.len;
            while at < end {
                let in_piece = usize::try_from(at % PIECE as u64).unwrap_or(0);
                let len = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE - in_piece);
                let piece = buffer.get_mut(..len).unwrap_or_default();
                for chunk in piece.chunks_mut(CHUNK) {
                    read(chunk)?;
                    hasher.update(chunk);
                }
                file.write_all_at(piece, at)?;
                at += len as u64;
                if at.is_multiple_of(WRITE_BACK_STEP) {
                    sys::begin_write_back(file.as_fd());
                }
            }
        }
        self.buffer = buffer;
        hash_zeros(&mut hasher, size - at);
        file.set_len(size)?;
        let digest = hasher.finish();
        self.sink.commit(file, digest)?;
        Ok(self.number(digest, size))
    }

    fn number(&mut self, digest: Digest, size: u64) -> Stored {
        let next = self.objects.len() as u64;
        let number = *self.numbers.entry(digest).or_insert(next);
        if number == next {
            self.objects.push((digest, size));
        }
        Stored::Object(number)
    }
}

fn hash_zeros(hasher: &mut Hasher, mut len: u64) {
    const ZEROS: [u8; 4096] = [0; 4096];
    while len > 0 {
        let step = len.min(ZEROS.len() as u64);
        hasher.update(ZEROS.get(..usize::try_from(step).unwrap_or(0)).unwrap_or_default());
        len -= step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::fuzz::Memory;

    #[test]
    fn a_large_content_is_whole_wherever_its_segments_begin_and_end() {
        let piece = PIECE as u64;
        let segments = [(3, piece), (2 * piece - 1, 2), (3 * piece, 17 * piece + 9)]
            .map(|(offset, len)| Segment { offset, len });
        let size = 21 * piece;
        let mut expected = vec![0; usize::try_from(size).unwrap()];
        let mut bytes = (1..=251).cycle();
        for Segment { offset, len } in segments {
            let [start, end] = [offset, offset + len].map(|at| usize::try_from(at).unwrap());
            expected[start..end].fill_with(|| bytes.next().unwrap());
        }
        let mut bytes = (1..=251).cycle();
        let mut read = |buffer: &mut [u8]| {
            buffer.fill_with(|| bytes.next().unwrap());
            Ok(())
        };
        let mut index = IndexWriter::new(tempfile::tempfile().unwrap()).unwrap();
        let mut sink = Memory::default();
        let stored = Contents::new(&mut sink).store(size, &segments, &mut read, &mut index);
        assert_eq!(stored.unwrap(), Some(Stored::Object(0)));
        let objects = sink.objects();
        assert_eq!(objects.keys().collect::<Vec<_>>(), [&Digest::of(&expected)]);
        assert!(objects.values().all(|found| *found == expected));
    }
}
