//! Contents of files that are not in an index: one immutable file each, named by its sha256.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::digest::{DiffId, Digest, HashingReader};
use crate::layer::{LayerSource, ObjectSource};
use crate::store::error::{Result, io_error};
use crate::store::files::open_if_exists;
use crate::store::layout::Layout;

/// Opens objects of a store.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    layout: Arc<Layout>,
}

impl Objects {
    pub(crate) fn new(layout: Arc<Layout>) -> Self {
        Self { layout }
    }

    /// Tells whether the store has an object whose bytes are these.
    pub(crate) fn has_bytes(&self, digest: Digest, bytes: &[u8]) -> Result<bool> {
        let path = self.layout.object(digest);
        let Some(mut file) = open_if_exists(&path)? else { return Ok(false) };
        let len = file.metadata().map_err(io_error("read", &path))?.len();
        if len != bytes.len() as u64 {
            return Ok(false);
        }
        let mut found = Vec::with_capacity(bytes.len());
        match file.read_to_end(&mut found) {
            Ok(_) => Ok(found == bytes),
            // A disk that cannot give it back has not got it.
            Err(error) => {
                tracing::warn!("{}: {error}", path.display());
                Ok(false)
            }
        }
    }

    /// Checks that an object is there and has its size.
    pub(crate) fn check_size(&self, digest: Digest, expected: u64) -> Result<()> {
        let path = self.layout.object(digest);
        let metadata = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::symlink_metadata(self.layout.trashed_object(digest))
            }
            other => other,
        };
        let metadata = metadata.map_err(io_error("find", &path))?;
        if metadata.is_file() && metadata.len() == expected {
            return Ok(());
        }
        let text = format!("it is no file of {expected} bytes");
        Err(io_error("use", &path)(io::Error::other(text)))
    }

    /// Tells whether the store has an object whose bytes hash to its name.
    pub(crate) fn has_sound(&self, digest: Digest) -> Result<bool> {
        let path = self.layout.object(digest);
        let Some(file) = open_if_exists(&path)? else { return Ok(false) };
        match hash(file) {
            Ok(found) => Ok(found == digest),
            Err(error) => {
                tracing::warn!("{}: {error}", path.display());
                Ok(false)
            }
        }
    }
}

impl ObjectSource for Objects {
    fn open(&self, digest: Digest) -> io::Result<File> {
        open_or_trashed(&self.layout.object(digest), &self.layout.trashed_object(digest))
    }
}

/// Opens a file that is in use. The collector moves aside what it thinks is unused and brings back what
/// is not.
pub(crate) fn open_or_trashed(path: &Path, trashed: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            File::open(trashed).or_else(|_| File::open(path))
        }
        other => other,
    }
}

impl LayerSource for Objects {
    fn open(&self, layer: DiffId) -> io::Result<File> {
        open_or_trashed(&self.layout.layer_index(layer), &self.layout.trashed_layer(layer))
    }
}

fn hash(file: File) -> io::Result<Digest> {
    let mut reader = HashingReader::new(file);
    let mut buffer = vec![0; 128 * 1024];
    while reader.read(&mut buffer)? > 0 {}
    Ok(reader.finish().0)
}
