//! Which threads were told the attributes of a directory, so that the kernel keeps no old ones.
//!
//! The kernel forgets the attributes of a directory when it has changed a name there, and then takes
//! whatever answer comes next, also one that is older than the change and still on its way to another
//! thread. It would keep that for ever. A thread does one thing at a time: an answer to the thread
//! that makes the change has arrived. Where others were told, the kernel is told to forget them,
//! which makes it throw away what is on its way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::fuse::device::Device;
use crate::fuse::request::Request;
use crate::overlay::Ino;

/// The threads that were told of a directory since the kernel was last told to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threads {
    /// None; only noted where it would not be known otherwise.
    None,
    One(u32),
    Several,
}

impl Threads {
    fn of(request: &Request<'_>) -> Self {
        request.thread().map_or(Self::Several, Self::One)
    }

    /// Tells whether there may be another one than that of a request.
    fn are_others(self, request: &Request<'_>) -> bool {
        match self {
            Self::None => false,
            Self::One(_) => self != Self::of(request),
            Self::Several => true,
        }
    }
}

const SHARDS: usize = 16;

/// The directories whose attributes the kernel may keep, and who was told of them.
#[derive(Debug)]
pub(crate) struct Told {
    shards: [Mutex<HashMap<Ino, Threads>>; SHARDS],
    /// How often names were changed anywhere.
    changes: AtomicU64,
    device: Arc<Device>,
    /// Who was told of a directory of which nothing is noted: by a server before this one perhaps many.
    unnoted: Threads,
}

impl Told {
    pub(crate) fn new(device: Arc<Device>, goes_on: bool) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        let unnoted = if goes_on { Threads::Several } else { Threads::None };
        Self { shards, changes: AtomicU64::new(0), device, unnoted }
    }

    /// Returns how many changes of names there were.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Notes that a request is answered with attributes of a directory that were read when there
    /// were `changes`; tells whether they may be old by now.
    pub(crate) fn tell(&self, dir: Ino, request: &Request<'_>, changes: u64) -> bool {
        let threads = Threads::of(request);
        let mut shard = self.shard(dir).lock();
        let known = shard.entry(dir).or_insert(self.unnoted);
        *known = match *known {
            Threads::None => threads,
            known if known.are_others(request) => Threads::Several,
            known => known,
        };
        drop(shard);
        self.changes() != changes
    }

    /// Notes that a request has changed a name of a directory, before it is answered.
    pub(crate) fn changed(&self, dir: Ino, request: &Request<'_>) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let were_told = {
            let mut shard = self.shard(dir).lock();
            let told = shard.get(&dir).copied().unwrap_or(self.unnoted);
            let others = told.are_others(request);
            match self.unnoted {
                _ if !others => {}
                Threads::None => drop(shard.remove(&dir)),
                Threads::One(_) | Threads::Several => drop(shard.insert(dir, Threads::None)),
            }
            others
        };
        if were_told {
            self.forget_attributes(dir);
        }
    }

    /// Has the kernel ask for the attributes of a file again.
    pub(crate) fn forget_attributes(&self, ino: Ino) {
        if let Err(error) = self.device.forget_attributes(ino) {
            tracing::warn!("the kernel may show old attributes of {}: {error}", ino.0);
        }
    }

    /// Notes that the kernel does not know a file any more.
    pub(crate) fn forget(&self, ino: Ino) {
        self.shard(ino).lock().remove(&ino);
    }

    #[allow(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 16")]
    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, Threads>> {
        &self.shards[(ino.0 % SHARDS as u64) as usize]
    }
}
