//! Bytes of a blob that were downloaded before a pull was interrupted.
//!
//! What arrives is also written to `staging/download-<hex>`, so that the next pull of the blob goes
//! on where this one ended, also after `kill -9`. The bytes are not trusted: they are hashed again
//! with the rest. Whoever downloads a blob has its file locked, and others who want it wait for that: then
//! it is there, or one of them goes on. Nobody waits for a second blob while he has a first one, so
//! nobody waits for ever. When the disk has no room for all of it, nothing is kept.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::digest::Digest;
use crate::store::Store;
use crate::store::error::{Result, io_error};
use crate::store::files::{is_old, open_if_exists, remove_if_exists};
use crate::store::stage::free_bytes;
use crate::sys;

/// How the name of such a file begins.
pub(crate) const DOWNLOAD: &str = "download-";

/// Smaller blobs are quicker downloaded again than kept.
const KEEP_FROM: u64 = 4 << 20;

/// A blob that is being downloaded, by nobody else.
#[derive(Debug)]
pub struct Download {
    path: PathBuf,
    file: File,
    /// What comes is worth keeping.
    is_kept: bool,
    len_bytes: u64,
    all: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Store {
    /// Begins to download a blob of this size, and finds what is there of it. When somebody else
    /// downloads it, that is told, and his end is waited for: look then whether it is still missing.
    pub fn download(
        &self,
        digest: Digest,
        size: u64,
        tell_wait: impl FnOnce(),
    ) -> Result<Download> {
        let path = self.layout().staging().join(format!("{DOWNLOAD}{}", digest.hex()));
        let mut tell_wait = Some(tell_wait);
        let file = loop {
            let mut options = File::options();
            let file = options.create(true).truncate(false).read(true).write(true).open(&path);
            let file = file.map_err(io_error("open", &path))?;
            if !sys::try_lock_exclusive(file.as_fd())? {
                if let Some(tell) = tell_wait.take() {
                    tell();
                }
                sys::lock_exclusive(file.as_fd())?;
            }
            // Who had it before has removed it with his last byte.
            if file.metadata().map_err(io_error("read", &path))?.nlink() > 0 {
                break file;
            }
        };
        let len_bytes = file.metadata().map_err(io_error("read", &path))?.len();
        let all = Arc::clone(self.downloads());
        all.lock().insert(path.clone());
        let is_kept = size >= KEEP_FROM && size <= free_bytes(&self.layout().staging())?;
        let mut download = Download { path, file, is_kept, len_bytes, all };
        if len_bytes > size {
            download.clear()?;
        }
        Ok(download)
    }
}

/// Removes the file of a download at which nobody is, and of which nothing has arrived, or nothing for a
/// day.
pub(crate) fn remove_unwanted(path: &Path) -> Result<()> {
    let Some(file) = open_if_exists(path)? else { return Ok(()) };
    if !sys::try_lock_exclusive(file.as_fd())? {
        return Ok(());
    }
    if file.metadata().map_err(io_error("read", path))?.len() == 0 || is_old(path)? {
        // Whoever comes to the lock now sees that the file has no name any more.
        remove_if_exists(path)?;
    }
    Ok(())
}

impl Download {
    /// Returns how many bytes are there.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Returns a reader of what is there and then of `rest`, which is kept as it comes.
    pub fn reader<R: Read>(&mut self, rest: R) -> Result<DownloadReader<R>> {
        let file = if self.is_kept || self.len_bytes > 0 {
            let mut file = self.file.try_clone().map_err(io_error("read", &self.path))?;
            file.seek(SeekFrom::Start(0)).map_err(io_error("read", &self.path))?;
            Some(file)
        } else {
            None
        };
        Ok(DownloadReader { file, kept: self.len_bytes, rest })
    }

    /// Forgets what is there.
    pub fn clear(&mut self) -> Result<()> {
        self.len_bytes = 0;
        self.file.set_len(0).map_err(io_error("write", &self.path))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.all.lock().remove(&self.path);
        let is_empty = self.file.metadata().is_ok_and(|metadata| metadata.len() == 0);
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
