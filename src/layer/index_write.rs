//! Writing an index: the heap as contents come, then the tables of a finished tree, the header last.
//!
//! The body is written once, from front to back, and hashed as it goes. The file is not an index
//! before its header is there, so one that was cut off by a crash is refused by the reader.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use hashbrown::HashTable;

use crate::digest::{DIGEST_LEN, DiffId, Digest, HashingWriter};
use crate::layer::Kind;
use crate::layer::error::{Error, Result};
use crate::layer::format as f;
use crate::layer::format::{DirentRecord, IndexKind, InodeRecord, Section, WHITEOUT, put};
use crate::layer::limits::{Excess, Limits};
use crate::layer::tree::{EntryId, InodeId, ROOT, Tree};

/// An index that is being written.
#[derive(Debug)]
pub(crate) struct IndexWriter {
    file: File,
    body: BufWriter<HashingWriter<File>>,
    body_len: u64,
    xattrs: XattrSets,
}

/// What the header says besides the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) kind: IndexKind,
    pub(crate) id: Digest,
    pub(crate) tar_len: u64,
}

/// What an index has besides the tree.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Digests and sizes of the objects.
    pub(crate) objects: Vec<(Digest, u64)>,
    /// Layers of a chain, bottom first.
    pub(crate) layers: Vec<DiffId>,
}

impl IndexWriter {
    /// Begins an index in an empty file, open for reading and writing.
    pub(crate) fn new(file: File) -> Result<Self> {
        Self::within(Limits::NONE, file)
    }

    /// Does the same; its extended attributes are not more than these limits allow.
    pub(crate) fn within(limits: Limits, file: File) -> Result<Self> {
        let mut written = file.try_clone()?;
        written.write_all(&[0; f::HEADER_BYTES])?;
        let body = BufWriter::with_capacity(128 * 1024, HashingWriter::new(written));
        Ok(Self { file, body, body_len: 0, xattrs: XattrSets::new(limits) })
    }

    /// Adds bytes to the heap and returns where they are.
    pub(crate) fn heap(&mut self, bytes: &[u8]) -> Result<u64> {
        let offset = self.body_len;
        self.write(bytes)?;
        Ok(offset)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.body.write_all(bytes)?;
        self.body_len += bytes.len() as u64;
        Ok(())
    }

    /// Reads bytes of the heap back.
    pub(crate) fn heap_at(&mut self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.body.flush()?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, f::HEADER_BYTES as u64 + offset)?;
        Ok(bytes)
    }

    /// Adds a set of extended attributes and returns its number; the empty set is 0.
    pub(crate) fn xattrs(&mut self, set: &[(Vec<u8>, Vec<u8>)]) -> Result<u32> {
        self.xattrs.add(set)
    }

    /// Writes the tables and the header, and returns the file, which is an index now.
    pub(crate) fn finish(mut self, head: Head, tree: &mut Tree, tables: &Tables) -> Result<File> {
        let mut sections = Vec::with_capacity(f::SECTION_COUNT);
        let heap_len = self.body_len;
        sections.push((Section::Heap, heap_len));
        let numbered = self.write_dirents(tree)?;
        sections.push((Section::Dirents, u64::from(numbered.dirents) * f::DIRENT_BYTES as u64));
        self.write(&numbered.names)?;
        sections.push((Section::Names, numbered.names.len() as u64));
        self.pad()?;
        let content_len = self.write_inodes(tree, &numbered)?;
        sections.push((Section::Inodes, (numbered.order.len() * f::INODE_BYTES) as u64));
        self.write_links(&numbered)?;
        sections.push((Section::Links, (numbered.links.len() * f::LINK_BYTES) as u64));
        let xattrs = std::mem::take(&mut self.xattrs.bytes);
        self.write(&xattrs)?;
        sections.push((Section::Xattrs, xattrs.len() as u64));
        for layer in &tables.layers {
            self.write(layer.0.as_bytes())?;
        }
        sections.push((Section::Layers, (tables.layers.len() * DIGEST_LEN) as u64));
        for (digest, size) in &tables.objects {
            self.write(digest.as_bytes())?;
            self.write(&size.to_le_bytes())?;
        }
        sections.push((Section::Objects, (tables.objects.len() * f::OBJECT_BYTES) as u64));

        let mut header = Header::new(head, content_len);
        header.counts(numbered.order.len(), numbered.dirents, tables.layers.len())?;
        header.sections(&sections);
        self.seal(header)
    }

    fn seal(self, mut header: Header) -> Result<File> {
        let file_len = f::HEADER_BYTES as u64 + self.body_len;
        let body = self.body.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let (body, _) = body.finish();
        put(&mut *header.0, f::H_FILE_LEN, &file_len.to_le_bytes());
        put(&mut *header.0, f::H_BODY_SHA256, body.as_bytes());
        let covered = header.0.get(..f::H_SHA256).unwrap_or_default();
        let digest = Digest::of(covered);
        put(&mut *header.0, f::H_SHA256, digest.as_bytes());
        self.file.write_all_at(&*header.0, 0)?;
        Ok(self.file)
    }

    /// Walks the tree directory by directory, numbering inodes as they are met, so that the inodes
    /// of one directory lie together.
    fn write_dirents(&mut self, tree: &mut Tree) -> Result<Numbered> {
        self.pad()?;
        let mut numbered = Numbered::new(tree.inode_count());
        numbered.number(tree.inode_of(ROOT), (0, 0));
        let base = tree.base();
        let mut queue = std::collections::VecDeque::from([Dir::of(tree, ROOT)]);
        while let Some(dir) = queue.pop_front() {
            let (inode, queued) = (dir.inode(tree), queue.len());
            let at = numbered.number_of(inode);
            let first = numbered.dirents;
            match (dir, &base) {
                (Dir::Read(entry), _) => {
                    for (hash, entry) in sorted_children(tree, entry) {
                        let name = Name { hash, bytes: tree.name(entry), dir: at };
                        let kind = tree.record(entry).map(|record| Kind::of(record.mode));
                        let record = numbered.add(&name, tree.inode_of(entry), kind)?;
                        self.write(&record.write())?;
                        if kind == Some(Kind::Directory) {
                            queue.push_back(Dir::of(tree, entry));
                        }
                    }
                }
                (Dir::Unread(inode), Some(base)) => {
                    for entry in base.entries(inode)? {
                        let (DirentRecord { hash, inode, .. }, record, bytes) = entry?;
                        let kind = Kind::of(record.mode);
                        let name = Name { hash, bytes, dir: at };
                        let record = numbered.add(&name, inode, Some(kind))?;
                        self.write(&record.write())?;
                        if kind == Kind::Directory {
                            queue.push_back(Dir::Unread(inode));
                        }
                    }
                }
                (Dir::Unread(_), None) => {}
            }
            let count = numbered.dirents - first;
            let subdirs =
                u32::try_from(queue.len() - queued).map_err(|_| Error::TooMany("names"))?;
            tree.update_inode(inode, |record| {
                record.data = InodeRecord::pack_dirents(first, count);
                record.nlink = 2 + subdirs;
            });
        }
        numbered.sort_links();
        Ok(numbered)
    }

    fn write_inodes(&mut self, tree: &Tree, numbered: &Numbered) -> Result<u64> {
        let mut content_len = 0_u64;
        for (inode, (parent, dirent)) in numbered.order.iter().zip(&numbered.first_names) {
            let Some(record) = tree.inode(*inode) else { continue };
            let mut record = *record;
            (record.parent, record.dirent) = (*parent, *dirent);
            if !record.is_dir() {
                record.nlink = numbered.name_counts.get(*inode as usize).copied().unwrap_or(1);
            }
            if record.is_regular() {
                content_len = content_len.saturating_add(record.size);
            }
            self.write(&record.write())?;
        }
        Ok(content_len)
    }

    fn write_links(&mut self, numbered: &Numbered) -> Result<()> {
        for (inode, parent, dirent) in &numbered.links {
            for number in [inode, parent, dirent] {
                self.write(&number.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Writes zeros up to a multiple of `ALIGN`; the section before ends where it ended.
    fn pad(&mut self) -> Result<()> {
        let missing = self.body_len.next_multiple_of(f::ALIGN as u64) - self.body_len;
        let zeros = [0; f::ALIGN];
        self.write(zeros.get(..usize::try_from(missing).unwrap_or(0)).unwrap_or_default())
    }
}

/// A directory that is still to be written.
#[derive(Clone, Copy, Debug)]
enum Dir {
    /// Its entries are in the tree.
    Read(EntryId),
    /// Its entries are those that it has in the chain that the tree began as.
    Unread(InodeId),
}

impl Dir {
    fn of(tree: &Tree, entry: EntryId) -> Self {
        if tree.is_unread(entry) { Self::Unread(tree.inode_of(entry)) } else { Self::Read(entry) }
    }

    fn inode(self, tree: &Tree) -> InodeId {
        match self {
            Self::Read(entry) => tree.inode_of(entry),
            Self::Unread(inode) => inode,
        }
    }
}

/// A name that is being written.
#[derive(Debug)]
struct Name<'a> {
    hash: u32,
    bytes: &'a [u8],
    /// Number of its directory in the file.
    dir: u32,
}

fn sorted_children(tree: &Tree, dir: EntryId) -> Vec<(u32, EntryId)> {
    let mut children: Vec<_> =
        tree.children(dir).map(|entry| (f::name_hash(tree.name(entry)), entry)).collect();
    children.sort_unstable_by(|(hash, entry), (other_hash, other)| {
        hash.cmp(other_hash).then_with(|| tree.name(*entry).cmp(tree.name(*other)))
    });
    children
}

/// The header page.
#[derive(Debug)]
struct Header(Box<[u8; f::HEADER_BYTES]>);

impl Header {
    fn new(head: Head, content_len: u64) -> Self {
        let mut header = Box::new([0; f::HEADER_BYTES]);
        put(&mut *header, f::H_MAGIC, f::MAGIC);
        put(&mut *header, f::H_VERSION, &f::VERSION.to_le_bytes());
        put(&mut *header, f::H_KIND, &(head.kind as u32).to_le_bytes());
        for features in [f::H_COMPAT, f::H_RO_COMPAT, f::H_INCOMPAT] {
            put(&mut *header, features, &0_u32.to_le_bytes());
        }
        put(&mut *header, f::H_TAR_LEN, &head.tar_len.to_le_bytes());
        put(&mut *header, f::H_CONTENT_LEN, &content_len.to_le_bytes());
        put(&mut *header, f::H_ID, head.id.as_bytes());
        Self(header)
    }

    fn counts(&mut self, inodes: usize, dirents: u32, layers: usize) -> Result<()> {
        let inodes = u32::try_from(inodes).map_err(|_| Error::TooMany("files"))?;
        let layers = u32::try_from(layers).map_err(|_| Error::TooMany("layers"))?;
        for (field, count) in
            [(f::H_INODES, inodes), (f::H_DIRENTS, dirents), (f::H_LAYERS, layers)]
        {
            put(&mut *self.0, field, &count.to_le_bytes());
        }
        Ok(())
    }

    /// Writes the section table. Sections that follow padding begin at a multiple of `ALIGN`.
    fn sections(&mut self, sections: &[(Section, u64)]) {
        let mut offset = f::HEADER_BYTES as u64;
        for (section, len) in sections {
            if matches!(section, Section::Dirents | Section::Inodes) {
                offset = offset.next_multiple_of(f::ALIGN as u64);
            }
            let at = f::H_SECTIONS + *section as usize * f::SECTION_BYTES;
            put(&mut *self.0, at, &offset.to_le_bytes());
            put(&mut *self.0, at + 8, &len.to_le_bytes());
            offset += len;
        }
    }
}

/// The numbers that the inodes of a tree get in the file.
#[derive(Debug)]
struct Numbered {
    /// Number in the file, by number in the tree; `WHITEOUT` while it has none.
    numbers: Vec<u32>,
    /// How many names, by number in the tree.
    name_counts: Vec<u32>,
    /// Number in the tree, by number in the file.
    order: Vec<InodeId>,
    /// Directory and entry of the first name, by number in the file.
    first_names: Vec<(u32, u32)>,
    /// Every name, by number in the file, of inodes that turned out to have several.
    links: Vec<(u32, u32, u32)>,
    names: Vec<u8>,
    dirents: u32,
}

impl Numbered {
    fn new(inode_count: usize) -> Self {
        Self {
            numbers: vec![WHITEOUT; inode_count],
            name_counts: vec![0; inode_count],
            order: Vec::with_capacity(inode_count),
            first_names: Vec::with_capacity(inode_count),
            links: Vec::new(),
            names: Vec::new(),
            dirents: 0,
        }
    }

    fn number_of(&self, inode: InodeId) -> u32 {
        self.numbers.get(inode as usize).copied().unwrap_or(WHITEOUT)
    }

    /// Returns the number of an inode, giving it the next one when it has none.
    #[allow(clippy::cast_possible_truncation, reason = "there are fewer than in the tree")]
    fn number(&mut self, inode: InodeId, first_name: (u32, u32)) -> u32 {
        let next = self.order.len() as u32;
        let Some(number) = self.numbers.get_mut(inode as usize) else { return WHITEOUT };
        if *number == WHITEOUT {
            *number = next;
            self.order.push(inode);
            self.first_names.push(first_name);
        }
        *number
    }

    /// Adds a name of an inode; one without a kind is a whiteout.
    fn add(&mut self, name: &Name<'_>, inode: InodeId, kind: Option<Kind>) -> Result<DirentRecord> {
        let (dirent, dir) = (self.dirents, name.dir);
        self.dirents = dirent.checked_add(1).ok_or(Error::TooMany("names"))?;
        let number = self.number(inode, (dir, dirent));
        if let Some(count) = self.name_counts.get_mut(inode as usize) {
            *count += 1;
            match *count {
                1 => {}
                2 => {
                    let first = self.first_names.get(number as usize).copied();
                    let (parent, first) = first.unwrap_or_default();
                    self.links.push((number, parent, first));
                    self.links.push((number, dir, dirent));
                }
                _ => self.links.push((number, dir, dirent)),
            }
        }
        let start =
            u32::try_from(self.names.len()).map_err(|_| Error::TooMany("bytes of names"))?;
        self.names.extend_from_slice(name.bytes);
        let name_len = u8::try_from(name.bytes.len());
        Ok(DirentRecord {
            hash: name.hash,
            name: start,
            inode: number,
            name_len: name_len.map_err(|_| Error::TooMany("bytes in a name"))?,
            file_type: kind.map_or(0, Kind::dirent_type),
        })
    }

    fn sort_links(&mut self) {
        self.links.sort_unstable();
    }
}

/// The sets of extended attributes of an index; equal sets are kept once.
#[derive(Debug)]
struct XattrSets {
    bytes: Vec<u8>,
    /// Where the sets are in the bytes, and their lengths.
    known: HashTable<(u32, u32)>,
    hasher: RandomState,
    most_bytes: u64,
}

impl XattrSets {
    fn new(limits: Limits) -> Self {
        let (hasher, most_bytes) = (RandomState::new(), limits.text_bytes());
        Self { bytes: Vec::new(), known: HashTable::new(), hasher, most_bytes }
    }

    fn add(&mut self, set: &[(Vec<u8>, Vec<u8>)]) -> Result<u32> {
        if set.is_empty() {
            return Ok(0);
        }
        let too_many = || Error::TooMany("bytes of extended attributes");
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| too_many());
        let count = u32::try_from(set.len()).map_err(|_| too_many())?;
        let mut encoded = count.to_le_bytes().to_vec();
        for (name, value) in set {
            encoded.extend_from_slice(&len(name)?.to_le_bytes());
            encoded.extend_from_slice(&len(value)?.to_le_bytes());
            encoded.extend_from_slice(name);
            encoded.extend_from_slice(value);
        }
        let Self { bytes, known, hasher, most_bytes } = self;
        let hash = hasher.hash_one(encoded.as_slice());
        if let Some((start, _)) = known.find(hash, |at| set_at(bytes, *at) == encoded) {
            return Ok(start + 1);
        }
        let found = (bytes.len() + encoded.len()) as u64;
        if found > *most_bytes {
            return Err(Error::Limit { what: Excess::Xattrs, found, most: *most_bytes });
        }
        let at = (len(bytes)?, len(&encoded)?);
        let number = at.0.checked_add(1).ok_or_else(too_many)?;
        bytes.extend_from_slice(&encoded);
        known.insert_unique(hash, at, |at| hasher.hash_one(set_at(bytes, *at)));
        Ok(number)
    }
}

/// Returns the bytes of a set.
fn set_at(bytes: &[u8], (start, len): (u32, u32)) -> &[u8] {
    let start = start as usize;
    bytes.get(start..start + len as usize).unwrap_or_default()
}
