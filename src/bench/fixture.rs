//! Layers that are measured, the same for each driver, and what must be found in them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bench::content::mark;
use crate::bench::error::io_error;
use crate::bench::walk::{self, Entry};
use crate::bench::{Result, Size};

/// The layers that a workload needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FixtureKind {
    /// A root file system: an image's, a directory's, or one that is made.
    Tree,
    /// Two big files, and many names beside them.
    Big,
    /// A directory with very many entries.
    Wide,
    /// Sources of a program, with their history.
    Source,
    /// Very many files below very many layers.
    Deep,
}

/// Layers that are on the disk in each form that a driver wants.
#[derive(Clone, Debug, Default)]
pub struct Fixture {
    /// A directory for each layer, the lowest first.
    pub layers: Vec<PathBuf>,
    /// All of them as one plain directory.
    pub plain: Option<PathBuf>,
    /// The store with the images.
    pub store: PathBuf,
    /// Images of so many of the lowest layers.
    pub images: BTreeMap<usize, String>,
    /// Every file that all layers together show, but for the root; sorted.
    pub files: Vec<Entry>,
    /// What can be started in it, from its root.
    pub program: Option<Vec<OsString>>,
    /// A tar of sources, outside of it.
    pub archive: Option<PathBuf>,
    /// What a reader of the figures must know.
    pub notes: Vec<String>,
}

/// Makes fixtures.
pub trait Fixtures {
    /// Makes one in an empty directory.
    fn make(&self, kind: FixtureKind, dir: &Path, size: &Size) -> Result<Fixture>;
}

/// The names in [`FixtureKind::Big`].
#[derive(Clone, Copy, Debug)]
pub struct BigNames {
    /// The file that is read.
    pub read: &'static str,
    /// The file that is copied up.
    pub copied: &'static str,
    /// A directory with names to look up.
    pub names: &'static str,
    /// How many of them there are.
    pub name_count: u64,
}

/// The names in [`FixtureKind::Big`].
pub const BIG: BigNames =
    BigNames { read: "big/read", copied: "big/copied", names: "big/names", name_count: 20_000 };

/// The directory of [`FixtureKind::Wide`].
pub const WIDE: &str = "wide";

/// The directory of [`FixtureKind::Source`], which is also what its archive holds.
pub const SOURCE: &str = "src";

/// The name of the archive of [`FixtureKind::Source`].
pub const ARCHIVE: &str = "src.tar";

/// Most bytes of a small file.
const SMALL_BYTES: u64 = 16 * 1024;

impl Fixture {
    /// Returns the small regular files: up to 16 KiB.
    pub(crate) fn small_files(&self) -> impl Iterator<Item = &Entry> {
        self.files.iter().filter(|file| file.is_file() && file.size <= SMALL_BYTES)
    }
}

/// Returns every file below a directory but itself, sorted, with the marks of regular ones.
pub fn known_files(root: &Path) -> Result<Vec<Entry>> {
    let mut files = Vec::new();
    walk::each(root, &mut |entry| {
        files.push(entry);
        Ok(())
    })?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in files.iter_mut().filter(|file| file.is_file()) {
        file.mark = mark_of(&root.join(&file.path), file.size)?;
    }
    Ok(files)
}

/// Returns the mark of the first `size` bytes of a file; only their ends are read.
pub(crate) fn mark_of(path: &Path, size: u64) -> Result<u64> {
    const END: u64 = 8;
    let read = || {
        let mut file = File::open(path)?;
        let mut ends = Vec::new();
        let mut rest = size;
        if size > 2 * END {
            (&mut file).take(END).read_to_end(&mut ends)?;
            file.seek(SeekFrom::Start(size - END))?;
            rest = END;
        }
        file.take(rest).read_to_end(&mut ends)?;
        Ok(mark(&ends))
    };
    read().map_err(io_error("read", path))
}
