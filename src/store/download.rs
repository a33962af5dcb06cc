//! Bytes of a blob that were downloaded before a pull was interrupted.
//!
//! What arrives is also written to `staging/download-<hex>`, so that the next pull of the blob goes
//! on where this one ended, also after `kill -9`. The bytes are not trusted: they are hashed again
//! with the rest. Only one process writes to a file; others download without.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::store::Store;
use crate::store::error::{Result, io_error};
use crate::sys;

/// Smaller blobs are quicker downloaded again than kept.
const KEEP_FROM: u64 = 4 << 20;

/// A blob that is being downloaded.
#[derive(Debug)]
pub struct Download {
    path: PathBuf,
    file: Option<File>,
    len_bytes: u64,
}

impl Store {
    /// Returns what is there of a blob of this size.
    pub fn download(&self, digest: Digest, size: u64) -> Result<Download> {
        let path = self.layout().staging().join(format!("download-{}", digest.hex()));
        let none = |path| Download { path, file: None, len_bytes: 0 };
        if size < KEEP_FROM {
            return Ok(none(path));
        }
        let mut options = File::options();
        let file = options.create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(io_error("open", &path))?;
        if !sys::try_lock_exclusive(file.as_fd())? {
            return Ok(none(path));
        }
        let len_bytes = file.metadata().map_err(io_error("read", &path))?.len();
        let mut download = Download { path, file: Some(file), len_bytes };
        if len_bytes > size {
            download.clear()?;
        }
        Ok(download)
    }
}

impl Download {
    /// Returns how many bytes are there.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Returns a reader of what is there and then of `rest`, which is kept as it comes.
    pub fn reader<R: Read>(&mut self, rest: R) -> Result<DownloadReader<R>> {
        let file = match &self.file {
            None => None,
            Some(file) => {
                let mut file = file.try_clone().map_err(io_error("read", &self.path))?;
                file.seek(SeekFrom::Start(0)).map_err(io_error("read", &self.path))?;
                Some(file)
            }
        };
        Ok(DownloadReader { file, kept: self.len_bytes, rest })
    }

    /// Forgets what is there.
    pub fn clear(&mut self) -> Result<()> {
        self.len_bytes = 0;
        let Some(file) = &self.file else { return Ok(()) };
        file.set_len(0).map_err(io_error("write", &self.path))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let Some(file) = &self.file else { return };
        let is_empty = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        if is_empty && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("{}: {error}", self.path.display());
        }
    }
}

/// Reads a blob, first what was downloaded before.
#[derive(Debug)]
pub struct DownloadReader<R> {
    file: Option<File>,
    /// Bytes that come from the file yet.
    kept: u64,
    rest: R,
}

impl<R: Read> Read for DownloadReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let (Some(file), 1..) = (&mut self.file, self.kept) {
            let len = file.take(self.kept).read(buffer)?;
            if len > 0 || buffer.is_empty() {
                self.kept -= len as u64;
                return Ok(len);
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len = self.rest.read(buffer)?;
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(&buffer[..len])
        {
            // Without it the next pull begins anew; a full disk will be told by what matters.
            tracing::debug!("a download is not kept: {error}");
            self.file = None;
        }
        Ok(len)
    }
}
