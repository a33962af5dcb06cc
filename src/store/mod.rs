//! The store: sha256-addressed bytes and trees on disk.
//!
//! ```text
//! FORMAT                    version and features; what is not understood is refused
//! blobs/sha256/<hex>        manifests, indexes, configurations
//! objects/<xx>/<hex>        contents of files over 16 KiB
//! layers/<hex>.idx          a layer's index     (the room `layer` writes and reads these)
//! layers/<hex>.tar          the recipe of its tar
//! layers/<hex>.src          its compressed forms, and which registries have them
//! chains/<hex>.idx          a stack of layers, merged
//! refs/                     names of images
//! containers/<id>/          writable layers and their mounts
//! leases/ staging/ trash/   what is in use, being made, being deleted
//! checked                   what was checked, and when
//! ```
//!
//! Files are the truth: there is no database and no daemon. Every published file is immutable, or
//! replaced as a whole by rename, and durable before anything names it. What runs claims what it
//! uses ([`Lease`]); the collector ([`Store::collect`]) takes the rest. This room does not know what
//! a tar, a registry or a mount is.

mod containers;
mod download;
mod duplicate;
mod error;
mod files;
pub mod fsck;
mod gc;
mod images;
mod layout;
mod lease;
mod objects;
mod parallel;
mod pins;
mod reclaim;
mod record;
mod refs;
mod snapshots;
mod stage;
#[cfg(test)]
mod stage_tests;
mod sums;
#[cfg(test)]
mod tests;
mod upgrade;
mod usage;
mod verified;
mod walk;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use containers::{Container, ContainerLock, MountState, Mounted};
pub use download::{Download, DownloadReader};
pub use error::{Error, Result};
pub use gc::Collected;
pub use images::{Image, Source, read_limited};
pub use lease::{Claim, Lease};
pub(crate) use parallel::in_parallel;
pub use reclaim::Reclaim;
pub use refs::{Ref, RefName};
pub use snapshots::{Snapshot, SnapshotLock};
pub use stage::{NewImage, Stage};
pub use usage::Footprint;
pub(crate) use walk::walk;

use crate::layer::INLINE_MAX;
use crate::store::error::io_error;
use crate::store::files::{ensure_dir, read_if_exists, replace};
use crate::store::layout::{DIRECTORIES, Layout};
use crate::store::objects::Objects;
use crate::store::refs::UNTAGGED;
use crate::sys;

/// How often a directory is emptied that somebody fills.
const ABANDON_TRIES: usize = 100;

/// Version of the store's format.
const VERSION: u32 = 2;

/// The version before, whose records had no sums.
const VERSION_WITHOUT_SUMS: u32 = 1;

/// What `FORMAT` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: String,
    version: u32,
    /// May be ignored.
    compat: Vec<String>,
    /// Must be understood to write. While no part only reads, it is refused like those below.
    ro_compat: Vec<String>,
    /// Must be understood to read.
    incompat: Vec<String>,
}

const FORMAT_NAME: &str = "strata-store";

/// What a store says in `ro_compat` whose layers have contents up to 16 KiB in their indexes; those of
/// others have them up to 4 KiB. It is one number for the whole store, because a chain says where contents
/// are in layers: a layer that is made again must have them in the same place.
const INLINE_16K: &str = "inline-16k";
/// Up to this size contents are in the indexes of a store that does not say so, in bytes.
const INLINE_MAX_WITHOUT: u64 = 4096;

impl Format {
    /// Returns up to which size contents are in indexes, in bytes.
    fn inline_max(&self) -> u64 {
        if self.ro_compat.iter().any(|name| name == INLINE_16K) {
            INLINE_MAX
        } else {
            INLINE_MAX_WITHOUT
        }
    }
}

/// A store on disk. Cheap to clone; all processes of a user may have it open at once.
#[derive(Clone, Debug)]
pub struct Store {
    layout: Arc<Layout>,
    /// The leases that this process holds, with the stages of the same names.
    held: Arc<Mutex<BTreeSet<String>>>,
    /// The files of the downloads that this process is at.
    downloads: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// What dead processes have left was looked for.
    has_swept: Arc<AtomicBool>,
    /// Up to which size contents are in indexes, in bytes.
    inline_max: u64,
}

impl Store {
    /// Opens the store at `root`, which is made when it does not exist or is empty.
    ///
    /// One of the version before is brought to this one.
    ///
    /// # Errors
    /// [`Error::NotAStore`] when the directory holds something else, [`Error::UnknownFormat`] when
    /// a newer program has made it, [`Error::OlderInUse`] while an older one uses it.
    pub fn open(root: &Path) -> Result<Self> {
        let mut store = Self::at(root);
        match read_if_exists(&store.layout.format())? {
            Some(bytes) => {
                let format = check_format(root, &bytes)?;
                store.inline_max = format.inline_max();
                if format.version != VERSION {
                    upgrade::upgrade(&store)?;
                }
                warn_of_others(root)?;
            }
            None => {
                create(root, &store.layout)?;
                // Who has begun to make it may have been killed.
                store.sweep()?;
            }
        }
        Ok(store)
    }

    /// Returns the store at `root`, whatever is there.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            layout: Arc::new(Layout::new(root)),
            held: Arc::default(),
            downloads: Arc::default(),
            has_swept: Arc::default(),
            inline_max: INLINE_MAX,
        }
    }

    /// Returns the directory of the store.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Makes a place to make layers and blobs in. The first one of a process also removes what dead
    /// processes have left, so that nothing piles up.
    pub fn stage(&self) -> Result<Stage> {
        if !self.has_swept.swap(true, Ordering::Relaxed) {
            self.sweep()?;
        }
        Stage::new(self)
    }

    /// Makes a lease, to claim what is used.
    pub fn lease(&self) -> Result<Lease> {
        Lease::new(self)
    }

    /// Deletes what this process is making and has not published, and ends its leases. The process
    /// is about to end: whoever works in it meets errors from here on, and waits for the end when he
    /// gives his lease up because of them.
    pub fn abandon(&self) {
        let held = self.held.lock();
        for id in &*held {
            let dir = self.layout.staging().join(id);
            // Somebody may still be making files in it.
            let gone = (0..ABANDON_TRIES).any(|_| match std::fs::remove_dir_all(&dir) {
                Ok(()) => true,
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            });
            if !gone {
                tracing::debug!("{} is left for the collector", dir.display());
            }
            if let Err(error) = std::fs::remove_file(self.layout.lease(id)) {
                tracing::debug!("lease {id}: {error}");
            }
        }
        for path in &*self.downloads.lock() {
            // What has arrived waits for the next pull; nothing need not.
            if std::fs::metadata(path).is_ok_and(|file| file.len() == 0)
                && let Err(error) = std::fs::remove_file(path)
            {
                tracing::debug!("{}: {error}", path.display());
            }
        }
        // Never let go of: or an error of what was deleted here could be the last word, with its code.
        std::mem::forget(held);
    }

    pub(crate) fn held(&self) -> &Arc<Mutex<BTreeSet<String>>> {
        &self.held
    }

    pub(crate) fn downloads(&self) -> &Arc<Mutex<BTreeSet<PathBuf>>> {
        &self.downloads
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn objects(&self) -> Objects {
        Objects::new(Arc::clone(&self.layout))
    }
}

/// Says when others can look into a store, or change it. A store is made for its owner alone, so somebody
/// has opened it; that may be meant, and is not taken back.
fn warn_of_others(root: &Path) -> Result<()> {
    let metadata = std::fs::metadata(root).map_err(io_error("read", root))?;
    let (mode, owner, user) = (metadata.mode() & 0o777, metadata.uid(), sys::effective_ids().0);
    let shown = root.display();
    if owner != user && owner != 0 {
        tracing::warn!("the store {shown} belongs to user {owner}, who can change what is in it");
    }
    if mode & 0o022 != 0 {
        tracing::warn!(
            "the store {shown} can be changed by other users (mode {mode:o}): chmod 700 {shown}"
        );
    } else if mode & 0o055 != 0 {
        tracing::warn!(
            "the store {shown} can be read by other users (mode {mode:o}), whatever the images hold: \
             chmod 700 {shown}"
        );
    }
    Ok(())
}

fn create(root: &Path, layout: &Layout) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let mut builder = std::fs::DirBuilder::new();
    // What images hold is nobody's business but their owner's.
    builder.recursive(true).mode(0o700).create(root).map_err(io_error("create", root))?;
    let mut entries = std::fs::read_dir(root).map_err(io_error("read", root))?;
    let foreign = entries.find_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let ours = DIRECTORIES.iter().any(|dir| dir.split('/').next() == Some(name.as_str()));
        (!ours).then_some(name)
    });
    if let Some(name) = foreign {
        let reason = format!("it holds {name:?} and no FORMAT");
        return Err(Error::NotAStore { path: root.to_owned(), reason });
    }
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(root, private).map_err(io_error("change the mode of", root))?;
    for dir in DIRECTORIES {
        ensure_dir(&root.join(dir))?;
    }
    // A full disk may have no room for it later.
    ensure_dir(&layout.refs().join(UNTAGGED))?;
    for shard in 0..=255_u8 {
        ensure_dir(&layout.objects().join(format!("{shard:02x}")))?;
    }
    write_format(layout, INLINE_MAX)
}

/// Says that this is a store, of which version, and up to which size contents are in its indexes.
fn write_format(layout: &Layout, inline_max: u64) -> Result<()> {
    let says = (inline_max == INLINE_MAX).then(|| INLINE_16K.to_owned());
    let format = Format {
        format: FORMAT_NAME.to_owned(),
        version: VERSION,
        compat: Vec::new(),
        ro_compat: says.into_iter().collect(),
        incompat: Vec::new(),
    };
    replace(&layout.staging(), &layout.format(), &record::encode_pretty(&format))
}

/// Returns what `FORMAT` says, which is of this version, or of the one before, which had no sums.
fn check_format(root: &Path, bytes: &[u8]) -> Result<Format> {
    let not_a_store = |reason: String| Error::NotAStore {
        path: root.to_owned(),
        reason: format!("FORMAT {reason}"),
    };
    let is_older = |format: &Format| format.version == VERSION_WITHOUT_SUMS;
    let older = serde_json::from_slice(bytes).ok().filter(is_older);
    let format: Format = match older {
        Some(format) => format,
        None => record::checked(bytes)
            .and_then(|text| serde_json::from_slice(text).map_err(|error| error.to_string()))
            .map_err(|reason| {
                not_a_store(format!("is damaged: {reason}; 'strata fsck --repair' mends it"))
            })?,
    };
    if format.format != FORMAT_NAME {
        return Err(not_a_store(format!("says {:?}", format.format)));
    }
    let unknown = format.ro_compat.iter().filter(|name| *name != INLINE_16K);
    let features: Vec<String> = format.incompat.iter().chain(unknown).cloned().collect();
    let is_known = [VERSION, VERSION_WITHOUT_SUMS].contains(&format.version);
    if !is_known || !features.is_empty() {
        return Err(Error::UnknownFormat {
            path: root.to_owned(),
            found: format.version,
            expected: VERSION,
            features,
        });
    }
    Ok(format)
}
