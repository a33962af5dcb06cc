//! Writing what is copied into a directory, by rules that hold wherever that directory is.
//!
//! Nothing below the destination follows a symbolic link: each name on the way is looked at and must
//! be a directory. A file gets its name when it is whole: it is made under a temporary one beside
//! it and renamed. A directory over a directory keeps what is in it; a directory over anything
//! else, and anything else over a directory, is an error. Directories get their attributes at the
//! end, the deepest first, so that none is closed while files are still to come.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::layer::{Kind, TarMeta, join_path};
use crate::service::copy::source::{Content, Empty, Visit};
use crate::service::error::{Error, Result};
use crate::sys::{self, Errno, Time, mode};

/// A tree that is written to. A node is a file of it, found without following a link.
pub(crate) trait Place {
    type Node;

    /// Returns the root of the tree.
    fn root(&self) -> Result<Self::Node>;

    /// Returns what a directory has under a name.
    fn child(&self, dir: &Self::Node, name: &OsStr) -> Result<Option<(Kind, Self::Node)>>;

    /// Makes a file that is not there yet, open to its owner only.
    fn make(
        &self,
        dir: &Self::Node,
        name: &OsStr,
        meta: &TarMeta,
        content: &mut dyn Content,
    ) -> Result<Self::Node>;

    /// Gives a file that is no directory another name, which is free.
    fn link(&self, node: &Self::Node, dir: &Self::Node, name: &OsStr) -> Result<()>;

    /// Sets owner (if one is said), attributes, permissions and time.
    fn describe(&self, node: &Self::Node, meta: &TarMeta, owner: Option<(u32, u32)>) -> Result<()>;

    /// Renames inside of a directory, over what is no directory.
    fn rename(&self, dir: &Self::Node, from: &OsStr, to: &OsStr) -> Result<()>;

    /// Removes a name of what is no directory.
    fn remove(&self, dir: &Self::Node, name: &OsStr) -> Result<()>;
}

/// Whose the copies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Whose the files are that are copied.
    Source,
    /// Root's.
    Root,
    /// Theirs who copy.
    Caller,
}

/// Writes files into a directory.
pub(crate) struct Writer<'a, P: Place> {
    place: P,
    /// The path of the directory from the root of the place.
    base: Vec<u8>,
    /// The name that the top of the source gets there; none puts what is in it there.
    name: Option<Vec<u8>>,
    owner: Owner,
    /// What the destination is called.
    shown: String,
    /// The directories that lead to the last one that was written to, the base first.
    open: Vec<(Vec<u8>, P::Node)>,
    /// What directories become at the end, by path.
    directories: HashMap<Vec<u8>, TarMeta>,
    temporary: String,
    bytes: u64,
    warn: &'a dyn Fn(String),
}

/// What becomes of a directory on the way that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Made,
    Error,
}

/// Size of a block of a tar; a copy counts what its tar would have.
const BLOCK: u64 = 512;

impl<'a, P: Place> Writer<'a, P> {
    /// Returns a writer into the directory `base` of a place.
    pub(crate) fn new(
        place: P,
        base: &[Vec<u8>],
        name: Option<Vec<u8>>,
        owner: Owner,
        shown: String,
        warn: &'a dyn Fn(String),
    ) -> Result<Self> {
        let node = open_below(&place, base)?;
        let temporary = u64::from_ne_bytes(sys::random_bytes::<8>()?);
        Ok(Self {
            place,
            base: base.join(&b'/'),
            name,
            owner,
            shown,
            open: vec![(Vec::new(), node)],
            directories: HashMap::new(),
            temporary: format!(".strata-cp-{temporary:016x}"),
            bytes: 0,
            warn,
        })
    }

    /// Gives the directories what they are to have, and returns how many bytes a tar of the copy
    /// would have.
    pub(crate) fn finish(mut self) -> Result<u64> {
        let mut directories: Vec<_> = std::mem::take(&mut self.directories).into_iter().collect();
        let depth = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count();
        directories.sort_by_cached_key(|(path, _)| (std::cmp::Reverse(depth(path)), path.clone()));
        for (path, meta) in directories {
            let (meta, owner) = self.owned(&meta);
            self.enter(&path, Missing::Error)
                .and_then(|dir| self.place.describe(&self.open[dir].1, &meta, owner))
                .map_err(|error| self.at(&path, error))?;
        }
        Ok(self.bytes + 2 * BLOCK)
    }

    /// Goes to a directory and returns its number in `open`.
    fn enter(&mut self, path: &[u8], missing: Missing) -> Result<usize> {
        let names: Vec<_> = path.split(|byte| *byte == b'/').filter(|n| !n.is_empty()).collect();
        let same = self.open.iter().skip(1).zip(&names).take_while(|((a, _), b)| a == *b).count();
        self.open.truncate(same + 1);
        for (at, name) in names.iter().enumerate().skip(same) {
            let dir = &self.open[at].1;
            let text = OsStr::from_bytes(name);
            let node = match self.place.child(dir, text)? {
                Some((Kind::Directory, node)) => node,
                None if missing == Missing::Made => {
                    let path = names[..=at].join(&b'/');
                    let meta = TarMeta {
                        mtime: Time::now(),
                        ..TarMeta::new(path.clone(), Kind::Directory, 0o755)
                    };
                    let node = self.place.make(dir, text, &meta, &mut Empty)?;
                    self.directories.insert(path, meta);
                    node
                }
                _ => return Err(Error::NotFollowed(self.show(&names[..=at].join(&b'/')))),
            };
            self.open.push((name.to_vec(), node));
        }
        Ok(names.len())
    }

    fn directory(&mut self, path: &[u8], meta: &TarMeta) -> Result<()> {
        let (parent, name) = split(path);
        let dir = self.enter(parent, Missing::Made)?;
        let dir = &self.open[dir].1;
        match self.place.child(dir, OsStr::from_bytes(name))? {
            Some((Kind::Directory, _)) => {}
            Some(_) => return Err(Error::OverwriteWithDirectory(self.show(path))),
            None => drop(self.place.make(dir, OsStr::from_bytes(name), meta, &mut Empty)?),
        }
        // The same path may come twice in a tar; the last says what it is.
        self.directories.insert(path.to_vec(), meta.clone());
        Ok(())
    }

    fn other(&mut self, path: &[u8], meta: &TarMeta, content: &mut dyn Content) -> Result<()> {
        let (dir, name) = self.free_of_directory(path)?;
        let (meta, owner) = self.owned(meta);
        let dir = &self.open[dir].1;
        let temporary = OsStr::new(&self.temporary);
        let made = self.place.make(dir, temporary, &meta, content).and_then(|node| {
            self.place.describe(&node, &meta, owner)?;
            self.place.rename(dir, temporary, OsStr::from_bytes(&name))
        });
        self.clear_after(made, dir)
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let (parent, name) = split(target);
        let dir = self.enter(parent, Missing::Error)?;
        let found = self.place.child(&self.open[dir].1, OsStr::from_bytes(name))?;
        let Some((_, node)) = found.filter(|(kind, _)| *kind != Kind::Directory) else {
            return Err(Error::NoPath { path: self.show(target), tree: "the archive".to_owned() });
        };
        let (dir, name) = self.free_of_directory(path)?;
        let dir = &self.open[dir].1;
        let temporary = OsStr::new(&self.temporary);
        let linked = self.place.link(&node, dir, temporary).and_then(|()| {
            self.place.rename(dir, temporary, OsStr::from_bytes(&name))?;
            // Renaming a file over another name of its own does nothing.
            match self.place.child(dir, temporary)? {
                Some(_) => self.place.remove(dir, temporary),
                None => Ok(()),
            }
        });
        self.clear_after(linked, dir)
    }

    /// Goes to the directory of a path whose name is no directory's.
    fn free_of_directory(&mut self, path: &[u8]) -> Result<(usize, Vec<u8>)> {
        let (parent, name) = split(path);
        let dir = self.enter(parent, Missing::Made)?;
        match self.place.child(&self.open[dir].1, OsStr::from_bytes(name))? {
            Some((Kind::Directory, _)) => Err(Error::OverwriteDirectory(self.show(path))),
            _ => Ok((dir, name.to_vec())),
        }
    }

    /// Takes away what an error has left under the temporary name.
    fn clear_after(&self, result: Result<()>, dir: &P::Node) -> Result<()> {
        if result.is_err()
            && let Err(error) = self.place.remove(dir, OsStr::new(&self.temporary))
        {
            // As a rule it was never made.
            tracing::debug!("{error}");
        }
        result
    }

    /// Returns what a copy is to have, and its owner if one is to be set. What is not whose it was
    /// is not set-uid any more.
    fn owned(&self, meta: &TarMeta) -> (TarMeta, Option<(u32, u32)>) {
        let mut meta = meta.clone();
        let (owner, (uid, gid)) = match self.owner {
            Owner::Source => return (meta.clone(), Some((meta.uid, meta.gid))),
            Owner::Root => (Some((0, 0)), (0, 0)),
            Owner::Caller => (None, sys::effective_ids()),
        };
        if meta.kind != Kind::Directory {
            if meta.uid != uid {
                meta.mode &= !mode::SET_UID;
            }
            if meta.gid != gid {
                meta.mode &= !mode::SET_GID;
            }
        }
        (meta, owner)
    }

    /// Returns the path at the destination of a path of the source.
    fn below(&self, path: &[u8]) -> Vec<u8> {
        match &self.name {
            Some(name) if path.is_empty() => name.clone(),
            Some(name) => join_path(name, path),
            None => path.to_vec(),
        }
    }

    fn show(&self, path: &[u8]) -> String {
        let path = if path.is_empty() { self.base.clone() } else { join_path(&self.base, path) };
        let slash = if self.shown.ends_with('/') { "" } else { "/" };
        format!("{}{slash}{}", self.shown, String::from_utf8_lossy(&path))
    }

    /// Says at which file it went wrong, unless the error does.
    fn at(&self, path: &[u8], error: Error) -> Error {
        match error {
            Error::Sys(_) | Error::Overlay(_) | Error::Io { .. } => {
                Error::Copy { path: self.show(path), source: Box::new(error) }
            }
            other => other,
        }
    }
}

impl<P: Place> Visit for Writer<'_, P> {
    fn file(
        &mut self,
        meta: &TarMeta,
        link: Option<&[u8]>,
        content: &mut dyn Content,
    ) -> Result<()> {
        self.bytes += BLOCK + if link.is_none() { meta.size.next_multiple_of(BLOCK) } else { 0 };
        let path = self.below(&meta.path);
        if path.is_empty() {
            // The destination itself stays as it is.
            return match meta.kind {
                Kind::Directory => Ok(()),
                _ => Err(Error::OverwriteDirectory(self.show(&path))),
            };
        }
        let written = match (meta.kind, link) {
            (_, Some(link)) => self.hard_link(&path, &self.below(link)),
            (Kind::Directory, None) => self.directory(&path, meta),
            (_, None) => self.other(&path, meta, content),
        };
        match written {
            Err(Error::Sys(error)) if is_device(meta.kind) && error.errno() == Errno::EPERM => {
                self.left_out(&meta.path, "is a device, which only root can make");
                Ok(())
            }
            other => other.map_err(|error| self.at(&path, error)),
        }
    }

    fn left_out(&mut self, path: &[u8], why: &str) {
        let path = self.show(&self.below(path));
        (self.warn)(format!("{path} {why}: left out"));
    }
}

const fn is_device(kind: Kind) -> bool {
    matches!(kind, Kind::Character | Kind::Block)
}

/// Returns the directory that these names lead to.
pub(crate) fn open_below<P: Place>(place: &P, names: &[Vec<u8>]) -> Result<P::Node> {
    let mut node = place.root()?;
    for (at, name) in names.iter().enumerate() {
        node = match place.child(&node, OsStr::from_bytes(name))? {
            Some((Kind::Directory, child)) => child,
            _ => {
                let path = names[..=at].join(&b'/');
                return Err(Error::NotFollowed(String::from_utf8_lossy(&path).into_owned()));
            }
        };
    }
    Ok(node)
}

/// Splits the last name off a path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
