//! What is wrong with an archive.

use std::io;

use crate::digest::{DiffId, Digest};

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing in it.
    #[error("it is empty, expected an archive of images")]
    Empty,
    /// It is an archive of something else.
    #[error(
        "it has neither manifest.json nor index.json, expected an archive of docker save or an OCI \
         layout; the files of one image as a tar are imported by 'strata import'"
    )]
    NotImages,
    /// It has only the documents of a docker before 1.10.
    #[error(
        "it has repositories and no manifest.json: docker before 1.10 wrote it; load and save it \
         with a newer docker"
    )]
    BeforeManifests,
    /// Its documents name no image.
    #[error("{document} names no image")]
    NoImages {
        /// The document.
        document: &'static str,
    },
    /// A document names a file that is not there.
    #[error("{by} names {file:?}, which is not in the archive")]
    Missing {
        /// The document.
        by: String,
        /// The file.
        file: String,
    },
    /// A file has a name that no archive of images has.
    #[error("a file is called {name:?}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A link leads nowhere.
    #[error("{name:?} is a link to {target:?}: {reason}")]
    Link {
        /// The link.
        name: String,
        /// Where it should lead.
        target: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is more of something than any image has.
    #[error("it has more than {limit} {what}, which no images have")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// All documents together are longer than they may be.
    #[error(
        "its documents take more than {limit_bytes} bytes of memory, which those of no images do"
    )]
    Documents {
        /// The most.
        limit_bytes: u64,
    },
    /// A document is longer than one may be.
    #[error("{file} has {found_bytes} bytes, a document has {limit_bytes} at most")]
    DocumentSize {
        /// The document.
        file: String,
        /// Its size.
        found_bytes: u64,
        /// The largest size.
        limit_bytes: u64,
    },
    /// A document cannot be read.
    #[error("{file} cannot be read")]
    Json {
        /// The document.
        file: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A document of an image is not one.
    #[error("{file}")]
    Document {
        /// The document.
        file: String,
        /// What is wrong with it.
        #[source]
        source: crate::image::Error,
    },
    /// A file is not what its digest says.
    #[error("{file} hashes to {actual}, expected {expected}; the archive is damaged")]
    Digest {
        /// The file.
        file: String,
        /// What was expected.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A file is not as long as it should be.
    #[error("{file} has {actual} bytes, expected {expected}; the archive is damaged")]
    Size {
        /// The file.
        file: String,
        /// What was expected.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// A layer is not the one that the image has.
    #[error("layer {file} unpacks to {actual}, the image says {expected}; the archive is damaged")]
    Layer {
        /// The file.
        file: String,
        /// What the image says.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// A layer is no tar, whatever its compression.
    #[error("layer {file} is no tar; the archive is damaged")]
    NoTar {
        /// The file.
        file: String,
    },
    /// An index leads to another index again.
    #[error("{0} is an index inside of an index, which is not supported")]
    NestedIndex(Digest),
    /// An index has no image for the platform.
    #[error("{file} has no image for {wanted}; it has {found}")]
    NoPlatform {
        /// The index.
        file: String,
        /// The platform.
        wanted: String,
        /// The platforms that there are.
        found: String,
    },
    /// An image is for another platform.
    #[error("image {image} is for {actual}, wanted {wanted}")]
    OtherPlatform {
        /// The image.
        image: String,
        /// The platform that was asked for.
        wanted: String,
        /// The platform of the image.
        actual: String,
    },
    /// A layer that is to be saved is not what its name says.
    #[error("layer {expected} hashes to {actual}; pull its image again to repair it")]
    Damaged {
        /// The layer.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// The tar is not one: cut short, or a header is wrong.
    #[error(transparent)]
    Tar(#[from] crate::layer::Error),
    /// Reading or writing did not succeed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
