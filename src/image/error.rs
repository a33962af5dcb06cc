//! What can be wrong with the documents of an image.
//!
//! Where docker has a text for the same fault, `Display` is that text: scripts match it.

use crate::digest::ParseDigestError;

/// The result of reading a document of an image.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a document of an image is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not a reference.
    #[error("invalid reference format")]
    ReferenceFormat {
        /// The text.
        reference: String,
    },
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({repository}) must be lowercase")]
    ReferenceCase {
        /// The repository, after the default prefix was put in front.
        repository: String,
    },
    /// The whole reference is 64 hex digits, which would read as an image id.
    #[error("invalid repository name ({reference}), cannot specify 64-byte hexadecimal strings")]
    ReferenceIsId {
        /// The text.
        reference: String,
    },
    /// The repository's path is longer than a registry takes.
    #[error("repository name must not be more than {limit} characters")]
    ReferenceLength {
        /// The path.
        repository: String,
        /// The longest that is allowed.
        limit: usize,
    },
    /// The reference has a digest that is not a sha256.
    #[error("reference {reference:?} has a digest that cannot be used")]
    ReferenceDigest {
        /// The text.
        reference: String,
        /// What is wrong with the digest.
        source: ParseDigestError,
    },
    /// The text is not a tag.
    #[error("invalid tag format")]
    TagFormat {
        /// The text.
        tag: String,
    },
    /// The text is not a platform.
    #[error("{platform:?} is not a platform: expected os[/architecture[/variant]]")]
    PlatformFormat {
        /// The text.
        platform: String,
    },
    /// A document has more values than any image has.
    #[error("{document} has more than {limit} values, which no image has")]
    TooManyValues {
        /// What it is.
        document: &'static str,
        /// The most.
        limit: usize,
    },
    /// A single word that is neither an operating system nor an architecture.
    #[error("{platform:?}: unknown operating system or architecture")]
    PlatformUnknown {
        /// The word.
        platform: String,
    },
    /// The document is not JSON, or a field is missing or has the wrong type.
    #[error("{document} cannot be read")]
    Json {
        /// Which document: "manifest", "image config".
        document: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The document is larger than strata takes into memory.
    #[error("{document} has {found_bytes} bytes: expected at most {limit_bytes}")]
    TooLarge {
        /// Which document.
        document: &'static str,
        /// Its size.
        found_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The document can be read as a manifest and as an index (CVE-2021-41190).
    #[error(
        "manifest is ambiguous: it has {first:?} and {second:?}, one of a manifest, one of an index"
    )]
    Ambiguous {
        /// A field of one kind.
        first: &'static str,
        /// A field of the other.
        second: &'static str,
    },
    /// The document is a docker schema 1 manifest.
    #[error(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been \
         removed. More information at https://docs.docker.com/go/deprecated-image-specs/"
    )]
    Schema1,
    /// The document has a schema version that no specification defines.
    #[error("manifest has schema version {found}: expected 2")]
    SchemaVersion {
        /// The version.
        found: i64,
    },
    /// The document is neither a manifest nor an index.
    #[error("document of type {media_type:?} is neither an image manifest nor an image index")]
    NotAManifest {
        /// Its media type, empty where it has none.
        media_type: String,
    },
    /// The manifest is that of something else than a container image.
    #[error("not a container image: the config has media type {media_type:?}")]
    NotAnImage {
        /// The config's media type.
        media_type: String,
    },
    /// A layer has a type that strata cannot unpack.
    #[error("layer media type {media_type:?} is not supported: expected a tar, gzip or zstd layer")]
    LayerType {
        /// The media type.
        media_type: String,
    },
    /// The config's file system is not a stack of layers.
    #[error("image config has rootfs type {found:?}: expected \"layers\"")]
    RootFsType {
        /// The type.
        found: String,
    },
    /// Config and manifest disagree.
    #[error("image config names {config} layers: the manifest has {manifest}")]
    LayerCount {
        /// How many diff ids the config has.
        config: usize,
        /// How many layers the manifest has.
        manifest: usize,
    },
    /// A `--change` instruction that cannot change an image.
    #[error("{0} is not a valid change command")]
    ChangeCommand(String),
    /// A `--change` instruction with a fault in it.
    #[error("{instruction}: {reason}")]
    Change {
        /// The instruction's name, upper case.
        instruction: String,
        /// What is wrong.
        reason: String,
    },
}
