//! The names in a merged directory.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::layer::Kind;
use crate::overlay::error::Result;
use crate::overlay::lower::LowerId;
use crate::overlay::lower::dirs::layer::join;
use crate::overlay::lower::dirs::merge::{DOT_WHITEOUT, Part};
use crate::overlay::lower::dirs::{DirsLower, Links};
use crate::overlay::upper::Owners;
use crate::sys;

/// An entry of a merged directory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: LowerId,
    pub(super) kind: Kind,
    pub(super) name: Box<OsStr>,
}

/// The entries of a merged directory, in an order that is always the same.
#[derive(Debug)]
pub(super) struct Listing(Vec<Entry>);

impl Listing {
    /// Returns the entries from a position on, each with its position.
    pub(super) fn from(&self, position: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(self.0.len());
        (start as u64..).zip(self.0.get(start..).unwrap_or_default())
    }

    /// Counts the directories.
    pub(super) fn subdirs(&self) -> usize {
        self.0.iter().filter(|entry| entry.kind == Kind::Directory).count()
    }
}

impl DirsLower {
    /// Reads a merged directory: what a layer has hides the same name in those below it.
    pub(super) fn list(&self, dir: &[Part]) -> Result<Listing> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        let Some(top) = dir.first() else { return Ok(Listing(entries)) };
        let id = self.number_of(top.device, top.inode);
        for part in dir {
            self.list_part((id, part), &mut seen, &mut entries)?;
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Listing(entries))
    }

    fn list_part(
        &self,
        (dir, part): (LowerId, &Part),
        seen: &mut HashSet<OsString>,
        entries: &mut Vec<Entry>,
    ) -> Result<()> {
        let layer = self.layer(part.layer)?;
        let dot_whiteouts = self.has_dot_whiteouts(part)?;
        let fd = layer.open_dir(&part.path)?;
        let mut stream = sys::DirStream::new(&fd)?;
        let mut hidden = Vec::new();
        while let Some(entry) = stream.next_entry()? {
            if entry.name == "." || entry.name == ".." {
                continue;
            }
            if dot_whiteouts && let Some(name) = entry.name.as_bytes().strip_prefix(DOT_WHITEOUT) {
                hidden.push(OsStr::from_bytes(name).to_owned());
                continue;
            }
            if seen.contains(entry.name) {
                continue;
            }
            seen.insert(entry.name.to_owned());
            let kind = Kind::of_dirent(entry.kind);
            let sure = match kind {
                None | Some(Kind::Character | Kind::Directory) => false,
                // Whether it is a file of its own, a listing does not tell.
                Some(_) if self.links == Links::Broken => false,
                // A mark may say that it is something else.
                Some(Kind::Regular) => !part.xattr_whiteouts && self.owners == Owners::Native,
                Some(_) => true,
            };
            let (kind, id) = match kind {
                Some(kind) if sure && layer.tells_inodes() => {
                    (kind, self.number_of(part.device, entry.ino))
                }
                _ => {
                    let path = join(&part.path, entry.name);
                    let Some(stat) = layer.stat_if_exists(&path)? else { continue };
                    if self.is_whiteout(part, &path, &stat)? {
                        continue;
                    }
                    let shown = self.marked(part.layer, &path, stat)?;
                    (Kind::of(shown.mode), self.number_of_name(&stat, dir, entry.name))
                }
            };
            entries.push(Entry { id, kind, name: entry.name.into() });
        }
        seen.extend(hidden);
        Ok(())
    }
}
