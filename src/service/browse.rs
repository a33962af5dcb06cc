//! Looking into an image or a container without mounting it.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use crate::overlay::{Item, Overlay};
use crate::service::error::{Error, Result, if_there, io_error};
use crate::service::resolve::{find_layer, split_layer};
use crate::service::{Kind, Strata};
use crate::store::Lease;
use crate::sys::{Time, mode};

/// Most symbolic links on the way to a file, as in the kernel.
const MAX_LINKS: usize = 40;

/// A place in an image or a container: `debian:12:/etc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreePath {
    /// The image or container.
    pub tree: String,
    /// From the root; with a leading slash.
    pub path: Vec<u8>,
}

impl TreePath {
    /// Reads `IMAGE[:/PATH]`; without a path it is the root.
    pub fn parse(text: &OsStr) -> Self {
        let bytes = text.as_bytes();
        let end = bytes.windows(2).position(|pair| pair == b":/").unwrap_or(bytes.len());
        let (tree, path) = bytes.split_at(end);
        let path = if path.is_empty() { b"/".to_vec() } else { path[1..].to_vec() };
        Self { tree: String::from_utf8_lossy(tree).into_owned(), path }
    }
}

impl std::fmt::Display for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.tree, String::from_utf8_lossy(&self.path))
    }
}

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeFile {
    /// As it was asked for, and the names below that.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The bits that chmod can change.
    pub permissions: u32,
    /// Number of names; of a directory 2 and its subdirectories.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Number of a device: major and minor.
    pub device: (u32, u32),
    /// Last change of the content.
    pub modified: Time,
    /// What a symbolic link holds.
    pub target: Option<Vec<u8>>,
    /// It is a directory with nothing in it.
    pub is_empty: bool,
}

impl TreeFile {
    pub(crate) fn new(path: Vec<u8>, item: &Item<'_>) -> Result<Self> {
        let attr = item.attr()?;
        let target = match attr.kind() {
            Kind::Symlink => Some(item.read_link()?.as_bytes().to_vec()),
            _ => None,
        };
        Ok(Self {
            path,
            kind: attr.kind(),
            permissions: attr.mode & mode::PERMISSIONS,
            links: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            size: attr.size,
            device: crate::sys::split_device(attr.rdev),
            modified: attr.mtime,
            target,
            is_empty: attr.kind() == Kind::Directory && item.is_empty()?,
        })
    }

    /// Returns the last part of the path.
    pub fn name(&self) -> &[u8] {
        let end = self.path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        let whole = &self.path[..end];
        let start = whole.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        &whole[start..]
    }
}

/// Tells whether a name fits a pattern of the shell: `*`, `?` and `[a-z]`, as find(1) takes them.
pub fn glob(pattern: &[u8], name: &[u8]) -> bool {
    crate::sys::fnmatch(pattern, name)
}

/// Whether to go into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Into it.
    Into,
    /// Past it.
    Past,
}

/// A tree that is kept while it is looked at.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) overlay: Overlay,
    name: String,
    _lease: Lease,
}

impl Strata {
    /// Opens what a container, a snapshot of one, or else an image, shows.
    pub(crate) fn open_tree(&self, name: &str) -> Result<Tree> {
        if let Some((container, snapshot)) = self.find_state(name)? {
            let (image, lease) = self.lease_base(&container)?;
            let overlay = match snapshot {
                None => self.inspect_container(&container, &image)?,
                Some(snapshot) => self.inspect_snapshot(&container, &image, &snapshot)?,
            };
            return Ok(Tree::new(overlay, name, lease));
        }
        self.open_layers(name)
    }

    /// Opens what an image or its lowest layers show; what is none is no object.
    pub(crate) fn open_layers(&self, name: &str) -> Result<Tree> {
        self.open_image_tree(name).map_err(|error| match error {
            Error::NoImage(_) | Error::ImageName(_) => Error::NoObject(name.to_owned()),
            other => other,
        })
    }

    /// Opens what an image shows, or its lowest layers: `debian:12@1`.
    pub(crate) fn open_image_tree(&self, name: &str) -> Result<Tree> {
        let Some((text, number)) = split_layer(name) else {
            let (image, _, lease) = self.lease_image(name)?;
            return Ok(Tree::new(self.read_only(&image)?, name, lease));
        };
        let (image, _, lease) = self.lease_image(text)?;
        let layer = find_layer(&image, text, &number.to_string())?;
        Ok(Tree::new(self.read_only_up_to(&image, layer)?, name, lease))
    }

    /// Returns what a directory holds, sorted by name; of another file, the file itself.
    pub fn list_tree(&self, at: &TreePath) -> Result<Vec<TreeFile>> {
        let tree = self.open_tree(&at.tree)?;
        let item = tree.find(&at.path, Last::Followed)?;
        if item.kind()? != Kind::Directory {
            return Ok(vec![TreeFile::new(at.path.clone(), &tree.find(&at.path, Last::Itself)?)?]);
        }
        let mut files = Vec::new();
        for (name, child) in item.children()? {
            files.extend(if_there(TreeFile::new(join(&at.path, &name), &child))?);
        }
        Ok(files)
    }

    /// Shows a file and all below it to `visit`, with how deep below it is; a directory before what
    /// is in it, names sorted.
    pub fn walk_tree<E: From<Error>>(
        &self,
        at: &TreePath,
        visit: &mut dyn FnMut(usize, &TreeFile) -> std::result::Result<Walk, E>,
    ) -> std::result::Result<(), E> {
        let tree = self.open_tree(&at.tree)?;
        let root = tree.find(&at.path, Last::Followed)?;
        let mut pending = vec![(0, at.path.clone(), root)];
        while let Some((depth, path, item)) = pending.pop() {
            let Some(file) = if_there(TreeFile::new(path, &item))? else { continue };
            let walk = visit(depth, &file)?;
            if file.kind == Kind::Directory && walk == Walk::Into {
                let children = if_there(item.children())?.unwrap_or_default();
                let below = children
                    .into_iter()
                    .rev()
                    .map(|(name, child)| (depth + 1, join(&file.path, &name), child));
                pending.extend(below);
            }
        }
        Ok(())
    }

    /// Writes the content of a regular file.
    pub fn read_file(&self, at: &TreePath, out: &mut dyn Write) -> Result<()> {
        let tree = self.open_tree(&at.tree)?;
        let item = tree.find(&at.path, Last::Followed)?;
        match item.kind()? {
            Kind::Regular => {}
            Kind::Directory => return Err(Error::IsADirectory(at.to_string())),
            _ => return Err(Error::NoContent(at.to_string())),
        }
        io::copy(&mut item.open()?, out).map_err(io_error("copy", at.to_string()))?;
        out.flush().map_err(io_error("write", "standard output"))
    }
}

/// What becomes of a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Followed,
    Itself,
}

/// Where a path leads.
pub(crate) struct Spot<'a> {
    /// The names from the root; none of a directory on the way is a symbolic link.
    pub(crate) names: Vec<Vec<u8>>,
    /// What is there; none when nothing is missing but this.
    pub(crate) item: Option<Item<'a>>,
}

impl Tree {
    /// Returns a tree that a person knows as `name`; the lease keeps what it is made of.
    pub(crate) fn new(overlay: Overlay, name: &str, lease: Lease) -> Self {
        Self { overlay, name: name.to_owned(), _lease: lease }
    }

    /// Returns it under another name.
    pub(crate) fn called(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// Returns the file at a path. No link leads out of the tree.
    pub(crate) fn find(&self, path: &[u8], last: Last) -> Result<Item<'_>> {
        self.locate(path, last)?.item.ok_or_else(|| self.missing(path))
    }

    /// Returns the error of a path that leads nowhere.
    pub(crate) fn missing(&self, path: &[u8]) -> Error {
        Error::NoPath { path: String::from_utf8_lossy(path).into_owned(), tree: self.name.clone() }
    }

    /// Returns where a path leads, of which the last name may be missing. No link leads out of the
    /// tree.
    pub(crate) fn locate(&self, path: &[u8], last: Last) -> Result<Spot<'_>> {
        let missing = || self.missing(path);
        // The directories above, which `..` goes back to, with their names.
        let mut above = vec![(Vec::new(), self.overlay.root())];
        let mut names: Vec<Vec<u8>> = reversed(path);
        let mut links = 0;
        while let Some(name) = names.pop() {
            if name == b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let Some((_, at)) = above.last() else { return Err(missing()) };
            if at.kind()? != Kind::Directory {
                return Err(missing());
            }
            let Some(child) = at.child(OsStr::from_bytes(&name))? else {
                if !names.is_empty() {
                    return Err(missing());
                }
                let names = above.into_iter().skip(1).map(|(name, _)| name).chain([name]);
                return Ok(Spot { names: names.collect(), item: None });
            };
            let is_link = child.kind()? == Kind::Symlink;
            if is_link && (last == Last::Followed || !names.is_empty()) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::LinkLoop(String::from_utf8_lossy(path).into_owned()));
                }
                let target = child.read_link()?;
                if target.as_bytes().starts_with(b"/") {
                    above.truncate(1);
                }
                names.extend(reversed(target.as_bytes()));
                continue;
            }
            above.push((name, child));
        }
        let item = above.last().map(|(_, item)| item.clone());
        let names = above.into_iter().skip(1).map(|(name, _)| name).collect();
        Ok(Spot { names, item })
    }
}

/// Returns the names of a path, the last first.
fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').rev();
    names.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec).collect()
}

/// Returns the path of a name in a directory.
pub(crate) fn join(dir: &[u8], name: &OsStr) -> Vec<u8> {
    let slash: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
    [dir, slash, name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_at_the_first_colon_before_a_slash() {
        for (text, tree, path) in [
            ("debian:12", "debian:12", "/"),
            ("debian:12:/etc", "debian:12", "/etc"),
            ("localhost:5000/a/b:1:/x:/y", "localhost:5000/a/b:1", "/x:/y"),
            ("work:/", "work", "/"),
        ] {
            let found = TreePath::parse(text.as_ref());
            assert_eq!((found.tree.as_str(), found.path.as_slice()), (tree, path.as_bytes()));
        }
    }
}
