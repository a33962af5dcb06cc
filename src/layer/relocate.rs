//! A tar written again with everything in it below a directory.
//!
//! Markers of what is gone go along, since they are files like others to a tar. Hard links lead to
//! the new places.

use std::io::{self, Read, Write};

use crate::layer::Kind;
use crate::layer::error::Result;
use crate::layer::path::{components, join_path};
use crate::layer::sparse::Segment;
use crate::layer::tar_files::Ignored;
use crate::layer::tar_read::{EntryKind, TarEntry, TarReader};
use crate::layer::tar_write::{TarMeta, TarWriter};

/// Writes the entries of a tar to `out`, below the directory `to`. The root's own entry is left out:
/// the directory is what it is.
///
/// # Errors
/// [`Error::Tar`](crate::layer::Error::Tar) when it is no valid archive.
pub fn relocate<W: Write>(tar: impl Read, to: &[u8], out: W) -> Result<W> {
    let mut reader = TarReader::new(tar);
    let mut writer = TarWriter::new(out);
    let mut ignored = Ignored::default();
    while let Some(entry) = reader.next_entry(&mut ignored)? {
        let is_content = entry.kind == EntryKind::File(Kind::Regular);
        if components(&entry.path).is_empty() {
            if is_content {
                return Err(entry.refuse("its path is that of the root, which is a directory"));
            }
            continue;
        }
        let meta = meta(&entry, to);
        match entry.kind {
            EntryKind::HardLink => writer.hard_link(&meta, &below(to, &entry.link))?,
            EntryKind::File(Kind::Regular) => {
                let mut content = Content::new(&mut reader, &entry);
                writer.file(&meta, &mut content)?;
            }
            EntryKind::File(_) => writer.entry(&meta)?,
        }
    }
    Ok(writer.finish()?)
}

fn meta(entry: &TarEntry, to: &[u8]) -> TarMeta {
    let kind = match entry.kind {
        EntryKind::File(kind) => kind,
        EntryKind::HardLink => Kind::Regular,
    };
    TarMeta {
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        device: entry.device,
        target: if kind == Kind::Symlink { entry.link.clone() } else { Vec::new() },
        xattrs: entry.xattrs.clone(),
        size: if entry.kind == EntryKind::File(Kind::Regular) { entry.size } else { 0 },
        ..TarMeta::new(below(to, &entry.path), kind, entry.mode)
    }
}

/// Returns a path below a directory, without a way out of it.
fn below(to: &[u8], path: &[u8]) -> Vec<u8> {
    let names = components(to).into_iter().chain(components(path));
    names.fold(Vec::new(), |path, name| join_path(&path, name))
}

/// Reads the content of an entry, with the zeros that a sparse one leaves out.
struct Content<'a, R> {
    reader: &'a mut TarReader<R>,
    segments: std::vec::IntoIter<Segment>,
    current: Option<Segment>,
    at: u64,
    size: u64,
}

impl<'a, R: Read> Content<'a, R> {
    fn new(reader: &'a mut TarReader<R>, entry: &TarEntry) -> Self {
        let whole = || vec![Segment { offset: 0, len: entry.size }];
        let mut segments = entry.segments.clone().unwrap_or_else(whole).into_iter();
        Self { reader, current: segments.next(), segments, at: 0, size: entry.size }
    }
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_some_and(|piece| piece.offset + piece.len <= self.at) {
            self.current = self.segments.next();
        }
        let (is_hole, end) = match self.current {
            Some(piece) if piece.offset <= self.at => (false, piece.offset + piece.len),
            Some(piece) => (true, piece.offset),
            None => (true, self.size),
        };
        let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        let part = buffer.get_mut(..len).unwrap_or_default();
        if is_hole {
            part.fill(0);
        } else {
            self.reader.content(part).map_err(io::Error::other)?;
        }
        self.at += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns path, kind, link and content of all entries.
    fn entries(tar: &[u8]) -> Vec<(String, EntryKind, String, Vec<u8>)> {
        let mut reader = TarReader::new(tar);
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry(&mut Ignored::default()).unwrap() {
            let mut content = Vec::new();
            if entry.kind == EntryKind::File(Kind::Regular) {
                Content::new(&mut reader, &entry).read_to_end(&mut content).unwrap();
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.push((text(&entry.path), entry.kind, text(&entry.link), content));
        }
        found
    }

    #[test]
    fn everything_comes_to_lie_below_a_directory() {
        let mut writer = TarWriter::new(Vec::new());
        let file = TarMeta { size: 5, ..TarMeta::new("./a/file", Kind::Regular, 0o644) };
        writer.entry(&TarMeta::new("", Kind::Directory, 0o700)).unwrap();
        writer.file(&file, &mut &b"12345"[..]).unwrap();
        writer.hard_link(&TarMeta::new("link", Kind::Regular, 0o644), b"a/file").unwrap();
        let target = b"../x".to_vec();
        writer.entry(&TarMeta { target, ..TarMeta::new("sym", Kind::Symlink, 0o777) }).unwrap();
        writer.marker(b"a/.wh.gone", Default::default()).unwrap();
        writer.entry(&TarMeta::new("../../up", Kind::Fifo, 0o600)).unwrap();
        let tar = writer.finish().unwrap();
        let moved = relocate(tar.as_slice(), b"/opt/x", Vec::new()).unwrap();
        let file = |kind| EntryKind::File(kind);
        let expected = [
            ("opt/x/a/file", file(Kind::Regular), "", &b"12345"[..]),
            ("opt/x/link", EntryKind::HardLink, "opt/x/a/file", b""),
            ("opt/x/sym", file(Kind::Symlink), "../x", b""),
            ("opt/x/a/.wh.gone", file(Kind::Regular), "", b""),
            ("opt/x/up", file(Kind::Fifo), "", b""),
        ]
        .map(|(path, kind, link, content)| (path.into(), kind, link.into(), content.to_vec()));
        assert_eq!(entries(&moved), expected);
    }
}
