//! An archive that is open: a folder or a tar in which files are looked up, or what was kept of a
//! stream, which can be read only once.
//!
//! Of a stream, layers are unpacked into staging as they come and everything small is kept, since
//! what the files are for is said in one that may be the last.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::archive::{self, Contents, DOCUMENT_LIMIT_BYTES, DOCUMENTS_LIMIT_BYTES, Range, Source};
use crate::digest::{DiffId, Digest};
use crate::service::error::{Result, io_error};
use crate::sys::{self, Errno};

/// An open archive.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A directory.
    Folder(OwnedFd),
    /// A tar on disk, uncompressed.
    Tar(File, Contents<Range>),
    /// What was kept of a stream, with its documents one behind the other in a file.
    Stream(File, Contents<Kept>),
}

/// What was kept of a file of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    /// All of it, here among the documents.
    Document(Range),
    /// The layer that it is.
    Layer(KeptLayer),
    /// Only what it hashes to, and how long it is: it is neither.
    Other(Digest, u64),
}

/// A layer of an archive that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptLayer {
    /// What the file hashes to.
    pub(crate) blob: Digest,
    /// Its length in bytes.
    pub(crate) blob_len: u64,
    /// What it unpacks to.
    pub(crate) diff_id: DiffId,
    /// The length of that in bytes.
    pub(crate) tar_len: u64,
    /// It waits in staging; otherwise the store has it.
    pub(crate) is_staged: bool,
}

/// Where a file is.
pub(crate) enum Place<'a> {
    /// It can be read here, so many bytes.
    Readable(Box<dyn Read + Send>, u64),
    /// It was read.
    Read(&'a Kept),
}

impl Opened {
    /// Returns where a file is; none when there is none of this name.
    pub(crate) fn place(&self, name: &str) -> archive::Result<Option<Place<'_>>> {
        Ok(match self {
            Self::Folder(root) => open_below(root.as_fd(), name)?
                .map(|(file, size)| Place::Readable(Box::new(file), size)),
            Self::Tar(file, contents) => {
                contents.find(name)?.map(|range| part(file, *range)).transpose()?
            }
            Self::Stream(documents, contents) => match contents.find(name)? {
                Some(Kept::Document(range)) => Some(part(documents, *range)?),
                Some(kept) => Some(Place::Read(kept)),
                None => None,
            },
        })
    }
}

impl Source for Opened {
    fn document(&self, name: &str) -> archive::Result<Option<Vec<u8>>> {
        let (reader, found_bytes) = match self.place(name)? {
            None => return Ok(None),
            Some(Place::Readable(reader, size)) => (reader, size),
            Some(Place::Read(
                Kept::Layer(KeptLayer { blob_len, .. }) | Kept::Other(_, blob_len),
            )) => (Box::new(io::empty()) as Box<dyn Read + Send>, *blob_len),
            Some(Place::Read(Kept::Document(_))) => return Ok(None),
        };
        let file = name.to_owned();
        let limit_bytes = DOCUMENT_LIMIT_BYTES;
        if found_bytes > limit_bytes {
            return Err(archive::Error::DocumentSize { file, found_bytes, limit_bytes });
        }
        let mut bytes = Vec::new();
        reader.take(limit_bytes).read_to_end(&mut bytes)?;
        let (expected, actual) = (found_bytes, bytes.len() as u64);
        if expected == actual {
            Ok(Some(bytes))
        } else {
            Err(archive::Error::Size { file, expected, actual })
        }
    }

    fn has(&self, name: &str) -> archive::Result<bool> {
        Ok(self.place(name)?.is_some())
    }
}

/// Opens a regular file of a folder. Other kinds, which might never end, are not there; links are followed
/// inside of the folder.
fn open_below(root: BorrowedFd<'_>, name: &str) -> archive::Result<Option<(File, u64)>> {
    let file = match sys::open_beneath(root, Path::new(name)) {
        Ok(file) => File::from(file),
        Err(error) => match error.errno() {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENXIO => return Ok(None),
            Errno::EXDEV => {
                let (name, target) = (name.to_owned(), "somewhere else".to_owned());
                let reason = "it leads out of the archive";
                return Err(archive::Error::Link { name, target, reason });
            }
            errno => {
                let error = io::Error::from_raw_os_error(errno as i32);
                let error = io::Error::new(error.kind(), format!("{name}: {error}"));
                return Err(error.into());
            }
        },
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata.len())))
}

fn part(file: &File, range: Range) -> io::Result<Place<'static>> {
    let part = Part { file: file.try_clone()?, at: range.offset, left: range.size };
    Ok(Place::Readable(Box::new(part), range.size))
}

/// Reads a part of a file, whoever else reads it.
struct Part {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let len = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += len as u64;
        self.left -= len as u64;
        Ok(len)
    }
}

/// Takes the documents of a stream, one behind the other.
#[derive(Debug)]
pub(crate) struct Documents {
    file: File,
    len_bytes: u64,
}

impl Documents {
    /// Returns an empty one, which writes to an empty file.
    pub(crate) const fn new(file: File) -> Self {
        Self { file, len_bytes: 0 }
    }

    /// Adds a document.
    ///
    /// # Errors
    /// [`archive::Error::Documents`] when there are too many.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<Range> {
        if self.len_bytes + bytes.len() as u64 > DOCUMENTS_LIMIT_BYTES {
            return Err(archive::Error::Documents { limit_bytes: DOCUMENTS_LIMIT_BYTES }.into());
        }
        self.file.write_all(bytes).map_err(io_error("write", "what is kept of the archive"))?;
        let range = Range { offset: self.len_bytes, size: bytes.len() as u64 };
        self.len_bytes += range.size;
        Ok(range)
    }

    pub(crate) fn into_file(self) -> File {
        self.file
    }
}
