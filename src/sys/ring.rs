//! Commands to a device through io_uring, each with memory that the kernel fills and reads.
//!
//! The kernel touches the memory only while the thread that made the ring is in a call of it
//! (`IORING_SETUP_DEFER_TASKRUN`). The calls borrow the ring for themselves, so nobody has a reference
//! to the memory then.
//!
//! The kernel knows the memory of a slot by its place in the process. So that another process can go on
//! with a slot, its memory is a file, and lies where in another process hardly anything is.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use io_uring::opcode::UringCmd80;
use io_uring::squeue::Entry128;
use io_uring::{IoUring, types};

use crate::sys::shared::Mapping;
use crate::sys::{Errno, Error, Result, memory_file};

/// Where in the memory of a slot the second part begins.
pub const SECOND_PART: usize = 4096;
/// Where in an entry of the queue the length is.
const LEN_AT: usize = 24;

/// An io_uring with slots for commands, used by the thread that has made it.
pub struct CommandRing {
    ring: IoUring<Entry128>,
    slots: Vec<Slot>,
}

/// Where the memory of the first slot is asked to be, and of each further one after it: far from what the
/// kernel places by itself.
const FIRST_AT: usize = 0x2000_0000_0000;
const NEXT_AT: usize = 2 << 20;

/// The memory of a slot.
#[derive(Debug)]
pub struct SlotMemory {
    file: OwnedFd,
    map: Mapping,
}

impl SlotMemory {
    /// Makes memory with a second part of this size.
    fn new(second: usize) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let (file, len) = (memory_file("slot")?, SECOND_PART + second);
        let sized = File::from(file);
        let set = sized.set_len(len as u64);
        set.map_err(|error| Error::from_io(format!("ftruncate({len})"), &error))?;
        let hint = FIRST_AT.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed) * NEXT_AT);
        Self::map(sized.into(), hint, len, 0)
    }

    /// Has the memory of a slot of another process in the same place here.
    ///
    /// # Errors
    /// `EEXIST` when something else is there.
    pub fn adopt(file: OwnedFd, at: u64, len: u64) -> Result<Self> {
        let (Ok(at), Ok(len)) = (usize::try_from(at), usize::try_from(len)) else {
            return Err(Error::new("mmap(of a slot)", Errno::EINVAL));
        };
        let adopted = Self::map(file, at, len, libc::MAP_FIXED_NOREPLACE)?;
        match adopted.map.at().as_ptr() as usize == at && len >= SECOND_PART {
            true => Ok(adopted),
            // A kernel that does not know the flag takes the place for a wish.
            false => Err(Error::new(format!("mmap({at:#x}, {len})"), Errno::EEXIST)),
        }
    }

    fn map(file: OwnedFd, at: usize, len: usize, flags: i32) -> Result<Self> {
        let map = Mapping::new(Some(file.as_fd()), at, len, flags)?;
        Ok(Self { file, map })
    }

    /// Returns where it is, and how long.
    pub fn place(&self) -> (u64, u64) {
        (self.map.at().as_ptr() as u64, self.map.len() as u64)
    }

    /// Returns the file that it is.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    const fn bytes(&mut self) -> &mut [u8] {
        self.map.bytes()
    }
}

struct Slot {
    memory: SlotMemory,
    /// The two parts of the memory; read by the kernel when a command with them is submitted.
    parts: Box<[libc::iovec; 2]>,
}

impl Slot {
    fn new(memory: SlotMemory, first: usize) -> Self {
        debug_assert!(first <= SECOND_PART, "the parts are apart");
        let start = memory.map.at().as_ptr().cast::<u8>();
        let second = memory.map.len().saturating_sub(SECOND_PART);
        let parts = [(start, first), (start.wrapping_add(SECOND_PART), second)];
        let parts = parts.map(|(start, len)| libc::iovec { iov_base: start.cast(), iov_len: len });
        Self { memory, parts: Box::new(parts) }
    }
}

impl CommandRing {
    /// Makes a ring with slots whose memory has two parts of these sizes: one of at most
    /// [`SECOND_PART`] bytes at the start, the other from there on.
    ///
    /// # Errors
    /// `ENOSYS` and `EPERM` where there is no io_uring, or where it is forbidden.
    pub fn new(slots: usize, (first, second): (usize, usize)) -> Result<Self> {
        let memory = (0..slots).map(|_| SlotMemory::new(second)).collect::<Result<Vec<_>>>()?;
        Self::with(memory, first)
    }

    /// Makes a ring with slots that have this memory, with a first part of this size.
    ///
    /// # Errors
    /// `ENOSYS` and `EPERM` where there is no io_uring, or where it is forbidden.
    pub fn with(memory: Vec<SlotMemory>, first: usize) -> Result<Self> {
        let entries = u32::try_from(memory.len().max(1)).unwrap_or(u32::MAX);
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(2 * entries.max(2));
        let ring = builder.build(entries);
        let ring =
            ring.map_err(|error| Error::from_io(format!("io_uring_setup({entries})"), &error))?;
        let slots = memory.into_iter().map(|memory| Slot::new(memory, first)).collect();
        Ok(Self { ring, slots })
    }

    /// Returns the memory of a slot.
    #[allow(clippy::indexing_slicing, reason = "who asks for a slot has made it")]
    pub fn memory(&mut self, slot: usize) -> &mut [u8] {
        self.slots[slot].memory.bytes()
    }

    /// Returns what another process needs of the memory of a slot.
    #[allow(clippy::indexing_slicing, reason = "who asks for a slot has made it")]
    pub fn shared(&self, slot: usize) -> &SlotMemory {
        &self.slots[slot].memory
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
