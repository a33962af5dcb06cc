//! The recipe of a layer's tar: its headers and padding as they were, and where the rest lies.
//!
//! A recipe is a short header and a zstd stream of instructions. Together with the layer's index
//! (small contents) and its objects (large ones) it gives the tar back bit for bit. The bytes are in
//! `docs/store-format.md`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use crate::digest::{DiffId, Digest};
use crate::layer::error::{Error, Result};
use crate::layer::format::{put, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"STRATTAR";
const VERSION: u32 = 1;

const HEADER_BYTES: usize = 64;
const R_MAGIC: usize = 0;
const R_VERSION: usize = 8;
const R_FLAGS: usize = 12;
const R_TAR_LEN: usize = 16;
const R_DIFF_ID: usize = 24;

const OP_END: u8 = 0;
const OP_RAW: u8 = 1;
const OP_HEAP: u8 = 2;
const OP_OBJECT: u8 = 3;

/// Raw bytes are gathered up to this length before they are written.
const RAW_BYTES: usize = 64 * 1024;
/// Headers are most of a recipe and much alike: a quick level finds nearly all of it.
const ZSTD_LEVEL: i32 = 3;

/// An instruction: which bytes come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This many bytes of the stream itself.
    Raw(u64),
    /// Bytes of the heap of the layer's index.
    Heap { offset: u64, len: u64 },
    /// Bytes of the object with this number in the layer's table.
    Object { number: u64, offset: u64, len: u64 },
}

/// Writes a recipe.
pub(crate) struct RecipeWriter {
    file: File,
    stream: zstd::Encoder<'static, BufWriter<File>>,
    raw: Vec<u8>,
}

impl std::fmt::Debug for RecipeWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecipeWriter").field("file", &self.file).finish_non_exhaustive()
    }
}

impl RecipeWriter {
    /// Begins a recipe in an empty file.
    pub(crate) fn new(file: File) -> Result<Self> {
        let mut out = BufWriter::new(file.try_clone()?);
        out.write_all(&[0; HEADER_BYTES])?;
        let mut stream = zstd::Encoder::new(out, ZSTD_LEVEL)?;
        stream.include_checksum(true)?;
        Ok(Self { file, stream, raw: Vec::with_capacity(RAW_BYTES) })
    }

    /// Adds bytes that are in the recipe itself.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        if self.raw.len() + bytes.len() > RAW_BYTES {
            self.flush_raw()?;
        }
        if bytes.len() > RAW_BYTES {
            return self.write_raw(bytes);
        }
        self.raw.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds bytes that lie elsewhere.
    pub(crate) fn step(&mut self, step: Step) -> Result<()> {
        self.flush_raw()?;
        match step {
            Step::Raw(_) => Err(Error::Recipe("raw bytes are written by raw()")),
            Step::Heap { offset, len } => self.op(OP_HEAP, &[offset, len]),
            Step::Object { number, offset, len } => self.op(OP_OBJECT, &[number, offset, len]),
        }
    }

    /// Ends the recipe of the tar with this id and length.
    pub(crate) fn finish(mut self, diff_id: DiffId, tar_len: u64) -> Result<File> {
        self.flush_raw()?;
        self.op(OP_END, &[])?;
        let out = self.stream.finish()?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let mut header = [0; HEADER_BYTES];
        put(&mut header, R_MAGIC, MAGIC);
        put(&mut header, R_VERSION, &VERSION.to_le_bytes());
        put(&mut header, R_FLAGS, &0_u32.to_le_bytes());
        put(&mut header, R_TAR_LEN, &tar_len.to_le_bytes());
        put(&mut header, R_DIFF_ID, diff_id.0.as_bytes());
        self.file.write_all_at(&header, 0)?;
        Ok(self.file)
    }

    fn flush_raw(&mut self) -> Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.raw);
        self.write_raw(&bytes)?;
        bytes.clear();
        self.raw = bytes;
        Ok(())
    }

    fn write_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.op(OP_RAW, &[bytes.len() as u64])?;
        self.stream.write_all(bytes)?;
        Ok(())
    }

    fn op(&mut self, op: u8, numbers: &[u64]) -> Result<()> {
        let mut bytes = vec![op];
        for number in numbers {
            push_varint(&mut bytes, *number);
        }
        self.stream.write_all(&bytes)?;
        Ok(())
    }
}

/// Reads a recipe.
pub(crate) struct RecipeReader {
    stream: BufReader<zstd::Decoder<'static, BufReader<File>>>,
    tar_len: u64,
    diff_id: DiffId,
}

impl std::fmt::Debug for RecipeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecipeReader").field("diff_id", &self.diff_id).finish_non_exhaustive()
    }
}

impl RecipeReader {
    /// Opens a recipe and checks its header.
    pub(crate) fn open(mut file: File) -> Result<Self> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header).map_err(|_| Error::Recipe("shorter than its header"))?;
        if !header.starts_with(MAGIC) {
            return Err(Error::Recipe("it does not begin as a recipe does"));
        }
        let found = u32_at(&header, R_VERSION);
        if found != VERSION {
            return Err(Error::Unknown { what: "recipe version", found, expected: VERSION });
        }
        let diff_id = header.get(R_DIFF_ID..R_DIFF_ID + 32).and_then(|bytes| bytes.try_into().ok());
        let diff_id = diff_id.map(Digest::from_bytes).ok_or(Error::Recipe("no diff id"))?;
        Ok(Self {
            stream: BufReader::new(zstd::Decoder::new(file)?),
            tar_len: u64_at(&header, R_TAR_LEN),
            diff_id: DiffId(diff_id),
        })
    }

    /// Returns the id of the tar that this makes.
    pub(crate) const fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    /// Returns the length of the tar in bytes.
    pub(crate) const fn tar_len(&self) -> u64 {
        self.tar_len
    }

    /// Returns the next instruction; none at the end. The bytes of [`Step::Raw`] are read with
    /// [`RecipeReader::read_raw`] before the next call.
    pub(crate) fn next_step(&mut self) -> Result<Option<Step>> {
        let mut op = [0];
        self.stream.read_exact(&mut op)?;
        Ok(Some(match op {
            [OP_END] => return Ok(None),
            [OP_RAW] => Step::Raw(self.varint()?),
            [OP_HEAP] => Step::Heap { offset: self.varint()?, len: self.varint()? },
            [OP_OBJECT] => {
                Step::Object { number: self.varint()?, offset: self.varint()?, len: self.varint()? }
            }
            _ => return Err(Error::Recipe("an instruction is not known")),
        }))
    }

    /// Reads raw bytes.
    pub(crate) fn read_raw(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buffer)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            let [byte] = byte;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::Recipe("a number is too large"))
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    #[test]
    fn instructions_survive_writing() {
        let mut writer = RecipeWriter::new(tempfile::tempfile().unwrap()).unwrap();
        let steps = [
            Step::Heap { offset: 0, len: 1 },
            Step::Object { number: 300, offset: 1 << 40, len: u64::MAX },
        ];
        let large = vec![7; 3 * RAW_BYTES];
        writer.raw(b"head").unwrap();
        writer.raw(b"er").unwrap();
        for step in steps {
            writer.step(step).unwrap();
        }
        writer.raw(&large).unwrap();
        let diff_id = DiffId(Digest::of(b"x"));
        let mut file = writer.finish(diff_id, 99).unwrap();
        file.rewind().unwrap();
        let mut reader = RecipeReader::open(file).unwrap();
        assert_eq!((reader.diff_id(), reader.tar_len()), (diff_id, 99));
        assert_eq!(reader.next_step().unwrap(), Some(Step::Raw(6)));
        let mut raw = [0; 6];
        assert_eq!(reader.read_raw(&mut raw).unwrap(), 6);
        assert_eq!(&raw, b"header");
        for step in steps {
            assert_eq!(reader.next_step().unwrap(), Some(step));
        }
        assert_eq!(reader.next_step().unwrap(), Some(Step::Raw(large.len() as u64)));
        let mut raw = vec![0; large.len()];
        reader.stream.read_exact(&mut raw).unwrap();
        assert_eq!(raw, large);
        assert_eq!(reader.next_step().unwrap(), None);
    }

    #[test]
    fn what_is_not_a_recipe_is_refused() {
        for bytes in [&b""[..], &[0; HEADER_BYTES], b"STRATTAR\x02"] {
            let mut file = tempfile::tempfile().unwrap();
            let mut padded = bytes.to_vec();
            if !bytes.is_empty() {
                padded.resize(HEADER_BYTES, 0);
            }
            file.write_all(&padded).unwrap();
            file.rewind().unwrap();
            assert!(RecipeReader::open(file).is_err(), "{bytes:?}");
        }
    }
}
