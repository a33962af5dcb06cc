//! What goes wrong with a layer: a damaged file, a tar that cannot be represented, the disk.

use std::io;

use crate::digest::{DiffId, Digest};
use crate::layer::limits::Excess;

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// What goes wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An index does not hold what its header or its records say.
    #[error("index is damaged: {0}")]
    Damaged(&'static str),
    /// An index was written by a version or with features that this program does not know.
    #[error("index has {what} {found}, expected {expected}; a newer strata wrote it")]
    Unknown {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u32,
        /// What this program knows.
        expected: u32,
    },
    /// The recipe of a tar does not fit its layer.
    #[error("tar recipe is damaged: {0}")]
    Recipe(&'static str),
    /// The tar is not one: cut short, or a header is wrong.
    #[error("not a valid tar archive: {reason} at byte {offset}")]
    Tar {
        /// What is wrong.
        reason: &'static str,
        /// Where, in the uncompressed bytes.
        offset: u64,
    },
    /// The tar is valid, but an entry of it cannot be represented.
    #[error("tar entry {path:?} cannot be represented: {reason}")]
    Entry {
        /// Name of the entry as the tar has it.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A hard link of a layer leads to nothing in the layers below.
    #[error("hard link {path:?} leads to {target:?}, which no layer below has")]
    LowerLink {
        /// The link.
        path: String,
        /// Where it should lead.
        target: String,
    },
    /// A layer is more than is allowed. It was not read on.
    #[error("it has {found} {what} or more, {most} are allowed")]
    Limit {
        /// Of what it has too much.
        what: Excess,
        /// How much was found.
        found: u64,
        /// What is allowed.
        most: u64,
    },
    /// Undoing a compression would take much memory.
    #[error(
        "it is compressed with {form} in a way that takes more than 128 MiB of memory to undo; \
         compress it again with a smaller window"
    )]
    Window {
        /// How it is compressed.
        form: &'static str,
    },
    /// Something is larger than the index can count.
    #[error("too many {0} for one index")]
    TooMany(&'static str),
    /// The content of an object could not be opened.
    #[error("object {digest} cannot be opened")]
    Object {
        /// Name of the object.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The index of a layer could not be opened.
    #[error("layer {layer} cannot be opened")]
    Layer {
        /// Which layer.
        layer: DiffId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call was refused.
    #[error(transparent)]
    Sys(#[from] crate::sys::Error),
    /// Reading or writing did not succeed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
