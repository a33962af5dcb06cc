//! How much one layer may be, so that a small blob cannot fill the memory or the disk.
//!
//! Two of the limits are for a person to lift: [`Limits`]. The others are what Linux itself can hold,
//! or far more than any program writes; lifting them would help nobody.

/// The most that one layer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its tar, and of its files with the holes in them.
    pub size_bytes: u64,
    /// Names in it: of files, of directories, also of those that no entry describes, and of what it
    /// says is gone. Each takes about 300 bytes of memory while an image is made.
    pub entries: u64,
}

impl Limits {
    /// No limits but those of the index: for what comes from the person who asks.
    pub const NONE: Self = Self { size_bytes: u64::MAX, entries: u64::MAX };

    /// Returns how many bytes the names of a layer may have together, and how many its extended
    /// attributes; equal sets of these count once.
    pub(crate) const fn text_bytes(self) -> u64 {
        self.entries.saturating_mul(TEXT_BYTES)
    }
}

impl Default for Limits {
    /// Returns limits that no image in use comes near.
    fn default() -> Self {
        Self { size_bytes: 128 << 30, entries: 4_000_000 }
    }
}

/// What a layer has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// [`Limits::size_bytes`].
    Size,
    /// [`Limits::entries`].
    Entries,
    /// Bytes of the blob, which [`Limits::size_bytes`] limits too.
    Blob,
    /// Bytes of a file of an archive, which [`Limits::size_bytes`] limits too.
    File,
    /// Bytes of names, which [`Limits::entries`] limits too.
    Names,
    /// Bytes of extended attributes, which [`Limits::entries`] limits too.
    Xattrs,
}

impl std::fmt::Display for Excess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Size => "bytes uncompressed",
            Self::Blob => "bytes compressed",
            Self::File => "bytes",
            Self::Entries => "files and directories",
            Self::Names => "bytes of names",
            Self::Xattrs => "bytes of extended attributes",
        })
    }
}

/// Bytes of names, and of extended attributes, for each entry that is allowed.
const TEXT_BYTES: u64 = 64;

/// Longest name of a file (`NAME_MAX`).
pub(crate) const NAME_MAX: usize = 255;
/// Longest path of an entry, and longest target of a hard link: 16 times what a program can say to
/// Linux at once (`PATH_MAX`), since a tree may be made step by step.
pub(crate) const PATH_BYTES_MAX: usize = 64 << 10;
/// Longest target of a symbolic link (`PATH_MAX` without the zero at its end).
pub(crate) const LINK_TARGET_MAX: usize = 4095;
/// Longest extension records before one entry, together.
pub(crate) const EXTENSION_MAX: u64 = 1 << 20;
/// Most pieces of a sparse file.
pub(crate) const SEGMENTS_MAX: usize = 1_000_000;
/// Largest sparse file: its zeros are hashed like any bytes.
pub(crate) const SPARSE_MAX: u64 = 1 << 40;
/// Longest name of an extended attribute (`XATTR_NAME_MAX`).
pub(crate) const XATTR_NAME_MAX: usize = 255;
/// Longest value (`XATTR_SIZE_MAX`).
pub(crate) const XATTR_SIZE_MAX: usize = 64 << 10;
/// Most bytes that the names of the attributes of one file have, with a zero behind each
/// (`XATTR_LIST_MAX`).
pub(crate) const XATTR_LIST_MAX: usize = 64 << 10;
/// How many symbolic links a path may lead through, as in the kernel.
pub(crate) const LINKS_MAX: usize = 40;
/// How many parts of paths may be walked in the targets of symbolic links, for all entries together:
/// a few seconds' worth. A layer that puts each of a million files below a link comes to some three
/// millions.
pub(crate) const LINK_STEPS_MAX: u64 = 1 << 26;
