//! Writing a tar: plain ustar headers, and PAX records for what does not fit into them.
//!
//! The same input gives the same bytes: no user names, no time but the entries' own, records in a
//! fixed order.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::layer::Kind;
use crate::layer::pax::{XATTR_PREFIX, record};
use crate::sys::{Time, split_device};

/// What an entry says of a file.
#[derive(Clone, Debug)]
pub struct TarMeta {
    /// Path without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions, without the type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Time,
    /// Number of a device.
    pub device: u64,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Size of a regular file in bytes.
    pub size: u64,
}

impl TarMeta {
    /// Returns what is said of a file of root's, from 1970, with nothing special about it.
    pub fn new(path: &[u8], kind: Kind, mode: u32, size: u64) -> Self {
        Self {
            path: path.to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            device: 0,
            target: Vec::new(),
            xattrs: BTreeMap::new(),
            size,
        }
    }
}

/// Writes a tar.
pub struct TarWriter<W: Write> {
    builder: tar::Builder<W>,
}

impl<W: Write> std::fmt::Debug for TarWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TarWriter")
    }
}

// What fits into the fields of a ustar header.
const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
const MAX_ID: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

impl<W: Write> TarWriter<W> {
    /// Returns a writer of a tar to `out`.
    pub fn new(out: W) -> Self {
        Self { builder: tar::Builder::new(out) }
    }

    /// Writes a file of any kind but a regular one with content.
    ///
    /// # Errors
    /// `InvalidInput` for a socket, which a tar cannot hold.
    pub fn entry(&mut self, meta: &TarMeta) -> io::Result<()> {
        self.write(meta, entry_type(meta.kind)?, &meta.target, 0, &mut io::empty())
    }

    /// Writes a regular file, whose content must have the length that `meta` says.
    pub fn file(&mut self, meta: &TarMeta, content: &mut dyn Read) -> io::Result<()> {
        let mut content = content.take(meta.size);
        self.write(meta, EntryType::Regular, b"", meta.size, &mut content)?;
        if content.limit() != 0 {
            let text = format!(
                "{:?} became shorter while it was read: {} of {} bytes are missing",
                String::from_utf8_lossy(&meta.path),
                content.limit(),
                meta.size
            );
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(())
    }

    /// Writes another name for the file that an entry before has made.
    pub fn hard_link(&mut self, meta: &TarMeta, target: &[u8]) -> io::Result<()> {
        // The attributes came with the first name.
        let meta = TarMeta { xattrs: BTreeMap::new(), ..meta.clone() };
        self.write(&meta, EntryType::Link, target, 0, &mut io::empty())
    }

    /// Writes an empty regular file that stands for something that is gone.
    pub fn marker(&mut self, path: &[u8], mtime: Time) -> io::Result<()> {
        let meta = TarMeta { mtime, ..TarMeta::new(path, Kind::Regular, 0o600, 0) };
        self.entry(&meta)
    }

    /// Ends the archive and returns where it was written.
    pub fn finish(self) -> io::Result<W> {
        self.builder.into_inner()
    }

    fn write(
        &mut self,
        meta: &TarMeta,
        entry_type: EntryType,
        link: &[u8],
        size: u64,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let mut records = Vec::new();
        let mut header = Header::new_ustar();
        header.set_entry_type(entry_type);
        let mut path = meta.path.clone();
        if meta.kind == Kind::Directory && entry_type == EntryType::Directory {
            if path.is_empty() {
                path.push(b'.');
            }
            path.push(b'/');
        }
        if !set_path(&mut header, &path) {
            records.extend(record(b"path", &path));
        }
        if !set_field(&mut header.as_old_mut().linkname, link) {
            records.extend(record(b"linkpath", link));
        }
        header.set_mode(meta.mode);
        header.set_uid(u64::from(meta.uid.min(MAX_ID)));
        header.set_gid(u64::from(meta.gid.min(MAX_ID)));
        for (key, id) in [(&b"uid"[..], meta.uid), (b"gid", meta.gid)] {
            if id > MAX_ID {
                records.extend(record(key, id.to_string().as_bytes()));
            }
        }
        header.set_size(size.min(MAX_SIZE));
        if size > MAX_SIZE {
            records.extend(record(b"size", size.to_string().as_bytes()));
        }
        header.set_mtime(u64::try_from(meta.mtime.secs).unwrap_or(0).min(MAX_SIZE));
        if let Some(text) = mtime_record(meta.mtime) {
            records.extend(record(b"mtime", text.as_bytes()));
        }
        if matches!(meta.kind, Kind::Character | Kind::Block) {
            let (major, minor) = split_device(meta.device);
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        for (name, value) in &meta.xattrs {
            records.extend(record(&[XATTR_PREFIX, name].concat(), value));
        }
        self.extension(&records)?;
        header.set_cksum();
        self.builder.append(&header, content)
    }

    fn extension(&mut self, records: &[u8]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        set_path(&mut header, b"PaxHeaders/entry");
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.builder.append(&header, records)
    }
}

fn entry_type(kind: Kind) -> io::Result<EntryType> {
    Ok(match kind {
        Kind::Regular => EntryType::Regular,
        Kind::Directory => EntryType::Directory,
        Kind::Symlink => EntryType::Symlink,
        Kind::Character => EntryType::Char,
        Kind::Block => EntryType::Block,
        Kind::Fifo => EntryType::Fifo,
        Kind::Socket => {
            let text = "a tar cannot hold a socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    })
}

/// Puts a path into a header, split at a slash if need be; what does not fit is cut off, and told.
fn set_path(header: &mut Header, path: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    if set_field(&mut ustar.name, path) {
        return true;
    }
    let split = path.iter().enumerate().rev().find(|(at, byte)| {
        **byte == b'/' && *at > 0 && *at <= PREFIX_BYTES && path.len() - at - 1 <= NAME_BYTES
    });
    match split {
        Some((at, _)) if at + 1 < path.len() => {
            set_field(&mut ustar.prefix, path.get(..at).unwrap_or_default())
                && set_field(&mut ustar.name, path.get(at + 1..).unwrap_or_default())
        }
        _ => false,
    }
}

/// Fills a field with a text and zeros; what does not fit is cut off, and told.
fn set_field(field: &mut [u8], text: &[u8]) -> bool {
    field.fill(0);
    for (place, byte) in field.iter_mut().zip(text) {
        *place = *byte;
    }
    text.len() <= field.len()
}

/// Returns the record of a time that the header cannot hold.
fn mtime_record(time: Time) -> Option<String> {
    let fits = u64::try_from(time.secs).is_ok_and(|secs| secs <= MAX_SIZE);
    match (fits, time.nanos) {
        (true, 0) => None,
        (_, 0) => Some(time.secs.to_string()),
        (_, nanos) if time.secs >= 0 => Some(trim(format!("{}.{nanos:09}", time.secs))),
        // A negative time is written by its distance from 1970.
        (_, nanos) => {
            let (whole, rest) = (-(time.secs + 1), 1_000_000_000 - nanos);
            Some(trim(format!("-{whole}.{rest:09}")))
        }
    }
}

fn trim(text: String) -> String {
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_recorded_only_where_the_header_cannot_hold_them() {
        for (secs, nanos, text) in [
            (0, 0, None),
            (1_700_000_000, 0, None),
            (1, 500_000_000, Some("1.5")),
            (0, 1, Some("0.000000001")),
            (-1, 500_000_000, Some("-0.5")),
            (-2, 0, Some("-2")),
            (-2, 250_000_000, Some("-1.75")),
            (1 << 40, 0, Some("1099511627776")),
        ] {
            let found = mtime_record(Time { secs, nanos });
            assert_eq!(found.as_deref(), text, "{secs}.{nanos}");
        }
    }

    #[test]
    fn long_paths_are_split_or_told() {
        let long = |len: usize| "x".repeat(len).into_bytes();
        let joined = |a: usize, b: usize| [long(a), long(b)].join(&b'/');
        for (path, fits) in [
            (long(100), true),
            (long(101), false),
            (joined(155, 100), true),
            (joined(156, 100), false),
            (joined(10, 101), false),
            (joined(100, 1), true),
        ] {
            let mut header = Header::new_ustar();
            assert_eq!(set_path(&mut header, &path), fits, "{}", path.len());
            if fits {
                assert_eq!(header.path_bytes().as_ref(), path);
            }
        }
    }
}
