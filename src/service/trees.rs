//! Two trees held against each other: images, containers, and images up to a layer.
//!
//! `compare` walks; here is which trees a person means, and what of the differences is told.

use std::io::Read;

use crate::layer::{Kind, join_path};
use crate::overlay::Item;
use crate::service::Strata;
use crate::service::browse::Tree;
use crate::service::compare::{Difference, Parts, compare};
use crate::service::diff::{DiffLine, Lines};
use crate::service::error::{Error, Result, if_there, io_error};
use crate::service::resolve::split_layer;

/// A file, no directory, that two trees do not have alike.
#[derive(Debug)]
pub struct FileChange<'a> {
    /// From the root, with a leading slash.
    pub path: Vec<u8>,
    /// What the first tree has.
    pub before: Option<FileSide<'a>>,
    /// What the second tree has.
    pub after: Option<FileSide<'a>>,
    /// Both have it, with the same content or target: only attributes differ.
    pub same_content: bool,
}

/// A file of one of two trees.
#[derive(Debug)]
pub struct FileSide<'a> {
    item: Item<'a>,
    /// What it is.
    pub kind: Kind,
    /// Type and permissions, as `st_mode` has them.
    pub mode: u32,
    /// Size in bytes; of what is neither a regular file nor a link, 0.
    pub size: u64,
}

impl<'a> FileSide<'a> {
    fn new(item: Item<'a>) -> Result<Self> {
        let attr = item.attr()?;
        let kind = attr.kind();
        let size = if matches!(kind, Kind::Regular | Kind::Symlink) { attr.size } else { 0 };
        Ok(Self { item, kind, mode: attr.mode, size })
    }

    /// Returns the content of a regular file, or the target of a link; none if it is longer than
    /// `limit_bytes`, or has none.
    pub fn read(&self, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        match self.kind {
            _ if self.size > limit_bytes => Ok(None),
            Kind::Symlink => Ok(Some(self.item.read_link()?.into_encoded_bytes())),
            Kind::Regular => {
                let mut content = Vec::new();
                let mut reader = self.item.open()?;
                reader.read_to_end(&mut content).map_err(io_error("read", "a file"))?;
                Ok(Some(content))
            }
            _ => Ok(None),
        }
    }
}

impl Strata {
    /// Returns what the second of two trees has otherwise than the first, as docker lists it. Without
    /// a second one, the first is held against what is below it.
    pub fn diff_trees(&self, first: &str, second: Option<&str>) -> Result<Vec<DiffLine>> {
        let (before, after) = self.open_pair(first, second)?;
        diff_lines(&before, &after)
    }

    /// Shows every file that two trees do not have alike to `visit`, sorted by path. Without a second
    /// tree, the first is held against what is below it.
    pub fn diff_files<E: From<Error>>(
        &self,
        first: &str,
        second: Option<&str>,
        visit: &mut dyn FnMut(&FileChange<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let (before, after) = self.open_pair(first, second)?;
        compare(&before.overlay, &after.overlay, &mut |path, difference| {
            let (old, new, same_content) = match difference {
                Difference::Deleted(item) => (files(&path, item)?, Vec::new(), false),
                Difference::Added(item) => (Vec::new(), own(&path, item)?, false),
                Difference::Both { before, after, parts } => {
                    if !is_told(parts, after.kind().map_err(Error::from)?) {
                        return Ok(());
                    }
                    let same_content = !parts.kind && !parts.content;
                    (gone(&path, before, parts)?, own(&path, after)?, same_content)
                }
            };
            paired(old, new, same_content).iter().try_for_each(&mut *visit)
        })
    }

    /// Opens two trees; the second alone is held against what it was made of.
    fn open_pair(&self, first: &str, second: Option<&str>) -> Result<(Tree, Tree)> {
        if let Some(second) = second {
            return Ok((self.open_tree(first)?, self.open_tree(second)?));
        }
        if let Some((container, _)) = self.find_state(first)? {
            let (image, lease) = self.lease_base(&container)?;
            let before = Tree::new(self.read_only(&image)?, first, lease);
            return Ok((before, self.open_tree(first)?));
        }
        match split_layer(first) {
            Some((image, layer)) => {
                // These are layers of the image, also where a container of its name has snapshots that
                // are called by numbers.
                let below = format!("{image}@{}", layer.saturating_sub(1));
                Ok((self.open_layers(&below)?, self.open_layers(first)?))
            }
            None => Err(Error::NoContainer(first.to_owned())),
        }
    }
}

/// Returns what the second of two trees has otherwise than the first, as docker lists it.
pub(crate) fn diff_lines(before: &Tree, after: &Tree) -> Result<Vec<DiffLine>> {
    let mut lines = Lines::default();
    compare(&before.overlay, &after.overlay, &mut |path, difference| {
        match difference {
            _ if path.is_empty() => {}
            Difference::Deleted(_) => lines.deleted(path),
            Difference::Added(_) => lines.added(path),
            Difference::Both { after, parts, .. } => {
                if is_told(parts, after.kind()?) {
                    lines.changed(path);
                }
            }
        }
        Ok::<_, Error>(())
    })?;
    Ok(lines.finish())
}

/// Tells whether a difference is one: the time of a directory says only that something in it has
/// changed.
fn is_told(parts: Parts, kind: Kind) -> bool {
    match kind {
        Kind::Directory => Parts { time: false, ..parts }.any(),
        _ => parts.any(),
    }
}

type Sides<'a> = Vec<(Vec<u8>, FileSide<'a>)>;

/// Returns a file itself, if it is no directory.
fn own<'a>(path: &[u8], item: Item<'a>) -> Result<Sides<'a>> {
    let Some(side) = if_there(FileSide::new(item))? else { return Ok(Vec::new()) };
    Ok(if side.kind == Kind::Directory { Vec::new() } else { vec![(path.to_vec(), side)] })
}

/// Returns what the first tree had at a path: the file, or all of a directory that is none any more.
fn gone<'a>(path: &[u8], item: Item<'a>, parts: Parts) -> Result<Sides<'a>> {
    if parts.kind { files(path, item) } else { own(path, item) }
}

/// Returns all files at and below a path.
fn files<'a>(path: &[u8], item: Item<'a>) -> Result<Sides<'a>> {
    let mut found = Vec::new();
    let mut pending = vec![(path.to_vec(), item)];
    while let Some((path, item)) = pending.pop() {
        if item.kind()? == Kind::Directory {
            let children = if_there(item.children())?.unwrap_or_default();
            for (name, child) in children.into_iter().rev() {
                pending.push((join_path(&path, name.as_encoded_bytes()), child));
            }
        } else if let Some(side) = if_there(FileSide::new(item))? {
            found.push((path, side));
        }
    }
    Ok(found)
}

/// Makes changes of what was there and what is there.
fn paired<'a>(old: Sides<'a>, new: Sides<'a>, same_content: bool) -> Vec<FileChange<'a>> {
    let shown = |path: &[u8]| [b"/", path].concat();
    let mut new = new.into_iter().peekable();
    let mut changes = Vec::new();
    for (path, before) in old {
        let after = new.next_if(|(other, _)| *other == path).map(|(_, side)| side);
        let path = shown(&path);
        changes.push(FileChange { path, before: Some(before), after, same_content });
    }
    changes.extend(new.map(|(path, side)| FileChange {
        path: shown(&path),
        before: None,
        after: Some(side),
        same_content,
    }));
    changes
}
