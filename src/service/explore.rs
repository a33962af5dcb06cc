//! What each layer does to the tree, for a person who goes through the layers.
//!
//! A level is the tree up to a layer; the changes of a container are one more level, on top. Trees
//! are opened and compared when they are first asked for, and kept.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::service::browse::{Last, Tree, TreeFile, join};
use crate::service::copy::Copied;
use crate::service::diff::DiffKind;
use crate::service::error::{Error, Result, io_error};
use crate::service::inspect::written_below;
use crate::service::layers::makers;
use crate::service::trees::diff_lines;
use crate::service::{Kind, Strata};
use crate::store::{Claim, Container, Image, Lease};

/// An image or a container whose layers are gone through.
#[derive(Debug)]
pub struct Explorer {
    strata: Strata,
    name: String,
    image: Image,
    container: Option<Container>,
    levels: Vec<Level>,
    trees: HashMap<usize, Tree>,
    changes: HashMap<usize, HashMap<Vec<u8>, DiffKind>>,
    _lease: Lease,
}

/// A layer, or the changes of a container.
#[derive(Clone, Debug)]
pub struct Level {
    /// Its id; the changes of a container have none.
    pub id: Option<String>,
    /// Size of all its files in bytes.
    pub size: u64,
    /// What made it, or what was said about it.
    pub created_by: String,
}

/// A file of a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelFile {
    /// What it is; of one that the level deletes, what it was.
    pub file: TreeFile,
    /// What the level does to it; a directory in which something changes is changed.
    pub change: Option<DiffKind>,
}

/// Whether a file of the host may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// It is an error that there is one.
    Never,
    /// By another file; never a directory.
    File,
}

impl Strata {
    /// Opens an image or a container, to go through its layers.
    pub fn explore(&self, name: &str) -> Result<Explorer> {
        let (image, container, lease) = match self.find_container(name) {
            Ok(container) => {
                let (image, lease) = self.lease_base(&container)?;
                (image, Some(container), lease)
            }
            Err(Error::NoContainer(_)) => {
                let (image, _, lease) = self.lease_image(name).map_err(|error| match error {
                    Error::NoImage(_) => Error::NoObject(name.to_owned()),
                    other => other,
                })?;
                (image, None, lease)
            }
            Err(error) => return Err(error),
        };
        let mut levels = self.image_levels(&image)?;
        if let Some(container) = &container {
            levels.push(Level {
                id: None,
                size: written_below(&self.store.upper(&container.id))?,
                created_by: format!("container {}", container.name),
            });
        }
        Ok(Explorer {
            strata: self.clone(),
            name: name.to_owned(),
            image,
            container,
            levels,
            trees: HashMap::new(),
            changes: HashMap::new(),
            _lease: lease,
        })
    }

    fn image_levels(&self, image: &Image) -> Result<Vec<Level>> {
        let layers = image.layers().iter().zip(self.indexes(image)?).zip(makers(image));
        let levels = layers.map(|((id, index), created_by)| Level {
            id: Some(id.to_string()),
            size: index.content_len(),
            created_by,
        });
        Ok(levels.collect())
    }
}

impl Explorer {
    /// Returns what was asked for, as it was typed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the levels, the lowest first; they are counted from 1.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Returns what a directory of a level holds and what the level deletes from it, sorted by name.
    pub fn list(&mut self, level: usize, dir: &[u8]) -> Result<Vec<LevelFile>> {
        self.prepare(level)?;
        let below = self.tree(level.saturating_sub(1))?;
        let deleted = |file| LevelFile { file, change: Some(DiffKind::Deleted) };
        if self.is_deleted(level, dir) {
            return Ok(children(below, dir)?.into_iter().map(deleted).collect());
        }
        let change = |path: &[u8]| self.changes.get(&level).and_then(|all| all.get(path)).copied();
        let told = |file: TreeFile| LevelFile { change: change(&file.path), file };
        let mut files: Vec<_> = children(self.tree(level)?, dir)?.into_iter().map(told).collect();
        let is_gone = |file: &TreeFile| change(&file.path) == Some(DiffKind::Deleted);
        files.extend(children(below, dir)?.into_iter().filter(is_gone).map(deleted));
        files.sort_by(|one, other| one.file.path.cmp(&other.file.path));
        Ok(files)
    }

    /// Returns the first bytes of a regular file of a level, at most `limit_bytes`. A symbolic link is
    /// followed.
    pub fn read(&mut self, level: usize, file: &LevelFile, limit_bytes: u64) -> Result<Vec<u8>> {
        let level = holder(level, file);
        self.open(level)?;
        let item = self.tree(level)?.find(&file.file.path, Last::Followed)?;
        let shown = || String::from_utf8_lossy(&file.file.path).into_owned();
        match item.kind()? {
            Kind::Regular => {}
            Kind::Directory => return Err(Error::IsADirectory(shown())),
            _ => return Err(Error::NoContent(shown())),
        }
        let mut content = Vec::new();
        let mut reader = item.open()?.take(limit_bytes);
        reader.read_to_end(&mut content).map_err(io_error("read", shown()))?;
        Ok(content)
    }

    /// Copies a file of a level, with all below it, to the host: into `to` if that is a directory, to
    /// that path otherwise.
    ///
    /// # Errors
    /// [`Error::Exists`] when the copy would replace what it may not replace.
    pub fn save(
        &self,
        level: usize,
        file: &LevelFile,
        to: &Path,
        replace: Replace,
    ) -> Result<Copied> {
        let name = std::ffi::OsStr::from_bytes(file.file.name());
        let to = if to.is_dir() { to.join(name) } else { to.to_owned() };
        match std::fs::symlink_metadata(&to) {
            Ok(there) if replace == Replace::Never || there.is_dir() => {
                return Err(Error::Exists(to));
            }
            _ => {}
        }
        let tree = self.open_level(holder(level, file))?;
        self.strata.copy_from_tree(tree, self.container.as_ref(), &file.file.path, &to)
    }

    /// Opens what a level is told from, and compares it with the one below.
    fn prepare(&mut self, level: usize) -> Result<()> {
        let below = level.saturating_sub(1);
        self.open(below)?;
        self.open(level)?;
        if !self.changes.contains_key(&level) {
            let lines = diff_lines(self.tree(below)?, self.tree(level)?)?;
            let changes = lines.into_iter().map(|line| (line.path, line.kind)).collect();
            self.changes.insert(level, changes);
        }
        Ok(())
    }

    fn open(&mut self, level: usize) -> Result<()> {
        if !self.trees.contains_key(&level) {
            let tree = self.open_level(level)?;
            self.trees.insert(level, tree);
        }
        Ok(())
    }

    fn open_level(&self, level: usize) -> Result<Tree> {
        let mut lease = self.strata.store.lease()?;
        lease.claim(Claim::Image(self.image.digest))?;
        let overlay = match &self.container {
            Some(container) if level > self.image.layers().len() => {
                self.strata.inspect_container(container, &self.image)?
            }
            _ => self.strata.read_only_up_to(&self.image, level)?,
        };
        Ok(Tree::new(overlay, &self.name, lease))
    }

    fn tree(&self, level: usize) -> Result<&Tree> {
        self.trees.get(&level).ok_or_else(|| Error::NoObject(self.name.clone()))
    }

    /// Tells whether a level deletes a directory, or one that it is in.
    fn is_deleted(&self, level: usize, dir: &[u8]) -> bool {
        let Some(changes) = self.changes.get(&level) else { return false };
        let ends = dir.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        ends.chain([dir.len()]).any(|end| {
            dir.get(..end).and_then(|path| changes.get(path)) == Some(&DiffKind::Deleted)
        })
    }
}

/// Returns the level whose tree has a file: of a deleted one, that below.
fn holder(level: usize, file: &LevelFile) -> usize {
    if file.change == Some(DiffKind::Deleted) { level.saturating_sub(1) } else { level }
}

/// Returns what is in a directory; nothing where there is none.
fn children(tree: &Tree, dir: &[u8]) -> Result<Vec<TreeFile>> {
    match tree.locate(dir, Last::Itself) {
        Ok(spot) => match spot.item {
            Some(item) if item.kind()? == Kind::Directory => item
                .children()?
                .iter()
                .map(|(name, child)| TreeFile::new(join(dir, name), child))
                .collect(),
            _ => Ok(Vec::new()),
        },
        Err(Error::NoPath { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
