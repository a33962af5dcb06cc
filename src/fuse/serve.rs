//! The threads that answer: readers of the device, or one for each slot of the rings.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::fuse::answer::Answer;
use crate::fuse::desk::{Desk, Desks};
use crate::fuse::device::{self, Device, Incoming};
use crate::fuse::error::{Error, Result};
use crate::fuse::gate::{Gate, Then};
use crate::fuse::ops::Requests;
use crate::fuse::request::Request;
use crate::fuse::rings::{Giver, Rings, SharedSlot};
use crate::sys::Errno;

pub(crate) type Thread = JoinHandle<io::Result<()>>;

/// What a thread needs to serve.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) requests: Arc<Requests>,
    pub(crate) device: Arc<Device>,
    /// Where threads are stopped between two requests.
    pub(crate) gate: Arc<Gate>,
    pub(crate) left: Arc<Left>,
}

/// Tells which threads have left the slots that they had: another process goes on with them.
#[derive(Debug)]
pub(crate) struct Left {
    /// The number of the first thread with a slot.
    first: usize,
    tell: Sender<usize>,
}

impl Left {
    /// Notes that a thread has left its slot.
    pub(crate) fn leave(&self, number: usize) {
        if self.tell.send(number - self.first.min(number)).is_err() {
            tracing::debug!("nobody takes the slots that are left");
        }
    }
}

/// Threads that serve.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) threads: Vec<Thread>,
    pub(crate) work: Work,
    /// Slots that another process could take over, and who is told of those that were left to it.
    pub(crate) slots: Vec<SharedSlot>,
    pub(crate) left: Receiver<usize>,
    /// Gives slots of another process to the threads that go on with them.
    pub(crate) giver: Option<Giver>,
}

impl Serving {
    /// Makes it, without threads.
    fn new((requests, device): (Arc<Requests>, Arc<Device>), readers: usize, rings: usize) -> Self {
        let (tell, left) = channel();
        let gate = Arc::new(Gate::new(readers, rings));
        let work = Work { requests, device, gate, left: Arc::new(Left { first: readers, tell }) };
        Self { threads: Vec::new(), work, slots: Vec::new(), left, giver: None }
    }

    fn read(&mut self, number: usize, desk: Option<Desk>) -> Result<()> {
        let work = self.work.clone();
        let serve = move || {
            let answered = match desk {
                Some(desk) => answer_all_at(&desk, &work, number),
                None => answer_all(&work, number),
            };
            work.gate.leave(number);
            answered
        };
        self.threads.push(spawn("serve", serve)?);
        Ok(())
    }
}

/// Begins to serve, through the rings if the kernel has agreed to them. What is not for them, such as
/// forgetting, is read from the device.
pub(crate) fn begin(served: (Arc<Requests>, Arc<Device>), rings: Option<Rings>) -> Result<Serving> {
    let readers = if rings.is_some() { 1 } else { reader_count() };
    let mut serving = Serving::new(served, readers, rings.as_ref().map_or(0, Rings::count));
    for number in 0..readers {
        serving.read(number, None)?;
    }
    if let Some(mut rings) = rings {
        serving.slots = rings.take_slots();
        let (threads, giver) = rings.begin(&serving.work, readers)?;
        serving.threads.extend(threads);
        serving.giver = Some(giver);
    }
    Ok(serving)
}

pub(crate) fn spawn(
    name: &str,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<Thread> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(Error::Session)
}

/// Begins to serve with threads that have a desk each.
pub(crate) fn begin_at(
    served: (Arc<Requests>, Arc<Device>),
    desks: &Arc<Desks>,
) -> Result<Serving> {
    let mut serving = Serving::new(served, desks.count(), 0);
    for number in 0..desks.count() {
        serving.read(number, Some(Desk::new(Arc::clone(desks), number)))?;
    }
    Ok(serving)
}

/// Does what the threads of a server that has died had in hand and the kernel does not ask again.
pub(crate) fn forget_again(requests: &Requests, desks: &Desks) {
    let mut outgoing = device::buffer();
    for mut incoming in (0..desks.count()).filter_map(|number| desks.incoming(number)) {
        if let Some(request) = Request::parse(incoming.bytes())
            && request.is_forgetting()
        {
            requests.serve(&request, &mut outgoing);
        }
        nothing_in(incoming.bytes());
    }
}

/// Has memory that requests are read to hold none.
fn nothing_in(incoming: &mut [u8]) {
    // It begins with the length.
    if let Some(len) = incoming.first_chunk_mut::<4>() {
        *len = [0; 4];
    }
}

/// Waits for a request; none when there are no more for this process.
fn next<'a>(work: &Work, number: usize, incoming: &'a mut [u8]) -> io::Result<Option<Request<'a>>> {
    loop {
        if work.gate.pass(number) == Then::End {
            return Ok(None);
        }
        match work.gate.wait(number, || work.device.receive_once(incoming))? {
            Incoming::Nothing => {}
            Incoming::End => return Ok(None),
            Incoming::Bytes(len) => return Device::parse(incoming, len).map(Some),
        }
    }
}

/// Answers requests until there are no more, with what is in hand where the next server finds it.
fn answer_all_at(desk: &Desk, work: &Work, number: usize) -> io::Result<()> {
    let Some(mut incoming) = desk.incoming() else { return Ok(()) };
    // The kernel could give no request to memory that is not there when the server is being killed.
    incoming.hold();
    let (mut outgoing, device) = (device::buffer(), &work.device);
    loop {
        nothing_in(incoming.bytes());
        let Some(request) = next(work, number, incoming.bytes())? else { return Ok(()) };
        let Some(in_hand) = desk.take(&request) else {
            tracing::error!("servers have died over a request {} too often", request.opcode());
            device.send(Answer::new(&mut outgoing).finish(request.unique(), Err(Errno::EIO)));
            continue;
        };
        let request = request.attempted(in_hand.attempt());
        let answer = work.requests.serve(&request, &mut outgoing);
        if request.is_answered() {
            device.send(answer);
        }
    }
}

/// Answers requests until there are no more.
fn answer_all(work: &Work, number: usize) -> io::Result<()> {
    let (mut incoming, mut outgoing) = (device::buffer(), device::buffer());
    while let Some(request) = next(work, number, &mut incoming)? {
        let answer = work.requests.serve(&request, &mut outgoing);
        if request.is_answered() {
            work.device.send(answer);
        }
    }
    Ok(())
}

/// Returns how many threads read the device: more than there are processors, because one that copies
/// a large file up must not keep the others waiting.
pub(crate) fn reader_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * processors).clamp(4, 16)
}
