//! What was found to be sound, and when: so that what was checked longest ago is checked first, and an
//! interrupted check goes on where it was.
//!
//! `checked` is a header and records of 64 bytes, each with the first 8 bytes of the sha256 of what is
//! before them. Records are appended while a check goes on; of one thing the last counts. The file is a
//! help and nothing else: what is damaged in it is as if it had not been checked.
//!
//! | offset | size | header | record |
//! |---|---|---|---|
//! | 0 | 8 | `STRATCHK` | what it is, one byte, and zeros |
//! | 8 | 32 | the image that is checked alone, or zeros | its digest |
//! | 40 | 8 | when the unfinished check began, nanoseconds since 1970; 0 for none | when it was sound |
//! | 48 | 8 | version, 1 | its version: of inode, size and time of last change |
//! | 56 | 8 | sum | sum |

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::digest::{Digest, Hasher};
use crate::store::Store;
use crate::store::error::{Error, Result, io_error};
use crate::store::files::{read_if_exists, replace};
use crate::store::fsck::{CheckScope, give};

const MAGIC: &[u8; 8] = b"STRATCHK";
const VERSION: u64 = 1;
const RECORD_BYTES: usize = 64;
const SUM_AT: usize = 56;
/// So long a record may wait to be written.
const KEPT_BACK: Duration = Duration::from_millis(50);

/// What was checked: its kind, and its digest.
pub(crate) type Key = (u8, Digest);

/// What is known of something that was sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// Nanoseconds since 1970.
    when: u64,
    version: u64,
}

/// What is known of all that was checked.
#[derive(Debug)]
pub(crate) struct Checked {
    staging: PathBuf,
    path: PathBuf,
    /// The owner of the store.
    owner: u32,
    scope: Option<Digest>,
    known: HashMap<Key, Seen>,
    /// When the check began that this one goes on with, or this one itself.
    begun: u64,
    goes_on: bool,
    damage: Option<String>,
    new: Mutex<New>,
    passed_over: std::sync::atomic::AtomicU64,
}

/// What was found to be sound since it began.
#[derive(Debug)]
struct New {
    file: File,
    all: HashMap<Key, Seen>,
    waiting: Vec<u8>,
    written: Instant,
}

impl Checked {
    /// Reads what is known, and notes that a check begins.
    pub(crate) fn open(store: &Store, scope: CheckScope, owner: u32) -> Result<Self> {
        let (staging, path) = (store.layout().staging(), store.layout().checked());
        let mut damage = None;
        let bytes = match read_if_exists(&path) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(Error::Io { source, .. }) => {
                damage = Some(format!("it cannot be read: {source}"));
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let (header, known, damaged) = parse(&bytes);
        if damaged > 0 {
            damage = Some(format!("{damaged} of its records are not what their sums say"));
        }
        let unfinished = header.filter(|header| header.begun > 0 && header.scope == scope.image);
        let unfinished = unfinished.filter(|_| !scope.anew);
        let begun = unfinished.map_or_else(now, |header| header.begun);
        // Written anew, so that it grows by what is checked and not by how often.
        let header = Header { scope: scope.image, begun };
        replace(&staging, &path, &encode(header, &known))?;
        give(&path, owner)?;
        let file = File::options().append(true).open(&path).map_err(io_error("open", &path))?;
        let (all, waiting, written) = (HashMap::new(), Vec::new(), Instant::now());
        Ok(Self {
            staging,
            path,
            owner,
            scope: scope.image,
            known,
            begun,
            goes_on: unfinished.is_some(),
            damage,
            new: Mutex::new(New { file, all, waiting, written }),
            passed_over: 0.into(),
        })
    }

    /// Returns what was wrong with the file.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Returns when something was last found to be sound; 0 for never.
    pub(crate) fn last(&self, key: Key) -> u64 {
        self.known.get(&key).map_or(0, |seen| seen.when)
    }

    /// Tells whether the check that this one goes on with has found something to be sound that has not
    /// changed since.
    pub(crate) fn is_done(&self, key: Key, version: u64) -> bool {
        let is_done = |seen: &Seen| seen.when >= self.begun && seen.version == version;
        let done = self.goes_on && self.known.get(&key).is_some_and(is_done);
        if done {
            self.passed_over.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        done
    }

    pub(crate) fn passed_over(&self) -> u64 {
        self.passed_over.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Notes that something is sound.
    pub(crate) fn note(&self, key: Key, version: u64) -> Result<()> {
        let seen = Seen { when: now(), version };
        let mut new = self.new.lock();
        new.all.insert(key, seen);
        new.waiting.extend_from_slice(&record(key, seen));
        if new.written.elapsed() < KEPT_BACK {
            return Ok(());
        }
        let waiting = std::mem::take(&mut new.waiting);
        new.written = Instant::now();
        new.file.write_all(&waiting).map_err(io_error("write", &self.path))
    }

    /// Notes that the check has ended. What is no longer there is forgotten.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { staging, path, owner, scope, mut known, goes_on, begun, new, .. } = self;
        if scope.is_none() {
            // All of it was looked at: what was not met is gone, or not sound.
            known.retain(|_, seen| goes_on && seen.when >= begun);
        }
        known.extend(std::mem::take(&mut new.lock().all));
        replace(&staging, &path, &encode(Header { scope: None, begun: 0 }, &known))?;
        give(&path, owner)
    }
}

#[derive(Clone, Copy, Debug)]
struct Header {
    scope: Option<Digest>,
    begun: u64,
}

/// Returns the version of a file: it changes whenever the file does.
pub(crate) fn version_of(metadata: &Metadata) -> u64 {
    let mut hasher = Hasher::default();
    let numbers = [metadata.ino(), metadata.size()].map(u64::to_le_bytes);
    let times = [metadata.ctime(), metadata.ctime_nsec()].map(i64::to_le_bytes);
    numbers.iter().chain(&times).for_each(|number| hasher.update(number));
    first_8(hasher.finish())
}

fn first_8(digest: Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok().and_then(|now| u64::try_from(now.as_nanos()).ok()).unwrap_or(1)
}

fn row(first: [u8; 8], digest: Digest, time: u64, last: u64) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..8].copy_from_slice(&first);
    bytes[8..40].copy_from_slice(digest.as_bytes());
    bytes[40..48].copy_from_slice(&time.to_le_bytes());
    bytes[48..56].copy_from_slice(&last.to_le_bytes());
    let sum = first_8(Digest::of(&bytes[..SUM_AT])).to_le_bytes();
    bytes[SUM_AT..].copy_from_slice(&sum);
    bytes
}

fn record((kind, digest): Key, seen: Seen) -> [u8; RECORD_BYTES] {
    row([kind, 0, 0, 0, 0, 0, 0, 0], digest, seen.when, seen.version)
}

const NONE: Digest = Digest::from_bytes([0; 32]);

fn encode(header: Header, known: &HashMap<Key, Seen>) -> Vec<u8> {
    let mut bytes = row(*MAGIC, header.scope.unwrap_or(NONE), header.begun, VERSION).to_vec();
    for (key, seen) in known {
        bytes.extend_from_slice(&record(*key, *seen));
    }
    bytes
}

/// Returns what a file says, and how many records of it are damaged. The last one may not be whole.
fn parse(bytes: &[u8]) -> (Option<Header>, HashMap<Key, Seen>, u64) {
    let (mut header, mut known, mut damaged) = (None, HashMap::new(), 0);
    for (number, row) in bytes.chunks_exact(RECORD_BYTES).enumerate() {
        let at = |from: usize| -> u64 {
            let field = row.get(from..from + 8).and_then(|bytes| bytes.try_into().ok());
            field.map_or(0, u64::from_le_bytes)
        };
        let digest = row.get(8..40).and_then(|bytes| bytes.try_into().ok());
        let digest = digest.map_or(NONE, Digest::from_bytes);
        if first_8(Digest::of(&row[..SUM_AT])) != at(SUM_AT) {
            damaged += 1;
        } else if number == 0 {
            if row.starts_with(MAGIC) && at(48) == VERSION {
                let scope = Some(digest).filter(|digest| *digest != NONE);
                header = Some(Header { scope, begun: at(40) });
            } else {
                damaged += 1;
            }
        } else {
            known.insert((row[0], digest), Seen { when: at(40), version: at(48) });
        }
    }
    if header.is_none() && !bytes.is_empty() {
        // Nobody knows what the rest is.
        return (None, HashMap::new(), damaged.max(1));
    }
    (header, known, damaged)
}

impl Drop for New {
    fn drop(&mut self) {
        // What waits is lost with a process that is killed, and no more.
        if let Err(error) = self.file.write_all(&self.waiting) {
            tracing::debug!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        (folder, store)
    }

    fn owner() -> u32 {
        crate::sys::effective_ids().0
    }

    fn key(text: &str) -> Key {
        (b'o', Digest::of(text.as_bytes()))
    }

    #[test]
    fn an_interrupted_check_goes_on_and_a_finished_one_does_not() {
        let (_folder, store) = store();
        let all = CheckScope::default();
        let first = Checked::open(&store, all, owner()).unwrap();
        assert!(!first.is_done(key("a"), 7));
        first.note(key("a"), 7).unwrap();
        drop(first);
        let second = Checked::open(&store, all, owner()).unwrap();
        assert!(second.is_done(key("a"), 7) && second.last(key("a")) > 0);
        // It has changed since.
        assert!(!second.is_done(key("a"), 8));
        assert_eq!(second.passed_over(), 1);
        second.note(key("b"), 1).unwrap();
        second.finish().unwrap();
        let third = Checked::open(&store, all, owner()).unwrap();
        assert!(!third.is_done(key("a"), 7) && third.last(key("a")) > 0);
        third.note(key("b"), 1).unwrap();
        drop(third);
        let other = CheckScope { image: Some(Digest::of(b"image")), anew: false };
        assert!(!Checked::open(&store, other, owner()).unwrap().is_done(key("b"), 1));
        let anew = CheckScope { anew: true, ..all };
        assert!(!Checked::open(&store, anew, owner()).unwrap().is_done(key("b"), 1));
    }

    #[test]
    fn what_is_damaged_was_not_checked() {
        let (_folder, store) = store();
        let all = CheckScope::default();
        let first = Checked::open(&store, all, owner()).unwrap();
        first.note(key("a"), 1).unwrap();
        first.note(key("b"), 1).unwrap();
        drop(first);
        let path = store.layout().checked();
        let good = fs::read(&path).unwrap();
        assert_eq!(good.len(), 3 * RECORD_BYTES);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bad).2, 1, "bit {bit}");
        }
        let mut bad = good.clone();
        bad[RECORD_BYTES + 9] ^= 1;
        fs::write(&path, &bad[..bad.len() - 1]).unwrap();
        let second = Checked::open(&store, all, owner()).unwrap();
        assert!(second.damage().unwrap().starts_with("1 of its records"));
        assert!(!second.is_done(key("a"), 1) && !second.is_done(key("b"), 1));
        drop(second);
        assert_eq!(Checked::open(&store, all, owner()).unwrap().damage(), None);
    }
}
