//! Archives of images: a tar or a directory that holds images with their names, in and out.
//!
//! Read are the archives of docker (of old, with links between equal layers; since 25, an OCI layout
//! with docker's documents beside it), of skopeo, podman and buildah, and OCI layouts. Written is what
//! docker writes since 25, which all of them read.
//!
//! This room knows what is in an archive, and where. It does not know the store: what becomes of a
//! file is for the caller to say, who may read the archive only once ([`scan`]) or anywhere in it
//! ([`scan_seekable`]), and then answers for its files as a [`Source`].
//!
//! Nothing is extracted, so no name can lead anywhere; a name or link that would lead out of the
//! archive is refused all the same. What an archive says is believed only where it was hashed.

mod contents;
mod document;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod images;
mod name;
mod oci;
#[cfg(test)]
mod tests;
mod write;

pub use contents::{Contents, Keep, Range, scan, scan_seekable};
pub use document::digest_in;
pub use error::{Error, Result};
pub use images::{Archived, ArchivedImage, ArchivedLayer, Source, images};
pub use write::{SavedImage, write};

/// Largest file of an archive that is read as a document.
pub const DOCUMENT_LIMIT_BYTES: u64 = crate::image::CONFIG_LIMIT_BYTES;
/// Most bytes that the documents of an archive have together. Those of its images are in memory at
/// once.
pub const DOCUMENTS_LIMIT_BYTES: u64 = 128 << 20;
