//! Desks: where the threads of a server have what is in their hands, in memory that the next server
//! finds when this one has died.
//!
//! The kernel asks again for what was read and not answered. The next server must know of each request
//! whether the dead one had begun with it (an attempt), and forgettings, which are not asked again, it
//! finds where they were read to. Lastly it must not die over the same request for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::fuse::abi::{RESENT, opcode};
use crate::fuse::device;
use crate::fuse::request::Request;
use crate::overlay::{Attempt, MEMO_WORDS, Memo};
use crate::sys::{self, SharedMemory};

/// Room for so many attempts; there is one for each thread, and one for each that nobody asked again.
const ATTEMPTS: usize = 1024;
/// When a server begins, at most so many attempts are left of the servers before.
const LEFT: usize = ATTEMPTS / 2;
/// A request that is in hand when so many servers die of themselves is not tried again.
const DEATHS: u64 = 3;
/// How many such requests are remembered.
const SUSPECTS: usize = 64;

/// Numbers of an attempt: the request, the server that has begun with it, what the operation has noted.
const ATTEMPT_WORDS: usize = 2 + MEMO_WORDS;
/// Numbers of a desk: the request in hand, how many were answered; on a line of the cache of its own.
const DESK_WORDS: usize = 8;
const SUSPECT_WORDS: usize = 2;

/// The desks of a mount.
#[derive(Debug)]
pub(crate) struct Desks {
    memory: SharedMemory,
    /// Where each thread reads requests to.
    incoming: Vec<Mutex<SharedMemory>>,
    /// How many servers there were before this one.
    servers: AtomicU64,
}

impl Desks {
    /// Makes desks for so many threads, which processes share that are forked from now on.
    pub(crate) fn new(threads: usize) -> sys::Result<Self> {
        let words = ATTEMPTS * ATTEMPT_WORDS + SUSPECTS * SUSPECT_WORDS + threads * DESK_WORDS;
        let incoming =
            (0..threads).map(|_| SharedMemory::new(device::BUFFER_BYTES).map(Mutex::new));
        Ok(Self {
            memory: SharedMemory::new(words * size_of::<u64>())?,
            incoming: incoming.collect::<sys::Result<_>>()?,
            servers: AtomicU64::new(0),
        })
    }

    /// Returns how many desks there are.
    pub(crate) const fn count(&self) -> usize {
        self.incoming.len()
    }

    /// Returns how many requests all servers have answered.
    pub(crate) fn answered(&self) -> u64 {
        let answered = |desk| self.desk(desk).map(|[_, answered, ..]| answered);
        (0..self.count()).filter_map(answered).map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Begins a server after so many others. `has_failed` says that the last one has died of itself, and not
    /// because it was told to.
    pub(crate) fn begin(&self, servers: u64, has_failed: bool) {
        self.servers.store(servers, Ordering::Relaxed);
        for [in_hand, ..] in (0..self.count()).filter_map(|desk| self.desk(desk)) {
            let unique = in_hand.swap(0, Ordering::Relaxed) & !RESENT;
            if has_failed && unique != 0 {
                self.suspect(unique);
            }
        }
        self.drop_oldest();
    }

    /// Drops attempts that nobody has asked again: who asked was killed.
    fn drop_oldest(&self) {
        let mut used: Vec<_> = (0..ATTEMPTS)
            .filter_map(|number| self.attempt(number))
            .filter(|[unique, ..]| unique.load(Ordering::Relaxed) != 0)
            .collect();
        used.sort_by_key(|[_, server, ..]| server.load(Ordering::Relaxed));
        for attempt in used.iter().rev().skip(LEFT) {
            clear(attempt);
        }
    }

    fn suspect(&self, unique: u64) {
        let suspects = || (0..SUSPECTS).filter_map(|number| self.suspects(number));
        let known = suspects().find(|[other, _]| other.load(Ordering::Relaxed) == unique);
        if let Some([_, deaths]) = known {
            deaths.fetch_add(1, Ordering::Relaxed);
        } else if let Some([other, deaths]) =
            suspects().min_by_key(|[_, deaths]| deaths.load(Ordering::Relaxed))
        {
            other.store(unique, Ordering::Relaxed);
            deaths.store(1, Ordering::Relaxed);
        }
    }

    /// Tells whether servers have died over a request too often.
    fn is_deadly(&self, request: &Request<'_>) -> bool {
        let unique = request.unique() & !RESENT;
        request.is_resent()
            && (0..SUSPECTS).filter_map(|number| self.suspects(number)).any(|[other, deaths]| {
                other.load(Ordering::Relaxed) == unique && deaths.load(Ordering::Relaxed) >= DEATHS
            })
    }

    /// Begins with a request. What this returns is dropped when the answer was sent.
    fn try_request(&self, request: &Request<'_>, start: usize) -> Option<Begun<'_>> {
        if !is_once(request.opcode()) {
            return None;
        }
        let unique = request.unique() & !RESENT;
        let earlier = request.is_resent().then(|| self.find(unique)).flatten();
        let (number, is_again) = match earlier {
            Some(number) => (number, true),
            None => (self.claim(unique, start)?, false),
        };
        Some(Begun { desks: self, number, is_again })
    }

    fn find(&self, unique: u64) -> Option<usize> {
        let is_it = |number: &usize| {
            let attempt = self.attempt(*number);
            attempt.is_some_and(|[other, ..]| other.load(Ordering::Acquire) == unique)
        };
        (0..ATTEMPTS).find(is_it)
    }

    /// Takes a place for an attempt, the first that is free from one on.
    fn claim(&self, unique: u64, start: usize) -> Option<usize> {
        let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        (start..start + ATTEMPTS).map(|number| number % ATTEMPTS).find(|number| {
            let Some([place, server, ..]) = self.attempt(*number) else { return false };
            let is_ours = place.compare_exchange(0, unique, success, failure).is_ok();
            if is_ours {
                server.store(self.servers.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            is_ours
        })
    }

    fn words<const N: usize>(&self, from: usize, number: usize) -> Option<&[AtomicU64; N]> {
        self.memory.words().get(from + number * N..)?.first_chunk()
    }

    fn attempt(&self, number: usize) -> Option<&[AtomicU64; ATTEMPT_WORDS]> {
        self.words(0, number)
    }

    fn suspects(&self, number: usize) -> Option<&[AtomicU64; SUSPECT_WORDS]> {
        self.words(ATTEMPTS * ATTEMPT_WORDS, number)
    }

    fn desk(&self, number: usize) -> Option<&[AtomicU64; DESK_WORDS]> {
        self.words(ATTEMPTS * ATTEMPT_WORDS + SUSPECTS * SUSPECT_WORDS, number)
    }

    /// Returns the memory that a thread reads requests to.
    pub(crate) fn incoming(&self, number: usize) -> Option<MutexGuard<'_, SharedMemory>> {
        Some(self.incoming.get(number)?.lock())
    }
}

fn clear([unique, _, memo @ ..]: &[AtomicU64; ATTEMPT_WORDS]) {
    // A place that is free has no notes.
    memo.iter().for_each(|word| word.store(0, Ordering::Release));
    unique.store(0, Ordering::Release);
}

/// Tells whether doing an operation twice is not the same as doing it once.
const fn is_once(opcode: u32) -> bool {
    matches!(
        opcode,
        opcode::SYMLINK
            | opcode::MKNOD
            | opcode::MKDIR
            | opcode::UNLINK
            | opcode::RMDIR
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::LINK
            | opcode::CREATE
            | opcode::SETXATTR
            | opcode::REMOVEXATTR
            // An error of writing back is told once.
            | opcode::FSYNC
            | opcode::FSYNCDIR
    )
}

/// A request that was begun with.
#[derive(Debug)]
pub(crate) struct Begun<'a> {
    desks: &'a Desks,
    number: usize,
    is_again: bool,
}

impl Begun<'_> {
    /// Returns which time it is.
    fn attempt(&self) -> Attempt<'_> {
        let memo: Option<&Memo> =
            self.desks.attempt(self.number).and_then(|[_, _, memo @ ..]| memo.first_chunk());
        match memo {
            Some(memo) if self.is_again => Attempt::Again(memo),
            Some(memo) => Attempt::First(memo),
            None => Attempt::Only,
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(attempt) = self.desks.attempt(self.number) {
            clear(attempt);
        }
    }
}

/// The desk of one thread.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    desks: Arc<Desks>,
    number: usize,
}

impl Desk {
    /// Returns the desk of a number.
    pub(crate) const fn new(desks: Arc<Desks>, number: usize) -> Self {
        Self { desks, number }
    }

    /// Returns the memory to read requests to.
    pub(crate) fn incoming(&self) -> Option<MutexGuard<'_, SharedMemory>> {
        self.desks.incoming(self.number)
    }

    /// Takes a request in hand; none if servers have died over it too often.
    pub(crate) fn take(&self, request: &Request<'_>) -> Option<InHand<'_>> {
        if self.desks.is_deadly(request) {
            return None;
        }
        let words = self.desks.desk(self.number)?;
        words[0].store(request.unique(), Ordering::Relaxed);
        let start = self.number * (ATTEMPTS / self.desks.count().max(1));
        Some(InHand { words, begun: self.desks.try_request(request, start) })
    }
}

/// A request in hand, until this is dropped.
#[derive(Debug)]
pub(crate) struct InHand<'a> {
    words: &'a [AtomicU64; DESK_WORDS],
    begun: Option<Begun<'a>>,
}

impl InHand<'_> {
    /// Returns which time the request is tried.
    pub(crate) fn attempt(&self) -> Attempt<'_> {
        self.begun.as_ref().map_or(Attempt::Only, Begun::attempt)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let [in_hand, answered, ..] = self.words;
        in_hand.store(0, Ordering::Relaxed);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
