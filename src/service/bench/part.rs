//! A layer, or one of several that it is split into, as a tar.
//!
//! A layer is split so that its parts show together what it shows: the first has every directory, link
//! and marker of something that is gone; the regular files go by their directory, one in ten by its own
//! name, so that most directories are whole in one part and some are in several, as in images. A part
//! has the directories that lead to its files with their attributes, as the layers of builders do.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use crate::bench::hash;
use crate::layer::{Kind, TarMeta, TarWriter, whiteout};
use crate::service::copy::source::{Content, Visit};
use crate::service::error::{Result, io_error};

/// Which part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// From 0.
    pub(crate) number: u64,
    /// How many there are.
    pub(crate) of: u64,
}

impl Part {
    /// The whole of it.
    pub(crate) const WHOLE: Self = Self { number: 0, of: 1 };

    /// Tells whether a file is in this part.
    fn has(self, path: &[u8], kind: Kind) -> bool {
        const STRAY: u64 = 10;
        let (parent, name) = split(path);
        let own = hash(path);
        let part = match kind {
            Kind::Regular if name.starts_with(whiteout::PREFIX) => 0,
            Kind::Regular if own.is_multiple_of(STRAY) => own / STRAY % self.of,
            Kind::Regular => hash(parent) % self.of,
            _ => 0,
        };
        part == self.number
    }
}

/// Writes the part of what it is shown.
pub(crate) struct PartWriter<W: Write> {
    tar: TarWriter<W>,
    part: Part,
    /// The directories that were shown.
    directories: HashMap<Vec<u8>, TarMeta>,
    /// Those of them that were written.
    written: HashSet<Vec<u8>>,
}

impl<W: Write> PartWriter<W> {
    pub(crate) fn new(out: W, part: Part) -> Self {
        let tar = TarWriter::new(out);
        Self { tar, part, directories: HashMap::new(), written: HashSet::new() }
    }

    /// Ends the tar.
    pub(crate) fn finish(self) -> Result<W> {
        self.tar.finish().map_err(io_error("write", "the tar"))
    }

    /// Writes the directories that lead to a path and were shown, but not written.
    fn lead_to(&mut self, path: &[u8]) -> io::Result<()> {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for (at, _) in slashes {
            let dir = &path[..at];
            if let Some(meta) = self.directories.get(dir)
                && !self.written.contains(dir)
            {
                self.tar.entry(meta)?;
                self.written.insert(dir.to_vec());
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        meta: &TarMeta,
        link: Option<&[u8]>,
        content: &mut dyn Content,
    ) -> io::Result<()> {
        if meta.kind == Kind::Directory {
            self.directories.insert(meta.path.clone(), meta.clone());
            if self.part.number == 0 {
                self.lead_to(&meta.path)?;
                self.tar.entry(meta)?;
                self.written.insert(meta.path.clone());
            }
            return Ok(());
        }
        // Another name is where the file is.
        if !self.part.has(link.unwrap_or(&meta.path), meta.kind) {
            return Ok(());
        }
        self.lead_to(&meta.path)?;
        match (meta.kind, link) {
            (_, Some(link)) => self.tar.hard_link(meta, link),
            (Kind::Regular, None) => self.tar.file(meta, &mut Reading::new(content, meta.size)),
            (_, None) => self.tar.entry(meta),
        }
    }
}

impl<W: Write> Visit for PartWriter<W> {
    fn file(
        &mut self,
        meta: &TarMeta,
        link: Option<&[u8]>,
        content: &mut dyn Content,
    ) -> Result<()> {
        let shown = || String::from_utf8_lossy(&meta.path).into_owned();
        self.write(meta, link, content).map_err(io_error("pack", shown()))
    }

    fn left_out(&mut self, path: &[u8], why: &str) {
        tracing::debug!("{} {why}: left out", String::from_utf8_lossy(path));
    }
}

/// Reads a content with its holes.
struct Reading<'a> {
    content: &'a mut dyn Content,
    /// A piece, and where it stands.
    piece: Vec<u8>,
    start: u64,
    len: usize,
    at: u64,
    size: u64,
}

impl<'a> Reading<'a> {
    fn new(content: &'a mut dyn Content, size: u64) -> Self {
        Self { content, piece: vec![0; 128 * 1024], start: 0, len: 0, at: 0, size }
    }
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.start + self.len as u64 && self.at < self.size {
            match self.content.next(&mut self.piece).map_err(io::Error::other)? {
                Some((start, len)) => (self.start, self.len) = (start, len),
                None => (self.start, self.len) = (self.size, 0),
            }
        }
        let until = if self.at < self.start { self.start } else { self.start + self.len as u64 };
        let len = usize::try_from(until.min(self.size) - self.at).unwrap_or(usize::MAX);
        let len = len.min(buffer.len());
        match usize::try_from(self.at.saturating_sub(self.start)) {
            Ok(from) if self.at >= self.start => {
                buffer[..len].copy_from_slice(&self.piece[from..from + len]);
            }
            _ => buffer[..len].fill(0),
        }
        self.at += len as u64;
        Ok(len)
    }
}

/// Splits the last name off a path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::copy::source::{Empty, walk_tar};

    struct Pieces(Vec<(u64, &'static [u8])>);

    impl Content for Pieces {
        fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
            if self.0.is_empty() {
                return Ok(None);
            }
            let (offset, bytes) = self.0.remove(0);
            buffer[..bytes.len()].copy_from_slice(bytes);
            Ok(Some((offset, bytes.len())))
        }
    }

    #[test]
    fn holes_are_read_as_zeros() {
        let mut content = Pieces(vec![(2, b"ab"), (4, b"c"), (7, b"d")]);
        let mut read = Vec::new();
        Reading::new(&mut content, 10).read_to_end(&mut read).unwrap();
        assert_eq!(read, b"\0\0abc\0\0d\0\0");
    }

    /// Collects paths.
    #[derive(Default)]
    struct Paths(Vec<String>);

    impl Visit for Paths {
        fn file(&mut self, meta: &TarMeta, _: Option<&[u8]>, _: &mut dyn Content) -> Result<()> {
            self.0.push(String::from_utf8(meta.path.clone()).unwrap());
            Ok(())
        }

        fn left_out(&mut self, _: &[u8], _: &str) {}
    }

    fn part(number: u64, of: u64) -> Vec<String> {
        let mut writer = PartWriter::new(Vec::new(), Part { number, of });
        let mut show = |path: &str, kind, link: Option<&str>| {
            let meta = TarMeta::new(path, kind, 0o755);
            writer.file(&meta, link.map(str::as_bytes), &mut Empty).unwrap();
        };
        show("a", Kind::Directory, None);
        show("a/b", Kind::Directory, None);
        for number in 0..40 {
            show(&format!("a/b/{number}"), Kind::Regular, None);
        }
        show("a/link", Kind::Symlink, None);
        show("a/.wh.gone", Kind::Regular, None);
        show("a/again", Kind::Regular, Some("a/b/7"));
        let mut paths = Paths::default();
        walk_tar(&writer.finish().unwrap()[..], &mut paths).unwrap();
        paths.0
    }

    #[test]
    fn parts_have_together_what_the_whole_has() {
        let whole = part(0, 1);
        assert_eq!(whole.len(), 45);
        let parts: Vec<_> = (0..3).map(|number| part(number, 3)).collect();
        let mut files: Vec<_> = parts.concat();
        files.sort();
        files.dedup();
        let mut expected = whole;
        expected.sort();
        assert_eq!(files, expected);
        for (number, part) in parts.iter().enumerate() {
            assert!(part.is_empty() || part[0] == "a", "part {number} begins with its directories");
            let has = |name: &str| part.iter().any(|path| path == name);
            assert_eq!(has("a/.wh.gone"), number == 0);
            assert_eq!(has("a/again"), has("a/b/7"), "a name is where its file is");
        }
    }
}
