//! Merging: what a name means in a stack of directories.
//!
//! The rules are the kernel's (`filesystems/overlayfs.rst`): the topmost file hides all below it;
//! directories are merged down to the first that is opaque or to something else with the name; a
//! whiteout ends the search. Whiteouts and opaque marks are read in every form that is in use.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::sync::OnceLock;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::dirs::DirsLower;
use crate::overlay::lower::dirs::layer::join;
use crate::sys::{self, Stat};

/// Prefix of the name of a file that stands for one that is gone.
pub(super) const DOT_WHITEOUT: &[u8] = b".wh.";
/// Name of the file that makes its directory opaque.
const DOT_OPAQUE: &str = ".wh..wh..opq";

/// A directory of one layer that is part of a merged one.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) layer: u16,
    /// From the root of the layer; empty for the root.
    pub(super) path: Box<OsStr>,
    pub(super) device: u64,
    pub(super) inode: u64,
    /// It hides what layers below have in it.
    pub(super) is_opaque: bool,
    /// Empty files in it may be whiteouts.
    pub(super) xattr_whiteouts: bool,
    /// Where layers below have the rest of it, if elsewhere.
    redirect: Option<OsString>,
    /// Files in it are whiteouts by name; found out when it is first asked.
    dot_whiteouts: OnceLock<bool>,
}

/// What a name is.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing has it, or it is hidden.
    Nothing,
    /// Not a directory.
    File {
        layer: u16,
        /// From the root of the layer.
        path: OsString,
        stat: Stat,
        /// Where its content is, if another layer has that.
        data: Option<Arc<(u16, OsString)>>,
    },
    /// A directory: its parts, top first.
    Dir(Vec<Part>),
}

/// What one layer has under a name.
enum Seen {
    Nothing,
    Whiteout,
    File(OsString, Stat),
    Dir(Part),
}

impl DirsLower {
    /// Returns what a name is in a merged directory.
    pub(super) fn find(&self, dir: &[Part], name: &OsStr) -> Result<Found> {
        let mut found = Vec::new();
        let mut name = name.to_owned();
        for (at, part) in dir.iter().enumerate() {
            match self.see(part, &name)? {
                Seen::Nothing => {}
                Seen::Whiteout => break,
                Seen::File(path, stat) if found.is_empty() => {
                    let data = self.data_of(dir, part, &path, &name, &stat)?;
                    return Ok(Found::File { layer: part.layer, path, stat, data });
                }
                Seen::File(..) => break,
                Seen::Dir(below) => {
                    let (is_opaque, redirect) = (below.is_opaque, below.redirect.clone());
                    let layer = below.layer;
                    found.push(below);
                    let is_last = at + 1 == dir.len();
                    if is_opaque || is_last && !self.follow_redirects {
                        break;
                    }
                    match redirect {
                        Some(_) if !self.follow_redirects => {
                            return Err(Error::Refused(Kind::Directory));
                        }
                        Some(path) if path.as_bytes().starts_with(b"/") => {
                            found.extend(self.dir_at(layer, &path)?);
                            break;
                        }
                        Some(other) => name = other,
                        None => {}
                    }
                }
            }
        }
        Ok(if found.is_empty() { Found::Nothing } else { Found::Dir(found) })
    }

    /// Returns what the layers below `layer` have at a path that is a directory.
    fn dir_at(&self, layer: u16, path: &OsStr) -> Result<Vec<Part>> {
        match self.walk(layer, path)? {
            Found::Dir(parts) => Ok(parts),
            Found::Nothing | Found::File { .. } => Ok(Vec::new()),
        }
    }

    /// Walks from the root of the layers below `layer`.
    fn walk(&self, layer: u16, path: &OsStr) -> Result<Found> {
        let roots = self.roots.get(usize::from(layer) + 1..).unwrap_or_default();
        let path = path.as_bytes().split(|byte| *byte == b'/');
        let mut names = path.filter(|name| !name.is_empty());
        let Some(first) = names.next() else { return Ok(Found::Dir(roots.to_vec())) };
        let mut found = self.find(roots, OsStr::from_bytes(first))?;
        for name in names {
            let Found::Dir(parts) = found else { return Ok(Found::Nothing) };
            found = self.find(&parts, OsStr::from_bytes(name))?;
        }
        Ok(found)
    }

    /// Returns where the content of a file is, if not in the file itself.
    fn data_of(
        &self,
        dir: &[Part],
        part: &Part,
        path: &OsStr,
        name: &OsStr,
        stat: &Stat,
    ) -> Result<Option<Arc<(u16, OsString)>>> {
        if !stat.is_regular() || stat.size == 0 {
            return Ok(None);
        }
        let marks = self.layer(part.layer)?.marks(path, self.namespace)?;
        if !marks.metacopy {
            return Ok(None);
        }
        let redirect = marks.redirect;
        let data = self.data_below(dir, part, name, redirect.as_deref())?;
        if data.is_none() {
            // The file itself is a hole.
            return Err(Error::NoContent);
        }
        if redirect.is_some() && !self.follow_redirects {
            return Err(Error::Refused(Kind::Regular));
        }
        Ok(data)
    }

    /// Looks for the content of a file in the layers below.
    fn data_below(
        &self,
        dir: &[Part],
        part: &Part,
        name: &OsStr,
        redirect: Option<&OsStr>,
    ) -> Result<Option<Arc<(u16, OsString)>>> {
        let found = match redirect {
            Some(path) if path.as_bytes().starts_with(b"/") => self.walk(part.layer, path)?,
            other => {
                let below = dir.iter().position(|other| std::ptr::eq(other, part));
                let below = below.and_then(|at| dir.get(at + 1..)).unwrap_or_default();
                self.find(below, other.unwrap_or(name))?
            }
        };
        match found {
            Found::File { data: Some(data), .. } => Ok(Some(data)),
            Found::File { layer, path, data: None, stat } if stat.is_regular() => {
                Ok(Some(Arc::new((layer, path))))
            }
            _ => self.in_data_only(redirect),
        }
    }

    /// Looks for content in the layers that hold nothing else.
    pub(super) fn in_data_only(
        &self,
        redirect: Option<&OsStr>,
    ) -> Result<Option<Arc<(u16, OsString)>>> {
        let Some(path) = redirect.and_then(|path| path.as_bytes().strip_prefix(b"/")) else {
            return Ok(None);
        };
        let path = OsStr::from_bytes(path);
        for (number, layer) in self.layers.iter().enumerate().filter(|(_, l)| l.is_data_only()) {
            if layer.stat_if_exists(path)?.is_some_and(|stat| stat.is_regular()) {
                let number = u16::try_from(number).unwrap_or(u16::MAX);
                return Ok(Some(Arc::new((number, path.to_owned()))));
            }
        }
        Ok(None)
    }

    /// Returns the directory at a path of a layer, which has these attributes.
    pub(super) fn part(&self, number: u16, path: &OsStr, stat: &Stat) -> Result<Part> {
        let layer = self.layer(number)?;
        let marks = layer.dir_marks(path, self.namespace)?;
        let is_opaque =
            marks.opaque || layer.stat_if_exists(&join(path, DOT_OPAQUE.as_ref()))?.is_some();
        Ok(Part {
            layer: number,
            path: path.into(),
            device: stat.dev,
            inode: stat.ino,
            is_opaque,
            xattr_whiteouts: marks.xattr_whiteouts,
            redirect: marks.redirect,
            dot_whiteouts: OnceLock::new(),
        })
    }

    fn see(&self, part: &Part, name: &OsStr) -> Result<Seen> {
        if self.has_dot_whiteouts(part)? {
            if name.as_bytes().starts_with(DOT_WHITEOUT) {
                return Ok(Seen::Nothing);
            }
            let marker = OsString::from_vec([DOT_WHITEOUT, name.as_bytes()].concat());
            let marker = join(&part.path, &marker);
            if marker.len() - part.path.len() <= 256
                && self.layer(part.layer)?.stat_if_exists(&marker)?.is_some()
            {
                // What the layer has itself under the name is not hidden by it.
                return self.see_own(part, name, Seen::Whiteout);
            }
        }
        self.see_own(part, name, Seen::Nothing)
    }

    fn see_own(&self, part: &Part, name: &OsStr, otherwise: Seen) -> Result<Seen> {
        let layer = self.layer(part.layer)?;
        let path = join(&part.path, name);
        let Some(stat) = layer.stat_if_exists(&path)? else { return Ok(otherwise) };
        if stat.is_dir() {
            let mut below = self.part(part.layer, &path, &stat)?;
            below.is_opaque |= matches!(otherwise, Seen::Whiteout);
            return Ok(Seen::Dir(below));
        }
        if self.is_whiteout(part, &path, &stat)? {
            return Ok(Seen::Whiteout);
        }
        Ok(Seen::File(path, stat))
    }

    /// Tells whether a file in a part of a directory stands for one that is gone.
    pub(super) fn is_whiteout(&self, part: &Part, path: &OsStr, stat: &Stat) -> Result<bool> {
        self.layer(part.layer)?.with_target(path, |target| {
            self.namespace.is_whiteout(stat, part.xattr_whiteouts, target)
        })
    }

    /// Tells whether files of a directory are whiteouts by their names. The directory is read once
    /// for it: asking for each name would cost a call for each layer.
    pub(super) fn has_dot_whiteouts(&self, part: &Part) -> Result<bool> {
        if let Some(known) = part.dot_whiteouts.get() {
            return Ok(*known);
        }
        let dir = self.layer(part.layer)?.open_dir(&part.path)?;
        let mut stream = sys::DirStream::new(&dir)?;
        let mut has = false;
        while let Some(entry) = stream.next_entry()? {
            let is_file = matches!(Kind::of_dirent(entry.kind), Some(Kind::Regular) | None);
            if is_file && entry.name.as_bytes().starts_with(DOT_WHITEOUT) {
                has = true;
                break;
            }
        }
        Ok(*part.dot_whiteouts.get_or_init(|| has))
    }
}
