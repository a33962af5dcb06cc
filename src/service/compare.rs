//! Two trees compared, name by name: images, containers, and images up to a layer.
//!
//! Both are walked at once, sorted by name, a directory before what is in it. What both have from
//! the same place of the same chain is passed over with all that is below it; contents are compared
//! by digest where both trees know it, else byte by byte.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use crate::layer::{Kind, join_path};
use crate::overlay::{Item, Overlay};
use crate::service::error::{Error, Result, if_there, io_error};
use crate::sys::mode;

/// Bytes compared at once.
const CHUNK: usize = 64 * 1024;

/// What a name has come to.
#[derive(Debug)]
pub(crate) enum Difference<'a> {
    /// The first tree has it, the second does not. What is below it is not told.
    Deleted(Item<'a>),
    /// The second tree has it, the first does not. What is below it follows.
    Added(Item<'a>),
    /// Both have it, and perhaps it is not the same.
    Both {
        /// What the first has.
        before: Item<'a>,
        /// What the second has.
        after: Item<'a>,
        /// In what they differ.
        parts: Parts,
    },
}

/// In what two files differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// They are of two kinds.
    pub(crate) kind: bool,
    /// Content, target of a link, number of a device.
    pub(crate) content: bool,
    /// Permissions or owner.
    pub(crate) attributes: bool,
    /// Extended attributes.
    pub(crate) xattrs: bool,
    /// Time of the last change of the content.
    pub(crate) time: bool,
}

impl Parts {
    /// Tells whether they differ in anything.
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }
}

enum Pending<'a> {
    One(Vec<u8>, Difference<'a>),
    Pair(Vec<u8>, Item<'a>, Item<'a>),
}

/// Shows every name of two trees to `visit`, its path without a leading slash; the root's is empty.
pub(crate) fn compare<'a, E: From<Error>>(
    before: &'a Overlay,
    after: &'a Overlay,
    visit: &mut dyn FnMut(Vec<u8>, Difference<'a>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut pending = vec![Pending::Pair(Vec::new(), before.root(), after.root())];
    while let Some(next) = pending.pop() {
        let mut below = match next {
            Pending::Pair(_, before, after) if before.is_same_file(&after) => continue,
            Pending::Pair(path, before, after) => {
                let below = if_there(below_both(&path, &before, &after))?.unwrap_or_default();
                if let Some(parts) = if_there(parts(&before, &after))? {
                    visit(path, Difference::Both { before, after, parts })?;
                }
                below
            }
            Pending::One(path, Difference::Added(item)) => {
                let below = if_there(added_below(&path, &item))?.unwrap_or_default();
                visit(path, Difference::Added(item))?;
                below
            }
            Pending::One(path, deleted) => {
                visit(path, deleted)?;
                continue;
            }
        };
        below.reverse();
        pending.append(&mut below);
    }
    Ok(())
}

fn children<'a>(item: &Item<'a>) -> Result<Vec<(OsString, Item<'a>)>> {
    match item.kind()? {
        Kind::Directory => Ok(item.children()?),
        _ => Ok(Vec::new()),
    }
}

fn added_below<'a>(path: &[u8], item: &Item<'a>) -> Result<Vec<Pending<'a>>> {
    let added = |(name, item): (OsString, _)| {
        Pending::One(join_path(path, name.as_bytes()), Difference::Added(item))
    };
    Ok(children(item)?.into_iter().map(added).collect())
}

/// Returns the names in two files, if these are directories. What was in a directory that is none
/// any more is gone with it.
fn below_both<'a>(path: &[u8], before: &Item<'a>, after: &Item<'a>) -> Result<Vec<Pending<'a>>> {
    if before.kind()? != Kind::Directory || after.kind()? != Kind::Directory {
        return added_below(path, after);
    }
    let mut before = before.children()?.into_iter().peekable();
    let mut after = after.children()?.into_iter().peekable();
    let mut below = Vec::new();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return Ok(below),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((first, _)), Some((second, _))) => first.cmp(second),
        };
        let old = if order == Ordering::Greater { None } else { before.next() };
        let new = if order == Ordering::Less { None } else { after.next() };
        below.extend(match (old, new) {
            (Some((name, old)), Some((_, new))) => {
                Some(Pending::Pair(join_path(path, name.as_bytes()), old, new))
            }
            (Some((name, old)), None) => {
                let path = join_path(path, name.as_bytes());
                Some(Pending::One(path, Difference::Deleted(old)))
            }
            (None, Some((name, new))) => {
                let path = join_path(path, name.as_bytes());
                Some(Pending::One(path, Difference::Added(new)))
            }
            (None, None) => None,
        });
    }
}

fn parts(before: &Item<'_>, after: &Item<'_>) -> Result<Parts> {
    let (old, new) = (before.attr()?, after.attr()?);
    let kind = old.kind() != new.kind();
    let content = !kind
        && match new.kind() {
            Kind::Regular => old.size != new.size || !has_same_content(before, after)?,
            Kind::Symlink => before.read_link()? != after.read_link()?,
            Kind::Character | Kind::Block => old.rdev != new.rdev,
            Kind::Directory | Kind::Fifo | Kind::Socket => false,
        };
    let permissions = |mode: u32| mode & mode::PERMISSIONS;
    Ok(Parts {
        kind,
        content,
        attributes: permissions(old.mode) != permissions(new.mode)
            || (old.uid, old.gid) != (new.uid, new.gid),
        xattrs: before.xattrs()? != after.xattrs()?,
        time: old.mtime != new.mtime,
    })
}

/// Tells whether two regular files of the same size hold the same bytes.
fn has_same_content(before: &Item<'_>, after: &Item<'_>) -> Result<bool> {
    if let (Some(old), Some(new)) = (before.content_digest()?, after.content_digest()?) {
        return Ok(old == new);
    }
    let (mut old, mut new) = (before.open()?, after.open()?);
    let (mut first, mut second) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        // Both fill the buffer or reach the end of the file.
        let len = old.read(&mut first).map_err(io_error("compare", "a file"))?;
        let other = new.read(&mut second).map_err(io_error("compare", "a file"))?;
        if first.get(..len) != second.get(..other) {
            return Ok(false);
        }
        if len == 0 {
            return Ok(true);
        }
    }
}
