//! A disk that can lose its power: what was written and not flushed may be there afterwards, or not.
//!
//! It is one file of a FUSE file system of our own, below a loop device: the kernel writes blocks to it,
//! and has them flushed by `fsync`. A thread answers and notes all of it. What is on the disk after a
//! power cut is then made of the notes: everything up to the last flush, and of what came after as much
//! as chance says.
//!
//! The thread never touches the file system that is on the disk, or it would wait for itself. The mount
//! is one that only the test's thread sees (`private_mounts`), so nothing is left if the tests are killed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::common::Dice;
use crate::common::deadline::{Connection, Deadline, PATIENCE};

/// What is written whole or not at all.
pub(crate) const BLOCK: usize = 4096;

// The requests of linux/fuse.h that come for a single file.
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const NO_ANSWER: [u32; 4] = [2, 36, 38, 42];

const IN_HEADER: usize = 40;
const WRITE_HEADER: usize = 40;
const MAX_WRITE: usize = 128 * 1024;
/// FUSE_BIG_WRITES and FUSE_MAX_PAGES.
const INIT_FLAGS: u32 = 1 << 5 | 1 << 22;

/// Something that came to the disk.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) what: What,
    /// How far the test was, as it says itself.
    pub(crate) progress: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A block was written.
    Write(u64, Arc<[u8]>),
    /// All that was written before is on the disk now.
    Flush,
}

/// What the thread and the test share.
struct Shared {
    base: File,
    len: u64,
    blocks: Mutex<HashMap<u64, Arc<[u8]>>>,
    log: Mutex<Vec<Entry>>,
    progress: Box<dyn Fn() -> usize + Send + Sync>,
}

/// The disk.
pub(crate) struct Disk {
    shared: Arc<Shared>,
    at: PathBuf,
    connection: Connection,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// Makes a disk with the content of the file `base`, which stays as it is. It is the file at `at`.
    pub(crate) fn new(
        base: &Path,
        at: PathBuf,
        progress: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Self {
        File::create(&at).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let fd = device.as_raw_fd();
        let data = format!("fd={fd},rootmode=100600,user_id=0,group_id=0");
        let flags = MsFlags::empty();
        mount(Some("torture-disk"), &at, Some("fuse"), flags, Some(data.as_str())).unwrap();
        let base = File::open(base).unwrap();
        let len = base.metadata().unwrap().len();
        let shared = Arc::new(Shared {
            base,
            len,
            blocks: Mutex::default(),
            log: Mutex::default(),
            progress: Box::new(progress),
        });
        let connection = Connection::of(&at).expect("it was just mounted");
        let of_thread = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || of_thread.serve(&device)));
        Self { shared, at, connection, thread }
    }

    /// Returns the file that the disk is.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Ends the disk, and returns all that came to it.
    pub(crate) fn into_log(self) -> Vec<Entry> {
        std::mem::take(&mut *self.shared.log.lock().unwrap())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.at, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.at.display());
        }
        // The thread ends with the last user of the disk.
        let connection = self.connection.clone();
        let _deadline = Deadline::new("the disk".to_owned(), PATIENCE, move || connection.abort());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the disk panicked");
    }
}

impl Shared {
    fn serve(&self, mut device: &File) {
        let mut buffer = vec![0; MAX_WRITE + 4096];
        loop {
            let len = match device.read(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                // It is not mounted any more, or was aborted.
                Err(error)
                    if [Some(libc::ENODEV), Some(libc::ECONNABORTED)]
                        .contains(&error.raw_os_error()) =>
                {
                    return;
                }
                Err(error) => panic!("/dev/fuse: {error}"),
            };
            let request = &buffer[..len];
            let opcode = number32(request, 4);
            if NO_ANSWER.contains(&opcode) {
                continue;
            }
            let (error, body) = match self.answer(opcode, &request[IN_HEADER..]) {
                Ok(body) => (0, body),
                Err(errno) => (-errno, Vec::new()),
            };
            let len = u32::try_from(16 + body.len()).expect("answers are small");
            let mut answer = Vec::from(len.to_ne_bytes());
            answer.extend(error.to_ne_bytes());
            answer.extend(&request[8..16]);
            answer.extend(body);
            // Who asked may be gone.
            if let Err(error) = device.write(&answer) {
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "/dev/fuse: {error}");
            }
        }
    }

    fn answer(&self, opcode: u32, body: &[u8]) -> Result<Vec<u8>, i32> {
        Ok(match opcode {
            INIT => init(),
            GETATTR | SETATTR => self.attributes(),
            OPEN => words(&[0, 0, 0, 0]),
            READ => self.read(number64(body, 8), number32(body, 16)),
            WRITE => {
                let bytes = &body[WRITE_HEADER..];
                self.write(number64(body, 8), bytes);
                words(&[u32::try_from(bytes.len()).expect("it is small"), 0])
            }
            FSYNC => {
                self.note(What::Flush);
                Vec::new()
            }
            STATFS => words(&[0; 20]),
            RELEASE | FLUSH => Vec::new(),
            // Blocks cannot be given back, for one.
            _ => return Err(libc::ENOSYS),
        })
    }

    fn attributes(&self) -> Vec<u8> {
        let [size, blocks] = [self.len, self.len / 512].map(u64::to_ne_bytes);
        // Valid for a day, then the number.
        let mut answer = [86400_u64, 0, 1].map(u64::to_ne_bytes).concat();
        answer.extend([size, blocks].concat());
        // Six numbers of times, the mode, one name, and nothing more.
        answer.extend(words(&[0; 9]));
        answer.extend(words(&[0o100_600, 1, 0, 0, 0, 4096, 0]));
        answer
    }

    fn read(&self, offset: u64, len: u32) -> Vec<u8> {
        let end = (offset + u64::from(len)).min(self.len);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(offset)).expect("it is small")];
        let blocks = self.blocks.lock().unwrap();
        for (piece, at) in bytes.chunks_mut(BLOCK).zip((offset..).step_by(BLOCK)) {
            let (block, skip) = place(at);
            match blocks.get(&block) {
                // Requests are aligned, but for those of the kernel's own page cache.
                Some(written) if skip == 0 => piece.copy_from_slice(&written[..piece.len()]),
                Some(_) => panic!("read at {at}, which is not a multiple of {BLOCK}"),
                None => self.base.read_exact_at(piece, at).unwrap(),
            }
        }
        bytes
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        for (piece, at) in bytes.chunks(BLOCK).zip((offset..).step_by(BLOCK)) {
            let (block, skip) = place(at);
            assert_eq!((skip, piece.len()), (0, BLOCK), "a piece of a block is written");
            let piece: Arc<[u8]> = piece.into();
            self.blocks.lock().unwrap().insert(block, Arc::clone(&piece));
            self.note(What::Write(block, piece));
        }
    }

    fn note(&self, what: What) {
        let progress = (self.progress)();
        self.log.lock().unwrap().push(Entry { what, progress });
    }
}

/// Returns the block of an offset, and how far in it that is.
fn place(at: u64) -> (u64, u64) {
    (at / BLOCK as u64, at % BLOCK as u64)
}

fn init() -> Vec<u8> {
    let max_write = u32::try_from(MAX_WRITE).expect("it is small");
    let pages = u32::try_from(MAX_WRITE / 4096).expect("it is small");
    // Version, read-ahead, flags, how many at once, the largest write, a nanosecond, pages.
    let mut answer = words(&[7, 31, 0, INIT_FLAGS, 0, max_write, 1, pages]);
    answer.extend(words(&[0; 8]));
    answer
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// What of the blocks that were not flushed is on the disk after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survives {
    Nothing,
    All,
    /// As chance says.
    Some,
}

/// Makes disks as they are after a power cut, at later and later times.
pub(crate) struct Replay<'a> {
    log: &'a [Entry],
    /// The file with all that is flushed.
    flushed: PathBuf,
    /// How much of the log it has.
    at: usize,
}

impl<'a> Replay<'a> {
    /// Begins with a disk that has the content of `base`; `flushed` is a new file.
    pub(crate) fn new(log: &'a [Entry], base: &Path, flushed: PathBuf) -> Self {
        copy(base, &flushed);
        Self { log, flushed, at: 0 }
    }

    /// Makes the disk as it is when the power is cut before entry `cut`, in a new file.
    pub(crate) fn cut(&mut self, cut: usize, survives: Survives, dice: &mut Dice, to: &Path) {
        let is_flush = |entry: &Entry| matches!(entry.what, What::Flush);
        let flush = self.log[..cut].iter().rposition(is_flush).unwrap_or(0);
        if flush > self.at {
            apply(&self.flushed, &self.log[self.at..flush]);
            self.at = flush;
        }
        copy(&self.flushed, to);
        let pending = self.log[self.at..cut].iter().filter(|_| match survives {
            Survives::Nothing => false,
            Survives::All => true,
            Survives::Some => dice.below(2) == 0,
        });
        apply(to, &pending.cloned().collect::<Vec<_>>());
    }
}

fn apply(to: &Path, entries: &[Entry]) {
    let file = File::options().write(true).open(to).unwrap();
    for entry in entries {
        if let What::Write(block, bytes) = &entry.what {
            file.write_all_at(bytes, block * BLOCK as u64).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let mut command = std::process::Command::new("cp");
    crate::common::succeed(command.arg("--sparse=always").args([from, to]));
}

/// A number that a test sets and a disk notes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<AtomicUsize>);

impl Progress {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, to: usize) {
        self.0.store(to, Ordering::Release);
    }
}
