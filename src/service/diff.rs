//! What a container has changed, as docker lists it.

use std::collections::BTreeMap;

use crate::layer::Kind;
use crate::overlay::{Attr, Change, ChangeKind, LowerAttr};
use crate::service::Strata;
use crate::service::error::{Error, Result, if_there};
use crate::sys::mode;

/// How a path has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffKind {
    /// It is new.
    Added,
    /// It is another one, or something in it has changed.
    Changed,
    /// It is gone.
    Deleted,
}

/// A path that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffLine {
    /// How.
    pub kind: DiffKind,
    /// From the root, with a leading slash.
    pub path: Vec<u8>,
}

impl Strata {
    /// Returns what a container has changed, sorted by path.
    pub fn diff(&self, container: &str) -> Result<Vec<DiffLine>> {
        let container = self.find_container(container)?;
        let (base, _lease) = self.lease_base(&container)?;
        let overlay = self.inspect_container(&container, &base)?;
        let mut lines = Lines::default();
        overlay.changes::<Error>(&mut |change| {
            let hidden = match &change.kind {
                ChangeKind::Modified { opaque: true, .. } => overlay.hidden_by(&change.path)?,
                _ => Vec::new(),
            };
            lines.add(change, &hidden)
        })?;
        Ok(lines.finish())
    }
}

/// Lines by path.
#[derive(Default)]
pub(crate) struct Lines(BTreeMap<Vec<u8>, DiffKind>);

impl Lines {
    fn add(&mut self, change: Change<'_>, hidden: &[Vec<u8>]) -> Result<()> {
        let Change { path, kind } = change;
        let kind = match kind {
            ChangeKind::Deleted => DiffKind::Deleted,
            ChangeKind::Added(_) => DiffKind::Added,
            ChangeKind::Modified { item, lower, opaque, .. } => {
                let Some(now) = if_there(item.attr())? else { return Ok(()) };
                // What is in the upper only because something in it has changed has not itself.
                if !opaque && is_same(&now, &lower) {
                    return Ok(());
                }
                DiffKind::Changed
            }
        };
        for name in hidden {
            self.0.insert([&path[..], b"/", name].concat(), DiffKind::Deleted);
        }
        self.put(path, kind);
        Ok(())
    }

    /// Takes a path that is new.
    pub(crate) fn added(&mut self, path: Vec<u8>) {
        self.put(path, DiffKind::Added);
    }

    /// Takes a path that is another one.
    pub(crate) fn changed(&mut self, path: Vec<u8>) {
        self.put(path, DiffKind::Changed);
    }

    /// Takes a path that is gone.
    pub(crate) fn deleted(&mut self, path: Vec<u8>) {
        self.put(path, DiffKind::Deleted);
    }

    fn put(&mut self, path: Vec<u8>, kind: DiffKind) {
        self.note_parents(&path);
        self.0.insert(path, kind);
    }

    /// A directory in which something has changed has changed.
    fn note_parents(&mut self, path: &[u8]) {
        let mut end = path.len();
        while let Some(at) = path[..end].iter().rposition(|byte| *byte == b'/') {
            self.0.entry(path[..at].to_vec()).or_insert(DiffKind::Changed);
            end = at;
        }
    }

    /// Returns the lines, sorted by path.
    pub(crate) fn finish(self) -> Vec<DiffLine> {
        let line = |(path, kind): (Vec<u8>, _)| DiffLine { kind, path: [b"/", &path[..]].concat() };
        let mut lines: Vec<_> = self.0.into_iter().map(line).collect();
        // By names, so that a directory comes right before what is in it.
        lines.sort_by(|a, b| {
            a.path.split(|byte| *byte == b'/').cmp(b.path.split(|byte| *byte == b'/'))
        });
        lines
    }
}

/// Tells whether a directory is as the image has it. Its time says only that something in it has
/// changed, which has a line of its own.
fn is_same(now: &Attr, lower: &LowerAttr) -> bool {
    now.kind() == Kind::Directory
        && now.mode & mode::PERMISSIONS == lower.mode & mode::PERMISSIONS
        && Kind::of(lower.mode) == Kind::Directory
        && (now.uid, now.gid) == (lower.uid, lower.gid)
}
