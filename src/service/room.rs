//! A disk without room: what is said besides, to the person whose command needed some.
//!
//! The error of the call says what was being written. This adds how much is free, how much more is
//! needed where that is known, and what would give some back.

use std::error::Error as StdError;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::service::Strata;
use crate::service::error::{Error, Result};
use crate::sys::{self, Errno, errno_of, is_no_room};

/// The room where the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomLeft {
    /// Bytes that are free to this user.
    pub free_bytes: u64,
    /// Files that can still be made; none where the file system does not count them.
    pub free_files: Option<u64>,
    /// What is used up is not the disk but what a quota allows.
    pub is_quota: bool,
    /// Bytes that are still to be written at least, where it is known.
    pub needed_bytes: Option<u64>,
    /// What `image prune -a` would give back.
    pub images_bytes: u64,
    /// What `container prune` would give back.
    pub containers_bytes: u64,
}

impl Strata {
    /// Returns an error with what there is to say about the room where the store is, if it is for want of
    /// room there that something was not done.
    pub fn telling_room(&self, error: Error) -> Error {
        self.telling_room_for(error, None)
    }

    /// Does the same, and says how many bytes are still to be written at least.
    pub(crate) fn telling_room_for(&self, error: Error, needed_bytes: Option<u64>) -> Error {
        let errno = match no_room(&error) {
            Some((errno, path)) if path.is_none_or(|path| path.starts_with(self.root())) => errno,
            _ => return error,
        };
        match self.room_left(errno, needed_bytes) {
            Ok(room) => Error::NoRoom { room: Box::new(room), source: Box::new(error) },
            Err(also) => {
                tracing::warn!("{also}");
                error
            }
        }
    }

    fn room_left(&self, errno: Errno, needed_bytes: Option<u64>) -> Result<RoomLeft> {
        let disk = sys::statfs(sys::open_dir_path(self.root())?.as_fd())?;
        let (_, images_bytes) = self.room_of_images()?;
        let (containers, _) = self.room_of_containers()?;
        Ok(RoomLeft {
            free_bytes: disk.blocks_available * u64::from(disk.block_size),
            free_files: (disk.files > 0).then_some(disk.files_free),
            is_quota: errno == Errno::EDQUOT,
            needed_bytes,
            images_bytes,
            containers_bytes: containers.reclaimable,
        })
    }
}

impl Error {
    /// Tells whether a disk had no room for what was to be done, and nothing has been said about it yet.
    pub fn is_no_room(&self) -> bool {
        no_room(self).is_some()
    }
}

/// Returns the length of a file; none of what is no file, or cannot be looked at.
pub(crate) fn file_len(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len())
}

/// Returns what says that a disk had no room, and the file that it was met with.
fn no_room(error: &Error) -> Option<(Errno, Option<&Path>)> {
    match error {
        Error::NoRoom { .. } => None,
        error => cause(error).filter(|(errno, _)| is_no_room(*errno)),
    }
}

/// Returns the error number that an error comes from, and the file that it was met with.
fn cause(error: &Error) -> Option<(Errno, Option<&Path>)> {
    let mut path = None;
    let mut at: &(dyn StdError + 'static) = error;
    loop {
        if let Some(error) = at.downcast_ref::<Error>() {
            match error {
                Error::Store(inner) => at = inner,
                Error::Overlay(inner) => at = inner,
                Error::Layer(inner) => at = inner,
                Error::Archive(inner) => at = inner,
                Error::Sys(inner) => at = inner,
                Error::Io { path: met, source, .. } => {
                    path = path.or_else(|| Some(Path::new(met)));
                    at = source;
                }
                other => at = other.source()?,
            }
            continue;
        }
        match at.downcast_ref() {
            Some(crate::store::Error::Io { path: met, .. }) => path = path.or(Some(met)),
            // It was seen before the disk was full.
            Some(crate::store::Error::NoRoom { path: met, .. }) => {
                return Some((Errno::ENOSPC, path.or(Some(met))));
            }
            _ => {}
        }
        if let Some(error) = at.downcast_ref::<sys::Error>() {
            return Some((error.errno(), path));
        }
        if let Some(error) = at.downcast_ref::<io::Error>() {
            match (errno_of(error), error.get_ref()) {
                (Some(errno), _) => return Some((errno, path)),
                (None, Some(inner)) => at = inner,
                (None, None) => return None,
            }
            continue;
        }
        at = match at.downcast_ref::<crate::store::Error>() {
            Some(crate::store::Error::Sys(inner)) => inner,
            _ => within(at)?,
        };
    }
}

/// Returns what an error of a lower room stands for, or what has caused it.
fn within<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<crate::overlay::Error>() {
        Some(crate::overlay::Error::Sys(inner)) => return Some(inner),
        Some(crate::overlay::Error::Io(inner)) => return Some(inner),
        Some(crate::overlay::Error::Layer(inner)) => return Some(inner),
        _ => {}
    }
    match error.downcast_ref::<crate::layer::Error>() {
        Some(crate::layer::Error::Sys(inner)) => return Some(inner),
        Some(crate::layer::Error::Io(inner)) => return Some(inner),
        _ => {}
    }
    match error.downcast_ref::<crate::archive::Error>() {
        Some(crate::archive::Error::Io(inner)) => Some(inner),
        Some(crate::archive::Error::Tar(inner)) => Some(inner),
        _ => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> io::Error {
        io::Error::from_raw_os_error(Errno::ENOSPC as i32)
    }

    #[test]
    fn the_cause_is_found_wherever_an_error_comes_from() {
        let call = || sys::Error::new("write(3)", Errno::ENOSPC);
        let of_store = |source| crate::store::Error::Io {
            action: "write",
            path: "/store/file".into(),
            source,
        };
        let at = Some(Path::new("/store/file"));
        let seen =
            || crate::store::Error::NoRoom { needed: 2, free: 1, path: "/store/file".into() };
        for (error, path) in [
            (Error::Store(seen()), at),
            (Error::Layer(io::Error::other(seen()).into()), at),
            (Error::Sys(call()), None),
            (Error::Store(call().into()), None),
            (Error::Store(of_store(full())), at),
            (Error::Store(of_store(call().into())), at),
            (Error::Overlay(call().into()), None),
            (Error::Overlay(full().into()), None),
            (Error::Layer(full().into()), None),
            (Error::Layer(io::Error::other(of_store(full())).into()), at),
            (Error::Archive(crate::archive::Error::Io(io::Error::other(of_store(full())))), at),
            (
                Error::Unpack {
                    blob: "b".to_owned(),
                    source: io::Error::other(of_store(full())).into(),
                },
                at,
            ),
            (
                Error::Io { action: "write", path: "/elsewhere".to_owned(), source: full() },
                Some(Path::new("/elsewhere")),
            ),
        ] {
            assert_eq!(cause(&error), Some((Errno::ENOSPC, path)), "{error:?}");
        }
        assert_eq!(cause(&Error::NoImage("x".to_owned())), None);
    }
}
