//! From a tar to a layer: its index, its recipe and its objects, in one pass.
//!
//! Nothing is extracted: paths become entries of a tree in memory, so none can lead anywhere. The
//! content of a file is in memory only up to 1 MiB; more is streamed to the sink. What extracting
//! the tar would give is what the tree has, by the rules that docker, containerd and umoci share:
//! later entries replace earlier ones, a directory over a directory keeps what is in it, links
//! inside of the layer are followed on the way to an entry.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};

use crate::digest::{DiffId, HashingReader};
use crate::layer::Kind;
use crate::layer::content::{Contents, ObjectSink, Stored};
use crate::layer::error::{Error, Result};
use crate::layer::format as f;
use crate::layer::format::{IndexKind, InodeRecord, WHITEOUT};
use crate::layer::index_write::{Head, IndexWriter, Tables};
use crate::layer::limits::{Excess, Limits, NAME_MAX};
use crate::layer::path::components;
use crate::layer::recipe::{RecipeWriter, Step};
use crate::layer::sparse::Segment;
use crate::layer::tar_read::{EntryKind, RawSink, TarEntry, TarReader};
use crate::layer::tree::{EntryId, ROOT, Tree};
use crate::layer::whiteout::{self, Marker};

/// Bytes read from the tar at once.
const READ_BYTES: usize = 128 * 1024;
/// So many targets of symbolic links are kept in memory; others are read back when they are needed.
const TARGETS_KEPT: usize = 1024;

/// The files that a layer is written to; both are empty and open for reading and writing.
#[derive(Debug)]
pub struct LayerFiles {
    /// Becomes the index.
    pub index: File,
    /// Becomes the recipe.
    pub recipe: File,
}

/// A layer that was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// Its id: the sha256 of the tar.
    pub diff_id: DiffId,
    /// Length of the tar in bytes.
    pub tar_len: u64,
    /// The files, written in whole.
    pub files: LayerFiles,
}

/// Reads a tar to its end and writes the layer that it is.
///
/// # Errors
/// [`Error::Tar`] when it is no valid archive, [`Error::Entry`] when an entry cannot be
/// represented, [`Error::Limit`] when it is more than the sink takes; the files are of no use then.
pub fn unpack(tar: impl Read, files: LayerFiles, sink: &mut dyn ObjectSink) -> Result<Unpacked> {
    let mut tar = BufReader::with_capacity(READ_BYTES, HashingReader::new(tar));
    let mut reader = TarReader::new(&mut tar);
    let limits = sink.limits();
    let mut unpacker = Unpacker {
        tree: Tree::within(limits),
        index: IndexWriter::within(limits, files.index)?,
        recipe: RecipeWriter::new(files.recipe)?,
        contents: Contents::new(sink),
        targets: HashMap::new(),
        limits,
        size_bytes: 0,
    };
    while let Some(entry) = reader.next_entry(&mut unpacker)? {
        unpacker.add(&entry, &mut reader)?;
    }
    let hashed = tar.into_inner();
    let tar_len = hashed.len_bytes();
    let diff_id = DiffId(hashed.finish().0);
    unpacker.finish(diff_id, tar_len)
}

struct Unpacker<'a> {
    tree: Tree,
    index: IndexWriter,
    recipe: RecipeWriter,
    contents: Contents<'a>,
    /// Targets of symbolic links by their place in the heap, those that were needed: links on the way
    /// to an entry are followed.
    targets: HashMap<u64, Vec<u8>>,
    limits: Limits,
    /// How much has come: bytes of the tar, and holes of its files.
    size_bytes: u64,
}

impl RawSink for Unpacker<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.count(bytes.len() as u64)?;
        self.contents.make_room(bytes.len() as u64)?;
        self.recipe.raw(bytes)
    }
}

impl Unpacker<'_> {
    /// Counts what is about to come.
    fn count(&mut self, len_bytes: u64) -> Result<()> {
        let (found, most) = (self.size_bytes.saturating_add(len_bytes), self.limits.size_bytes);
        self.size_bytes = found;
        if found > most {
            return Err(Error::Limit { what: Excess::Size, found, most });
        }
        Ok(())
    }

    fn add<R: Read>(&mut self, entry: &TarEntry, reader: &mut TarReader<R>) -> Result<()> {
        // The content is part of the tar whatever becomes of the entry.
        let stored = self.store_content(entry, reader)?;
        let path = components(&entry.path);
        if path.iter().any(|name| whiteout::is_aufs_metadata(name)) {
            return Ok(());
        }
        if let Some(name) = path.iter().find(|name| name.len() > NAME_MAX) {
            return Err(entry.refuse(format!("a name of {} bytes, 255 is the most", name.len())));
        }
        let Some((last, dirs)) = path.split_last() else { return self.add_root(entry) };
        match Marker::of(last).map_err(|reason| entry.refuse(reason))? {
            Some(marker) => self.add_marker(dirs, &marker),
            None => {
                let dir = self.parent(dirs)?;
                let dir =
                    dir.ok_or_else(|| entry.refuse("what should be its directory is none"))?;
                self.add_entry(entry, dir, last, stored)
            }
        }
    }

    /// Returns the directory at a path; none where something else is in the way.
    fn parent(&mut self, dirs: &[&[u8]]) -> Result<Option<EntryId>> {
        let Self { tree, index, targets, .. } = self;
        let heap = RefCell::new((index, targets));
        tree.make_dirs(dirs.iter().copied(), &|record| target_of(&heap, record))
    }

    /// Below what is no directory there is nothing to hide: umoci writes whiteouts for what was in a
    /// directory that a file has replaced.
    fn add_marker(&mut self, dirs: &[&[u8]], marker: &Marker<'_>) -> Result<()> {
        let Some(dir) = self.parent(dirs)? else { return Ok(()) };
        match marker {
            Marker::Opaque => self.tree.update(dir, |record| record.flags |= f::FLAG_OPAQUE),
            Marker::Whiteout(name) => self.add_whiteout(dir, name)?,
        }
        Ok(())
    }

    fn add_root(&mut self, entry: &TarEntry) -> Result<()> {
        if entry.kind != EntryKind::File(Kind::Directory) {
            return Err(entry.refuse("its path is that of the root, which is a directory"));
        }
        let record = self.record(entry, Kind::Directory)?;
        self.describe_dir(ROOT, record);
        Ok(())
    }

    /// Gives a directory that there is the attributes of `record`.
    fn describe_dir(&mut self, dir: EntryId, record: InodeRecord) {
        self.tree.update(dir, |old| {
            let opaque = old.flags & f::FLAG_OPAQUE;
            *old = InodeRecord { flags: opaque, ..record };
        });
    }

    /// A whiteout hides what lower layers have. What this layer has under the name stays; a
    /// directory no longer shows what lower ones have in it.
    fn add_whiteout(&mut self, dir: EntryId, name: &[u8]) -> Result<()> {
        match self.tree.child(dir, name)? {
            None => drop(self.tree.put_link(dir, name, WHITEOUT)?),
            Some(entry) if self.tree.is_dir(entry) => {
                self.tree.update(entry, |record| record.flags |= f::FLAG_OPAQUE);
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn add_entry(
        &mut self,
        entry: &TarEntry,
        dir: EntryId,
        name: &[u8],
        stored: Option<Stored>,
    ) -> Result<()> {
        let kind = match entry.kind {
            EntryKind::HardLink => return self.add_hard_link(entry, dir, name),
            EntryKind::File(kind) => kind,
        };
        let mut record = self.record(entry, kind)?;
        let existing = self.tree.child(dir, name)?;
        match kind {
            Kind::Directory => {
                if let Some(existing) = existing.filter(|existing| self.tree.is_dir(*existing)) {
                    self.describe_dir(existing, record);
                    return Ok(());
                }
                // What stood in its place, or a whiteout, has hidden all that is below.
                if existing.is_some() {
                    record.flags |= f::FLAG_OPAQUE;
                }
            }
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(entry.refuse("a symbolic link without a target"));
                }
                record.data = self.index.heap(&entry.link)?;
                record.size = entry.link.len() as u64;
            }
            Kind::Character | Kind::Block => record.data = entry.device,
            Kind::Regular => {
                record.size = entry.size;
                match stored {
                    Some(Stored::Inline(offset)) => {
                        (record.data, record.flags) = (offset, f::FLAG_INLINE);
                    }
                    Some(Stored::Object(number)) => {
                        (record.data, record.flags) = (number, f::FLAG_OBJECT);
                    }
                    None => {}
                }
            }
            Kind::Fifo | Kind::Socket => {}
        }
        self.tree.put(dir, name, record)?;
        Ok(())
    }

    /// A hard link leads to a file of this layer or, when it has no such file, of a lower one.
    fn add_hard_link(&mut self, entry: &TarEntry, dir: EntryId, name: &[u8]) -> Result<()> {
        if entry.link.is_empty() {
            return Err(entry.refuse("a hard link without a target"));
        }
        let target = components(&entry.link);
        let Self { tree, index, targets, .. } = self;
        let heap = RefCell::new((index, targets));
        match tree.find(&target, &|record| target_of(&heap, record))? {
            Some(found) if self.tree.is_dir(found) => {
                Err(entry.refuse("a hard link to a directory"))
            }
            Some(found) if self.tree.child(dir, name)? == Some(found) => Ok(()),
            Some(found) => {
                let inode = self.tree.inode_of(found);
                self.tree.put_link(dir, name, inode).map(drop)
            }
            None => {
                let record = InodeRecord {
                    mode: Kind::Regular.mode(),
                    data: self.index.heap(&entry.link)?,
                    size: entry.link.len() as u64,
                    flags: f::FLAG_LOWER_LINK,
                    ..InodeRecord::IMPLICIT_DIRECTORY
                };
                self.tree.put(dir, name, record).map(drop)
            }
        }
    }

    fn record(&mut self, entry: &TarEntry, kind: Kind) -> Result<InodeRecord> {
        let xattrs: Vec<_> =
            entry.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        whiteout::check_xattrs(&xattrs).map_err(|reason| entry.refuse(reason))?;
        // Whatever a tar says of a link, making one gives it all permissions.
        let permissions = if kind == Kind::Symlink { 0o777 } else { entry.mode };
        Ok(InodeRecord {
            mode: kind.mode() | permissions,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: self.index.xattrs(&xattrs)?,
            flags: 0,
            ..InodeRecord::IMPLICIT_DIRECTORY
        })
    }

    /// Puts the content of an entry where it belongs, and writes to the recipe where that is.
    fn store_content<R: Read>(
        &mut self,
        entry: &TarEntry,
        reader: &mut TarReader<R>,
    ) -> Result<Option<Stored>> {
        if entry.kind != EntryKind::File(Kind::Regular) || entry.size == 0 {
            return Ok(None);
        }
        let stored: Option<u64> = entry.segments.as_ref().map(|s| s.iter().map(|p| p.len).sum());
        self.count(entry.size)?;
        self.contents.make_room(stored.unwrap_or(entry.size))?;
        let whole = [Segment { offset: 0, len: entry.size }];
        let segments = entry.segments.as_deref().unwrap_or(&whole);
        let mut read = |buffer: &mut [u8]| reader.content(buffer);
        let stored = self.contents.store(entry.size, segments, &mut read, &mut self.index)?;
        let stored = stored.ok_or_else(|| {
            entry.refuse("a sparse file of more than 1 TiB, which could not be hashed in time")
        })?;
        for piece in segments.iter().filter(|piece| piece.len > 0) {
            self.recipe.step(match stored {
                Stored::Inline(heap) => Step::Heap { offset: heap + piece.offset, len: piece.len },
                Stored::Object(number) => {
                    Step::Object { number, offset: piece.offset, len: piece.len }
                }
            })?;
        }
        Ok(Some(stored))
    }

    fn finish(mut self, diff_id: DiffId, tar_len: u64) -> Result<Unpacked> {
        let tables = Tables { objects: self.contents.into_objects(), ..Tables::default() };
        let head = Head { kind: IndexKind::Layer, id: diff_id.0, tar_len };
        let index = self.index.finish(head, &mut self.tree, &tables)?;
        let recipe = self.recipe.finish(diff_id, tar_len)?;
        Ok(Unpacked { diff_id, tar_len, files: LayerFiles { index, recipe } })
    }
}

/// The heap with the targets of symbolic links, and those that were read from it.
type Heap<'a> = RefCell<(&'a mut IndexWriter, &'a mut HashMap<u64, Vec<u8>>)>;

fn target_of(heap: &Heap<'_>, record: &InodeRecord) -> Result<Vec<u8>> {
    let (index, known) = &mut *heap.borrow_mut();
    if let Some(target) = known.get(&record.data) {
        return Ok(target.clone());
    }
    let len = usize::try_from(record.size).map_err(|_| Error::TooMany("bytes in a target"))?;
    let target = index.heap_at(record.data, len)?;
    if known.len() >= TARGETS_KEPT {
        known.clear();
    }
    known.insert(record.data, target.clone());
    Ok(target)
}
