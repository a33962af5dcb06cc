//! What the disk gives back when containers go.
//!
//! A file gives its blocks back when its last name goes, unless another file has the same blocks: where the
//! file system can share them, what is copied up shares those of the image, and a snapshot those of the
//! writable layer. So it is asked which blocks are shared, and the rest of the store is looked through
//! for those. What is shared with nothing in the store is shared with something outside, and stays.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::digest::Digest;
use crate::store::Store;
use crate::store::error::Result;
use crate::store::files::list;
use crate::store::gc::{Marks, disk_bytes};
use crate::store::walk::walk_at;
use crate::sys::{self, Errno, Extent, Stat, open_flags};

/// Of the unit of [`Stat::blocks`].
const BLOCK: u64 = 512;

/// Pieces of the disk.
type Pieces = Vec<Range<u64>>;

/// Files that are to go together.
#[derive(Clone, Debug, Default)]
pub struct Reclaim {
    containers: HashSet<String>,
    images: HashSet<Digest>,
    bytes: u64,
    own_bytes: u64,
    shared: Pieces,
}

impl Reclaim {
    /// Returns the bytes on the disk that the files have, shared or not.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns those of them that no other file has.
    pub(crate) const fn own_bytes(&self) -> u64 {
        self.own_bytes
    }

    /// Adds other files.
    pub fn add(&mut self, other: Self) {
        self.containers.extend(other.containers);
        self.images.extend(other.images);
        self.bytes += other.bytes;
        self.own_bytes += other.own_bytes;
        self.shared.extend(other.shared);
    }

    /// Looks at everything at a path, itself included; there may be nothing.
    pub(crate) fn below(root: &Path) -> Result<Self> {
        let mut reclaim = Self::default();
        // Of files with several names: how many have not been met, and what goes with the last.
        let mut linked: HashMap<(u64, u64), (u64, Blocks)> = HashMap::new();
        let walked = walk_at(root, &mut |_, stat, dir, name| {
            let inode = (stat.dev, stat.ino);
            if let Some((left, _)) = linked.get_mut(&inode) {
                *left = left.saturating_sub(1);
                return ControlFlow::Continue(());
            }
            let blocks = Blocks::of(stat, dir, name);
            reclaim.bytes += stat.blocks * BLOCK;
            if stat.is_dir() || stat.nlink <= 1 {
                reclaim.take(blocks);
            } else {
                linked.insert(inode, (stat.nlink - 1, blocks));
            }
            ControlFlow::Continue(())
        });
        match walked {
            Err(error) if error.errno() == Errno::ENOENT => {}
            // Something else than a directory.
            Err(error) if error.errno() == Errno::ENOTDIR => {
                let bytes = disk_bytes(root);
                reclaim.bytes += bytes;
                reclaim.own_bytes += bytes;
            }
            other => other?,
        }
        for (left, blocks) in linked.into_values() {
            if left == 0 {
                reclaim.take(blocks);
            }
        }
        Ok(reclaim)
    }

    fn take(&mut self, blocks: Blocks) {
        self.own_bytes += blocks.own_bytes;
        self.shared.extend(blocks.shared);
    }
}

/// The blocks of a file.
#[derive(Clone, Debug, Default)]
struct Blocks {
    own_bytes: u64,
    shared: Pieces,
}

impl Blocks {
    fn of(stat: &Stat, dir: BorrowedFd<'_>, name: &OsStr) -> Self {
        let shared = pieces_of(stat, dir, name, |extent| extent.is_shared);
        Self { own_bytes: (stat.blocks * BLOCK).saturating_sub(len_of(&shared)), shared }
    }
}

impl Store {
    /// Looks at all that a container of an image has on the disk.
    pub fn reclaim(&self, id: &str, image: Digest) -> Result<Reclaim> {
        let found = Reclaim::below(&self.layout().container(id))?;
        let (containers, images) = (HashSet::from([id.to_owned()]), HashSet::from([image]));
        Ok(Reclaim { containers, images, ..found })
    }

    /// Returns the bytes that the disk gives back when these containers go, or gave when they went.
    pub fn given_back(&self, going: &Reclaim) -> Result<u64> {
        if going.shared.is_empty() {
            return Ok(going.own_bytes);
        }
        let mut others = Pieces::new();
        for id in list(&self.layout().containers())? {
            if !going.containers.contains(&id) {
                others.extend(pieces_below(&self.layout().container(&id))?);
            }
        }
        others.extend(self.pieces_of_images(&going.images)?);
        Ok(going.own_bytes + len_of_lost(&going.shared, &others))
    }

    /// Returns where the contents of images are: what is copied up comes from there.
    fn pieces_of_images(&self, images: &HashSet<Digest>) -> Result<Pieces> {
        let mut marks = Marks::default();
        for image in images {
            let marked = self.mark_image(*image, &mut marks);
            if let Err(error) = marked.and_then(|()| self.mark_all_objects(&mut marks)) {
                tracing::warn!("{error}");
            }
        }
        let mut found = Pieces::new();
        for path in self.files_of(&marks) {
            match sys::open_plain(&path).and_then(|file| pieces(file.as_fd(), |_| true)) {
                Ok(pieces) => found.extend(pieces),
                Err(error) => tracing::debug!("{error}"),
            }
        }
        Ok(found)
    }
}

/// Returns where the blocks are of all files below a directory; there may be none.
fn pieces_below(root: &Path) -> Result<Pieces> {
    let mut found = Pieces::new();
    let mut seen = HashSet::new();
    let walked = walk_at(root, &mut |_, stat, dir, name| {
        if seen.insert((stat.dev, stat.ino)) {
            found.extend(pieces_of(stat, dir, name, |_| true));
        }
        ControlFlow::Continue(())
    });
    match walked {
        Err(error) if [Errno::ENOENT, Errno::ENOTDIR].contains(&error.errno()) => Ok(found),
        other => Ok(other.map(|()| found)?),
    }
}

/// Returns where the extents of what was found in a directory are that are wanted; none of what is gone
/// or cannot be opened, nor where the file system does not tell, which shares nothing then.
fn pieces_of(
    stat: &Stat,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    is_wanted: impl Fn(&Extent) -> bool,
) -> Pieces {
    if !stat.is_regular() || stat.blocks == 0 {
        return Pieces::new();
    }
    let file = sys::open(dir, name, open_flags::READ_UNSEEN, 0);
    file.and_then(|file| pieces(file.as_fd(), is_wanted)).unwrap_or_else(|error| {
        tracing::debug!("{error}");
        Pieces::new()
    })
}

/// Returns where the extents of a file are that are wanted.
fn pieces(file: BorrowedFd<'_>, is_wanted: impl Fn(&Extent) -> bool) -> sys::Result<Pieces> {
    let (mut found, mut next) = (Pieces::new(), Some(0));
    while let Some(start) = next {
        let (extents, then) = sys::extents(file, start)?;
        for extent in extents.iter().filter(|extent| is_wanted(extent)) {
            let piece = |start: u64| Some(start..start.checked_add(extent.len)?);
            found.extend(extent.physical.and_then(piece));
        }
        next = then;
    }
    Ok(found)
}

fn len_of(pieces: &[Range<u64>]) -> u64 {
    pieces.iter().map(|piece| piece.end - piece.start).sum()
}

/// Returns how many bytes several of these pieces have, and none of the others. What only one has is
/// shared with somebody who is not known.
fn len_of_lost(pieces: &[Range<u64>], others: &[Range<u64>]) -> u64 {
    let ends = |pieces: &[Range<u64>], going: i64, other: i64| -> Vec<(u64, i64, i64)> {
        let both = |piece: &Range<u64>| [(piece.start, going, other), (piece.end, -going, -other)];
        pieces.iter().flat_map(both).collect()
    };
    let mut ends = [ends(pieces, 1, 0), ends(others, 0, 1)].concat();
    ends.sort_unstable();
    let (mut lost, mut at, mut going, mut other) = (0, 0, 0, 0);
    for (end, more_going, more_other) in ends {
        if going > 1 && other == 0 {
            lost += end - at;
        }
        (at, going, other) = (end, going + more_going, other + more_other);
    }
    lost
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_several_have_that_go_and_nobody_else_is_lost() {
        let pieces = |ends: &[(u64, u64)]| -> Pieces {
            ends.iter().map(|(start, end)| *start..*end).collect()
        };
        for (going, others, lost) in [
            (&[(0, 10), (0, 10)][..], &[][..], 10),
            (&[(0, 10)], &[], 0),
            (&[(0, 10), (0, 10)], &[(4, 6)], 8),
            (&[(0, 10), (5, 20), (15, 30)], &[], 10),
            (&[(0, 10), (0, 10), (0, 10)], &[(0, 10), (2, 3)], 0),
            (&[(0, 4), (4, 8), (0, 8)], &[(8, 9)], 8),
        ] {
            let found = len_of_lost(&pieces(going), &pieces(others));
            assert_eq!(found, lost, "{going:?} {others:?}");
        }
    }

    #[test]
    fn a_file_counts_once_and_goes_with_its_last_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let bytes = |dir: &str| {
            let found = Reclaim::below(&at(dir)).unwrap();
            (found.bytes(), found.own_bytes())
        };
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir(at("c")).unwrap();
        let empty = bytes("a").0;
        fs::write(at("a/one"), [1; 10_000]).unwrap();
        fs::File::create(at("a/hole")).unwrap().set_len(1 << 20).unwrap();
        std::os::unix::fs::symlink("a".repeat(200), at("a/link")).unwrap();
        fs::File::open(at("a/one")).unwrap().sync_all().unwrap();
        let (all, own) = bytes("a");
        assert_eq!(all, own);
        assert!(all >= empty + 10_000 && all < empty + (1 << 20), "{all}");
        fs::hard_link(at("a/one"), at("a/b/two")).unwrap();
        assert_eq!(bytes("a"), (all, own));
        fs::hard_link(at("a/one"), at("c/three")).unwrap();
        let (still, less) = bytes("a");
        assert_eq!(still, all);
        assert!(less <= own - 10_000, "{less}");
        assert_eq!(bytes("nothing"), (0, 0));
    }
}
