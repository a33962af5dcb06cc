//! Commands to a device through io_uring, each with memory that the kernel fills and reads.
//!
//! The kernel touches the memory only while the thread that made the ring is in a call of it
//! (`IORING_SETUP_DEFER_TASKRUN`). The calls borrow the ring for themselves, so nobody has a reference
//! to the memory then.

use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::opcode::UringCmd80;
use io_uring::squeue::Entry128;
use io_uring::{IoUring, types};
use memmap2::MmapMut;

use crate::sys::{Errno, Error, Result};

/// Where in the memory of a slot the second part begins.
pub const SECOND_PART: usize = 4096;
/// Where in an entry of the queue the length is.
const LEN_AT: usize = 24;

/// An io_uring with slots for commands, used by the thread that has made it.
pub struct CommandRing {
    ring: IoUring<Entry128>,
    slots: Vec<Slot>,
}

struct Slot {
    memory: MmapMut,
    /// The two parts of the memory; read by the kernel when a command with them is submitted.
    parts: Box<[libc::iovec; 2]>,
}

impl Slot {
    fn new((first, second): (usize, usize)) -> Result<Self> {
        debug_assert!(first <= SECOND_PART, "the parts are apart");
        let bytes = SECOND_PART + second;
        let memory = MmapMut::map_anon(bytes);
        let mut memory =
            memory.map_err(|error| Error::from_io(format!("mmap({bytes})"), &error))?;
        let start = memory.as_mut_ptr();
        let parts = [(start, first), (start.wrapping_add(SECOND_PART), second)];
        let parts = parts.map(|(start, len)| libc::iovec { iov_base: start.cast(), iov_len: len });
        Ok(Self { memory, parts: Box::new(parts) })
    }
}

impl CommandRing {
    /// Makes a ring with slots whose memory has two parts of these sizes: one of at most
    /// [`SECOND_PART`] bytes at the start, the other from there on.
    ///
    /// # Errors
    /// `ENOSYS` and `EPERM` where there is no io_uring, or where it is forbidden.
    pub fn new(slots: usize, parts: (usize, usize)) -> Result<Self> {
        let entries = u32::try_from(slots.max(1)).unwrap_or(u32::MAX);
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(2 * entries.max(2));
        let ring = builder.build(entries);
        let ring =
            ring.map_err(|error| Error::from_io(format!("io_uring_setup({entries})"), &error))?;
        let slots = (0..slots).map(|_| Slot::new(parts)).collect::<Result<_>>()?;
        Ok(Self { ring, slots })
    }

    /// Returns the memory of a slot.
    #[allow(clippy::indexing_slicing, reason = "who asks for a slot has made it")]
    pub fn memory(&mut self, slot: usize) -> &mut [u8] {
        &mut self.slots[slot].memory
    }

    /// Puts a command for a device into the queue; with its memory, if `with_memory`. It is submitted
    /// by the next [`CommandRing::submit`] or [`CommandRing::wait`]. The device is to be open for as
    /// long as the ring.
    ///
    /// # Errors
    /// `EBUSY` when the queue is full: every slot has a command.
    #[allow(clippy::indexing_slicing, reason = "who asks for a slot has made it")]
    pub fn push(
        &mut self,
        slot: usize,
        device: BorrowedFd<'_>,
        operation: u32,
        command: [u8; 80],
        with_memory: bool,
    ) -> Result<()> {
        let parts = &self.slots[slot].parts;
        let parts = with_memory.then_some((parts.as_ptr() as u64, parts.len()));
        let entry = UringCmd80::new(types::Fd(device.as_raw_fd()), operation).cmd(command);
        let mut entry = entry.addr(parts.map(|(at, _)| at)).build().user_data(slot as u64);
        let count = parts.map_or(0, |(_, count)| u32::try_from(count).unwrap_or(0));
        let at = (&raw mut entry).cast::<u8>().wrapping_add(LEN_AT).cast::<u32>();
        // SAFETY: an entry has 128 bytes, those from 24 on are the length, and lie at a multiple of 4.
        unsafe { at.write(count) };
        // SAFETY: the memory and the parts that it names live as long as the ring.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| Error::new("io_uring: the queue is full", Errno::EBUSY))
    }

    /// Submits what is in the queue.
    ///
    /// # Errors
    /// Those of io_uring_enter(2).
    pub fn submit(&mut self) -> Result<()> {
        let submitted = self.ring.submit_and_wait(0);
        submitted.map(drop).map_err(|error| Error::from_io("io_uring_enter(0)", &error))
    }

    /// Returns the slot of a command that has ended, and its result; none if there is none now.
    pub fn ended(&mut self) -> Option<(usize, i32)> {
        let entry = self.ring.completion().next()?;
        Some((usize::try_from(entry.user_data()).unwrap_or(usize::MAX), entry.result()))
    }

    /// Submits what is in the queue, and waits until a command has ended.
    ///
    /// # Errors
    /// Those of io_uring_enter(2).
    pub fn wait(&mut self) -> Result<(usize, i32)> {
        loop {
            if !self.ring.submission().is_empty() || self.ring.completion().is_empty() {
                let wanted = usize::from(self.ring.completion().is_empty());
                match self.ring.submit_and_wait(wanted) {
                    Ok(_) => {}
                    Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                    Err(error) => return Err(Error::from_io("io_uring_enter(1)", &error)),
                }
            }
            if let Some(ended) = self.ended() {
                return Ok(ended);
            }
        }
    }
}

impl std::fmt::Debug for CommandRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandRing").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}
