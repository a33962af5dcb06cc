//! The threads that answer: readers of the device, or one for each slot of the rings.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::fuse::device::{self, Device};
use crate::fuse::error::{Error, Result};
use crate::fuse::ops::Requests;
use crate::fuse::options::Transport;
use crate::fuse::ring::{Share, Slots, shares};
use crate::sys::{self, Cpus};

/// Says whether the kernel offers FUSE over io_uring.
const ENABLED: &str = "/sys/module/fuse/parameters/enable_uring";

type Thread = JoinHandle<io::Result<()>>;

/// What a thread needs to serve.
type Work = (Arc<Requests>, Arc<Device>);

/// Threads with slots, which wait for their work. Dropped, they end.
pub(crate) struct Rings {
    threads: Vec<(Thread, Sender<Work>)>,
    told: Receiver<sys::Result<()>>,
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
        let (tell, told) = channel();
        let start = |share| start(share, tell.clone());
        let threads = shares(&Cpus::read()?).into_iter().map(start).collect::<Result<_>>()?;
        let rings = Self { threads, told };
        rings.wait_for_all().map_err(|error| Error::NoRings(error.to_string()))?;
        Ok(rings)
    }

    /// Waits until every thread has told that it has done its part.
    fn wait_for_all(&self) -> sys::Result<()> {
        // All of them are waited for: none is to be at work after an error.
        let told: Vec<_> = self.told.iter().take(self.threads.len()).collect();
        told.into_iter().collect()
    }

    /// Has them serve; when this returns, the kernel gives requests to them.
    fn begin(self, work: &Work) -> Result<Vec<Thread>> {
        for (_, begin) in &self.threads {
            // One that has ended has told why.
            drop(begin.send(work.clone()));
        }
        self.wait_for_all()?;
        Ok(self.threads.into_iter().map(|(thread, _)| thread).collect())
    }
}

/// Starts a thread that makes slots, and serves with them when it gets its work.
fn start(share: Share, tell: Sender<sys::Result<()>>) -> Result<(Thread, Sender<Work>)> {
    let (begin, work) = channel::<Work>();
    let serve = move || {
        let Some(mut slots) = told(&tell, Slots::new(share)) else { return Ok(()) };
        let Ok((requests, device)) = work.recv() else { return Ok(()) };
        match told(&tell, slots.register(device.as_fd())) {
            Some(()) => slots.answer_all(&requests, device.as_fd()),
            None => Ok(()),
        }
    };
    Ok((spawn("ring", serve)?, begin))
}

/// Tells whether something was done; returns what was made.
fn told<T>(tell: &Sender<sys::Result<()>>, result: sys::Result<T>) -> Option<T> {
    let (done, made) = match result {
        Ok(made) => (Ok(()), Some(made)),
        Err(error) => (Err(error), None),
    };
    // Nobody listens when another thread has failed.
    drop(tell.send(done));
    made
}

/// Begins to serve, through the rings if the kernel has agreed to them. What is not for them, such as
/// forgetting, is read from the device.
pub(crate) fn begin(work: &Work, rings: Option<Rings>) -> Result<Vec<Thread>> {
    let readers = if rings.is_some() { 1 } else { reader_count() };
    let read = |_| {
        let (requests, device) = work.clone();
        spawn("serve", move || answer_all(&requests, &device))
    };
    let mut threads: Vec<_> = (0..readers).map(read).collect::<Result<_>>()?;
    if let Some(rings) = rings {
        threads.extend(rings.begin(work)?);
    }
    Ok(threads)
}

fn spawn(name: &str, run: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<Thread> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(Error::Session)
}

/// Answers requests until there are no more.
fn answer_all(requests: &Requests, device: &Device) -> io::Result<()> {
    let (mut incoming, mut outgoing) = (device::buffer(), device::buffer());
    while let Some(request) = device.receive(&mut incoming)? {
        let answer = requests.serve(&request, &mut outgoing);
        if request.is_answered() {
            device.send(answer);
        }
    }
    Ok(())
}

/// Returns how many threads read the device: more than there are processors, because one that copies
/// a large file up must not keep the others waiting.
fn reader_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * processors).clamp(4, 16)
}
