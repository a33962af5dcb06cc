//! Attempts: doing once what may be asked for twice.
//!
//! A server can die when it has made a change and before it has answered. The kernel then asks the next
//! one for the same. Most operations can simply be done again: what they write is absolute. For those
//! that cannot (a name that is made would be there already, one that is taken away would be missing),
//! the operation itself knows what to look at; here is what it has noted before.
//!
//! What makes looking reliable: whoever asks holds the directory locked in the kernel until there is an
//! answer, through all servers. So nobody else has changed the names in question meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many numbers an operation may note.
pub const MEMO_WORDS: usize = 4;

/// What an operation notes of itself while it is done.
pub type Memo = [AtomicU64; MEMO_WORDS];

/// Which time an operation is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Attempt<'a> {
    /// The only one: nobody would ask again.
    Only,
    /// The first; it may be asked for again.
    First(&'a Memo),
    /// An earlier server has begun with it.
    Again(&'a Memo),
}

impl Attempt<'_> {
    /// Tells whether an earlier server has begun with the operation.
    pub(crate) const fn is_again(self) -> bool {
        matches!(self, Self::Again(_))
    }

    /// Notes a number; all are 0 at first.
    pub fn note(self, place: usize, number: u64) {
        if let Self::First(memo) | Self::Again(memo) = self
            && let Some(word) = memo.get(place)
        {
            word.store(number, Ordering::Release);
        }
    }

    /// Returns a number that was noted, by an earlier server.
    pub fn noted(self, place: usize) -> Option<u64> {
        let Self::Again(memo) = self else { return None };
        let number = memo.get(place)?.load(Ordering::Acquire);
        (number != 0).then_some(number)
    }
}
