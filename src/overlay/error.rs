//! What goes wrong in the union, and the one place where that becomes a number.

use std::io;

use crate::layer::Kind;
use crate::sys::Errno;

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// What goes wrong in the union. Most of these are ordinary answers to a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such name.
    #[error("no such file")]
    NotFound,
    /// There is such a name already.
    #[error("the name exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Anything but a directory was needed.
    #[error("a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The mount has no upper.
    #[error("the mount is read-only")]
    ReadOnly,
    /// The extended attribute is not set.
    #[error("the extended attribute is not set")]
    NoXattr,
    /// The buffer is too small for the answer.
    #[error("the answer is longer than the buffer")]
    TooSmall,
    /// The inode or handle is not known, or not any more.
    #[error("inode {0} is not known")]
    Stale(u64),
    /// A handle is used for what it was not opened for.
    #[error("the handle is not open for this")]
    BadHandle,
    /// The arguments make no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// It is not allowed here.
    #[error("{0}")]
    NotPermitted(&'static str),
    /// The name has more than 255 bytes.
    #[error("the name is too long")]
    NameTooLong,
    /// It is there, and has a mark that leads elsewhere and is not to be followed: a directory, or a
    /// file whose content the mark leads to.
    #[error("redirects are not followed here")]
    Refused(Kind),
    /// The file system cannot do it.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The file system can do nothing of the kind; the kernel does not ask again.
    #[error("{0}")]
    Absent(&'static str),
    /// Changes were lost on their way to the disk, now or earlier in this mount.
    #[error("changes were lost on their way to the disk")]
    Lost,
    /// A file has attributes, and its content is in no layer.
    #[error("the content of a file is in no layer")]
    NoContent,
    /// A lower layer is damaged.
    #[error(transparent)]
    Layer(#[from] crate::layer::Error),
    /// A system call on the upper was refused.
    #[error(transparent)]
    Sys(#[from] crate::sys::Error),
    /// Reading or writing a file did not succeed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The directories of the mount cannot be used for one.
    #[error("{0}")]
    Setup(String),
    /// Another mount uses the work directory.
    #[error("{0} is in use by another mount; a writable layer can be mounted once at a time")]
    InUse(std::path::PathBuf),
}

impl Error {
    /// Returns the error number that a program gets.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotFound => Errno::ENOENT,
            Self::Exists => Errno::EEXIST,
            Self::NotDirectory => Errno::ENOTDIR,
            Self::IsDirectory => Errno::EISDIR,
            Self::NotEmpty => Errno::ENOTEMPTY,
            Self::ReadOnly => Errno::EROFS,
            Self::NoXattr => Errno::ENODATA,
            Self::TooSmall => Errno::ERANGE,
            Self::Stale(_) => Errno::ESTALE,
            Self::BadHandle => Errno::EBADF,
            Self::Invalid(_) => Errno::EINVAL,
            Self::NotPermitted(_) | Self::Refused(_) => Errno::EPERM,
            Self::NameTooLong => Errno::ENAMETOOLONG,
            Self::Unsupported(_) => Errno::EOPNOTSUPP,
            Self::Absent(_) => Errno::ENOSYS,
            Self::Layer(_) | Self::Setup(_) | Self::Lost | Self::NoContent => Errno::EIO,
            Self::InUse(_) => Errno::EBUSY,
            Self::Sys(error) => error.errno(),
            Self::Io(error) => error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
        }
    }

    /// Returns what is there that nobody may have, if that is the reason.
    pub(crate) fn refused_kind(&self) -> Option<Kind> {
        match self {
            Self::Refused(kind) => Some(*kind),
            Self::NoContent => Some(Kind::Regular),
            _ => None,
        }
    }

    /// Tells whether what was asked for has gone: a file that was listed and that somebody has removed,
    /// renamed or replaced since.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::NotFound | Self::Stale(_) => true,
            Self::Sys(_) | Self::Io(_) => matches!(self.errno(), Errno::ENOENT | Errno::ESTALE),
            _ => false,
        }
    }

    /// Tells whether this is a fault of the file system and not an answer to a question.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Layer(_) | Self::Setup(_) | Self::InUse(_) | Self::Lost | Self::NoContent => true,
            Self::Sys(_) | Self::Io(_) => {
                matches!(self.errno(), Errno::EIO | Errno::EBADF | Errno::EMFILE | Errno::ENFILE)
            }
            Self::NotFound
            | Self::Exists
            | Self::NotDirectory
            | Self::IsDirectory
            | Self::NotEmpty
            | Self::ReadOnly
            | Self::NoXattr
            | Self::TooSmall
            | Self::Stale(_)
            | Self::BadHandle
            | Self::Invalid(_)
            | Self::NotPermitted(_)
            | Self::Refused(_)
            | Self::NameTooLong
            | Self::Unsupported(_)
            | Self::Absent(_) => false,
        }
    }
}

/// Returns what was found out about a file that was listed; none if it has gone since. Who only looks at
/// a tree does so perhaps while programs work in its mount.
pub(crate) fn if_there<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.is_gone() => Ok(None),
        other => other.map(Some),
    }
}
