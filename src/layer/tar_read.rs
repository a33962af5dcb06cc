//! Reading a tar entry by entry, with every byte accounted for.
//!
//! What is not the content of an entry (headers, extension records, padding, all behind the end of
//! the archive) is handed to the caller as it was, so that the archive can be written again bit for
//! bit. Read are: v7, ustar, PAX and GNU headers, long names of both kinds, and sparse files of all
//! four forms. The header's layout comes from the `tar` crate; numbers are parsed by `tar_field`,
//! because archives in use have empty, negative and blank-padded ones.

use std::collections::BTreeMap;
use std::io::Read;

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::layer::Kind;
use crate::layer::error::{Error, Result};
use crate::layer::limits::{EXTENSION_MAX, LINK_TARGET_MAX, PATH_BYTES_MAX, SEGMENTS_MAX};
use crate::layer::pax::Pax;
use crate::layer::sparse::{Segment, parse_map, read_digits};
use crate::layer::tar_field::{cut_at_nul, padding, parse_number, parse_time};
use crate::sys::{Time, make_device};

/// Size of a block.
pub(crate) const BLOCK: usize = 512;
/// How much of a path an error shows.
const SHOWN_BYTES: usize = 512;
/// Most digits of a number of 64 bits.
const MAX_DIGITS: usize = 20;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A file of this kind.
    File(Kind),
    /// Another name for a file.
    HardLink,
}

/// An entry of a tar.
#[derive(Debug)]
pub(crate) struct TarEntry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Permissions, without the type.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) device: u64,
    pub(crate) link: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Size of the file.
    pub(crate) size: u64,
    /// Where the stored bytes belong in the file; none when it is stored whole.
    pub(crate) segments: Option<Vec<Segment>>,
}

impl TarEntry {
    /// Returns the error of an entry that cannot be represented.
    pub(crate) fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Entry { path: shown(&self.path), reason: reason.into() }
    }

    /// Checks that its path and where it leads are of a length that there is.
    fn check_paths(&self) -> Result<()> {
        let link_most = match self.kind {
            EntryKind::File(Kind::Symlink) => LINK_TARGET_MAX,
            _ => PATH_BYTES_MAX,
        };
        for (what, bytes, most) in
            [("path", &self.path, PATH_BYTES_MAX), ("target", &self.link, link_most)]
        {
            if bytes.len() > most {
                let len = bytes.len();
                return Err(self.refuse(format!("a {what} of {len} bytes, {most} is the most")));
            }
            if bytes.contains(&0) {
                return Err(self.refuse(format!("its {what} has a NUL in it")));
            }
        }
        Ok(())
    }
}

/// Takes the bytes of the archive that are not content.
pub(crate) trait RawSink {
    /// Takes the next bytes.
    fn raw(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Reads a tar.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    reader: R,
    offset: u64,
    /// Content of the current entry that has not been read.
    content: u64,
    /// Padding behind it.
    padding: usize,
}

/// What the extension records before an entry say of it.
#[derive(Debug, Default)]
struct Extensions {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    any: bool,
    /// Length of the records so far.
    len_bytes: u64,
}

impl<R: Read> TarReader<R> {
    /// Returns a reader of the archive that `reader` gives.
    pub(crate) const fn new(reader: R) -> Self {
        Self { reader, offset: 0, content: 0, padding: 0 }
    }

    /// Returns the next entry; none at the end, when all bytes have been handed to `raw`.
    pub(crate) fn next_entry(&mut self, raw: &mut impl RawSink) -> Result<Option<TarEntry>> {
        debug_assert_eq!(self.content, 0, "the content of an entry is read before the next");
        self.skip_padding(raw)?;
        let mut extensions = Extensions::default();
        loop {
            let Some(block) = self.block()? else {
                return if extensions.any {
                    Err(self.error("it ends behind an extension record"))
                } else {
                    Ok(None)
                };
            };
            raw.raw(&block)?;
            if block.iter().all(|byte| *byte == 0) {
                self.end_of_archive(raw)?;
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            self.check_sum(header)?;
            let size = self.number(&header.as_old().size)?;
            let size = u64::try_from(size).map_err(|_| self.error("a size is negative"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let record = self.extension(size, &mut extensions, raw)?;
                    let record = extensions.pax.add(&record);
                    record.map_err(|reason| self.error(reason))?;
                    extensions.any = true;
                }
                // Says things of all entries that follow; docker and others heed none of it.
                EntryType::XGlobalHeader => drop(self.extension(size, &mut extensions, raw)?),
                EntryType::GNULongName => {
                    let name = self.extension(size, &mut extensions, raw)?;
                    extensions.long_name = Some(cut_at_nul(name));
                    extensions.any = true;
                }
                EntryType::GNULongLink => {
                    let link = self.extension(size, &mut extensions, raw)?;
                    extensions.long_link = Some(cut_at_nul(link));
                    extensions.any = true;
                }
                _ => return self.entry(header, size, extensions, raw).map(Some),
            }
        }
    }

    /// Reads content of the current entry into all of `buffer`.
    pub(crate) fn content(&mut self, buffer: &mut [u8]) -> Result<()> {
        let len = buffer.len() as u64;
        self.content = self.content.checked_sub(len).ok_or(Error::Recipe("content length"))?;
        self.fill(buffer)
    }

    /// Returns how many bytes have been read.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Passes over content of the current entry; `seek` takes the reader to a place in the archive.
    pub(crate) fn skip_content(
        &mut self,
        len: u64,
        seek: impl FnOnce(&mut R, u64) -> std::io::Result<()>,
    ) -> Result<()> {
        self.content = self.content.checked_sub(len).ok_or(Error::Recipe("content length"))?;
        self.offset += len;
        Ok(seek(&mut self.reader, self.offset)?)
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        extensions: Extensions,
        raw: &mut impl RawSink,
    ) -> Result<TarEntry> {
        let Extensions { mut pax, long_name, long_link, .. } = extensions;
        let old = header.as_old();
        let path = long_name.or_else(|| pax.take(b"path"));
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = long_link.or_else(|| pax.take(b"linkpath"));
        let link = link.unwrap_or_else(|| cut_at_nul(old.linkname.to_vec()));
        let mut entry = TarEntry {
            kind: entry_kind(header.entry_type(), &path)
                .ok_or_else(|| refuse_type(header.entry_type(), &path))?,
            path,
            mode: self.number_u32(&old.mode)? & 0o7777,
            uid: self.pax_or(&mut pax, b"uid", &old.uid)?,
            gid: self.pax_or(&mut pax, b"gid", &old.gid)?,
            mtime: match pax.take(b"mtime") {
                Some(text) => {
                    parse_time(&text).ok_or_else(|| self.error("an mtime record is no number"))?
                }
                None => Time { secs: self.number(&old.mtime)?, nanos: 0 },
            },
            device: 0,
            link,
            xattrs: pax.take_xattrs(),
            size: 0,
            segments: None,
        };
        if matches!(entry.kind, EntryKind::File(Kind::Character | Kind::Block)) {
            entry.device = self.device(header)?;
        }
        if entry.kind == EntryKind::File(Kind::Directory) && header.entry_type().is_file() {
            // It is a directory by the slash of its name alone, so what its size counts is there.
            self.skip(size, raw)?;
        }
        // Entries of other types may have a size all the same, which means nothing.
        if entry.kind == EntryKind::File(Kind::Regular) {
            let stored = match pax.take(b"size") {
                Some(text) => self.decimal(&text)?,
                None => size,
            };
            self.content = stored;
            self.padding = padding(stored);
            entry.size = stored;
            self.sparse(header, &mut pax, &mut entry, raw)?;
        }
        entry.check_paths()?;
        Ok(entry)
    }

    /// Reads what makes an entry a sparse file, in whichever of the four forms.
    fn sparse(
        &mut self,
        header: &Header,
        pax: &mut Pax,
        entry: &mut TarEntry,
        raw: &mut impl RawSink,
    ) -> Result<()> {
        let segments = if header.entry_type() == EntryType::GNUSparse {
            let gnu = header.as_gnu().ok_or_else(|| self.error("a sparse file without a map"))?;
            entry.size = self.unsigned(&gnu.realsize)?;
            let mut segments = Vec::new();
            self.gnu_segments(&gnu.sparse, &mut segments)?;
            let mut extended = gnu.is_extended();
            while extended {
                let block = self.block()?.ok_or_else(|| self.error("a sparse map is cut short"))?;
                raw.raw(&block)?;
                let mut more = GnuExtSparseHeader::new();
                more.as_mut_bytes().copy_from_slice(&block);
                self.gnu_segments(more.sparse(), &mut segments)?;
                extended = more.is_extended();
            }
            segments
        } else if let Some(sparse) = pax.take_sparse() {
            let invalid = |_| self.error("a sparse file's records are no numbers");
            entry.size = read_digits(&sparse.real_size).map_err(invalid)?;
            if let Some(name) = sparse.name {
                entry.path = name;
            }
            match sparse.map {
                Some(map) => parse_map(&map).map_err(invalid)?,
                None => self.map_in_content(raw)?,
            }
        } else {
            return Ok(());
        };
        self.check_segments(entry.size, &segments)?;
        entry.segments = Some(segments);
        Ok(())
    }

    /// Adds the pieces that a GNU header names; an empty one ends the list.
    fn gnu_segments(&self, found: &[GnuSparseHeader], segments: &mut Vec<Segment>) -> Result<()> {
        for piece in found {
            if piece.is_empty() {
                break;
            }
            if segments.len() >= SEGMENTS_MAX {
                return Err(self.error("a sparse file has too many pieces"));
            }
            let (offset, len) = (self.unsigned(&piece.offset)?, self.unsigned(&piece.numbytes)?);
            segments.push(Segment { offset, len });
        }
        Ok(())
    }

    /// Reads the map of PAX sparse format 1.0: decimal lines at the beginning of the content, in
    /// whole blocks. The first line is the number of pieces.
    fn map_in_content(&mut self, raw: &mut impl RawSink) -> Result<Vec<Segment>> {
        let (mut numbers, mut line) = (Vec::new(), Vec::new());
        let mut wanted = 1;
        while numbers.len() < wanted {
            let mut block = [0; BLOCK];
            self.content = self
                .content
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| self.error("a sparse map is cut short"))?;
            self.fill(&mut block)?;
            raw.raw(&block)?;
            for byte in block {
                match byte {
                    _ if numbers.len() == wanted => break,
                    b'\n' => {
                        let number = read_digits(&line);
                        let number = number.map_err(|_| self.error("a sparse map is no number"))?;
                        if numbers.is_empty() {
                            wanted = 1 + 2 * self.piece_count(number)?;
                        }
                        numbers.push(number);
                        line.clear();
                    }
                    _ if line.len() == MAX_DIGITS => {
                        return Err(self.error("a sparse map is no number"));
                    }
                    digit => line.push(digit),
                }
            }
        }
        let pairs = numbers.get(1..).unwrap_or_default().as_chunks::<2>().0;
        Ok(pairs.iter().map(|[offset, len]| Segment { offset: *offset, len: *len }).collect())
    }

    fn piece_count(&self, count: u64) -> Result<usize> {
        let count = usize::try_from(count).ok().filter(|count| *count <= SEGMENTS_MAX);
        count.ok_or_else(|| self.error("a sparse file has too many pieces"))
    }

    /// Checks that the pieces are in order, inside the file, and as long as what is stored.
    fn check_segments(&self, size: u64, segments: &[Segment]) -> Result<()> {
        let (mut end, mut stored) = (0_u64, 0_u64);
        for piece in segments {
            let piece_end = piece.offset.checked_add(piece.len);
            match piece_end {
                Some(piece_end) if piece.offset >= end && piece_end <= size => end = piece_end,
                _ => return Err(self.error("the pieces of a sparse file overlap or lie outside")),
            }
            stored = stored.saturating_add(piece.len);
        }
        if stored == self.content {
            Ok(())
        } else {
            Err(self.error("a sparse file's pieces are not as long as its content"))
        }
    }

    fn device(&self, header: &Header) -> Result<u64> {
        let (major, minor) = if let Some(ustar) = header.as_ustar() {
            (&ustar.dev_major, &ustar.dev_minor)
        } else if let Some(gnu) = header.as_gnu() {
            (&gnu.dev_major, &gnu.dev_minor)
        } else {
            return Err(self.error("a device in a header that has no place for its number"));
        };
        Ok(make_device(self.number_u32(major)?, self.number_u32(minor)?))
    }

    fn pax_or(&self, pax: &mut Pax, key: &[u8], field: &[u8]) -> Result<u32> {
        match pax.take(key) {
            Some(text) => {
                let number = self.decimal(&text)?;
                u32::try_from(number).map_err(|_| self.error("an owner has more than 32 bits"))
            }
            None => self.number_u32(field),
        }
    }

    fn decimal(&self, text: &[u8]) -> Result<u64> {
        read_digits(text).map_err(|_| self.error("an extension record is no number"))
    }

    fn number(&self, field: &[u8]) -> Result<i64> {
        parse_number(field).ok_or_else(|| self.error("a number in a header is none"))
    }

    fn unsigned(&self, field: &[u8]) -> Result<u64> {
        u64::try_from(self.number(field)?).map_err(|_| self.error("a size is negative"))
    }

    /// Returns a number of 32 bits; negative ones stand for large ones, as in chown(2).
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    fn number_u32(&self, field: &[u8]) -> Result<u32> {
        let number = self.number(field)?;
        if number > i64::from(u32::MAX) || number < i64::from(i32::MIN) {
            return Err(self.error("a number in a header has more than 32 bits"));
        }
        Ok(number as u32)
    }

    /// Checks the sum of a header; old programs added the bytes up as signed numbers.
    pub(crate) fn check_sum(&self, header: &Header) -> Result<()> {
        let bytes = header.as_bytes();
        let blank = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
        let bytes: Vec<u8> = bytes.iter().enumerate().map(blank).collect();
        let unsigned: i64 = bytes.iter().map(|byte| i64::from(*byte)).sum();
        let signed: i64 = bytes.iter().map(|byte| i64::from(byte.cast_signed())).sum();
        let expected = self.number(&header.as_old().cksum)?;
        if expected == unsigned || expected == signed {
            Ok(())
        } else {
            Err(self.error("the checksum of a header is wrong"))
        }
    }

    /// Reads an extension record with its padding. Whatever it says, it counts among those before
    /// one entry, which are in memory together.
    fn extension(
        &mut self,
        size: u64,
        before: &mut Extensions,
        raw: &mut impl RawSink,
    ) -> Result<Vec<u8>> {
        before.len_bytes = before.len_bytes.saturating_add(size.max(BLOCK as u64));
        if before.len_bytes > EXTENSION_MAX {
            return Err(self.error("the extension records of an entry are longer than 1 MiB"));
        }
        let size = usize::try_from(size).unwrap_or(0);
        let mut bytes = vec![0; size.next_multiple_of(BLOCK)];
        self.fill(&mut bytes)?;
        raw.raw(&bytes)?;
        bytes.truncate(size);
        Ok(bytes)
    }

    /// Hands bytes that belong to no file, and their padding, to `raw`.
    fn skip(&mut self, len: u64, raw: &mut impl RawSink) -> Result<()> {
        let mut block = [0; BLOCK];
        for _ in 0..len.div_ceil(BLOCK as u64) {
            self.fill(&mut block)?;
            raw.raw(&block)?;
        }
        Ok(())
    }

    /// Hands the padding of the last entry to `raw`. umoci writes none at the end of an archive, and
    /// docker does not miss it.
    fn skip_padding(&mut self, raw: &mut impl RawSink) -> Result<()> {
        let mut block = [0; BLOCK];
        let padding = block.get_mut(..std::mem::take(&mut self.padding)).unwrap_or_default();
        let found = self.read_up_to(padding)?;
        raw.raw(padding.get(..found).unwrap_or_default())
    }

    /// Reads what follows the first block of zeros: a second one, then anything.
    fn end_of_archive(&mut self, raw: &mut impl RawSink) -> Result<()> {
        if let Some(block) = self.block()? {
            if block.iter().any(|byte| *byte != 0) {
                return Err(self.error("a single block of zeros lies between its entries"));
            }
            raw.raw(&block)?;
        }
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = self.reader.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            self.offset += len as u64;
            raw.raw(bytes)?;
        }
    }

    /// Reads a block; none when the archive ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        match self.read_up_to(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(self.error("it ends inside a block")),
        }
    }

    /// Fills the buffer as far as the archive goes, and returns how far.
    fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) => break,
                Ok(len) => {
                    filled += len;
                    self.offset += len as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self.reader.read_exact(buffer) {
            Ok(()) => {
                self.offset += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.error("it ends inside an entry"))
            }
            Err(error) => Err(error.into()),
        }
    }

    const fn error(&self, reason: &'static str) -> Error {
        Error::Tar { reason, offset: self.offset }
    }
}

/// Returns a path for an error: of a long one the beginning.
fn shown(path: &[u8]) -> String {
    match path.get(..SHOWN_BYTES) {
        Some(begin) if path.len() > SHOWN_BYTES => {
            format!("{}…", String::from_utf8_lossy(begin))
        }
        _ => String::from_utf8_lossy(path).into_owned(),
    }
}

fn entry_kind(entry_type: EntryType, path: &[u8]) -> Option<EntryKind> {
    let kind = match entry_type {
        EntryType::Link => return Some(EntryKind::HardLink),
        // The oldest archives mark a directory by the slash at its end alone.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::Regular,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::Character,
        EntryType::Block => Kind::Block,
        EntryType::Fifo => Kind::Fifo,
        _ => return None,
    };
    Some(EntryKind::File(kind))
}

fn refuse_type(entry_type: EntryType, path: &[u8]) -> Error {
    Error::Entry {
        path: shown(path),
        reason: format!("its type {:?} is not known", char::from(entry_type.as_byte())),
    }
}
