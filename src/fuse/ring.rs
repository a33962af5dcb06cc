//! Requests and answers through io_uring: a queue for each processor, so that a request is answered
//! where it was asked, without waking another processor.
//!
//! A queue has several slots, each with a thread of its own: the kernel gives a request to a thread
//! that waits, so one that copies a large file up keeps nobody else waiting. Forgetting stays with
//! the device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use zerocopy::{FromBytes, IntoBytes};

use crate::fuse::abi::{InHeader, OutHeader, RingCommand, RingHeader, ring};
use crate::fuse::device::MAX_TRANSFER;
use crate::fuse::gate::Then;
use crate::fuse::ops::Requests;
use crate::fuse::request::Request;
use crate::fuse::serve::Work;
use crate::sys::{self, CommandRing, Cpus, Errno, SECOND_PART, SlotMemory};

/// Room for an answer to a request that has a payload itself: names are short, and the longest that
/// is asked for by a name is the value of an attribute.
const BESIDE: usize = (64 << 10) + 4096;
const OUT_HEADER: usize = size_of::<OutHeader>();

/// What one thread serves: slots in these queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// The processor that it runs on.
    cpu: Option<u16>,
    /// The queue of each slot.
    queues: Vec<u16>,
}

impl Share {
    /// Returns the processor that it is for, if it is one.
    pub(crate) const fn cpu(&self) -> Option<u16> {
        self.cpu
    }
}

/// Divides the queues among threads: several for each processor that runs, one for all others, without
/// which the kernel would not begin.
pub(crate) fn shares(cpus: &Cpus) -> Vec<Share> {
    let each = (8 / cpus.online.len().max(1)).clamp(2, 4);
    let of = |cpu: &u16| std::iter::repeat_n(Share { cpu: Some(*cpu), queues: vec![*cpu] }, each);
    let mut shares: Vec<_> = cpus.online.iter().flat_map(of).collect();
    let queues = 0..cpus.possible.iter().max().map_or(0, |last| last + 1);
    let others: Vec<_> = queues.filter(|queue| !cpus.online.contains(queue)).collect();
    if !others.is_empty() {
        shares.push(Share { cpu: None, queues: others });
    }
    shares
}

/// The slots of one thread.
#[derive(Debug)]
pub(crate) struct Slots {
    ring: CommandRing,
    /// The processor that it runs on.
    cpu: Option<u16>,
    queues: Vec<u16>,
    /// Slots that the kernel has not ended.
    live: usize,
    /// What came of the first that ended while they were offered.
    first: Option<(usize, i32)>,
}

impl Slots {
    /// Makes the slots of the calling thread.
    pub(crate) fn new(share: Share) -> sys::Result<Self> {
        let Share { cpu, queues } = share;
        pin(cpu);
        let sizes = (size_of::<RingHeader>(), MAX_TRANSFER as usize);
        let ring = CommandRing::new(queues.len(), sizes)?;
        Ok(Self { ring, cpu, live: queues.len(), queues, first: None })
    }

    /// Goes on with a slot of another process, which has a request, in the calling thread.
    pub(crate) fn adopt(queue: u16, memory: SlotMemory) -> sys::Result<Self> {
        pin(Some(queue));
        let ring = CommandRing::with(vec![memory], size_of::<RingHeader>())?;
        Ok(Self { ring, cpu: Some(queue), queues: vec![queue], live: 1, first: Some((0, 0)) })
    }

    /// Returns the queue and the memory of a slot that another process could go on with: one of a
    /// processor.
    pub(crate) fn shared(&self) -> Option<(u16, &SlotMemory)> {
        self.cpu.map(|queue| (queue, self.ring.shared(0)))
    }

    /// Offers the slots to the kernel.
    pub(crate) fn register(&mut self, device: BorrowedFd<'_>) -> sys::Result<()> {
        for slot in 0..self.queues.len() {
            let command = self.command(slot, 0);
            self.ring.push(slot, device, ring::REGISTER, command, true)?;
        }
        self.ring.submit()?;
        // Of another process there is nothing in them any more.
        self.first = self.ring.ended();
        match self.first {
            Some((slot, result)) if result < 0 => {
                let call = format!("FUSE_IO_URING_CMD_REGISTER({:?})", self.queues.get(slot));
                Err(sys::Error::new(call, Errno::from_raw(-result)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Answers requests until there are no more.
    pub(crate) fn answer_all(&mut self, work: &Work, number: usize) -> io::Result<()> {
        let answered = self.answer_until_end(work, number);
        work.gate.leave(number);
        answered
    }

    fn answer_until_end(&mut self, work: &Work, number: usize) -> io::Result<()> {
        let mut beside = vec![0; BESIDE];
        while self.live > 0 {
            let (slot, result) = match self.first.take() {
                Some(ended) => ended,
                None => work.gate.wait(number, || self.ring.wait())?,
            };
            match Errno::from_raw(-result) {
                _ if result >= 0 => {}
                // It was unmounted; the connection was ended.
                Errno::ENOTCONN | Errno::ECANCELED | Errno::ENODEV | Errno::ECONNABORTED => {
                    self.live -= 1;
                    continue;
                }
                _ => return Err(io::Error::from_raw_os_error(-result)),
            }
            if work.gate.pass(number) == Then::End {
                // The process that goes on answers what is in it.
                work.left.leave(number);
                self.live -= 1;
                continue;
            }
            let commit_id = answer(&work.requests, self.ring.memory(slot), &mut beside)
                .ok_or_else(|| io::Error::other("the kernel sent a request that is cut short"))?;
            let command = self.command(slot, commit_id);
            self.ring.push(slot, work.device.as_fd(), ring::COMMIT_AND_FETCH, command, false)?;
        }
        Ok(())
    }

    fn command(&self, slot: usize, commit_id: u64) -> [u8; 80] {
        let qid = self.queues.get(slot).copied().unwrap_or_default();
        zerocopy::transmute!(RingCommand { flags: 0, commit_id, qid, padding: [0; 62] })
    }
}

/// Has the calling thread run on a processor.
fn pin(cpu: Option<u16>) {
    if let Some(Err(error)) = cpu.map(sys::pin_to_cpu) {
        // It answers all the same, only later.
        tracing::debug!("{error}");
    }
}

/// Answers the request in the memory of a slot, there; returns what names it.
///
/// A request without a payload is answered in the place of the payload, without copying. What comes
/// with one has to be there until the answer is known.
fn answer(requests: &Requests, memory: &mut [u8], beside: &mut [u8]) -> Option<u64> {
    let (mut header, _) = RingHeader::read_from_prefix(memory).ok()?;
    let (asked, _) = InHeader::read_from_prefix(&header.in_out).ok()?;
    let payload = header.payload_sz as usize;
    let arguments = (asked.len as usize).checked_sub(size_of::<InHeader>() + payload)?;
    let arguments = header.op_in.get(..arguments)?;
    let (out, len) = if payload == 0 {
        let room = memory.get_mut(SECOND_PART - OUT_HEADER..)?;
        let answer = requests.serve(&Request::new(asked, arguments)?, room);
        (answer.first_chunk::<OUT_HEADER>().copied()?, answer.len())
    } else {
        let body = memory.get_mut(SECOND_PART - arguments.len()..SECOND_PART + payload)?;
        body.get_mut(..arguments.len())?.copy_from_slice(arguments);
        let answer = requests.serve(&Request::new(asked, body)?, beside);
        let (out, rest) = answer.split_first_chunk::<OUT_HEADER>()?;
        memory.get_mut(SECOND_PART..)?.get_mut(..rest.len())?.copy_from_slice(rest);
        (*out, answer.len())
    };
    *header.in_out.first_chunk_mut()? = out;
    header.payload_sz = u32::try_from(len - OUT_HEADER).ok()?;
    header.write_to_prefix(memory).ok()?;
    Some(header.commit_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_has_a_slot() {
        let share = |cpu, queues: &[u16]| Share { cpu, queues: queues.to_vec() };
        let two = Cpus { possible: vec![0, 1], online: vec![0, 1] };
        let four = |cpu| vec![share(Some(cpu), &[cpu]); 4];
        assert_eq!(shares(&two), [four(0), four(1)].concat());
        let holes = Cpus { possible: vec![0, 1, 2, 5], online: vec![1, 2, 5] };
        let found = shares(&holes);
        assert_eq!(found.len(), 7);
        assert_eq!(found[6], share(None, &[0, 3, 4]));
        let many = Cpus { possible: (0..64).collect(), online: (0..64).collect() };
        assert_eq!(shares(&many).len(), 128);
    }
}
