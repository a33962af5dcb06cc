//! A merged stack of layers, as a mount sees it: attributes, names and contents by inode number.
//!
//! Nothing here allocates for a lookup, and nothing is kept per inode: the number of an inode is
//! its place in the mapped index. Where the contents of objects come from, the opener says.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};

use crate::digest::{DiffId, Digest};
use crate::layer::Kind;
use crate::layer::error::{Error, Result};
use crate::layer::format as f;
use crate::layer::format::{IndexKind, InodeRecord};
use crate::layer::index::Index;
use crate::sys::Time;

/// When the content of a file is checked before it is handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Never.
    #[default]
    Off,
    /// When it is first opened, and again when it has changed since.
    Open,
    /// Whenever it is opened.
    Always,
}

/// Opens the contents of files that are not in the index.
pub trait ObjectSource: Send + Sync {
    /// Opens an object for reading. A source that checks contents does it before this returns: what it
    /// hands out may be read past this process.
    fn open(&self, digest: Digest) -> io::Result<File>;

    /// Tells whether contents are checked when they are opened.
    fn verifies(&self) -> bool {
        false
    }
}

/// Opens the indexes of layers.
pub trait LayerSource: Send + Sync {
    /// Opens the index of a layer for reading.
    fn open(&self, layer: DiffId) -> io::Result<File>;
}

/// The attributes of an inode, as its layer has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// File type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names; of a directory 2 and its subdirectories.
    pub nlink: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Inode number.
    pub inode: u32,
    /// What it is.
    pub kind: Kind,
    /// Name.
    pub name: &'a OsStr,
}

/// Where the content of a regular file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// In the index.
    Inline(&'a [u8]),
    /// In this object, whole.
    Object(Digest),
}

/// A merged stack of layers.
pub struct Chain {
    index: Index,
    /// The layers, which keep short contents, links and extended attributes. One that is not open is
    /// opened when the first of these is asked for.
    layers: Vec<OnceLock<Index>>,
    closed: Option<Box<dyn LayerSource>>,
    objects: Arc<dyn ObjectSource>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("id", &self.index.id()).finish_non_exhaustive()
    }
}

/// The inode number of the root directory.
pub const ROOT: u32 = 0;

impl Chain {
    /// Returns the view of a chain index over the indexes of its layers, bottom first.
    ///
    /// # Errors
    /// [`Error::Damaged`] when these are not the layers that the chain was merged from.
    pub fn new(index: Index, layers: Vec<Index>, objects: Arc<dyn ObjectSource>) -> Result<Self> {
        let ids: Vec<_> = layers.iter().map(|layer| DiffId(layer.id())).collect();
        check_layers(&index, &ids)?;
        let layers = layers.into_iter().map(OnceLock::from).collect();
        Ok(Self { index, layers, closed: None, objects })
    }

    /// Returns the view of a chain index over its layers, bottom first, of which there may be hundreds:
    /// none is opened before it is needed.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the chain was not merged from these layers.
    pub fn over(
        index: Index,
        layers: &[DiffId],
        source: Box<dyn LayerSource>,
        objects: Arc<dyn ObjectSource>,
    ) -> Result<Self> {
        check_layers(&index, layers)?;
        let layers = layers.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { index, layers, closed: Some(source), objects })
    }

    /// Returns the id of the stack of layers.
    pub const fn id(&self) -> Digest {
        self.index.id()
    }

    /// Returns how many inodes there are; their numbers are below it.
    pub const fn inode_count(&self) -> u32 {
        self.index.inode_count()
    }

    /// Returns the sum of the sizes of all regular files in bytes.
    pub const fn content_len(&self) -> u64 {
        self.index.content_len()
    }

    /// Returns what an inode is.
    pub fn kind(&self, inode: u32) -> Result<Kind> {
        Ok(Kind::of(self.index.inode(inode)?.mode))
    }

    /// Returns the attributes of an inode.
    pub fn attr(&self, inode: u32) -> Result<Attr> {
        let record = self.index.inode(inode)?;
        let device = matches!(Kind::of(record.mode), Kind::Character | Kind::Block);
        Ok(Attr {
            mode: record.mode,
            uid: record.uid,
            gid: record.gid,
            nlink: record.nlink,
            rdev: if device { record.data } else { 0 },
            size: record.size,
            mtime: record.mtime,
        })
    }

    /// Returns the inode with this name in a directory.
    pub fn lookup(&self, dir: u32, name: &OsStr) -> Result<Option<u32>> {
        self.index.lookup(dir, name.as_bytes())
    }

    /// Returns how many entries a directory has.
    pub fn entry_count(&self, dir: u32) -> Result<u32> {
        let dir = self.index.inode(dir)?;
        Ok(if dir.is_dir() { dir.dirents().1 } else { 0 })
    }

    /// Returns the entry at a position below [`Chain::entry_count`]; the order never changes.
    pub fn entry(&self, dir: u32, position: u32) -> Result<Option<Entry<'_>>> {
        let record = self.index.inode(dir)?;
        let (first, count) = record.dirents();
        if !record.is_dir() || position >= count {
            return Ok(None);
        }
        let number = first.checked_add(position).ok_or(Error::Damaged("entry number"))?;
        let (record, name) = self.index.dirent(number)?;
        let inode = self.index.listed((dir, number), &record)?;
        // The type is in the entry too, so that a listing needs no inode; the inode's counts.
        let kind = Kind::of(inode.ok_or(Error::Damaged("a whiteout in a chain"))?.mode);
        Ok(Some(Entry { inode: record.inode, kind, name: OsStr::from_bytes(name) }))
    }

    /// Returns directory and name of every name of an inode; the root has none.
    pub fn names(&self, inode: u32) -> Result<Vec<(u32, &OsStr)>> {
        if inode == ROOT {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for (parent, entry) in self.index.names(inode)? {
            let (record, name) = self.index.dirent(entry)?;
            if record.inode != inode {
                return Err(Error::Damaged("a name leads to another inode"));
            }
            names.push((parent, OsStr::from_bytes(name)));
        }
        Ok(names)
    }

    /// Returns what a symbolic link holds.
    pub fn read_link(&self, inode: u32) -> Result<&OsStr> {
        let record = self.index.inode(inode)?;
        if !record.is_symlink() {
            return Err(Error::Damaged("reading a link that is none"));
        }
        Ok(OsStr::from_bytes(self.keeper(&record)?.link_target(&record)?))
    }

    /// Returns the extended attributes of an inode.
    pub fn xattrs(&self, inode: u32) -> Result<Vec<(&OsStr, &[u8])>> {
        let record = self.index.inode(inode)?;
        if record.xattrs == 0 {
            return Ok(Vec::new());
        }
        let set = self.keeper(&record)?.xattrs(record.xattrs)?;
        Ok(set.into_iter().map(|(name, value)| (OsStr::from_bytes(name), value)).collect())
    }

    /// Returns where the content of a regular file is.
    pub fn content(&self, inode: u32) -> Result<Content<'_>> {
        let record = self.index.inode(inode)?;
        let layer = self.keeper(&record)?;
        if record.has(f::FLAG_INLINE) {
            return Ok(Content::Inline(layer.heap(record.data, record.size)?));
        }
        if record.has(f::FLAG_OBJECT) {
            let (digest, size) = layer.object(record.data)?;
            if size == record.size {
                return Ok(Content::Object(digest));
            }
            return Err(Error::Damaged("a file and its object differ in size"));
        }
        Ok(Content::Inline(&[]))
    }

    /// Opens the object of a large file.
    pub fn open_object(&self, digest: Digest) -> Result<File> {
        self.objects.open(digest).map_err(|source| Error::Object { digest, source })
    }

    /// Tells whether contents are checked when they are opened.
    pub fn verifies(&self) -> bool {
        self.objects.verifies()
    }

    /// Returns the layer that keeps the content of an inode.
    fn keeper(&self, record: &InodeRecord) -> Result<&Index> {
        let number = record.layer as usize;
        let layer = self.layers.get(number).ok_or(Error::Damaged("layer number"))?;
        match layer.get() {
            Some(index) => Ok(index),
            None => {
                let index = self.open_layer(self.index.layer(number)?)?;
                Ok(layer.get_or_init(|| index))
            }
        }
    }

    fn open_layer(&self, layer: DiffId) -> Result<Index> {
        let source = self.closed.as_ref().ok_or(Error::Damaged("a layer is not open"))?;
        let file = source.open(layer).map_err(|source| Error::Layer { layer, source })?;
        let index = Index::open(&file)?;
        match index.kind() == IndexKind::Layer && DiffId(index.id()) == layer {
            true => Ok(index),
            false => Err(Error::Damaged("a layer of the chain is another one")),
        }
    }
}

fn check_layers(index: &Index, layers: &[DiffId]) -> Result<()> {
    if index.kind() != IndexKind::Chain {
        return Err(Error::Damaged("it is a layer, a chain was expected"));
    }
    if index.layer_count() != layers.len() {
        return Err(Error::Damaged("it has another number of layers than the image"));
    }
    for (number, layer) in layers.iter().enumerate() {
        if index.layer(number)? != *layer {
            return Err(Error::Damaged("it was merged from other layers"));
        }
    }
    Ok(())
}
