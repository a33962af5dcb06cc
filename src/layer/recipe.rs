//! The recipe of a layer's tar: its headers and padding as they were, and where the rest lies.
//!
//! A recipe is a short header and a zstd stream of instructions. Together with the layer's index
//! (small contents) and its objects (large ones) it gives the tar back bit for bit. The bytes are in
//! `docs/store-format.md`.
//!
//! The header has its own sum and that of the stream, so that a recipe can be used without reading
//! all of it, and be checked without inflating it. Version 1 had neither.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use crate::digest::{DiffId, Digest, HashingReader, HashingWriter};
use crate::layer::error::{Error, Result};
use crate::layer::format::{put, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"STRATTAR";
const VERSION: u32 = 2;
/// The version before: its header ends where the sums begin.
const VERSION_WITHOUT_SUMS: u32 = 1;

pub(crate) const HEADER_BYTES: usize = 128;
const HEADER_BYTES_WITHOUT_SUMS: usize = 64;
const R_MAGIC: usize = 0;
const R_VERSION: usize = 8;
const R_FLAGS: usize = 12;
const R_TAR_LEN: usize = 16;
const R_DIFF_ID: usize = 24;
const R_BODY_LEN: usize = 56;
pub(crate) const R_BODY_SHA256: usize = 64;
pub(crate) const R_SHA256: usize = 96;

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
    stream: zstd::Encoder<'static, HashingWriter<BufWriter<File>>>,
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
        let mut stream = zstd::Encoder::new(HashingWriter::new(out), ZSTD_LEVEL)?;
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
        let body = self.stream.finish()?;
        let body_len = body.len_bytes();
        let (body_sha256, out) = body.finish();
        out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let mut header = [0; HEADER_BYTES];
        put(&mut header, R_MAGIC, MAGIC);
        put(&mut header, R_VERSION, &VERSION.to_le_bytes());
        put(&mut header, R_FLAGS, &0_u32.to_le_bytes());
        put(&mut header, R_TAR_LEN, &tar_len.to_le_bytes());
        put(&mut header, R_DIFF_ID, diff_id.0.as_bytes());
        put(&mut header, R_BODY_LEN, &body_len.to_le_bytes());
        put(&mut header, R_BODY_SHA256, body_sha256.as_bytes());
        let sum = Digest::of(header.get(..R_SHA256).unwrap_or_default());
        put(&mut header, R_SHA256, sum.as_bytes());
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

/// Returns the header of the recipe of a tar with this id and length, in version 1, which has no sums.
#[cfg(any(test, fuzzing))]
pub(crate) fn header_without_sums(
    diff_id: DiffId,
    tar_len: u64,
) -> [u8; HEADER_BYTES_WITHOUT_SUMS] {
    let mut header = [0; HEADER_BYTES_WITHOUT_SUMS];
    put(&mut header, R_MAGIC, MAGIC);
    put(&mut header, R_VERSION, &VERSION_WITHOUT_SUMS.to_le_bytes());
    put(&mut header, R_TAR_LEN, &tar_len.to_le_bytes());
    put(&mut header, R_DIFF_ID, diff_id.0.as_bytes());
    header
}

/// What the header of a recipe says.
#[derive(Debug)]
struct Header {
    tar_len: u64,
    diff_id: DiffId,
    /// The sum of what is behind it; version 1 has none.
    body_sha256: Option<Digest>,
}

impl Header {
    /// Reads the header of a recipe; the file stands behind it then.
    fn read(file: &mut File) -> Result<Self> {
        let mut header = [0; HEADER_BYTES];
        let (first, rest) = header.split_at_mut(HEADER_BYTES_WITHOUT_SUMS);
        read_header(file, first)?;
        if !first.starts_with(MAGIC) {
            return Err(Error::Recipe("it does not begin as a recipe does"));
        }
        let has_sums = match u32_at(first, R_VERSION) {
            VERSION => true,
            VERSION_WITHOUT_SUMS => false,
            found => {
                return Err(Error::Unknown { what: "recipe version", found, expected: VERSION });
            }
        };
        if has_sums {
            read_header(file, rest)?;
            check_header(file, &header)?;
        } else if u32_at(&header, R_FLAGS) != 0 || u64_at(&header, R_BODY_LEN) != 0 {
            return Err(Error::Recipe("its header has more than this version says"));
        }
        Ok(Self {
            tar_len: u64_at(&header, R_TAR_LEN),
            diff_id: DiffId(digest_at(&header, R_DIFF_ID)?),
            body_sha256: has_sums.then(|| digest_at(&header, R_BODY_SHA256)).transpose()?,
        })
    }
}

fn read_header(file: &mut File, bytes: &mut [u8]) -> Result<()> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Recipe("shorter than its header"),
        _ => error.into(),
    })
}

fn check_header(file: &File, header: &[u8; HEADER_BYTES]) -> Result<()> {
    let covered = header.get(..R_SHA256).unwrap_or_default();
    if Digest::of(covered) != digest_at(header, R_SHA256)? {
        return Err(Error::Recipe("its header is not that of its checksum"));
    }
    let len = u64_at(header, R_BODY_LEN).checked_add(HEADER_BYTES as u64);
    if len != Some(file.metadata()?.len()) {
        return Err(Error::Recipe("the file has not the length that its header says"));
    }
    Ok(())
}

fn digest_at(header: &[u8], at: usize) -> Result<Digest> {
    let digest = header.get(at..at + 32).and_then(|bytes| bytes.try_into().ok());
    digest.map(Digest::from_bytes).ok_or(Error::Recipe("a digest is out of range"))
}

/// Reads a recipe to its end, and checks it against its sums and that it is the recipe of a layer.
/// One of version 1 is inflated, since the stream has the only sum.
///
/// # Errors
/// [`Error::Recipe`] says what is wrong.
pub fn verify_recipe(mut file: File, layer: DiffId) -> Result<()> {
    let header = Header::read(&mut file)?;
    if header.diff_id != layer {
        return Err(Error::Recipe("it is that of another layer"));
    }
    let Some(expected) = header.body_sha256 else { return verify_without_sums(file, header) };
    let mut body = HashingReader::new(file);
    let mut buffer = vec![0; 128 * 1024];
    while body.read(&mut buffer)? > 0 {}
    if body.finish().0 == expected {
        Ok(())
    } else {
        Err(Error::Recipe("its bytes are not those of its checksum"))
    }
}

fn verify_without_sums(file: File, header: Header) -> Result<()> {
    let mut reader = RecipeReader::new(file, header)?;
    let damaged = |error| match error {
        Error::Io(error) if error.raw_os_error().is_none() => {
            Error::Recipe("its instructions cannot be inflated")
        }
        other => other,
    };
    while let Some(step) = reader.next_step().map_err(damaged)? {
        if let Step::Raw(len) = step {
            let copied = io::copy(&mut (&mut reader.stream).take(len), &mut io::sink());
            if copied.map_err(Error::from).map_err(damaged)? != len {
                return Err(Error::Recipe("it ends inside an instruction"));
            }
        }
    }
    let behind = reader.stream.read(&mut [0]).map_err(Error::from).map_err(damaged)?;
    if behind == 0 { Ok(()) } else { Err(Error::Recipe("something is behind its end")) }
}

/// Reads a recipe.
pub(crate) struct RecipeReader {
    stream: BufReader<zstd::Decoder<'static, BufReader<File>>>,
    header: Header,
}

impl std::fmt::Debug for RecipeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecipeReader").field("header", &self.header).finish_non_exhaustive()
    }
}

impl RecipeReader {
    /// Opens a recipe and checks its header.
    pub(crate) fn open(mut file: File) -> Result<Self> {
        let header = Header::read(&mut file)?;
        Self::new(file, header)
    }

    fn new(file: File, header: Header) -> Result<Self> {
        Ok(Self { stream: BufReader::new(zstd::Decoder::new(file)?), header })
    }

    /// Returns the id of the tar that this makes.
    pub(crate) const fn diff_id(&self) -> DiffId {
        self.header.diff_id
    }

    /// Returns the length of the tar in bytes.
    pub(crate) const fn tar_len(&self) -> u64 {
        self.header.tar_len
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

    /// Returns a recipe with two instructions and some raw bytes.
    fn small(layer: DiffId) -> Vec<u8> {
        let mut writer = RecipeWriter::new(tempfile::tempfile().unwrap()).unwrap();
        writer.raw(&[b'h'; 700]).unwrap();
        writer.step(Step::Heap { offset: 3, len: 900 }).unwrap();
        read_all(writer.finish(layer, 1600).unwrap())
    }

    fn read_all(mut file: File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    /// Returns the same recipe as version 1 had it.
    fn without_sums(recipe: &[u8]) -> Vec<u8> {
        let mut old = recipe[..HEADER_BYTES_WITHOUT_SUMS].to_vec();
        put(&mut old, R_VERSION, &VERSION_WITHOUT_SUMS.to_le_bytes());
        put(&mut old, R_BODY_LEN, &[0; 8]);
        old.extend_from_slice(&recipe[HEADER_BYTES..]);
        old
    }

    #[test]
    fn every_bit_of_a_recipe_is_covered() {
        let layer = DiffId(Digest::of(b"x"));
        let good = small(layer);
        verify_recipe(file_of(&good), layer).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_recipe(file_of(&bad), layer).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(verify_recipe(file_of(&good[..len]), layer).is_err(), "{len} bytes");
            // What was cut off is seen without reading it.
            assert!(RecipeReader::open(file_of(&good[..len])).is_err(), "{len} bytes");
        }
        let longer = [&good[..], b"x"].concat();
        assert!(verify_recipe(file_of(&longer), layer).is_err());
        assert!(verify_recipe(file_of(&good), DiffId(Digest::of(b"y"))).is_err());
    }

    #[test]
    fn a_recipe_without_sums_is_read_and_inflated_to_be_checked() {
        let layer = DiffId(Digest::of(b"x"));
        let good = without_sums(&small(layer));
        verify_recipe(file_of(&good), layer).unwrap();
        let mut reader = RecipeReader::open(file_of(&good)).unwrap();
        assert_eq!((reader.diff_id(), reader.tar_len()), (layer, 1600));
        assert_eq!(reader.next_step().unwrap(), Some(Step::Raw(700)));
        for (at, value) in [(R_FLAGS, 1), (R_DIFF_ID, 1), (good.len() - 6, 0xff)] {
            let mut bad = good.clone();
            bad[at] ^= value;
            assert!(verify_recipe(file_of(&bad), layer).is_err(), "byte {at}");
        }
        for bad in [&good[..good.len() - 1], &[&good[..], b"x"].concat()] {
            assert!(matches!(verify_recipe(file_of(bad), layer), Err(Error::Recipe(_))));
        }
    }

    #[test]
    fn what_is_not_a_recipe_is_refused() {
        for bytes in [&b""[..], &[0; HEADER_BYTES], b"STRATTAR\x03"] {
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
