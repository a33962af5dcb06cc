//! Checking a store, and mending it with what it has itself.
//!
//! A check looks at everything below the root but what containers have written: at records first
//! ([`Check::records`]), then at documents of images and indexes ([`Check::documents`]), then at
//! contents ([`Check::contents`]). Whoever checks does the large ones in parallel and notes what was
//! sound, so that a check that is interrupted goes on where it was.
//!
//! Everybody else goes on working meanwhile, so what looks wrong is looked at once more, with a claim
//! on what needs it, before it is told: what is then still wrong is not somebody's unfinished work.
//! Nothing is mended in place but files of snapshots; all else is replaced by rename, or removed.

mod checked;
mod containers;
mod examine;
mod items;
mod known;
mod mend;
mod mend_content;
mod mend_snapshot;
mod names;
mod records;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::digest::{ChainId, DiffId, Digest};
use crate::store::error::{Error, Result, io_error};
use crate::store::files::{open_lock, read_if_exists};
use crate::store::layout::DIRECTORIES;
use crate::store::{Claim, RefName, Stage, Store, VERSION, check_format};
use crate::sys;

pub use crate::store::sums::Difference;
pub use items::Item;
pub use mend::Outcome;

use checked::Checked;
use known::Known;

/// A part of the store that something is wrong with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `FORMAT`.
    Format,
    /// A directory that every store has.
    Directory,
    /// A file or directory with permissions that it should not have; these are the right ones.
    Permissions(u32),
    /// A file or directory that belongs to another user than the store, who is this.
    Owner(u32),
    /// A reference.
    Ref(RefName),
    /// What a container was made of, by its id.
    Config(String),
    /// The live mount of a container.
    State(String),
    /// The directory with what a container has changed, or the one beside it.
    Upper(String),
    /// What is said of a snapshot, by container and name.
    Snapshot(String, String),
    /// The list of files that a snapshot shares.
    Twins(String, String),
    /// The list of what the files of a snapshot were.
    Sums(String, String),
    /// A file of a snapshot, by its escaped path.
    SnapshotFile(String, String, String, Difference),
    /// The list of compressed forms of a layer.
    Sources(DiffId),
    /// A file that says something by being there, and is empty.
    Mark,
    /// What a running process uses.
    Lease,
    /// What was checked before.
    Checked,
    /// A manifest, a configuration, or an index of manifests.
    Blob(Digest),
    /// A content.
    Object(Digest),
    /// The index of a layer.
    Index(DiffId),
    /// The recipe of its tar.
    Recipe(DiffId),
    /// What index, recipe and objects of a layer make together.
    Tar(DiffId),
    /// A layer that was set apart, and is needed.
    Apart(DiffId),
    /// A stack of layers.
    Chain(ChainId),
    /// A name that belongs to nobody. It does no harm.
    Stray,
    /// What a process that has died has left. It does no harm.
    Leftover,
}

impl Part {
    /// Tells whether nothing is lost or wrong by it.
    pub const fn is_harmless(&self) -> bool {
        matches!(self, Self::Stray | Self::Leftover)
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub part: Part,
    /// The file, from the root of the store.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// The images that it touches, by name.
    pub images: Vec<String>,
    /// The containers that it touches, by name.
    pub containers: Vec<String>,
}

/// How a store is to be checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckScope {
    /// Only what the image with this manifest needs.
    pub image: Option<Digest>,
    /// From the beginning, whatever an interrupted check has done.
    pub anew: bool,
}

/// A check of a store.
#[derive(Debug)]
pub struct Check {
    store: Store,
    /// Claims what is looked at twice, and has room for what is made.
    stage: Mutex<Stage>,
    scope: Option<Digest>,
    /// The user whose store it is.
    owner: u32,
    known: Known,
    /// Images whose claims hold: they stay while this lives.
    claimed: Mutex<HashSet<Digest>>,
    checked: Checked,
    /// What files of snapshots were found to hold, by inode.
    hashed: Mutex<HashMap<u64, Digest>>,
    _lock: File,
}

impl Store {
    /// Opens the store at `root` to check it, also one that says damaged things of itself. None is made.
    ///
    /// # Errors
    /// [`Error::NotAStore`] when there is nothing that looks like one.
    pub fn open_to_check(root: &Path) -> Result<Self> {
        let mut store = Self::at(root);
        let bytes = read_if_exists(&store.layout().format());
        if let Ok(Some(bytes)) = &bytes
            && check_format(root, bytes).is_ok_and(|format| format.version != VERSION)
        {
            return Self::open(root);
        }
        match bytes.map(|bytes| bytes.map(|bytes| check_format(root, &bytes))) {
            Ok(Some(Err(error @ Error::UnknownFormat { .. }))) => return Err(error),
            Ok(Some(Ok(format))) => {
                store.inline_max = format.inline_max();
                return Ok(store);
            }
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
        // A directory may have been lost; a directory of something else has hardly any of these.
        if DIRECTORIES.iter().filter(|dir| root.join(dir).is_dir()).count() > DIRECTORIES.len() / 2
        {
            store.inline_max = store.inline_max_of_layers();
            return Ok(store);
        }
        let reason = "there is no FORMAT, and not what a store has".to_owned();
        Err(Error::NotAStore { path: root.to_owned(), reason })
    }

    /// Begins to check this store.
    ///
    /// # Errors
    /// [`Error::BeingChecked`] when somebody else does already.
    pub fn check(&self, scope: CheckScope) -> Result<Check> {
        let root = std::fs::metadata(self.root()).map_err(io_error("look at", self.root()))?;
        let lock = open_lock(&self.layout().fsck_lock())?;
        give(&self.layout().fsck_lock(), root.uid())?;
        if !sys::try_lock_exclusive(lock.as_fd())? {
            return Err(Error::BeingChecked { path: self.root().to_owned() });
        }
        for dir in [self.layout().staging(), self.layout().leases()] {
            // Without these nothing can be made, not even what is missing.
            crate::store::files::ensure_dir(&dir)?;
        }
        Ok(Check {
            store: self.clone(),
            stage: Mutex::new(Stage::new(self)?),
            scope: scope.image,
            owner: root.uid(),
            known: Known::default(),
            claimed: Mutex::default(),
            checked: Checked::open(self, scope, root.uid())?,
            hashed: Mutex::default(),
            _lock: lock,
        })
    }
}

impl Check {
    /// Returns the store.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the user whose store it is.
    pub const fn owner(&self) -> u32 {
        self.owner
    }

    /// Learns which images there are and what they need. To be called when records were looked at, and
    /// again when documents have been mended.
    pub fn learn(&mut self) -> Result<()> {
        let unreadable = self.known.unreadable().clone();
        self.known = Known::of(&self.store, self.scope)?.with_unreadable(unreadable);
        Ok(())
    }

    /// Learns of layers whose indexes were told to be unreadable.
    pub fn learn_of(&mut self, faults: &[Fault]) {
        let mut unreadable = self.known.unreadable().clone();
        let is_unreadable = |fault: &&Fault| fault.problem.starts_with(examine::UNREADABLE);
        unreadable.extend(faults.iter().filter(is_unreadable).filter_map(
            |fault| match fault.part {
                Part::Index(layer) => Some(layer),
                _ => None,
            },
        ));
        self.known = std::mem::take(&mut self.known).with_unreadable(unreadable);
    }

    /// Returns how many files an interrupted check has found to be sound, which are passed over.
    pub fn passed_over(&self) -> u64 {
        self.checked.passed_over()
    }

    /// Ends a check that was not interrupted.
    pub fn finish(self) -> Result<()> {
        self.checked.finish()
    }

    /// Looks at what seemed to be wrong once more; returns it if it still is.
    pub fn still(&self, fault: &Fault) -> Result<Option<Fault>> {
        let found = match &fault.part {
            Part::Blob(_)
            | Part::Object(_)
            | Part::Index(_)
            | Part::Recipe(_)
            | Part::Tar(_)
            | Part::Apart(_)
            | Part::Chain(_) => self.examine_part(&fault.part)?,
            Part::SnapshotFile(container, snapshot, path, _) => {
                self.examine_snapshot_file(container, snapshot, path)?
            }
            Part::Permissions(_) | Part::Owner(_) => return Ok(self.still_has_access(fault)),
            _ => self.look_at_records()?,
        };
        Ok(found.into_iter().find(|found| found.path == fault.path && is_same(found, fault)))
    }

    /// Returns a fault of permissions or of an owner if it still is one.
    fn still_has_access(&self, fault: &Fault) -> Option<Fault> {
        let metadata = std::fs::symlink_metadata(self.store.root().join(&fault.path)).ok()?;
        let is_right = match fault.part {
            Part::Permissions(mode) => metadata.mode() & sys::mode::PERMISSIONS == mode,
            Part::Owner(owner) => metadata.uid() == owner,
            _ => true,
        };
        (!is_right).then(|| fault.clone())
    }

    /// Keeps what an image needs from being collected. Tells whether it is still there.
    fn claim_image(&self, manifest: Digest) -> Result<bool> {
        if self.claimed.lock().contains(&manifest) {
            return Ok(true);
        }
        self.stage.lock().claim(Claim::Image(manifest))?;
        let is_named = Known::is_needed(&self.store, manifest)?;
        if is_named {
            self.claimed.lock().insert(manifest);
        }
        Ok(is_named)
    }

    /// Tells whether any of the images that need something is still there; it stays then.
    fn is_needed(&self, manifests: &[Digest]) -> Result<bool> {
        let mut any = false;
        for manifest in manifests {
            any |= self.claim_image(*manifest)?;
        }
        Ok(any)
    }

    /// Returns a fault of a part, with what it touches.
    fn fault(&self, part: Part, path: &Path, problem: impl Into<String>) -> Fault {
        let (images, containers) = self.known.touched(&self.store, &part);
        let path = match path.strip_prefix(self.store.root()) {
            Ok(below) if below.as_os_str().is_empty() => PathBuf::from("."),
            Ok(below) => below.to_owned(),
            Err(_) => path.to_owned(),
        };
        Fault { part, path, problem: problem.into(), images, containers }
    }
}

/// Gives a file to the owner of the store: root may check the store of somebody else, who must be able
/// to do it afterwards.
fn give(path: &Path, owner: u32) -> Result<()> {
    if sys::effective_ids().0 != 0 || owner == 0 {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(owner), None).map_err(io_error("give away", path))
}

/// Tells whether two faults of one file are of the same kind.
fn is_same(one: &Fault, other: &Fault) -> bool {
    std::mem::discriminant(&one.part) == std::mem::discriminant(&other.part)
}
