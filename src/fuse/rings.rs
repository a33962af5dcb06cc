//! The threads that answer through io_uring, one for each slot of a processor.
//!
//! A server that takes over from another one gets its slots, each when the kernel has put a request
//! into it: one that waits for a request cannot change hands. The kernel gives a request to the slot that
//! has begun to wait last, so all slots of a queue are gathered before the first of them waits again.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use crate::fuse::error::{Error, Result};
use crate::fuse::options::Transport;
use crate::fuse::ring::{Share, Slots, shares};
use crate::fuse::serve::{Thread, Work, spawn};
use crate::sys::{self, Cpus, SlotMemory};

/// Says whether the kernel offers FUSE over io_uring.
const ENABLED: &str = "/sys/module/fuse/parameters/enable_uring";
/// How long the slots of a queue are waited for, once there is the first.
const GATHER: Duration = Duration::from_millis(200);

/// A slot of a processor, as another process needs to know it. Its memory is a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotPlace {
    /// The queue that it is in: the processor.
    queue: u16,
    /// Where its memory is.
    at: u64,
    /// How long that is.
    len_bytes: u64,
}

impl SlotPlace {
    /// Returns the queue that it is in.
    pub(crate) const fn queue(self) -> u16 {
        self.queue
    }
}

/// A slot and its memory.
#[derive(Debug)]
pub(crate) struct SharedSlot {
    /// The number of its thread among those with slots.
    thread: usize,
    pub(crate) place: SlotPlace,
    pub(crate) file: File,
}

/// Threads with slots, which wait for their work. Dropped, they end.
#[derive(Debug)]
pub(crate) struct Rings {
    threads: Vec<Waiting>,
    told: Receiver<sys::Result<Option<SharedSlot>>>,
    /// Those that another process could take over.
    slots: Vec<SharedSlot>,
}

/// A thread that waits for its work.
#[derive(Debug)]
struct Waiting {
    thread: Thread,
    begin: Sender<(Work, usize)>,
    /// Tells that there is a request in its slot, if it is one of another process.
    give: Option<Sender<Given>>,
}

/// How a thread gets the slot of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// It has a request.
    Asked,
    /// The other process is gone, and the kernel has nothing in it.
    Left,
}

/// Gives slots of another process to the threads that go on with them.
#[derive(Debug)]
pub struct Giver(Vec<Option<Sender<Given>>>);

impl Giver {
    /// Gives a slot, which has a request.
    pub fn give(&mut self, slot: usize) {
        if let Some(give) = self.0.get_mut(slot).and_then(Option::take) {
            to_thread(&give, Given::Asked);
        }
    }

    /// Gives all slots that the other process has not left before its end; tells how many there were.
    pub fn give_rest(self) -> usize {
        let rest = self.0.into_iter().flatten();
        rest.map(|give| to_thread(&give, Given::Left)).count()
    }
}

fn to_thread(give: &Sender<Given>, given: Given) {
    if give.send(given).is_err() {
        // It has said why.
        tracing::debug!("the thread for a slot has ended");
    }
}

impl Rings {
    /// Makes them for a transport, or for the best that there is. This comes before the kernel is
    /// asked for io_uring: once it has agreed there is no way back.
    pub(crate) fn for_transport(wanted: Option<Transport>) -> Result<Option<Self>> {
        if wanted == Some(Transport::DevFuse) {
            return Ok(None);
        }
        match (Self::new(), wanted) {
            (Ok(rings), _) => Ok(Some(rings)),
            (Err(error), Some(_)) => Err(error),
            (Err(error), None) => {
                tracing::debug!("{error}");
                Ok(None)
            }
        }
    }

    fn new() -> Result<Self> {
        match std::fs::read_to_string(ENABLED) {
            Ok(text) if text.starts_with(['Y', '1']) => {}
            Ok(_) => return Err(Error::RingsOff(ENABLED)),
            Err(_) => {
                return Err(Error::NoRings("the kernel has it from Linux 6.14 on".to_owned()));
            }
        }
        Self::start(shares(&Cpus::read()?).into_iter().map(Source::Own).collect())
    }

    /// Makes them to go on with the slots of another process; what it has no slots for gets some.
    pub(crate) fn take_over(slots: Vec<(SlotPlace, OwnedFd)>) -> Result<Self> {
        let mut has_slots: Vec<_> = slots.iter().map(|(place, _)| place.queue).collect();
        has_slots.dedup();
        let shares = shares(&Cpus::read()?).into_iter();
        let own = shares.filter(|share| share.cpu().is_none_or(|cpu| !has_slots.contains(&cpu)));
        let gather = Arc::new(Gather::new(slots.iter().map(|(place, _)| place.queue)));
        let other = |(place, file)| Source::Other(place, file, Arc::clone(&gather));
        // Those of the other process keep their numbers.
        Self::start(slots.into_iter().map(other).chain(own.map(Source::Own)).collect())
    }

    fn start(sources: Vec<Source>) -> Result<Self> {
        let (tell, told) = channel();
        let start = |(thread, source)| start(source, Tell { thread, to: tell.clone() });
        let threads = sources.into_iter().enumerate().map(start).collect::<Result<_>>()?;
        let mut rings = Self { threads, told, slots: Vec::new() };
        let slots = rings.wait_for_all().map_err(|error| Error::NoRings(error.to_string()))?;
        rings.slots = slots;
        rings.slots.sort_by_key(|slot| slot.thread);
        Ok(rings)
    }

    /// Waits until every thread has told that it has done its part.
    fn wait_for_all(&self) -> sys::Result<Vec<SharedSlot>> {
        // All of them are waited for: none is to be at work after an error.
        let told: Vec<_> = self.told.iter().take(self.threads.len()).collect();
        let slots = told.into_iter().collect::<sys::Result<Vec<_>>>()?;
        Ok(slots.into_iter().flatten().collect())
    }

    /// Returns how many threads there are.
    pub(crate) const fn count(&self) -> usize {
        self.threads.len()
    }

    /// Returns the slots that another process could take over.
    pub(crate) fn take_slots(&mut self) -> Vec<SharedSlot> {
        std::mem::take(&mut self.slots)
    }

    /// Has them serve, with numbers from `first` on; when this returns, the kernel gives requests to them,
    /// but to those with slots of another process.
    pub(crate) fn begin(self, work: &Work, first: usize) -> Result<(Vec<Thread>, Giver)> {
        for (number, waiting) in (first..).zip(&self.threads) {
            // One that has ended has told why.
            drop(waiting.begin.send((work.clone(), number)));
        }
        self.wait_for_all()?;
        let give = self.threads.iter().map(|waiting| waiting.give.clone()).collect();
        Ok((self.threads.into_iter().map(|waiting| waiting.thread).collect(), Giver(give)))
    }
}

/// Where the slots of a thread come from.
enum Source {
    /// It makes them.
    Own(Share),
    /// Another process has it still.
    Other(SlotPlace, OwnedFd, Arc<Gather>),
}

/// Tells what a thread has done.
struct Tell {
    thread: usize,
    to: Sender<sys::Result<Option<SharedSlot>>>,
}

impl Tell {
    fn tell(&self, done: sys::Result<Option<SharedSlot>>) {
        // Nobody listens when another thread has failed.
        drop(self.to.send(done));
    }
}

/// Starts a thread that has slots, and serves with them when it gets its work.
fn start(source: Source, tell: Tell) -> Result<Waiting> {
    let (begin, work) = channel::<(Work, usize)>();
    let (give, given) = channel();
    let give = matches!(source, Source::Other(..)).then_some(give);
    let serve = move || match source {
        Source::Own(share) => {
            let Some(mut slots) = made(&tell, Slots::new(share)) else { return Ok(()) };
            let Ok((work, number)) = work.recv() else { return Ok(()) };
            match told(&tell, slots.register(work.device.as_fd())) {
                Some(()) => slots.answer_all(&work, number),
                None => Ok(()),
            }
        }
        Source::Other(place, file, gather) => {
            let memory = SlotMemory::adopt(file, place.at, place.len_bytes);
            let slots = memory.and_then(|memory| Slots::adopt(place.queue, memory));
            let Some(mut slots) = made(&tell, slots) else { return Ok(()) };
            let Ok((work, number)) = work.recv() else { return Ok(()) };
            told(&tell, Ok(()));
            match given.recv() {
                Ok(Given::Asked) => gather.arrive(place.queue),
                Ok(Given::Left) => slots.register(work.device.as_fd())?,
                Err(_) => return Ok(()),
            }
            slots.answer_all(&work, number)
        }
    };
    Ok(Waiting { thread: spawn("ring", serve)?, begin, give })
}

/// Tells of slots that were made; returns them.
fn made(tell: &Tell, slots: sys::Result<Slots>) -> Option<Slots> {
    let shared = slots.as_ref().ok().and_then(Slots::shared);
    let shared = shared.map(|(queue, memory)| {
        let (at, len_bytes) = memory.place();
        let place = SlotPlace { queue, at, len_bytes };
        let file = sys::dup(memory.file());
        file.map(|file| SharedSlot { thread: tell.thread, place, file: file.into() })
    });
    match (slots, shared.transpose()) {
        (Ok(slots), Ok(shared)) => {
            tell.tell(Ok(shared));
            Some(slots)
        }
        (Err(error), _) | (_, Err(error)) => {
            tell.tell(Err(error));
            None
        }
    }
}

/// Tells whether something was done.
fn told(tell: &Tell, result: sys::Result<()>) -> Option<()> {
    let is_done = result.is_ok();
    tell.tell(result.map(|()| None));
    is_done.then_some(())
}

/// The slots of queues that have not arrived yet.
#[derive(Debug)]
struct Gather {
    missing: Mutex<HashMap<u16, usize>>,
    changed: Condvar,
}

impl Gather {
    fn new(queues: impl Iterator<Item = u16>) -> Self {
        let mut missing = HashMap::new();
        for queue in queues {
            *missing.entry(queue).or_default() += 1;
        }
        Self { missing: Mutex::new(missing), changed: Condvar::new() }
    }

    /// Says that a slot is there, and waits for the others of its queue, for a while.
    fn arrive(&self, queue: u16) {
        let mut missing = self.missing.lock();
        if let Some(count) = missing.get_mut(&queue) {
            *count = count.saturating_sub(1);
        }
        self.changed.notify_all();
        let lacks = |missing: &mut HashMap<u16, usize>| missing.get(&queue) != Some(&0);
        let waited = self.changed.wait_while_for(&mut missing, lacks, GATHER);
        if waited.timed_out() {
            tracing::debug!(
                "queue {queue}: {:?} slots are still with the other process",
                missing.get(&queue)
            );
        }
    }
}
