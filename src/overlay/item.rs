//! Looking at the union from inside the program: for exporting, comparing and committing.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::LowerFile;
use crate::overlay::place::Place;
use crate::overlay::{Attr, Ino, Overlay};
use crate::sys;

/// A file of the union.
#[derive(Clone)]
pub struct Item<'a> {
    overlay: &'a Overlay,
    pub(crate) place: Place,
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("ino", &self.overlay.ino(&self.place)).finish_non_exhaustive()
    }
}

impl Overlay {
    /// Returns the root directory.
    pub fn root(&self) -> Item<'_> {
        let place = Place::Node(Arc::clone(&self.root));
        Item { overlay: self, place }
    }

    pub(crate) const fn item(&self, place: Place) -> Item<'_> {
        Item { overlay: self, place }
    }
}

impl<'a> Item<'a> {
    /// Returns what it is; cheaper than the attributes.
    pub fn kind(&self) -> Result<Kind> {
        self.overlay.kind(&self.place)
    }

    /// Returns the attributes.
    pub fn attr(&self) -> Result<Attr> {
        self.overlay.attr_of(&self.place)
    }

    /// Returns what a directory has under a name.
    pub fn child(&self, name: &OsStr) -> Result<Option<Self>> {
        let child = self.overlay.child(&self.place, name)?;
        Ok(child.map(|place| Self { overlay: self.overlay, place }))
    }

    /// Returns the entries of a directory, sorted by name.
    pub fn children(&self) -> Result<Vec<(OsString, Self)>> {
        let children = self.overlay.sorted_children(&self.place)?;
        let item = |(name, place)| (name, Self { overlay: self.overlay, place });
        Ok(children.into_iter().map(item).collect())
    }

    /// Tells whether a directory has no entries.
    pub fn is_empty(&self) -> Result<bool> {
        self.overlay.is_empty(&self.place)
    }

    /// Returns what a symbolic link holds.
    pub fn read_link(&self) -> Result<OsString> {
        self.overlay.read_link_at(&self.place)
    }

    /// Returns all extended attributes, sorted by name.
    pub fn xattrs(&self) -> Result<Vec<(OsString, Vec<u8>)>> {
        let mut xattrs = self.overlay.xattrs_at(&self.place)?;
        xattrs.sort();
        Ok(xattrs)
    }

    /// Tells whether two files are the same one of the same lower tree, which nothing in an upper has
    /// changed: all that is below them is the same too. No answer is no for certain.
    pub fn is_same_file(&self, other: &Self) -> bool {
        let (Place::Lower(one), Place::Lower(two)) = (&self.place, &other.place) else {
            return false;
        };
        let tree = self.overlay.lower.tree_id();
        one.id == two.id && tree.is_some() && tree == other.overlay.lower.tree_id()
    }

    /// Returns the sha256 of the content of a regular file, where it is known without reading that.
    pub fn content_digest(&self) -> Result<Option<[u8; 32]>> {
        match &self.place {
            Place::Lower(found) => self.overlay.lower.content_digest(found.id),
            Place::Node(_) => Ok(None),
        }
    }

    /// Opens the content of a regular file.
    pub fn open(&self) -> Result<ItemReader> {
        if self.kind()? != Kind::Regular {
            return Err(Error::Invalid("only regular files have contents"));
        }
        let content = match &self.place {
            Place::Lower(found) => self.overlay.lower.open(found.id)?,
            Place::Node(node) => self.overlay.open_content(node)?.for_reading(),
        };
        Ok(ItemReader { content, offset: 0 })
    }
}

/// Reads the content of a file.
#[derive(Debug)]
pub struct ItemReader {
    content: LowerFile,
    offset: u64,
}

impl ItemReader {
    /// Reads the next bytes that are stored, past what is a hole; tells where they are in the file
    /// and how many. None at the end.
    pub fn next_data(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let mut most = buffer.len();
        if let LowerFile::File(file) = &self.content {
            let Some(start) = sys::seek_data(file.as_fd(), self.offset)? else { return Ok(None) };
            let end = sys::seek_hole(file.as_fd(), start)?.unwrap_or(u64::MAX);
            self.offset = start;
            most = most.min(usize::try_from(end - start).unwrap_or(usize::MAX));
        }
        let start = self.offset;
        let len = self.content.read_at(buffer.get_mut(..most).unwrap_or_default(), start)?;
        self.offset += len as u64;
        Ok((len > 0).then_some((start, len)))
    }
}

impl io::Read for ItemReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.content.read_at(buffer, self.offset).map_err(io::Error::other)?;
        self.offset += len as u64;
        Ok(len)
    }
}

impl Overlay {
    /// Returns what a symbolic link holds.
    pub fn read_link(&self, ino: Ino) -> Result<OsString> {
        self.read_link_at(&self.place(ino)?)
    }

    fn read_link_at(&self, place: &Place) -> Result<OsString> {
        if self.kind(place)? != Kind::Symlink {
            return Err(Error::Invalid("not a symbolic link"));
        }
        let node = match place {
            Place::Lower(found) => return self.lower.read_link(found.id),
            Place::Node(node) => node,
        };
        if !node.is_in_upper() {
            let id = node.lower.ok_or(Error::Stale(node.ino.0))?;
            return self.lower.read_link(id);
        }
        let (fd, stat) = self.open_node(node)?;
        if Kind::of(stat.mode) == Kind::Symlink {
            return Ok(sys::read_link_fd(fd.as_fd())?);
        }
        // A file with a mark holds the target.
        let mut target = Vec::new();
        io::Read::read_to_end(&mut self.open_upper(node)?, &mut target)?;
        Ok(OsString::from_vec(target))
    }
}
