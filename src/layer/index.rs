//! Reading an index: the tables of a mapped file, every number in it checked before use.
//!
//! `Index::open` checks the header and that the tables lie inside the file; a record is checked
//! when it is read. So a damaged index is an error of the one request that meets the damage.
//! Whether the bytes are those that were written is what [`Index::open_verified`] asks: it reads
//! them, since a byte of a mapped file that the disk does not give ends the process.
//!
//! What is read is a tree, whatever the file holds: names are names, and a directory is found only
//! in the place that it says itself. So whoever goes down from the root comes to an end.

use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::digest::{DiffId, Digest, Hasher};
use crate::layer::error::{Error, Result};
use crate::layer::format as f;
use crate::layer::format::{
    DirentRecord, IndexKind, InodeRecord, Section, WHITEOUT, u32_at, u64_at,
};
use crate::layer::limits::LINK_TARGET_MAX;
use crate::layer::map::Map;

/// The index of a layer or of a chain.
#[derive(Debug)]
pub struct Index {
    map: Map,
    kind: IndexKind,
    id: Digest,
    inode_count: u32,
    tar_len: u64,
    content_len: u64,
    /// Offset and length of each section; checked to lie inside the file.
    sections: [(usize, usize); f::SECTION_COUNT],
}

impl Index {
    /// Maps an index and checks its header.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the file is not a whole index, [`Error::Unknown`] when it is one of
    /// another version.
    pub fn open(file: &File) -> Result<Self> {
        let map = Map::new(file)?;
        let header = map.get(..f::HEADER_BYTES).ok_or(Error::Damaged("shorter than its header"))?;
        check_header(header)?;
        let kind = match u32_at(header, f::H_KIND) {
            1 => IndexKind::Layer,
            2 => IndexKind::Chain,
            _ => return Err(Error::Damaged("neither a layer nor a chain")),
        };
        if u64_at(header, f::H_FILE_LEN) != map.len() as u64 {
            return Err(Error::Damaged("the file has not the length that its header says"));
        }
        let index = Self {
            kind,
            id: digest_at(header, f::H_ID)?,
            inode_count: u32_at(header, f::H_INODES),
            tar_len: u64_at(header, f::H_TAR_LEN),
            content_len: u64_at(header, f::H_CONTENT_LEN),
            sections: read_sections(header, map.len())?,
            map,
        };
        index.check_counts()?;
        Ok(index)
    }

    fn check_counts(&self) -> Result<()> {
        let header = self.bytes(0, f::HEADER_BYTES)?;
        let counts = [
            (Section::Inodes, f::H_INODES),
            (Section::Dirents, f::H_DIRENTS),
            (Section::Layers, f::H_LAYERS),
        ];
        for (section, field) in counts {
            let count = u32_at(header, field) as usize;
            if count.checked_mul(section.record_bytes()) != Some(self.section_len(section)) {
                return Err(Error::Damaged("a table has not the length that its count says"));
            }
        }
        if self.inode_count == 0 || !self.inode(0)?.is_dir() {
            return Err(Error::Damaged("it has no root directory"));
        }
        Ok(())
    }

    /// Reads the whole file, checks it against its sums, and maps it.
    ///
    /// # Errors
    /// Those of [`Index::open`], and of reading the file.
    pub fn open_verified(file: &File) -> Result<Self> {
        let mut header = vec![0; f::HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Damaged("shorter than its header"),
            _ => error.into(),
        })?;
        check_header(&header)?;
        let behind = header.get(f::H_SHA256 + 32..).unwrap_or_default();
        if behind.iter().any(|byte| *byte != 0) {
            return Err(Error::Damaged("something is behind its header"));
        }
        if hash_body(file)? == digest_at(&header, f::H_BODY_SHA256)? {
            Self::open(file)
        } else {
            Err(Error::Damaged("its bytes are not those of its checksum"))
        }
    }

    /// Returns whether this is a layer or a chain.
    pub const fn kind(&self) -> IndexKind {
        self.kind
    }

    /// Returns the id of the layer or chain.
    pub const fn id(&self) -> Digest {
        self.id
    }

    /// Returns how many inodes there are; their numbers are below it.
    pub const fn inode_count(&self) -> u32 {
        self.inode_count
    }

    /// Returns how many directory entries there are; their numbers are below it.
    pub(crate) fn dirent_count(&self) -> u32 {
        let count = self.section_len(Section::Dirents) / f::DIRENT_BYTES;
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Returns the length of the layer's tar in bytes; 0 for a chain.
    pub const fn tar_len(&self) -> u64 {
        self.tar_len
    }

    /// Returns the sum of the sizes of all regular files in bytes.
    pub const fn content_len(&self) -> u64 {
        self.content_len
    }

    /// Returns how many layers a chain is merged from; 0 for a layer.
    pub fn layer_count(&self) -> usize {
        self.section_len(Section::Layers) / Section::Layers.record_bytes()
    }

    /// Returns the id of the layer with this number, counted from the bottom.
    pub fn layer(&self, number: usize) -> Result<DiffId> {
        digest_at(self.record(Section::Layers, number)?, 0).map(DiffId)
    }

    /// Returns how many objects the layer's files are kept in.
    pub fn object_count(&self) -> usize {
        self.section_len(Section::Objects) / f::OBJECT_BYTES
    }

    /// Returns digest and size of the object with this number.
    pub fn object(&self, number: u64) -> Result<(Digest, u64)> {
        let number = usize::try_from(number).map_err(|_| Error::Damaged("object number"))?;
        let record = self.record(Section::Objects, number)?;
        Ok((digest_at(record, 0)?, u64_at(record, 32)))
    }

    /// Returns the inode with this number.
    pub(crate) fn inode(&self, number: u32) -> Result<InodeRecord> {
        let record = self.record(Section::Inodes, number as usize)?;
        let Some(record) = record.first_chunk() else { return Err(OUT_OF_RANGE) };
        Ok(InodeRecord::read(record))
    }

    /// Returns the directory entry with this number, and its name, which is one that a file can have.
    pub(crate) fn dirent(&self, number: u32) -> Result<(DirentRecord, &[u8])> {
        let record = self.record(Section::Dirents, number as usize)?;
        let Some(record) = record.first_chunk() else { return Err(OUT_OF_RANGE) };
        let record = DirentRecord::read(record);
        let name = self.name_of(&record)?;
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(Error::Damaged("a name that no file can have"));
        }
        Ok((record, name))
    }

    fn name_of(&self, entry: &DirentRecord) -> Result<&[u8]> {
        self.slice(Section::Names, entry.name as usize, entry.name_len.into())
    }

    /// Returns the inode of an entry; none of a whiteout. A directory must say of itself that this
    /// entry of the directory `dir` is its place: that alone keeps it from lying in several, or in
    /// itself.
    pub(crate) fn entered(
        &self,
        (dir, number): (u32, u32),
        entry: &DirentRecord,
    ) -> Result<Option<InodeRecord>> {
        if entry.inode == WHITEOUT {
            return Ok(None);
        }
        let inode = self.inode(entry.inode)?;
        if inode.is_dir() && (entry.inode == 0 || (inode.parent, inode.dirent) != (dir, number)) {
            return Err(Error::Damaged("a directory is in a place that is not its own"));
        }
        Ok(Some(inode))
    }

    /// Does the same for one of the entries of a listing, which of a file too must be one of its places:
    /// so that directories cannot share entries, and there are not more to be listed than there are.
    pub(crate) fn listed(
        &self,
        place: (u32, u32),
        entry: &DirentRecord,
    ) -> Result<Option<InodeRecord>> {
        let Some(inode) = self.entered(place, entry)? else { return Ok(None) };
        let is_its_own = inode.is_dir()
            || (inode.parent, inode.dirent) == place
            || (inode.nlink > 1 && self.is_link(entry.inode, place)?);
        if !is_its_own {
            return Err(Error::Damaged("a file is in a place that is not its own"));
        }
        Ok(Some(inode))
    }

    /// Returns the entries of a directory of a chain in their order, each with its inode and its name.
    pub(crate) fn entries(
        &self,
        dir: u32,
    ) -> Result<impl Iterator<Item = Result<(DirentRecord, InodeRecord, &[u8])>>> {
        let (first, count) = self.inode(dir)?.dirents();
        Ok((first..first.saturating_add(count)).map(move |number| {
            let (entry, name) = self.dirent(number)?;
            match self.listed((dir, number), &entry)? {
                Some(inode) => Ok((entry, inode, name)),
                None => Err(Error::Damaged("a chain that hides something")),
            }
        }))
    }

    /// Tells whether an entry of a directory is one of the names of an inode that has several.
    fn is_link(&self, inode: u32, (dir, number): (u32, u32)) -> Result<bool> {
        let wanted = [inode, dir, number];
        let (mut low, mut high) = (0, self.section_len(Section::Links) / f::LINK_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            let record = self.record(Section::Links, middle)?;
            match [0, 4, 8].map(|at| u32_at(record, at)).cmp(&wanted) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Returns the target of a symbolic link that the heap of this layer has.
    pub(crate) fn link_target(&self, record: &InodeRecord) -> Result<&[u8]> {
        if record.size > LINK_TARGET_MAX as u64 {
            return Err(Error::Damaged("the target of a symbolic link is too long"));
        }
        self.heap(record.data, record.size)
    }

    /// Returns the inode of the entry `name` of a directory, which is looked for by hash and name.
    /// A whiteout is no entry.
    pub(crate) fn lookup(&self, dir: u32, name: &[u8]) -> Result<Option<u32>> {
        let record = self.inode(dir)?;
        if !record.is_dir() {
            return Err(Error::Damaged("a lookup in what is not a directory"));
        }
        let (first, count) = record.dirents();
        let entries = self.records(Section::Dirents, first as usize, count as usize)?;
        let (entries, _) = entries.as_chunks();
        let hash = f::name_hash(name);
        let mut at = first_not_below(entries, hash);
        // Mostly one at most has this hash.
        let is_next_too = entries.get(at + 1).is_some_and(|next| f::entry_hash(next) == hash);
        if is_next_too {
            let rest = entries.get(at..).unwrap_or_default();
            at += self.search_equal(rest, hash, name)?;
        }
        let Some(entry) = entries.get(at).filter(|entry| f::entry_hash(entry) == hash) else {
            return Ok(None);
        };
        let entry = DirentRecord::read(entry);
        // No more than the `count` that is added up to `first`.
        let number = first.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
        // Mostly it is the one: looked at now, its memory is waited for together with that of the name.
        let inode = self.entered((dir, number), &entry);
        match self.name_of(&entry)? == name {
            true => Ok(inode?.map(|_| entry.inode)),
            false => Ok(None),
        }
    }

    /// Returns how many of the entries of a directory are before a name, of those that begin with one
    /// of its hash.
    fn search_equal(
        &self,
        entries: &[[u8; f::DIRENT_BYTES]],
        hash: u32,
        name: &[u8],
    ) -> Result<usize> {
        let (mut low, mut high) = (0, entries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(entry) = entries.get(middle).map(DirentRecord::read) else { break };
            let is_before = entry.hash <= hash && self.name_of(&entry)? < name;
            if is_before { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Returns directory and entry number of every name of an inode.
    pub(crate) fn names(&self, number: u32) -> Result<Vec<(u32, u32)>> {
        let inode = self.inode(number)?;
        if inode.is_dir() || inode.nlink <= 1 {
            return Ok(vec![(inode.parent, inode.dirent)]);
        }
        let count = self.section_len(Section::Links) / f::LINK_BYTES;
        let link = |at: usize| self.record(Section::Links, at);
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if u32_at(link(middle)?, 0) < number {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut names = Vec::new();
        for at in low..count {
            let record = link(at)?;
            if u32_at(record, 0) != number {
                break;
            }
            names.push((u32_at(record, 4), u32_at(record, 8)));
        }
        Ok(names)
    }

    /// Returns bytes of the heap.
    pub(crate) fn heap(&self, offset: u64, len: u64) -> Result<&[u8]> {
        let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) else {
            return Err(Error::Damaged("a place in the heap is out of range"));
        };
        self.slice(Section::Heap, offset, len)
    }

    /// Returns the extended attributes of the set with this number; 0 is the empty set.
    pub(crate) fn xattrs(&self, set: u32) -> Result<Vec<(&[u8], &[u8])>> {
        let Some(offset) = set.checked_sub(1) else { return Ok(Vec::new()) };
        let mut at = offset as usize;
        let mut take = |len: usize| {
            let bytes = self.slice(Section::Xattrs, at, len);
            at = at.saturating_add(len);
            bytes
        };
        let count = u32_at(take(4)?, 0);
        let mut xattrs = Vec::new();
        for _ in 0..count {
            let name_len = u32_at(take(4)?, 0) as usize;
            let value_len = u32_at(take(4)?, 0) as usize;
            xattrs.push((take(name_len)?, take(value_len)?));
        }
        Ok(xattrs)
    }

    fn section_len(&self, section: Section) -> usize {
        self.sections.get(section as usize).map_or(0, |(_, len)| *len)
    }

    fn record(&self, section: Section, number: usize) -> Result<&[u8]> {
        self.records(section, number, 1)
    }

    /// Returns the bytes of so many records of a section, one behind the other.
    fn records(&self, section: Section, first: usize, count: usize) -> Result<&[u8]> {
        let size = section.record_bytes();
        let (offset, len) = (first.checked_mul(size), count.checked_mul(size));
        let (offset, len) = offset.zip(len).ok_or(OUT_OF_RANGE)?;
        self.slice(section, offset, len)
    }

    /// Returns bytes of a section; those outside of it are an error.
    fn slice(&self, section: Section, offset: usize, len: usize) -> Result<&[u8]> {
        let Some((start, section_len)) = self.sections.get(section as usize).copied() else {
            return Err(OUT_OF_RANGE);
        };
        match offset.checked_add(len) {
            Some(end) if end <= section_len => self.bytes(start + offset, len),
            _ => Err(OUT_OF_RANGE),
        }
    }

    fn bytes(&self, start: usize, len: usize) -> Result<&[u8]> {
        match self.map.get(start..start + len) {
            Some(bytes) => Ok(bytes),
            None => Err(OUT_OF_RANGE),
        }
    }
}

/// What is wrong with a number that leads out of the file. Made only when it is: dropping it would be most
/// of what it costs to look at a record.
const OUT_OF_RANGE: Error = Error::Damaged("a number is out of range");

/// Returns how many of the entries of a directory, sorted by their hash, have one that is below `hash`.
///
/// Hashes are spread evenly, so the place is near where it would be if they were so exactly. From there
/// it is between two of the entries at a distance of 1, 2, 4…
fn first_not_below(entries: &[[u8; f::DIRENT_BYTES]], hash: u32) -> usize {
    let is_below = |at: usize| entries.get(at).is_some_and(|entry| f::entry_hash(entry) < hash);
    let guess = u64::from(hash).saturating_mul(entries.len() as u64) >> 32;
    let guess = usize::try_from(guess).unwrap_or(0);
    let (mut low, mut high, mut step) = (guess, guess, 1);
    while is_below(high) {
        (low, high, step) = (high + 1, high + step, step * 2);
    }
    if high == guess {
        while low > 0 && !is_below(low - 1) {
            (low, high, step) = (low.saturating_sub(step), low - 1, step * 2);
        }
    }
    let high = high.min(entries.len());
    let between = entries.get(low..high).unwrap_or_default();
    low + between.partition_point(|entry| f::entry_hash(entry) < hash)
}

/// Returns the sum of what is behind the header page.
fn hash_body(file: &File) -> Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 128 * 1024];
    let mut at = f::HEADER_BYTES as u64;
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(len) => {
                hasher.update(buffer.get(..len).unwrap_or_default());
                at += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn check_header(header: &[u8]) -> Result<()> {
    if !header.starts_with(f::MAGIC) {
        return Err(Error::Damaged("it does not begin as an index does"));
    }
    let version = u32_at(header, f::H_VERSION);
    if version != f::VERSION {
        return Err(Error::Unknown { what: "version", found: version, expected: f::VERSION });
    }
    let features = u32_at(header, f::H_INCOMPAT);
    if features & !f::KNOWN_INCOMPAT != 0 {
        let expected = f::KNOWN_INCOMPAT;
        return Err(Error::Unknown { what: "features", found: features, expected });
    }
    let covered = header.get(..f::H_SHA256).unwrap_or_default();
    if Digest::of(covered) != digest_at(header, f::H_SHA256)? {
        return Err(Error::Damaged("its header is not that of its checksum"));
    }
    Ok(())
}

fn read_sections(header: &[u8], file_len: usize) -> Result<[(usize, usize); f::SECTION_COUNT]> {
    let mut sections = [(0, 0); f::SECTION_COUNT];
    for (place, section) in sections.iter_mut().zip(Section::ALL) {
        let at = f::H_SECTIONS + section as usize * f::SECTION_BYTES;
        let offset = usize::try_from(u64_at(header, at));
        let len = usize::try_from(u64_at(header, at + 8));
        let (Ok(offset), Ok(len)) = (offset, len) else {
            return Err(Error::Damaged("a table lies outside of the file"));
        };
        if offset.checked_add(len).is_none_or(|end| end > file_len) {
            return Err(Error::Damaged("a table lies outside of the file"));
        }
        if len % section.record_bytes() != 0 {
            return Err(Error::Damaged("a table does not hold whole records"));
        }
        *place = (offset, len);
    }
    Ok(sections)
}

fn digest_at(bytes: &[u8], at: usize) -> Result<Digest> {
    let digest = bytes.get(at..at + 32).and_then(|bytes| bytes.try_into().ok());
    digest.map(Digest::from_bytes).ok_or(Error::Damaged("a digest is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(hashes: &[u32]) -> Vec<[u8; f::DIRENT_BYTES]> {
        let entry = |hash: &u32| {
            DirentRecord { hash: *hash, name: 0, inode: 0, name_len: 1, file_type: 8 }.write()
        };
        hashes.iter().map(entry).collect()
    }

    proptest::proptest! {
        #[test]
        fn the_first_of_a_hash_is_found_however_hashes_are_spread(
            mut hashes: Vec<u32>, shift in 0_u32..32, wanted: u32,
        ) {
            // From evenly to all the same.
            hashes.iter_mut().for_each(|hash| *hash >>= shift);
            hashes.sort_unstable();
            let all = entries(&hashes);
            for wanted in hashes.iter().copied().chain([wanted, wanted >> shift, 0, u32::MAX]) {
                let expected = hashes.partition_point(|hash| *hash < wanted);
                proptest::prop_assert_eq!(first_not_below(&all, wanted), expected);
            }
        }

        #[test]
        fn what_is_not_sorted_is_come_to_an_end_of(hashes: Vec<u32>, wanted: u32) {
            proptest::prop_assert!(first_not_below(&entries(&hashes), wanted) <= hashes.len());
        }
    }
}
