//! The files of a tar that is no layer: an archive of an image, which has layers among its files.
//!
//! What an entry is called, and its content where it stands; no attributes. Nothing is trusted, and
//! nothing decided: names come as they are.

use std::io::{self, Read, Seek, SeekFrom};

use tar::Header;

use crate::layer::Kind;
use crate::layer::error::{Error, Result};
use crate::layer::tar_read::{BLOCK, EntryKind, RawSink, TarReader};

/// What an entry of a tar is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarFileKind {
    /// A file with content.
    Regular,
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// Another name for this.
    HardLink(Vec<u8>),
    /// Something without content.
    Other,
}

/// An entry of a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarFile {
    /// Its name, as the tar has it.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: TarFileKind,
    /// Length of its content in bytes.
    pub size: u64,
    /// Where its content begins in the tar.
    pub offset: u64,
}

/// Reads the files of a tar, one after the other. As a reader it gives the content of the file that
/// [`TarFiles::next_file`] returned last.
#[derive(Debug)]
pub struct TarFiles<R> {
    reader: TarReader<R>,
    /// Content of the current file that has not been read.
    left: u64,
    /// The tar has ended too early: it has no next file.
    broken: bool,
    ignored: Ignored,
}

/// Takes headers and padding where they mean nothing: it counts them. What follows the end of an
/// archive could go on for ever.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    len_bytes: u64,
}

/// Most bytes that are ignored: those of a million headers, or of a tape's last block.
const IGNORED_MAX: u64 = 1 << 30;

impl RawSink for Ignored {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.len_bytes += bytes.len() as u64;
        if self.len_bytes > IGNORED_MAX {
            let reason = "it has more than 1 GiB of headers and padding";
            return Err(Error::Tar { reason, offset: self.len_bytes });
        }
        Ok(())
    }
}

impl<R: Read> TarFiles<R> {
    /// Returns a reader of the tar that `reader` gives.
    pub const fn new(reader: R) -> Self {
        Self {
            reader: TarReader::new(reader),
            left: 0,
            broken: false,
            ignored: Ignored { len_bytes: 0 },
        }
    }

    /// Returns the next file; none at the end, when the reader has been read to its end too. What
    /// has not been read of the one before is read and dropped.
    ///
    /// # Errors
    /// [`Error::Tar`] when it is no valid archive, [`Error::Entry`] for a sparse file.
    pub fn next_file(&mut self) -> Result<Option<TarFile>> {
        let mut buffer = vec![0; 64 * 1024];
        while self.read_content(&mut buffer)? > 0 {}
        let Some(entry) = self.reader.next_entry(&mut self.ignored)? else { return Ok(None) };
        if entry.segments.is_some() {
            return Err(entry.refuse("it is stored as a sparse file; pack it without"));
        }
        let kind = match entry.kind {
            EntryKind::File(Kind::Regular) => TarFileKind::Regular,
            EntryKind::File(Kind::Symlink) => TarFileKind::Symlink(entry.link),
            EntryKind::HardLink => TarFileKind::HardLink(entry.link),
            EntryKind::File(_) => TarFileKind::Other,
        };
        self.left = if kind == TarFileKind::Regular { entry.size } else { 0 };
        let offset = self.reader.offset();
        Ok(Some(TarFile { path: entry.path, kind, size: self.left, offset }))
    }

    fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.broken {
            return Err(self.cut_short());
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let Some(wanted) = buffer.get_mut(..len).filter(|wanted| !wanted.is_empty()) else {
            return Ok(0);
        };
        self.broken = true;
        self.reader.content(wanted)?;
        self.broken = false;
        self.left -= len as u64;
        Ok(len)
    }

    fn cut_short(&self) -> Error {
        Error::Tar { reason: "it ends inside an entry", offset: self.reader.offset() }
    }
}

impl<R: Read + Seek> TarFiles<R> {
    /// Passes over the content of the current file without reading it. `end` is the length of the
    /// whole tar.
    pub fn skip_content(&mut self, end: u64) -> Result<()> {
        let after = self.reader.offset().checked_add(self.left);
        if after.is_none_or(|after| after > end) {
            return Err(self.cut_short());
        }
        let by = std::mem::take(&mut self.left);
        self.reader.skip_content(by, |reader, after| {
            reader.seek(SeekFrom::Start(after))?;
            Ok(())
        })
    }
}

impl<R: Read> Read for TarFiles<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_content(buffer).map_err(|error| match error {
            Error::Io(error) => error,
            error => io::Error::other(error),
        })
    }
}

/// Tells whether bytes may be the beginning of a tar: a header with its checksum, or the end of an
/// empty one.
pub fn begins_as_tar(bytes: &[u8]) -> bool {
    let Some(block) = bytes.get(..BLOCK) else { return false };
    if block.iter().all(|byte| *byte == 0) {
        return true;
    }
    TarReader::new(io::empty()).check_sum(Header::from_byte_slice(block)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind, link: Option<&str>, content: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            if let Some(link) = link {
                header.set_link_name(link).unwrap();
            }
            builder.append_data(&mut header, name, content).unwrap();
        };
        add("dir/", tar::EntryType::Directory, None, b"");
        add("dir/one", tar::EntryType::Regular, None, &[1; 700]);
        add("link", tar::EntryType::Symlink, Some("dir/one"), b"");
        add("two", tar::EntryType::Regular, None, b"two");
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_come_with_their_content_and_where_it_is() {
        let bytes = archive();
        let mut files = TarFiles::new(&bytes[..]);
        assert_eq!(files.next_file().unwrap().unwrap().kind, TarFileKind::Other);
        let one = files.next_file().unwrap().unwrap();
        assert_eq!((&one.path[..], one.size), (&b"dir/one"[..], 700));
        let at = usize::try_from(one.offset).unwrap();
        assert_eq!(bytes[at..at + 700], [1; 700]);
        // Nobody reads all of it.
        files.read_exact(&mut [0; 10]).unwrap();
        let link = files.next_file().unwrap().unwrap();
        assert_eq!(link.kind, TarFileKind::Symlink(b"dir/one".to_vec()));
        files.next_file().unwrap().unwrap();
        let mut text = String::new();
        files.read_to_string(&mut text).unwrap();
        assert_eq!(text, "two");
        assert_eq!(files.next_file().unwrap(), None);
    }

    #[test]
    fn what_is_skipped_is_not_read_and_must_be_there() {
        let bytes = archive();
        let names = |len: usize| {
            let mut files = TarFiles::new(Cursor::new(&bytes[..len]));
            let mut names = Vec::new();
            while let Some(file) = files.next_file()? {
                files.skip_content(len as u64)?;
                names.push(String::from_utf8(file.path).unwrap());
            }
            Ok::<_, Error>(names)
        };
        assert_eq!(names(bytes.len()).unwrap(), ["dir/", "dir/one", "link", "two"]);
        assert!(matches!(names(1500), Err(Error::Tar { .. })));
    }

    #[test]
    fn a_tar_that_was_cut_off_never_seems_to_end() {
        let bytes = archive();
        let mut files = TarFiles::new(&bytes[..1500]);
        files.next_file().unwrap();
        files.next_file().unwrap();
        assert!(files.read_to_end(&mut Vec::new()).is_err());
        assert!(files.next_file().is_err());
        assert!(files.next_file().is_err());
    }

    #[test]
    fn a_tar_is_known_by_its_first_block() {
        let bytes = archive();
        assert!(begins_as_tar(&bytes));
        assert!(begins_as_tar(&[0; 1024]));
        for other in [&b""[..], &bytes[..511], &[b'{'; 512], &[1; 512]] {
            assert!(!begins_as_tar(other));
        }
    }
}
