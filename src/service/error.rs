//! Why a verb did not do what it was asked.
//!
//! Where docker has a text for the same fault, `Display` is that text: people search for it.

use std::io;
use std::path::PathBuf;

use crate::digest::DiffId;
use crate::layer::Excess;
use crate::service::RoomLeft;

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a verb did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image has this name or id.
    #[error("No such image: {0}")]
    NoImage(String),
    /// What was typed can be neither the name of an image nor the beginning of an id.
    #[error(transparent)]
    ImageName(crate::image::Error),
    /// No container has this name or id.
    #[error("No such container: {0}")]
    NoContainer(String),
    /// A tree has nothing at a path.
    #[error("Could not find the file {path} in {tree}")]
    NoPath {
        /// The path.
        path: String,
        /// The image or container.
        tree: String,
    },
    /// A directory is where a file was expected.
    #[error("{0} is a directory; list it with 'strata ls', or copy it with 'strata cp'")]
    IsADirectory(String),
    /// Neither a regular file nor a directory.
    #[error("{0} is not a regular file, so it has no content; see 'strata ls -l'")]
    NoContent(String),
    /// Neither side of a copy is in a container.
    #[error("must specify at least one container source")]
    NothingToCopy,
    /// A side of a copy is the empty word.
    #[error("{0} can not be empty")]
    EmptyPath(&'static str),
    /// A copy was to go into an image.
    #[error(
        "{0} is an image, which never changes; make a container of it with 'strata create --name \
         NAME {0}', copy into NAME, and make an image of that with 'strata commit NAME'"
    )]
    CopyToImage(String),
    /// A copy was to go into a snapshot.
    #[error("{0} is a snapshot, which never changes; 'strata undo' puts its container back to it")]
    CopyToSnapshot(String),
    /// A copy was to go into a container that is mounted read-only.
    #[error("container rootfs is marked read-only: {name} is mounted so at {target}")]
    ReadOnlyContainer {
        /// The container.
        name: String,
        /// Where.
        target: PathBuf,
    },
    /// A copy was to go through a mount that cannot be seen.
    #[error(
        "{name} is mounted at {target}, but that mount cannot be reached from here; unmount it, or \
         copy to where it is"
    )]
    MountOutOfReach {
        /// The container.
        name: String,
        /// Where.
        target: PathBuf,
    },
    /// A directory was to be copied to where a file is.
    #[error("cannot copy directory: {0} is not a directory")]
    CopyDirectory(String),
    /// A file was to be copied into a directory that does not exist.
    #[error("no such directory: {0}")]
    NoSuchDirectory(String),
    /// The directory that a copy would be made in does not exist.
    #[error("invalid output path: directory {0:?} does not exist")]
    NoOutputDirectory(PathBuf),
    /// A copy was to go over something that is neither a file nor a directory.
    #[error("destination {0:?} must be a directory or a regular file")]
    OutputKind(String),
    /// An archive is unpacked into a directory only.
    #[error("destination {0:?} must be a directory")]
    OutputNoDirectory(String),
    /// What was said to be a directory is none.
    #[error("{0} is not a directory")]
    NotADirectory(String),
    /// A directory is where a file would be.
    #[error("cannot overwrite directory {0:?} with non-directory")]
    OverwriteDirectory(String),
    /// Something else is where a directory would be; a symbolic link too.
    #[error("cannot overwrite non-directory {0:?} with directory")]
    OverwriteWithDirectory(String),
    /// A path of an archive leads through something that is no directory.
    #[error("{0} is not a directory at the destination, and no symbolic link is followed there")]
    NotFollowed(String),
    /// A directory would be copied into itself without end.
    #[error("cannot copy a directory, {path}, into itself")]
    IntoItself {
        /// The directory.
        path: String,
    },
    /// A file could not be written.
    #[error("copy to {path}")]
    Copy {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: Box<Self>,
    },
    /// Something is where a copy would go.
    #[error("{} exists: choose another path", .0.display())]
    Exists(std::path::PathBuf),
    /// Links lead to links without end.
    #[error("{0} leads through more than 40 symbolic links")]
    LinkLoop(String),
    /// An image is to be unpinned that is not pinned.
    #[error("{0} is not pinned")]
    NotPinned(String),
    /// A filter of a prune only means something for images with names.
    #[error("the filter {0}= is about images with names: say --all as well")]
    NeedsAll(&'static str),
    /// A container is to get the name that it has.
    #[error("the container has the name {0} already")]
    SameName(String),
    /// Neither an image nor a container has this name or id.
    #[error("No such object: {0}")]
    NoObject(String),
    /// The registry has nothing under the name.
    #[error("no such manifest: {0}")]
    NoManifest(String),
    /// A list has no such filter.
    #[error("invalid filter '{0}'")]
    UnknownFilter(String),
    /// A filter cannot have this value.
    #[error("invalid filter '{0}=[{1}]'")]
    FilterValue(String, String),
    /// A filter by time has a value that is none.
    #[error("failed to parse value as time or duration: {0:?}")]
    FilterTime(String),
    /// A pattern of names cannot be read.
    #[error("syntax error in pattern")]
    Pattern,
    /// Nothing was said that could change an image.
    #[error("nothing to change of {0}: say what, as --env NAME=VALUE; see 'strata mutate --help'")]
    NothingToChange(String),
    /// An image has no such layer.
    #[error(
        "{image} has no layer {layer}: it has {count}; say a number or the beginning of a diffID, as \
         'strata layers' shows them"
    )]
    NoLayer {
        /// The image.
        image: String,
        /// What was asked for.
        layer: String,
        /// How many layers it has.
        count: usize,
    },
    /// An image was not made of the base that was named.
    #[error("{image} is not made of {base}: {reason}; see 'strata inspect' for the layers of both")]
    NotItsBase {
        /// The image.
        image: String,
        /// What was taken for its base.
        base: String,
        /// What is different.
        reason: String,
    },
    /// There is nothing above a layer.
    #[error("layer {layer} is the top of {image}: nothing is above it that could be squashed")]
    NothingToSquash {
        /// The image.
        image: String,
        /// The layer.
        layer: usize,
    },
    /// The prefix of an id fits several.
    #[error("{0} is ambiguous: {1} ids begin with it; give more digits")]
    Ambiguous(String, usize),
    /// An index has no image for the platform.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(String),
    /// The one image there is is for another platform.
    #[error(
        "image with reference {reference} was found but does not match the specified platform: \
         wanted {wanted}, actual: {actual}"
    )]
    OtherPlatform {
        /// The image.
        reference: String,
        /// The platform that was asked for.
        wanted: String,
        /// The platform of the image.
        actual: String,
    },
    /// An index led to something that is no manifest.
    #[error("{0} is an index inside of an index, which is not supported")]
    NestedIndex(String),
    /// A blob is not what its digest says.
    #[error("{what} hashes to {actual}, expected {expected}; the registry or a proxy damages it")]
    WrongDigest {
        /// Which blob.
        what: String,
        /// What was expected.
        expected: String,
        /// What came.
        actual: String,
    },
    /// A layer is not what the configuration says.
    #[error("layer {blob} unpacks to {actual}, the image says {expected}; the image is damaged")]
    WrongLayer {
        /// The blob.
        blob: String,
        /// What the image says.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// A layer could not be unpacked.
    #[error("layer {blob}")]
    Unpack {
        /// The blob.
        blob: String,
        /// Why.
        #[source]
        source: crate::layer::Error,
    },
    /// A layer is larger than layers of others may be.
    #[error(
        "{blob}: it has {found} {what} or more, {most} are allowed; allow more with {option} or \
         {variable}"
    )]
    TooLarge {
        /// The layer.
        blob: String,
        /// Of what it has too much.
        what: Excess,
        /// How much was found.
        found: u64,
        /// What is allowed.
        most: u64,
        /// The option that allows more.
        option: &'static str,
        /// The variable that does.
        variable: &'static str,
    },
    /// Nothing with this name can be pushed.
    #[error("An image does not exist locally with the tag: {0}")]
    NothingToPush(String),
    /// The tag cannot be pushed.
    #[error("tag does not exist: {0}")]
    NoTag(String),
    /// The image is used by a container.
    #[error(
        "conflict: unable to remove repository reference \"{name}\" (must force) - container \
         {container} is using its referenced image {image}"
    )]
    UsedByContainer {
        /// The name of the image.
        name: String,
        /// The container.
        container: String,
        /// The image.
        image: String,
    },
    /// The image is used by a container and was named by its id.
    #[error(
        "conflict: unable to delete {image} ({how}) - image is being used by {state} container \
         {container}"
    )]
    InUse {
        /// The image.
        image: String,
        /// Whether force helps.
        how: &'static str,
        /// Whether the container is mounted.
        state: &'static str,
        /// The container.
        container: String,
    },
    /// The image was named by its id and has several names.
    #[error(
        "conflict: unable to delete {0} (must be forced) - image is referenced in multiple \
         repositories"
    )]
    SeveralNames(String),
    /// The image does not have the name.
    #[error("{name} is not a name of {image}; 'strata inspect {image}' shows its RepoTags")]
    OtherName {
        /// The name.
        name: String,
        /// The image as it was asked for.
        image: String,
    },
    /// A container is mounted and would have to be unmounted first.
    #[error(
        "cannot remove container \"/{name}\": container is mounted at {target}: unmount it before \
         removing or force remove"
    )]
    ContainerMounted {
        /// The container.
        name: String,
        /// Where.
        target: PathBuf,
    },
    /// A container has no snapshot of this name.
    #[error("{container} has no snapshot {name}; see 'strata snapshots {container}'")]
    NoSnapshot {
        /// The container.
        container: String,
        /// The name.
        name: String,
    },
    /// A container has no snapshot that a person took.
    #[error("{0} has no snapshot to go back to; 'strata snapshot {0}' takes one")]
    NothingToUndo(String),
    /// A name that a snapshot cannot have.
    #[error(
        "Invalid snapshot name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 128 characters at \
         most"
    )]
    SnapshotName(String),
    /// The mount of an image has nothing that could be kept.
    #[error("{0} is an image that is mounted read-only: it has no writable layer to keep")]
    NoWritableLayer(String),
    /// A container is mounted by a command that would end.
    #[error(
        "{name} is mounted at {target} by 'strata mount --foreground', process {pid}, which would end: \
         unmount it with 'strata umount {target}', undo, and mount it again"
    )]
    ServedInForeground {
        /// The container.
        name: String,
        /// Where.
        target: PathBuf,
        /// The process.
        pid: i32,
    },
    /// Something was changed in a container all the time while it was to be committed.
    #[error(
        "{name} is being changed ({path} and perhaps others), so there is no state of it that could be \
         recorded; stop what writes to it, or unmount it"
    )]
    KeepsChanging {
        /// The container.
        name: String,
        /// What has changed.
        path: PathBuf,
    },
    /// Nothing of ours is mounted there.
    #[error("{0} is not a mount of strata")]
    NotMounted(String),
    /// A mount is in use.
    #[error(
        "{target} is in use; leave it (see 'fuser -vm {target}') or detach it with \
         'strata umount --lazy {target}'"
    )]
    MountBusy {
        /// The mount point.
        target: PathBuf,
    },
    /// The process that served a mount did not end.
    #[error("process {pid}, which served {target}, has not ended yet; see {log}")]
    StillServing {
        /// The process.
        pid: i32,
        /// The mount point.
        target: PathBuf,
        /// What it has to say.
        log: PathBuf,
    },
    /// The server of a mount stays.
    #[error("the server is not replaced, and goes on: {0}")]
    NotReplaced(String),
    /// The servers of a mount die as fast as they are started.
    #[error(
        "{servers} servers of {target} one after the other have died and answered nothing; the mount is given up: \
         clear it with 'strata umount {target}'"
    )]
    Hopeless {
        /// The mount point.
        target: PathBuf,
        /// How many.
        servers: u32,
    },
    /// A name that a container cannot have.
    #[error(
        "Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters \
         at least"
    )]
    ContainerName(String),
    /// A file that a layer cannot hold.
    #[error("{path} cannot be put into a layer: {reason}")]
    CannotPack {
        /// The file.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// An option of an overlay mount is not understood.
    #[error("option {option:?}: {reason}")]
    StackOption {
        /// The option.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A store is to be mended by another user than its owner, to whom what is made would not belong.
    #[error("the store belongs to user {owner}, and this is user {user}: repair it as its owner")]
    OthersStore {
        /// The owner.
        owner: u32,
        /// Who wants to mend it.
        user: u32,
    },
    /// SOURCE_DATE_EPOCH holds no number.
    #[error("SOURCE_DATE_EPOCH is {0:?}, expected seconds since 1970")]
    SourceDateEpoch(String),
    /// There is no room where the store is.
    #[error("no room is left where the store is")]
    NoRoom {
        /// What is free, needed, and to be won.
        room: Box<RoomLeft>,
        /// What could not be written.
        #[source]
        source: Box<Self>,
    },
    /// A file or a stream cannot be read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is to be loaded is no archive of images, or a damaged one.
    #[error("invalid archive {path}")]
    InvalidArchive {
        /// Where it came from.
        path: String,
        /// What is wrong with it.
        #[source]
        source: crate::archive::Error,
    },
    /// An archive.
    #[error(transparent)]
    Archive(#[from] crate::archive::Error),
    /// A thread ended in a panic.
    #[error("a thread ended in a panic while {0}")]
    Panicked(&'static str),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A document of an image.
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] crate::layer::Error),
    /// The union of an image and its changes.
    #[error(transparent)]
    Overlay(#[from] crate::overlay::Error),
    /// The mount.
    #[error(transparent)]
    Mount(#[from] crate::fuse::Error),
    /// Measuring.
    #[error(transparent)]
    Bench(#[from] crate::bench::Error),
    /// Git, which makes a repository to measure with.
    #[error("git {words}: {said}")]
    Git {
        /// What it was to do.
        words: String,
        /// What it said.
        said: String,
    },
    /// A system call.
    #[error(transparent)]
    Sys(#[from] crate::sys::Error),
}

impl From<io::Error> for Error {
    /// Finds the error of a room that a reader has carried through the standard library.
    fn from(error: io::Error) -> Self {
        let error = match error.downcast::<crate::registry::Error>() {
            Ok(error) => return Self::Registry(error),
            Err(error) => error,
        };
        let error = match error.downcast::<crate::layer::Error>() {
            Ok(error) => return Self::from(error),
            Err(error) => error,
        };
        let error = match error.downcast::<crate::store::Error>() {
            Ok(error) => return Self::Store(error),
            Err(error) => error,
        };
        match error.downcast::<crate::overlay::Error>() {
            Ok(error) => Self::Overlay(error),
            Err(source) => Self::Layer(crate::layer::Error::Io(source)),
        }
    }
}

impl Error {
    /// Returns the error of a layer that was being unpacked. What broke on the way there is told
    /// instead of the broken unpacking.
    pub(crate) fn unpacking(blob: String, source: crate::layer::Error) -> Self {
        match source {
            crate::layer::Error::Io(error) => match Self::from(error) {
                Self::Layer(source) => Self::Unpack { blob, source },
                other => other,
            },
            crate::layer::Error::Limit { what, found, most } => {
                Self::too_large(blob, what, found, most)
            }
            source => Self::Unpack { blob, source },
        }
    }

    /// Returns the error with its causes.
    pub fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let said = error.to_string();
            // Some causes are told by what they have caused.
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        text
    }

    /// Returns the error of an image whose layers could not be put on each other.
    pub(crate) fn merging(image: &str, source: crate::store::Error) -> Self {
        match source {
            crate::store::Error::Layer {
                source: crate::layer::Error::Limit { what, found, most },
                ..
            } => Self::too_large(image.to_owned(), what, found, most),
            source => Self::Store(source),
        }
    }

    /// Returns the error of what is larger than is allowed, with how to allow it.
    pub(crate) fn too_large(blob: String, what: Excess, found: u64, most: u64) -> Self {
        let (option, variable) = match what {
            Excess::Size | Excess::Blob | Excess::File => {
                ("--max-layer-size", "STRATA_MAX_LAYER_SIZE")
            }
            Excess::Entries | Excess::Names | Excess::Xattrs => {
                ("--max-entries", "STRATA_MAX_ENTRIES")
            }
        };
        Self::TooLarge { blob, what, found, most, option, variable }
    }
}

/// Returns what was found out about a file that was listed; none if it has gone since. In a container
/// that is mounted programs may be working, and that is no error of who looks at it.
pub(crate) fn if_there<T, E: Into<Error>>(result: std::result::Result<T, E>) -> Result<Option<T>> {
    match result.map_err(Into::into) {
        Err(Error::Overlay(error)) if error.is_gone() => Ok(None),
        other => other.map(Some),
    }
}

/// Gives an I/O error the action and the file that it was met with.
pub(crate) fn io_error(
    action: &'static str,
    path: impl Into<String>,
) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}
