//! The bytes of an index file, as named offsets; `docs/store-format.md` is the same in prose.
//!
//! An index is one page of header, the heap, and then tables. All numbers are little endian. Layers
//! and chains have the same form: a layer's inodes keep their contents in its own heap and object
//! table, a chain's inodes say which of its layers keeps them.

use crate::sys::Time;

/// First bytes of every index.
pub(crate) const MAGIC: &[u8; 8] = b"STRATIDX";
/// Version of the format; another one is not read.
pub(crate) const VERSION: u32 = 1;
/// Incompatible features that this program understands: none yet.
pub(crate) const KNOWN_INCOMPAT: u32 = 0;

/// Size of the header page; the heap begins behind it.
pub(crate) const HEADER_BYTES: usize = 4096;

// Header fields.
pub(crate) const H_MAGIC: usize = 0;
pub(crate) const H_VERSION: usize = 8;
pub(crate) const H_KIND: usize = 12;
pub(crate) const H_COMPAT: usize = 16;
pub(crate) const H_RO_COMPAT: usize = 20;
pub(crate) const H_INCOMPAT: usize = 24;
pub(crate) const H_INODES: usize = 28;
pub(crate) const H_DIRENTS: usize = 32;
pub(crate) const H_LAYERS: usize = 36;
pub(crate) const H_FILE_LEN: usize = 40;
pub(crate) const H_TAR_LEN: usize = 48;
pub(crate) const H_CONTENT_LEN: usize = 56;
pub(crate) const H_SECTIONS: usize = 64;
pub(crate) const H_ID: usize = H_SECTIONS + SECTION_COUNT * SECTION_BYTES;
pub(crate) const H_BODY_SHA256: usize = H_ID + 32;
pub(crate) const H_SHA256: usize = H_BODY_SHA256 + 32;
const _: () = assert!(H_SHA256 + 32 <= HEADER_BYTES);

/// What the places of inodes and entries are multiples of, in files that are written: a line of the
/// processor's memory, so that a record is in one.
pub(crate) const ALIGN: usize = 64;

/// An entry of the section table: offset and length, each a u64.
pub(crate) const SECTION_BYTES: usize = 16;
pub(crate) const SECTION_COUNT: usize = 8;

/// The sections, in the order of the section table and of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Section {
    /// Contents up to `INLINE_MAX`, targets of symbolic links.
    Heap,
    /// Directory entries, those of one directory together, sorted by hash and name.
    Dirents,
    /// Bytes of names.
    Names,
    /// Inodes; number 0 is the root.
    Inodes,
    /// Names of inodes that have more than one.
    Links,
    /// Sets of extended attributes.
    Xattrs,
    /// Ids of layers, bottom first.
    Layers,
    /// Digests and sizes of objects.
    Objects,
}

impl Section {
    pub(crate) const ALL: [Self; SECTION_COUNT] = [
        Self::Heap,
        Self::Dirents,
        Self::Names,
        Self::Inodes,
        Self::Links,
        Self::Xattrs,
        Self::Layers,
        Self::Objects,
    ];

    /// Size of one record; sections of bytes have 1.
    pub(crate) const fn record_bytes(self) -> usize {
        match self {
            Self::Heap | Self::Names | Self::Xattrs => 1,
            Self::Dirents => DIRENT_BYTES,
            Self::Inodes => INODE_BYTES,
            Self::Links => LINK_BYTES,
            Self::Layers => 32,
            Self::Objects => OBJECT_BYTES,
        }
    }
}

/// What an index is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum IndexKind {
    /// One layer, with whiteouts.
    Layer = 1,
    /// A stack of layers, merged.
    Chain = 2,
}

/// Files up to this size are kept in the heap of a new store's layers, larger ones as objects.
pub const INLINE_MAX: u64 = 16 << 10;

// An inode.
pub(crate) const INODE_BYTES: usize = 64;
const I_MODE: usize = 0;
const I_UID: usize = 4;
const I_GID: usize = 8;
const I_NLINK: usize = 12;
const I_SIZE: usize = 16;
const I_MTIME_SECS: usize = 24;
const I_MTIME_NANOS: usize = 32;
const I_LAYER: usize = 36;
const I_DATA: usize = 40;
const I_DIRENT: usize = 48;
const I_PARENT: usize = 52;
const I_XATTRS: usize = 56;
const I_FLAGS: usize = 60;

/// Content is in the heap at `data`.
pub(crate) const FLAG_INLINE: u32 = 1;
/// Content is the object with the number `data`.
pub(crate) const FLAG_OBJECT: u32 = 1 << 1;
/// A directory of a layer that hides all that lower layers have in it.
pub(crate) const FLAG_OPAQUE: u32 = 1 << 2;
/// A directory that the layer's tar does not name: its attributes are those of lower layers.
pub(crate) const FLAG_IMPLICIT: u32 = 1 << 3;
/// A hard link to a path of a lower layer, which the heap has at `data`; only in layers.
pub(crate) const FLAG_LOWER_LINK: u32 = 1 << 4;

/// An inode as it lies in the file.
///
/// `data` is, by type: of a directory the number of its first entry in the upper half and how many
/// it has in the lower; of a regular file the heap offset or the object number; of a symbolic link
/// the heap offset; of a device its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InodeRecord {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) size: u64,
    pub(crate) mtime: Time,
    pub(crate) layer: u32,
    pub(crate) data: u64,
    pub(crate) dirent: u32,
    pub(crate) parent: u32,
    pub(crate) xattrs: u32,
    pub(crate) flags: u32,
}

impl InodeRecord {
    /// A directory whose attributes nobody has said.
    pub(crate) const IMPLICIT_DIRECTORY: Self = Self {
        mode: crate::sys::mode::DIRECTORY | 0o755,
        uid: 0,
        gid: 0,
        nlink: 0,
        size: 0,
        mtime: Time { secs: 0, nanos: 0 },
        layer: 0,
        data: 0,
        dirent: 0,
        parent: 0,
        xattrs: 0,
        flags: FLAG_IMPLICIT,
    };

    pub(crate) const fn is_dir(&self) -> bool {
        self.mode & crate::sys::mode::TYPE == crate::sys::mode::DIRECTORY
    }

    pub(crate) const fn is_symlink(&self) -> bool {
        self.mode & crate::sys::mode::TYPE == crate::sys::mode::SYMLINK
    }

    pub(crate) const fn is_regular(&self) -> bool {
        self.mode & crate::sys::mode::TYPE == crate::sys::mode::REGULAR
    }

    pub(crate) const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Returns number of the first entry and number of entries of a directory.
    pub(crate) const fn dirents(&self) -> (u32, u32) {
        let [a, b, c, d, e, f, g, h] = self.data.to_le_bytes();
        (u32::from_le_bytes([e, f, g, h]), u32::from_le_bytes([a, b, c, d]))
    }

    /// Returns the `data` of a directory with these entries.
    pub(crate) fn pack_dirents(first: u32, count: u32) -> u64 {
        u64::from(first) << 32 | u64::from(count)
    }

    pub(crate) fn read(bytes: &[u8; INODE_BYTES]) -> Self {
        Self {
            mode: u32_at(bytes, I_MODE),
            uid: u32_at(bytes, I_UID),
            gid: u32_at(bytes, I_GID),
            nlink: u32_at(bytes, I_NLINK),
            size: u64_at(bytes, I_SIZE),
            mtime: Time {
                secs: u64_at(bytes, I_MTIME_SECS).cast_signed(),
                nanos: u32_at(bytes, I_MTIME_NANOS),
            },
            layer: u32_at(bytes, I_LAYER),
            data: u64_at(bytes, I_DATA),
            dirent: u32_at(bytes, I_DIRENT),
            parent: u32_at(bytes, I_PARENT),
            xattrs: u32_at(bytes, I_XATTRS),
            flags: u32_at(bytes, I_FLAGS),
        }
    }

    pub(crate) fn write(&self) -> [u8; INODE_BYTES] {
        let mut bytes = [0; INODE_BYTES];
        put(&mut bytes, I_MODE, &self.mode.to_le_bytes());
        put(&mut bytes, I_UID, &self.uid.to_le_bytes());
        put(&mut bytes, I_GID, &self.gid.to_le_bytes());
        put(&mut bytes, I_NLINK, &self.nlink.to_le_bytes());
        put(&mut bytes, I_SIZE, &self.size.to_le_bytes());
        put(&mut bytes, I_MTIME_SECS, &self.mtime.secs.to_le_bytes());
        put(&mut bytes, I_MTIME_NANOS, &self.mtime.nanos.to_le_bytes());
        put(&mut bytes, I_LAYER, &self.layer.to_le_bytes());
        put(&mut bytes, I_DATA, &self.data.to_le_bytes());
        put(&mut bytes, I_DIRENT, &self.dirent.to_le_bytes());
        put(&mut bytes, I_PARENT, &self.parent.to_le_bytes());
        put(&mut bytes, I_XATTRS, &self.xattrs.to_le_bytes());
        put(&mut bytes, I_FLAGS, &self.flags.to_le_bytes());
        bytes
    }
}

// A directory entry.
pub(crate) const DIRENT_BYTES: usize = 16;
const D_HASH: usize = 0;
const D_NAME: usize = 4;
const D_INODE: usize = 8;
const D_NAME_LEN: usize = 12;
const D_TYPE: usize = 13;

/// The inode number of an entry that hides a name of the layers below.
pub(crate) const WHITEOUT: u32 = u32::MAX;

/// A directory entry as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirentRecord {
    pub(crate) hash: u32,
    pub(crate) name: u32,
    pub(crate) inode: u32,
    pub(crate) name_len: u8,
    /// `DT_*`, so that a listing needs no inode.
    pub(crate) file_type: u8,
}

impl DirentRecord {
    pub(crate) fn read(bytes: &[u8; DIRENT_BYTES]) -> Self {
        let [.., name_len, file_type, _, _] = *bytes;
        Self {
            hash: u32_at(bytes, D_HASH),
            name: u32_at(bytes, D_NAME),
            inode: u32_at(bytes, D_INODE),
            name_len,
            file_type,
        }
    }

    pub(crate) fn write(&self) -> [u8; DIRENT_BYTES] {
        let mut bytes = [0; DIRENT_BYTES];
        put(&mut bytes, D_HASH, &self.hash.to_le_bytes());
        put(&mut bytes, D_NAME, &self.name.to_le_bytes());
        put(&mut bytes, D_INODE, &self.inode.to_le_bytes());
        put(&mut bytes, D_NAME_LEN, &[self.name_len]);
        put(&mut bytes, D_TYPE, &[self.file_type]);
        bytes
    }
}

/// Returns the hash of a directory entry, by which it is looked for.
pub(crate) fn entry_hash(bytes: &[u8; DIRENT_BYTES]) -> u32 {
    u32_at(bytes, D_HASH)
}

/// One of several names of an inode: inode, directory, number of the entry; each a u32, sorted.
pub(crate) const LINK_BYTES: usize = 12;
/// An object: its digest, its size as a u64.
pub(crate) const OBJECT_BYTES: usize = 40;

/// Returns the hash by which the entries of a directory are sorted: FNV-1a of the name.
///
/// It need not resist collisions: entries of equal hash are sorted by name and searched so.
pub(crate) fn name_hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Returns the u32 at `at`; 0 past the end, which no caller asks for.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Returns the u64 at `at`; 0 past the end, which no caller asks for.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Writes `value` at `at`; past the end, which no caller asks for, it writes nothing.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_survives_writing() {
        let inode = InodeRecord {
            mode: 0o104_755,
            uid: 1,
            gid: 2,
            nlink: 3,
            size: 1 << 40,
            mtime: Time { secs: -5, nanos: 999_999_999 },
            layer: 4,
            data: InodeRecord::pack_dirents(7, 8),
            dirent: 5,
            parent: 6,
            xattrs: 9,
            flags: FLAG_OBJECT,
        };
        assert_eq!(InodeRecord::read(&inode.write()), inode);
        assert_eq!(inode.dirents(), (7, 8));
    }

    #[test]
    fn a_directory_entry_survives_writing() {
        let entry = DirentRecord { hash: 1, name: 2, inode: WHITEOUT, name_len: 255, file_type: 8 };
        assert_eq!(DirentRecord::read(&entry.write()), entry);
    }

    #[test]
    fn the_hash_of_names_is_fnv_1a() {
        // From the published test vectors of FNV.
        for (name, hash) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(name_hash(name.as_bytes()), hash, "{name}");
        }
    }
}
