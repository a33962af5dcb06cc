//! Notes: what a server writes down for the one that goes on after it.
//!
//! Almost all that is known of a file is found again on the disk. What is not is noted here, in memory
//! that outlives the server, as facts of one kind: a file that has no name any more, a number that the
//! place of a file does not say, a listing that is being read. A fact is noted before it becomes true on the disk, and
//! struck out when the kernel has forgotten the file. Descriptors stay open with the process that holds
//! the memory: it has one table of open files with the server.
//!
//! A fact takes the place of four numbers; the first is written last and makes it valid.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::layer::Kind;
use crate::overlay::Ino;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::LowerId;
use crate::overlay::readdir::Fh;
use crate::sys::{self, Errno, SharedMemory};

/// A fact about a file that the disk does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A file of the upper has lost the names by which it could be found. The descriptor is the file.
    Pinned {
        /// Its number.
        ino: Ino,
        /// What it is.
        kind: Kind,
        /// Its inode in the upper.
        inode: u64,
        /// What it is in the lower.
        lower: Option<LowerId>,
        /// The file.
        fd: RawFd,
    },
    /// A file of the lower has no name any more.
    Gone {
        /// Its number.
        ino: Ino,
        /// What it is.
        kind: Kind,
    },
    /// A file of the upper has another number than its place says.
    Number {
        /// The number.
        ino: Ino,
        /// The inode in the upper.
        inode: u64,
    },
    /// Changes of a mount that syncs nothing are lost.
    Lost,
    /// A directory is being read.
    Listing {
        /// By this handle.
        fh: Fh,
        /// A file with the names that the upper had when reading began.
        fd: RawFd,
    },
}

/// A fact as it is noted.
pub(crate) type FactWords = [u64; WORDS];

const WORDS: usize = 4;
/// Numbers before the facts: how many places were ever used, and how many servers there were.
const USED: usize = 0;
const SERVERS: usize = 1;
const HEAD: usize = WORDS;
/// Room for so many facts; what is never written takes no memory.
const FACTS: usize = 1 << 22;

impl Fact {
    pub(crate) fn encode(self) -> FactWords {
        let first = |tag: u64, kind: Kind, fd: RawFd| {
            let fd = u64::from(fd.cast_unsigned()) << 32;
            tag | u64::from(kind.dirent_type()) << 8 | fd
        };
        match self {
            Self::Pinned { ino, kind, inode, lower, fd } => {
                let lower = lower.map_or(0, |id| id.0.wrapping_add(1));
                [first(1, kind, fd), ino.0, inode, lower]
            }
            Self::Gone { ino, kind } => [first(2, kind, 0), ino.0, 0, 0],
            Self::Number { ino, inode } => [first(3, Kind::Regular, 0), ino.0, inode, 0],
            Self::Listing { fh, fd } => [first(4, Kind::Directory, fd), fh.0, 0, 0],
            Self::Lost => [first(5, Kind::Regular, 0), 0, 0, 0],
        }
    }

    pub(crate) fn decode([first, number, inode, lower]: FactWords) -> Option<Self> {
        let [tag, kind, _, _, fd @ ..] = first.to_le_bytes();
        let kind = Kind::of_dirent(kind)?;
        let (fd, ino) = (RawFd::from_le_bytes(fd), Ino(number));
        Some(match tag {
            1 => {
                let lower = (lower != 0).then(|| LowerId(lower.wrapping_sub(1)));
                Self::Pinned { ino, kind, inode, lower, fd }
            }
            2 => Self::Gone { ino, kind },
            3 => Self::Number { ino, inode },
            4 => Self::Listing { fh: Fh(number), fd },
            5 => Self::Lost,
            _ => return None,
        })
    }

    /// Returns the fact with another number for its descriptor, if it has one.
    pub(crate) const fn with_fd(mut self, number: RawFd) -> Self {
        if let Self::Pinned { fd, .. } | Self::Listing { fd, .. } = &mut self {
            *fd = number;
        }
        self
    }

    /// Returns the descriptor that belongs to it.
    pub(crate) const fn fd(self) -> Option<RawFd> {
        match self {
            Self::Pinned { fd, .. } | Self::Listing { fd, .. } => Some(fd),
            Self::Gone { .. } | Self::Number { .. } | Self::Lost => None,
        }
    }
}

/// The notes of a mount.
#[derive(Debug)]
pub struct Notes {
    memory: SharedMemory,
    free: Mutex<Free>,
}

/// Places for facts.
#[derive(Debug, Default)]
struct Free {
    /// Those that were used before.
    places: Vec<u32>,
    /// The first that never was.
    next: u32,
}

/// A fact that is noted, until this is dropped.
#[derive(Debug)]
pub(crate) struct Note {
    notes: Arc<Notes>,
    place: u32,
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(words) = self.notes.place(self.place) {
            words[0].store(0, Ordering::Release);
        }
        self.notes.free.lock().places.push(self.place);
    }
}

impl Notes {
    /// Returns empty notes, which processes share that are forked from now on.
    pub fn new() -> sys::Result<Self> {
        let memory = SharedMemory::new((HEAD + FACTS * WORDS) * size_of::<u64>())?;
        Ok(Self { memory, free: Mutex::default() })
    }

    /// Begins a server, and returns how many there were before it.
    pub(crate) fn begin(&self) -> u64 {
        let words = self.memory.words();
        words.get(SERVERS).map_or(0, |servers| servers.fetch_add(1, Ordering::Relaxed))
    }

    /// Has so many servers count as earlier ones.
    pub(crate) fn begin_after(&self, servers: u64) {
        if let Some(word) = self.memory.words().get(SERVERS) {
            word.store(servers, Ordering::Relaxed);
        }
    }

    /// Leaves a fact for the next server, with its descriptor.
    pub(crate) fn leave(self: &Arc<Self>, fact: Fact, file: Option<OwnedFd>) -> Result<()> {
        let fact = file.as_ref().map_or(fact, |file| fact.with_fd(file.as_raw_fd()));
        let note = self.note(fact)?;
        std::mem::forget(note);
        // It is open for as long as there is the fact.
        std::mem::forget(file);
        Ok(())
    }

    /// Returns the facts that an earlier server has noted.
    pub fn facts(&self) -> impl Iterator<Item = Fact> {
        (0..self.used()).filter_map(|place| self.fact(place))
    }

    /// Returns the descriptors that facts have.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.facts().filter_map(Fact::fd)
    }

    /// Takes the facts over that an earlier server has noted.
    pub(crate) fn take_over(self: &Arc<Self>) -> Vec<(Fact, Note)> {
        let mut taken = Vec::new();
        let mut free = self.free.lock();
        (free.places, free.next) = (Vec::new(), self.used());
        for place in 0..free.next {
            match self.fact(place) {
                Some(fact) => taken.push((fact, Note { notes: Arc::clone(self), place })),
                None => free.places.push(place),
            }
        }
        taken
    }

    /// Notes a fact.
    ///
    /// # Errors
    /// `ENFILE` when there is no more room.
    pub(crate) fn note(self: &Arc<Self>, fact: Fact) -> Result<Note> {
        let full = || Error::Sys(sys::Error::new("the notes of the mount are full", Errno::ENFILE));
        let place = self.free_place().ok_or_else(full)?;
        let note = Note { notes: Arc::clone(self), place };
        let [first, rest @ ..] = fact.encode();
        let words = self.place(place).ok_or_else(full)?;
        for (word, value) in words.iter().skip(1).zip(rest) {
            word.store(value, Ordering::Relaxed);
        }
        words[0].store(first, Ordering::Release);
        Ok(note)
    }

    fn free_place(&self) -> Option<u32> {
        let mut free = self.free.lock();
        if let Some(place) = free.places.pop() {
            return Some(place);
        }
        let place = free.next;
        self.place(place)?;
        free.next += 1;
        self.memory.words().get(USED)?.store(free.next.into(), Ordering::Relaxed);
        Some(place)
    }

    fn used(&self) -> u32 {
        let used = self.memory.words().get(USED).map_or(0, |used| used.load(Ordering::Relaxed));
        u32::try_from(used).unwrap_or(0)
    }

    fn place(&self, place: u32) -> Option<&[AtomicU64; WORDS]> {
        let start = HEAD + place as usize * WORDS;
        self.memory.words().get(start..).filter(|_| (place as usize) < FACTS)?.first_chunk()
    }

    fn fact(&self, place: u32) -> Option<Fact> {
        let words = self.place(place)?;
        // What belongs to the first number was written before it.
        let first = words[0].load(Ordering::Acquire);
        let [_, rest @ ..] = words;
        let [number, inode, lower] = rest.each_ref().map(|word| word.load(Ordering::Relaxed));
        Fact::decode([first, number, inode, lower])
    }
}

/// A descriptor of a file that has no names by which it could be found.
#[derive(Debug)]
pub(crate) struct Pin {
    // Dropped first: what a note names must be open.
    _note: Option<Note>,
    fd: Arc<OwnedFd>,
}

impl Pin {
    /// Returns the pin that a note is of.
    pub(crate) fn new(note: Option<Note>, fd: OwnedFd) -> Self {
        Self { _note: note, fd: Arc::new(fd) }
    }

    /// Returns the file.
    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }
}

impl crate::overlay::Overlay {
    /// Notes a fact, if anybody wants to know.
    pub(crate) fn note(&self, fact: Fact) -> Result<Option<Note>> {
        self.notes.as_ref().map(|notes| notes.note(fact)).transpose()
    }

    /// Returns the pin of a file of the upper.
    pub(crate) fn new_pin(
        &self,
        (ino, kind, lower): (Ino, Kind, Option<LowerId>),
        inode: u64,
        file: OwnedFd,
    ) -> Result<Pin> {
        let fd = file.as_raw_fd();
        Ok(Pin::new(self.note(Fact::Pinned { ino, kind, inode, lower, fd })?, file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: [Fact; 6] = [
        Fact::Pinned { ino: Ino(7), kind: Kind::Fifo, inode: 9, lower: Some(LowerId(0)), fd: 3 },
        Fact::Pinned { ino: Ino(8), kind: Kind::Directory, inode: 10, lower: None, fd: 4 },
        Fact::Gone { ino: Ino(u64::MAX), kind: Kind::Regular },
        Fact::Number { ino: Ino(1 << 63), inode: 5 },
        Fact::Listing { fh: Fh(1 << 40), fd: i32::MAX },
        Fact::Lost,
    ];

    #[test]
    fn the_next_server_finds_what_was_noted_and_not_struck_out() {
        let notes = Arc::new(Notes::new().unwrap());
        assert_eq!(notes.begin(), 0);
        let mut noted: Vec<_> = FACTS.iter().map(|fact| notes.note(*fact).unwrap()).collect();
        drop(noted.remove(2));
        // The memory of the server is gone with it.
        std::mem::forget(noted);
        assert_eq!(notes.begin(), 1);
        let expected = [FACTS[0], FACTS[1], FACTS[3], FACTS[4], FACTS[5]];
        assert_eq!(notes.facts().collect::<Vec<_>>(), expected);
        let mut taken = notes.take_over();
        assert_eq!(taken.iter().map(|(fact, _)| *fact).collect::<Vec<_>>(), expected);
        drop(taken.remove(0));
        let more = [notes.note(FACTS[2]).unwrap(), notes.note(FACTS[0]).unwrap()];
        let mut now: Vec<_> = notes.facts().collect();
        assert_eq!(now.len(), 6);
        now.sort_by_key(|fact| FACTS.iter().position(|other| other == fact));
        assert_eq!(now, FACTS);
        drop((more, taken));
        assert_eq!(notes.facts().count(), 0);
    }
}
