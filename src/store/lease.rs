//! Leases: what a running process uses or makes, kept from the garbage collector.
//!
//! A lease is a file in `leases/` that its holder keeps locked (`flock`), so that the kernel drops
//! it when the holder dies, however it dies. In the file are claims, each one kind and one digest.
//! The rule that makes this safe: claim first, look after. Whoever finds a thing in the store before
//! he has claimed it may find it gone a moment later.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::digest::{DIGEST_LEN, Digest};
use crate::store::Store;
use crate::store::error::{Result, io_error};
use crate::store::files::{create_new, list, random_name, remove_if_exists};
use crate::sys;

/// A thing that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// A blob alone.
    Blob(Digest),
    /// A manifest and all that its image consists of.
    Image(Digest),
    /// A layer with its objects.
    Layer(Digest),
    /// A chain index alone.
    Chain(Digest),
    /// An object.
    Object(Digest),
}

const RECORD_BYTES: usize = 1 + DIGEST_LEN;

impl Claim {
    fn encode(self) -> [u8; RECORD_BYTES] {
        let (kind, digest) = match self {
            Self::Blob(digest) => (b'b', digest),
            Self::Image(digest) => (b'i', digest),
            Self::Layer(digest) => (b'l', digest),
            Self::Chain(digest) => (b'c', digest),
            Self::Object(digest) => (b'o', digest),
        };
        let mut record = [kind; RECORD_BYTES];
        record[1..].copy_from_slice(digest.as_bytes());
        record
    }

    fn decode(record: &[u8]) -> Option<Self> {
        let (kind, digest) = record.split_first()?;
        let digest = Digest::from_bytes(digest.try_into().ok()?);
        match kind {
            b'b' => Some(Self::Blob(digest)),
            b'i' => Some(Self::Image(digest)),
            b'l' => Some(Self::Layer(digest)),
            b'c' => Some(Self::Chain(digest)),
            b'o' => Some(Self::Object(digest)),
            _ => None,
        }
    }
}

/// A lease that this process holds; dropping it ends it.
#[derive(Debug)]
pub struct Lease {
    id: String,
    path: PathBuf,
    file: File,
    held: Arc<Mutex<BTreeSet<String>>>,
}

impl Lease {
    /// Makes an empty lease.
    pub(crate) fn new(store: &Store) -> Result<Self> {
        loop {
            let id = random_name()?;
            let hidden = store.layout().lease(&format!(".{id}"));
            let path = store.layout().lease(&id);
            let file = create_new(&hidden, 0o600)?;
            // It gets its name only when it is locked: a lease with a name and no lock is dead.
            sys::lock_exclusive(file.as_fd())?;
            match fs::rename(&hidden, &path) {
                Ok(()) => {
                    let held = Arc::clone(store.held());
                    held.lock().insert(id.clone());
                    return Ok(Self { id, path, file, held });
                }
                // Somebody has cleared the directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("rename", &hidden)(error)),
            }
        }
    }

    /// Returns the name of the lease.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Claims a thing; when this returns, the collector sees it.
    pub fn claim(&mut self, claim: Claim) -> Result<()> {
        self.file.write_all(&claim.encode()).map_err(io_error("write", &self.path))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.lock().remove(&self.id);
        if let Err(error) = fs::remove_file(&self.path) {
            // The lock goes with the file descriptor, so the collector will remove it.
            tracing::debug!("{}: {error}", self.path.display());
        }
    }
}

/// Returns the claims of all live leases, and removes dead ones.
pub(crate) fn live_claims(store: &Store) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for id in list(&store.layout().leases())? {
        if let Some(mut file) = open_live(store, &id)? {
            let mut bytes = Vec::new();
            let path = store.layout().lease(&id);
            file.read_to_end(&mut bytes).map_err(io_error("read", &path))?;
            // A record that is being written is claimed only when its writer returns.
            claims.extend(bytes.chunks_exact(RECORD_BYTES).filter_map(Claim::decode));
        }
    }
    Ok(claims)
}

/// Tells whether the lease with this id is held by a process that lives.
pub(crate) fn is_live(store: &Store, id: &str) -> Result<bool> {
    Ok(open_live(store, id)?.is_some())
}

/// Opens a lease if it is alive; a dead one is removed.
fn open_live(store: &Store, id: &str) -> Result<Option<File>> {
    let path = store.layout().lease(id);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", &path)(error)),
    };
    if sys::try_lock_exclusive(file.as_fd())? {
        remove_if_exists(&path)?;
        return Ok(None);
    }
    Ok(Some(file))
}
