//! Objects that are checked before a mount hands them out.
//!
//! A mount that was told to verify opens its objects here. An object is hashed, through the descriptor
//! that is handed out, and must be what its name says. What was found is kept as long as the file has
//! the same inode and time of last change. While one who opens an object has it hashed, others who want
//! it wait; those who want another object do not.
//!
//! Where the file system has fs-verity, the object is sealed first: then the kernel checks whatever is
//! read later against what was hashed here.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::digest::{Digest, Hasher};
use crate::layer::{ObjectSource, Verify};
use crate::store::Store;
use crate::store::duplicate::Version;
use crate::store::error::Error;
use crate::store::objects::Objects;
use crate::sys::{self, Errno, VerityDigest};

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// Opens objects of a store, and checks them.
#[derive(Debug)]
pub(crate) struct Verified {
    store: Store,
    objects: Objects,
    verify: Verify,
    /// The file system has no fs-verity, or does not seal these files.
    seals_nothing: AtomicBool,
    known: Mutex<HashMap<Digest, Arc<Mutex<Option<Known>>>>>,
}

/// What an object was found to be.
#[derive(Clone, Debug)]
struct Known {
    version: Version,
    /// What its name is, if it is sound.
    actual: Digest,
    /// What the kernel checks it against.
    seal: Option<VerityDigest>,
}

impl Verified {
    pub(crate) fn new(store: &Store, verify: Verify) -> Self {
        Self {
            store: store.clone(),
            objects: store.objects(),
            verify,
            seals_nothing: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }

    /// Returns what an open file is found to be; what is known of it already is not asked again.
    fn look(&self, file: &File, digest: Digest) -> io::Result<Digest> {
        let slot = Arc::clone(self.known.lock().entry(digest).or_default());
        let mut known = slot.lock();
        if let Some(known) = &*known
            && self.is_still(known, file)?
        {
            return Ok(known.actual);
        }
        self.seal(file);
        let version = Version::from(&sys::fstat(file.as_fd()).map_err(io::Error::other)?);
        let seal = sys::measure_verity(file.as_fd()).map_err(io::Error::other)?;
        let actual = hash(file)?;
        *known = Some(Known { version, actual, seal });
        Ok(actual)
    }

    /// Tells whether an open file is what was found before.
    fn is_still(&self, known: &Known, file: &File) -> io::Result<bool> {
        if known.version != Version::from(&sys::fstat(file.as_fd()).map_err(io::Error::other)?) {
            return Ok(false);
        }
        Ok(match (self.verify, &known.seal) {
            (Verify::Off | Verify::Open, _) => true,
            (Verify::Always, None) => false,
            (Verify::Always, Some(seal)) => {
                let measured = sys::measure_verity(file.as_fd()).map_err(io::Error::other)?;
                measured.as_ref() == Some(seal)
            }
        })
    }

    /// Seals a file, where that can be done.
    fn seal(&self, file: &File) {
        if self.seals_nothing.load(Ordering::Relaxed) {
            return;
        }
        match sys::enable_verity(file.as_fd()) {
            Ok(()) => {}
            // Sealed before, or somebody writes to it right now: then it is hashed like any other.
            Err(error) if matches!(error.errno(), Errno::EEXIST | Errno::ETXTBSY) => {}
            Err(error) => {
                tracing::debug!("{error}; objects are not sealed");
                self.seals_nothing.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl ObjectSource for Verified {
    fn verifies(&self) -> bool {
        true
    }

    fn open(&self, digest: Digest) -> io::Result<File> {
        let file = self.objects.open(digest)?;
        let path = self.store.layout().object(digest);
        let refused = match self.look(&file, digest) {
            Ok(actual) if actual == digest => return Ok(file),
            Ok(actual) => io::Error::other(Error::Damaged { path, actual }),
            Err(error) => {
                io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
            }
        };
        let images = match self.store.images_with_object(digest) {
            Ok(names) if names.is_empty() => "images without a name".to_owned(),
            Ok(names) => names.join(", "),
            Err(error) => format!("images that cannot be found: {error}"),
        };
        tracing::error!("{refused}; it is part of {images}");
        Err(refused)
    }
}

fn hash(file: &File) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(len) => {
                hasher.update(&buffer[..len]);
                at += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
