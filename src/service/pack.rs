//! From files to a tar: what a container changes as a layer, what it shows as a whole, and a
//! directory of the host.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use crate::layer::{Kind, TarMeta, TarWriter, join_path, whiteout};
use crate::overlay::{Attr, Change, ChangeKind, Ino, Item, Overlay};
use crate::service::error::{Error, Result, if_there, io_error};
use crate::sys::{Time, mode};

/// Writes files of a union to a tar.
pub(crate) struct Packer<'a, W: Write> {
    tar: TarWriter<W>,
    /// First names of files with several.
    first_names: HashMap<Ino, Vec<u8>>,
    /// Later times are written as this one.
    latest: Option<Time>,
    /// Whether names mean what a layer makes of them.
    target: Target,
    skipped: &'a mut dyn FnMut(String),
}

/// What a tar is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A layer: names that begin with `.wh.` stand for what is gone.
    Layer,
    /// A tree as it is.
    Tree,
}

impl<'a, W: Write> Packer<'a, W> {
    /// Returns a packer; `skipped` is told of files that a tar cannot hold and nobody misses.
    pub(crate) fn new(
        out: W,
        target: Target,
        latest: Option<Time>,
        skipped: &'a mut dyn FnMut(String),
    ) -> Self {
        let tar = TarWriter::new(out);
        Self { tar, first_names: HashMap::new(), latest, target, skipped }
    }

    /// Writes a tree, its root first.
    pub(crate) fn tree(&mut self, overlay: &Overlay) -> Result<()> {
        self.below(Vec::new(), overlay.root())
    }

    /// Writes a file and all below it, under another path.
    pub(crate) fn below(&mut self, path: Vec<u8>, item: Item<'_>) -> Result<()> {
        let mut pending = vec![(path, item)];
        while let Some((path, item)) = pending.pop() {
            if if_there(self.item(path.clone(), &item))?.is_none()
                || item.kind()? != Kind::Directory
            {
                continue;
            }
            let children = if_there(item.children())?.unwrap_or_default();
            for (name, child) in children.into_iter().rev() {
                pending.push((join_path(&path, name.as_bytes()), child));
            }
        }
        Ok(())
    }

    /// Writes a change as a layer has it.
    pub(crate) fn change(&mut self, change: Change<'_>) -> Result<()> {
        let Change { path, kind } = change;
        match kind {
            ChangeKind::Deleted => self.whiteout(&path),
            ChangeKind::Added(item) => self.item(path, &item),
            // What is in it says that it is there.
            ChangeKind::Modified { unchanged: true, .. } => Ok(()),
            ChangeKind::Modified { item, opaque, .. } => {
                self.item(path.clone(), &item)?;
                if opaque {
                    self.marker(&[&path, &b"/"[..], whiteout::OPAQUE].concat())?;
                }
                Ok(())
            }
        }
    }

    /// Writes the root directory itself.
    pub(crate) fn root(&mut self, item: &Item<'_>) -> Result<()> {
        self.item(Vec::new(), item)
    }

    /// Ends the tar.
    pub(crate) fn finish(self) -> Result<W> {
        self.tar.finish().map_err(io_error("write", "the tar"))
    }

    /// Writes that a name is gone.
    pub(crate) fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let (dir, name) = path.split_at(at);
        self.marker(&[dir, whiteout::PREFIX, name].concat())
    }

    fn marker(&mut self, path: &[u8]) -> Result<()> {
        let time = self.latest.unwrap_or_default();
        self.tar.marker(path, time).map_err(io_error("write", "the tar"))
    }

    /// Writes a file, or another name for one that was written.
    pub(crate) fn item(&mut self, path: Vec<u8>, item: &Item<'_>) -> Result<()> {
        if self.target == Target::Layer {
            check_for_layer(&path, &String::from_utf8_lossy(&path))?;
        }
        let attr = item.attr()?;
        if attr.kind() == Kind::Socket {
            (self.skipped)(String::from_utf8_lossy(&path).into_owned());
            return Ok(());
        }
        let mut meta = self.meta(path, &attr);
        let shown = String::from_utf8_lossy(&meta.path).into_owned();
        if attr.kind() != Kind::Directory
            && attr.nlink > 1
            && let Some(first) = self.first_names.get(&attr.ino)
        {
            let linked = self.tar.hard_link(&meta, first);
            return linked.map_err(io_error("write", shown));
        }
        meta.xattrs = xattrs(item)?;
        let written = match attr.kind() {
            Kind::Regular => {
                let mut content = item.open()?;
                match self.target {
                    Target::Layer => self.tar.file(&meta, &mut content),
                    // It may have been cut since it was looked at, and the tar has its length already.
                    Target::Tree => {
                        let mut content = Padded { content, left: meta.size, is_short: false };
                        let written = self.tar.file(&meta, &mut content);
                        if content.is_short {
                            tracing::warn!(
                                "{shown} became shorter while it was read; zeros follow"
                            );
                        }
                        written
                    }
                }
            }
            Kind::Symlink => {
                meta.target = item.read_link()?.as_bytes().to_vec();
                self.tar.entry(&meta)
            }
            _ => self.tar.entry(&meta),
        };
        written.map_err(io_error("pack", shown))?;
        if attr.kind() != Kind::Directory && attr.nlink > 1 {
            self.first_names.insert(attr.ino, meta.path);
        }
        Ok(())
    }

    fn meta(&self, path: Vec<u8>, attr: &Attr) -> TarMeta {
        TarMeta {
            uid: attr.uid,
            gid: attr.gid,
            mtime: self.latest.map_or(attr.mtime, |latest| attr.mtime.min(latest)),
            device: attr.rdev,
            size: if attr.kind() == Kind::Regular { attr.size } else { 0 },
            ..TarMeta::new(path, attr.kind(), attr.mode & mode::PERMISSIONS)
        }
    }
}

/// Reads as many bytes as a file is to have; where it has fewer, zeros follow.
struct Padded<R> {
    content: R,
    left: u64,
    is_short: bool,
}

impl<R: Read> Read for Padded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        let mut len = if self.is_short { 0 } else { self.content.read(buffer)? };
        if len == 0 && most > 0 {
            self.is_short = true;
            buffer.fill(0);
            len = most;
        }
        self.left -= len as u64;
        Ok(len)
    }
}

/// Checks that a layer can hold a file of this path, which a person knows as `shown`.
pub(crate) fn check_for_layer(path: &[u8], shown: &str) -> Result<()> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if !whiteout::is_reserved(name) {
        return Ok(());
    }
    Err(Error::CannotPack {
        path: shown.to_owned(),
        reason: "names that begin with .wh. stand for deleted files in a layer; rename it",
    })
}

fn xattrs(item: &Item<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let xattrs = item.xattrs()?.into_iter();
    Ok(xattrs.map(|(name, value)| (name.as_bytes().to_vec(), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_shorter_is_read_in_its_old_length() {
        for (content, len, read, is_short) in [
            (&b"whole"[..], 5, &b"whole"[..], false),
            (b"longer", 3, b"lon", false),
            (b"cut", 5, b"cut\0\0", true),
            (b"", 0, b"", false),
        ] {
            let mut padded = Padded { content, left: len, is_short: false };
            let mut found = Vec::new();
            padded.read_to_end(&mut found).unwrap();
            assert_eq!((found.as_slice(), padded.is_short), (read, is_short));
        }
    }
}
