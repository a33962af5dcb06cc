//! Why a tree could not be mounted.

use std::io;
use std::path::PathBuf;

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a tree could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The option is not known.
    #[error("mount option {0:?} is not known; see 'strata mount --help' for those that are")]
    UnknownOption(String),
    /// The option has a value that is no time.
    #[error("mount option {0:?} needs a number of seconds, such as timeout=1.5")]
    BadTimeout(String),
    /// The option has a value that is no transport.
    #[error("mount option {0:?} is not known; expected transport=auto, dev-fuse or io-uring")]
    BadTransport(String),
    /// The option has a value that says nothing about checking.
    #[error("mount option {0:?} is not known; expected verify=open, always or off")]
    BadVerify(String),
    /// The option has a value that is no way of contents.
    #[error("mount option {0:?} is not known; expected data=auto, cache or passthrough")]
    BadData(String),
    /// The mount point is not there.
    #[error("mount point {0} does not exist; make it with 'mkdir -p {0}'")]
    NoMountPoint(PathBuf),
    /// The mount point is a file.
    #[error("mount point {0} is not a directory")]
    NotADirectory(PathBuf),
    /// The mount point is one whose server died.
    #[error("{0} is a mount whose server has died; clear it with 'strata umount {0}'")]
    DeadMount(PathBuf),
    /// The kernel has no FUSE, or this user may not use it.
    #[error("/dev/fuse cannot be used ({reason}); {advice}")]
    NoFuse {
        /// Why not.
        reason: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The kernel could have it and does not.
    #[error(
        "FUSE over io_uring is off in this kernel; turn it on as root with 'echo Y > {0}', or leave \
         out transport=io-uring"
    )]
    RingsOff(&'static str),
    /// There is no io_uring for FUSE.
    #[error("FUSE over io_uring cannot be used ({0}); leave out transport=io-uring")]
    NoRings(String),
    /// The kernel does not read and write files itself.
    #[error("FUSE passthrough cannot be used ({0}); leave out data=passthrough")]
    NoPassthrough(String),
    /// The kernel forgets what it has asked a server that has died.
    #[error(
        "a mount cannot survive its server here: the kernel can ask again what nobody has answered from \
         Linux 6.9 on; leave out --survive"
    )]
    CannotSurvive,
    /// Only one transport keeps every request.
    #[error(
        "transport=io-uring and --survive exclude each other: the kernel would lose the requests in \
         the hands of a server that dies; leave out one of them"
    )]
    RingsDoNotSurvive,
    /// What the kernel reads and writes itself only the server knows that has given it the files.
    #[error(
        "data=passthrough and --survive exclude each other: a server that goes on after another one does not know \
         which files the kernel reads and writes itself; leave out one of them"
    )]
    PassthroughDoesNotSurvive,
    /// A label was given to a kernel that has none.
    #[error("{0} cannot be used: SELinux is not enabled here; leave the option out")]
    NoLabels(String),
    /// The kernel refused the mount.
    #[error("{target} cannot be mounted: {reason}")]
    Refused {
        /// The mount point.
        target: PathBuf,
        /// What the kernel or its helper said.
        reason: String,
    },
    /// The kernel did not agree on how to talk.
    #[error("the FUSE session with the kernel cannot be opened")]
    Session(#[source] io::Error),
    /// The mount is there but does not answer.
    #[error("{target} is mounted and does not answer")]
    Silent {
        /// The mount point.
        target: PathBuf,
        /// What asking it gave.
        #[source]
        source: io::Error,
    },
    /// The tree cannot be gone on with.
    #[error(transparent)]
    Overlay(#[from] crate::overlay::Error),
    /// What another process hands over is not understood.
    #[error(
        "the process that serves the mount hands over what this version does not understand ({0})"
    )]
    Unknown(String),
    /// A system call was refused.
    #[error(transparent)]
    Sys(#[from] crate::sys::Error),
}
