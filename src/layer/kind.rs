//! What kind of file an inode is.

use crate::sys::mode;

/// What kind of file an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// Returns the kind that the type bits of `st_mode` say; bits that say nothing are a regular
    /// file, as in the kernel's own tables.
    pub const fn of(st_mode: u32) -> Self {
        match st_mode & mode::TYPE {
            mode::DIRECTORY => Self::Directory,
            mode::SYMLINK => Self::Symlink,
            mode::CHARACTER => Self::Character,
            mode::BLOCK => Self::Block,
            mode::FIFO => Self::Fifo,
            mode::SOCKET => Self::Socket,
            _ => Self::Regular,
        }
    }

    /// Returns the type bits of `st_mode`.
    pub const fn mode(self) -> u32 {
        match self {
            Self::Regular => mode::REGULAR,
            Self::Directory => mode::DIRECTORY,
            Self::Symlink => mode::SYMLINK,
            Self::Character => mode::CHARACTER,
            Self::Block => mode::BLOCK,
            Self::Fifo => mode::FIFO,
            Self::Socket => mode::SOCKET,
        }
    }

    /// Returns the `DT_*` of readdir(3).
    #[allow(clippy::cast_possible_truncation, reason = "the type bits shifted down are below 16")]
    pub const fn dirent_type(self) -> u8 {
        (self.mode() >> 12) as u8
    }

    /// Returns the kind of a `DT_*`; none for `DT_UNKNOWN`.
    pub const fn of_dirent(dirent_type: u8) -> Option<Self> {
        match dirent_type {
            0 => None,
            other => Some(Self::of((other as u32) << 12)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_both_encodings() {
        for kind in [
            Kind::Regular,
            Kind::Directory,
            Kind::Symlink,
            Kind::Character,
            Kind::Block,
            Kind::Fifo,
            Kind::Socket,
        ] {
            assert_eq!(Kind::of(kind.mode() | 0o7777), kind);
            assert_eq!(Kind::of_dirent(kind.dirent_type()), Some(kind));
        }
        assert_eq!(Kind::of_dirent(0), None);
    }
}
