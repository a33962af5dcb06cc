//! What goes wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{DiffId, Digest};
use crate::sys::{errno_of, is_no_room};

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// What goes wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory holds something else.
    #[error("{path} is not a strata store: {reason}")]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A newer program has made the store.
    #[error(
        "the store at {path} has format version {found} with features {features:?}, this strata \
         knows version {expected} and none of them; use a newer strata"
    )]
    UnknownFormat {
        /// The directory.
        path: PathBuf,
        /// The version of the store.
        found: u32,
        /// The version that this program knows.
        expected: u32,
        /// Features that must be understood.
        features: Vec<String>,
    },
    /// A file of the store does not hold what its name says.
    #[error(
        "{path} is damaged: it hashes to {actual}; 'strata fsck --repair' mends what can be mended, \
         and so does pulling the image again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What its content hashes to.
        actual: Digest,
    },
    /// A record of the store is not what was written.
    #[error("{path} is damaged: {reason}; 'strata fsck --repair' mends what can be mended")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The claims of a running process cannot be read.
    #[error(
        "lease {path} of a running process is damaged: what it uses is not known, so nothing is \
         collected until it ends"
    )]
    Lease {
        /// The file.
        path: PathBuf,
    },
    /// An older program has made the store, and is using it.
    #[error(
        "the store at {path} is of format version {found}, and processes of an older strata use it: \
         end them (unmount with 'fusermount3 -u DIR'), and try again"
    )]
    OlderInUse {
        /// The directory.
        path: PathBuf,
        /// The version of the store.
        found: u32,
    },
    /// Somebody else checks the store.
    #[error("{path} is being checked by another 'strata fsck'; wait until that has ended")]
    BeingChecked {
        /// The store.
        path: PathBuf,
    },
    /// A layer was damaged beyond repair, and set apart.
    #[error(
        "layer {layer} is damaged and was set apart; {} brings it back",
        way_back(.images)
    )]
    SetApart {
        /// The layer.
        layer: DiffId,
        /// The names under which registries have it.
        images: Vec<String>,
    },
    /// A layer is not in the store.
    #[error("layer {0} is not in the store")]
    NoLayer(DiffId),
    /// A blob is not in the store.
    #[error("blob {0} is not in the store")]
    NoBlob(Digest),
    /// An object that a new layer needs went away while the layer was made.
    #[error("object {0} went away while a layer that needs it was being made; try again")]
    ObjectVanished(Digest),
    /// The disk has no room for what is to be written.
    #[error(
        "no room: {needed} more bytes would be written below {path}, whose file system has room for \
         {free}; make room, or use another store with --root"
    )]
    NoRoom {
        /// What is needed.
        needed: u64,
        /// What may still be written.
        free: u64,
        /// Where.
        path: PathBuf,
    },
    /// The name of a container is taken.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You \
         have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The container that has it.
        id: String,
    },
    /// The name of a snapshot is taken.
    #[error(
        "{container} has a snapshot {name} already; give another name, or remove that one with \
         'strata container snapshot rm {container} {name}'"
    )]
    SnapshotTaken {
        /// The container, by its name.
        container: String,
        /// The name.
        name: String,
    },
    /// A container is mounted by another process.
    #[error("container {id} is in use{}", .by.as_ref().map(|by| format!(": {by}")).unwrap_or_default())]
    Busy {
        /// The container.
        id: String,
        /// Who uses it, as far as it is known.
        by: Option<String>,
    },
    /// A layer or chain is damaged.
    #[error("{path}")]
    Layer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: crate::layer::Error,
    },
    /// A manifest or configuration cannot be read.
    #[error("image {digest}")]
    Image {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: crate::image::Error,
    },
    /// A system call was refused.
    #[error(transparent)]
    Sys(#[from] crate::sys::Error),
    /// Reading or writing did not succeed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Returns what gets something again that images have; of these a registry knows the names.
pub(crate) fn way_back(images: &[String]) -> String {
    match images {
        [] => "'strata load' or 'strata pull' of an image that has it".to_owned(),
        [name, ..] => format!("'strata pull {name}', or 'strata load' of an archive that has it,"),
    }
}

impl Error {
    /// Tells whether the disk has no room for what was to be done.
    pub(crate) fn is_no_room(&self) -> bool {
        let errno = match self {
            Self::NoRoom { .. } => return true,
            Self::Sys(error) => Some(error.errno()),
            Self::Io { source, .. } => errno_of(source),
            _ => None,
        };
        errno.is_some_and(is_no_room)
    }
}

/// Gives an I/O error the action and the file that it was met with.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// Gives an error of a layer the file that it was met in.
pub(crate) fn layer_error(path: &Path) -> impl FnOnce(crate::layer::Error) -> Error {
    move |source| Error::Layer { path: path.to_owned(), source }
}
