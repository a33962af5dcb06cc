//! Leases: what a running process uses or makes, kept from the garbage collector.
//!
//! A lease is a file in `leases/` that its holder keeps locked (`flock`), so that the kernel drops
//! it when the holder dies, however it dies. In the file are claims, each one kind and one digest, and
//! a sum of both.
//! The rule that makes this safe: claim first, look after. Whoever finds a thing in the store before
//! he has claimed it may find it gone a moment later.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::digest::{DIGEST_LEN, Digest};
use crate::store::Store;
use crate::store::error::{Error, Result, io_error};
use crate::store::files::{create_locked, list, list_if_there, open_if_locked};

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

const CLAIM_BYTES: usize = 1 + DIGEST_LEN;
const SUM_BYTES: usize = 4;
const RECORD_BYTES: usize = CLAIM_BYTES + SUM_BYTES;

/// Returns the first bytes of the sha256 of a claim.
fn sum_of(claim: &[u8]) -> [u8; SUM_BYTES] {
    let [a, b, c, d, ..] = *Digest::of(claim).as_bytes();
    [a, b, c, d]
}

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
        record[1..CLAIM_BYTES].copy_from_slice(digest.as_bytes());
        let sum = sum_of(&record[..CLAIM_BYTES]);
        record[CLAIM_BYTES..].copy_from_slice(&sum);
        record
    }

    fn decode(record: &[u8]) -> Option<Self> {
        let (claim, sum) = record.split_at_checked(CLAIM_BYTES)?;
        if sum != sum_of(claim) {
            return None;
        }
        let (kind, digest) = claim.split_first()?;
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
        let (id, path, file) = create_locked(|id| store.layout().lease(id), 0o600)?;
        let held = Arc::clone(store.held());
        held.lock().insert(id.clone());
        Ok(Self { id, path, file, held })
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
///
/// # Errors
/// [`Error::Lease`] when one is damaged: then nobody knows all that is used.
pub(crate) fn live_claims(store: &Store) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for id in list(&store.layout().leases())? {
        if let Some(file) = open_live(store, &id)? {
            claims.extend(read_claims(file, &store.layout().lease(&id))?);
        }
    }
    Ok(claims)
}

/// Reads the claims of a lease.
pub(crate) fn read_claims(mut file: File, path: &Path) -> Result<Vec<Claim>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(io_error("read", path))?;
    // A record that is being written is claimed only when its writer returns.
    let claims = bytes.chunks_exact(RECORD_BYTES).map(Claim::decode);
    claims.collect::<Option<_>>().ok_or_else(|| Error::Lease { path: path.to_owned() })
}

/// Tells whether the lease with this id is held by a process that lives; a dead one is removed.
pub(crate) fn is_live(store: &Store, id: &str) -> Result<bool> {
    Ok(open_live(store, id)?.is_some())
}

/// Opens a lease if it is alive; a dead one is removed.
pub(crate) fn open_live(store: &Store, id: &str) -> Result<Option<File>> {
    open_if_locked(&store.layout().lease(id))
}

/// Removes the leases of dead processes.
pub(crate) fn remove_dead(store: &Store) -> Result<()> {
    list_if_there(&store.layout().leases())?.iter().try_for_each(|id| is_live(store, id).map(drop))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use nix::sys::stat::Mode;

    use super::*;
    use crate::store::tests::{add_image, store, tar};

    /// Whoever waits for a FIFO waits for ever.
    const PATIENCE: Duration = Duration::from_secs(300);

    #[test]
    fn what_an_earlier_boot_has_left_in_leases_holds_nothing_back_nor_does_what_is_no_lease() {
        let (folder, store) = store();
        let mut stage = store.stage().unwrap();
        let [kept, unneeded] =
            [8, 9].map(|byte| add_image(&mut stage, &tar(&[("a", &[byte; 9000])])));
        let mut lease = store.lease().unwrap();
        lease.claim(Claim::Image(kept)).unwrap();
        drop(stage);
        let at = |name: &str| store.root().join(name);
        let claim = Claim::Image(unneeded).encode();
        // No lock outlasts a boot; what was not synced may be anything.
        let left = [
            ("leases/0000000000000001", &claim[..]),
            ("leases/0000000000000002", &claim[..20]),
            ("leases/0000000000000003", &[0; 4096]),
            ("leases/0000000000000004", b"no claim, but as long as one or two of them would be"),
            ("leases/0000000000000005", b""),
            ("leases/none of ours", &claim[..]),
        ];
        let others = ["leases/0000000000000006", "leases/dir", "staging/file-dir"];
        let swept = ["staging/0000000000000006", "staging/0000000000000001", "trash/dir"];
        for (name, content) in left {
            fs::write(at(name), content).unwrap();
        }
        for dir in others.iter().chain(&swept) {
            fs::create_dir(at(dir)).unwrap();
            fs::write(at(dir).join("file"), claim).unwrap();
        }
        for file in ["trash/file", "staging/0000000000000007"] {
            fs::write(at(file), claim).unwrap();
        }
        let outside = folder.path().join("outside");
        fs::write(&outside, claim).unwrap();
        symlink(&outside, at("leases/link")).unwrap();
        symlink("nowhere", at("leases/broken")).unwrap();
        nix::unistd::mkfifo(&at("leases/pipe"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("leases/socket")).unwrap();

        let (told, hear) = channel();
        let collector = store.clone();
        std::thread::spawn(move || told.send(collector.collect()));
        let collected = hear.recv_timeout(PATIENCE).expect("it ends").unwrap();

        assert!(collected.blobs.contains(&unneeded), "{collected:?}");
        assert!(!collected.blobs.contains(&kept), "{collected:?}");
        assert_eq!(store.image(kept).unwrap().digest, kept);
        let gone = left.iter().map(|(name, _)| name).chain(&swept);
        for name in gone.chain(&["trash/file", "staging/0000000000000007"]) {
            assert!(!at(name).exists(), "{name}");
        }
        for name in others {
            assert!(at(name).join("file").exists(), "{name} is somebody else's");
        }
        assert!(outside.exists());
        assert!(list(&at("leases")).unwrap().contains(&lease.id().to_owned()));
    }

    #[test]
    fn no_bit_of_a_claim_changes_unnoticed() {
        let digest = Digest::of(b"x");
        for claim in [Claim::Blob(digest), Claim::Image(digest), Claim::Object(digest)] {
            let good = claim.encode();
            assert_eq!(Claim::decode(&good), Some(claim));
            for bit in 0..good.len() * 8 {
                let mut bad = good;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Claim::decode(&bad), None, "bit {bit}");
            }
        }
    }
}
