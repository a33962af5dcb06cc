//! The device: where requests come from and answers go to.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use zerocopy::{Immutable, IntoBytes};

use crate::fuse::abi::{
    InitIn, InitOut, MAJOR, MINOR, NOTIFY_INVAL_INODE, NOTIFY_RESEND, NotifyInvalInodeOut,
    OLDEST_MINOR, OutHeader, init, opcode,
};
use crate::fuse::answer::Answer;
use crate::fuse::backing::Numbers;
use crate::fuse::request::Request;
use crate::overlay::Ino;
use crate::sys::{self, Errno};

/// Most bytes of one read or write.
pub(crate) const MAX_TRANSFER: u32 = 1 << 20;
/// What a request or an answer has besides.
const BESIDES: usize = 4096;
/// The size of a page, in which the kernel counts the most of a request.
const PAGE: u32 = 4096;
/// Requests that the kernel has in the queue for read-ahead and the like.
const MAX_BACKGROUND: u16 = 64;

/// `/dev/fuse`, mounted.
#[derive(Debug)]
pub(crate) struct Device(File);

/// The most that one request or one answer takes.
pub(crate) const BUFFER_BYTES: usize = MAX_TRANSFER as usize + BESIDES;

/// What waiting for a request gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A request of so many bytes.
    Bytes(usize),
    /// None this time.
    Nothing,
    /// None any more.
    End,
}

/// Memory for one request or one answer.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; BUFFER_BYTES]
}

impl Device {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd.into())
    }

    /// Waits for a request; none when there will be no more.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Request<'a>>> {
        loop {
            match self.receive_once(buffer)? {
                Incoming::Nothing => {}
                Incoming::End => return Ok(None),
                Incoming::Bytes(len) => return Self::parse(buffer, len).map(Some),
            }
        }
    }

    /// Waits for a request, or until something interrupts that.
    pub(crate) fn receive_once(&self, buffer: &mut [u8]) -> io::Result<Incoming> {
        match (&self.0).read(buffer) {
            Ok(len) => Ok(Incoming::Bytes(len)),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                // The request was given up before it was read.
                Some(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => Ok(Incoming::Nothing),
                // It was unmounted; the connection was ended.
                Some(Errno::ENODEV | Errno::ECONNABORTED) => Ok(Incoming::End),
                _ => Err(error),
            },
        }
    }

    /// Returns the request that was read.
    pub(crate) fn parse(buffer: &[u8], len: usize) -> io::Result<Request<'_>> {
        let cut = || io::Error::other(format!("the kernel sent a request of {len} bytes"));
        Request::parse(buffer.get(..len).unwrap_or_default()).ok_or_else(cut)
    }

    /// Sends an answer.
    pub(crate) fn send(&self, bytes: &[u8]) {
        match (&self.0).write(bytes) {
            Ok(_) => {}
            // Who asked does not wait any more.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            Err(error) => tracing::debug!("an answer was not taken: {error}"),
        }
    }

    /// Makes the kernel forget the attributes of a file, also those that are on their way to it.
    pub(crate) fn forget_attributes(&self, ino: Ino) -> io::Result<()> {
        // A negative offset is: nothing of the content.
        self.notify(NOTIFY_INVAL_INODE, &NotifyInvalInodeOut { ino: ino.0, off: -1, len: 0 })
    }

    /// Makes the kernel ask again what was read and not answered.
    pub(crate) fn ask_again(&self) -> io::Result<()> {
        self.notify(NOTIFY_RESEND, &())
    }

    fn notify(&self, code: i32, body: &(impl IntoBytes + Immutable)) -> io::Result<()> {
        let len = size_of::<OutHeader>() + size_of_val(body);
        let header =
            OutHeader { len: u32::try_from(len).unwrap_or(u32::MAX), error: code, unique: 0 };
        let message = [header.as_bytes(), body.as_bytes()].concat();
        match (&self.0).write(&message) {
            Ok(_) => Ok(()),
            // The kernel does not know the file.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Agrees with the kernel on how to talk. Of the flags `wanted`, those that it knows are on, and
    /// returned.
    pub(crate) fn handshake(&self, wanted: u64) -> io::Result<u64> {
        let (mut incoming, mut outgoing) = (buffer(), buffer());
        loop {
            let Some(request) = self.receive(&mut incoming)? else {
                return Err(io::Error::from_raw_os_error(Errno::ENODEV as i32));
            };
            let mut answer = Answer::new(&mut outgoing);
            if request.opcode() != opcode::INIT {
                return Err(io::Error::other("the device is in use by another session"));
            }
            let offered = request.args().take_padded::<InitIn>();
            if (offered.major, offered.minor) < (MAJOR, OLDEST_MINOR) {
                self.send(answer.finish(request.unique(), Err(Errno::EPROTO)));
                let (major, minor) = (offered.major, offered.minor);
                return Err(io::Error::other(format!(
                    "the kernel speaks version {major}.{minor} of FUSE; \
                     {MAJOR}.{OLDEST_MINOR} (Linux 4.20) is needed"
                )));
            }
            let agreed = agreed(&offered, wanted);
            answer.put(&agreed).map_err(io::Error::other)?;
            self.send(answer.finish(request.unique(), Ok(())));
            // A newer kernel asks again with the version that it was told.
            if offered.major == MAJOR {
                return Ok(u64::from(agreed.flags2) << 32 | u64::from(agreed.flags));
            }
        }
    }
}

impl Numbers for Device {
    fn open_backing(&self, file: BorrowedFd<'_>) -> sys::Result<i32> {
        sys::open_backing(self.as_fd(), file)
    }

    fn close_backing(&self, number: i32) {
        if let Err(error) = sys::close_backing(self.as_fd(), number) {
            tracing::debug!("{error}");
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns the answer to an offer.
fn agreed(offered: &InitIn, wanted: u64) -> InitOut {
    let mut able = u64::from(offered.flags);
    if able & init::INIT_EXT != 0 {
        able |= u64::from(offered.flags2) << 32;
    }
    let flags = able & (wanted | init::INIT_EXT);
    tracing::debug!("FUSE {}.{}: flags {flags:#x} of {able:#x}", offered.major, offered.minor);
    InitOut {
        major: MAJOR,
        minor: MINOR.min(offered.minor),
        max_readahead: offered.max_readahead,
        flags: low(flags),
        max_background: MAX_BACKGROUND,
        congestion_threshold: MAX_BACKGROUND / 4 * 3,
        max_write: MAX_TRANSFER,
        time_gran: 1,
        max_pages: u16::try_from(MAX_TRANSFER / PAGE).unwrap_or(u16::MAX),
        flags2: low(flags >> 32),
        max_stack_depth: u32::from(flags & init::PASSTHROUGH != 0),
        ..InitOut::default()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
const fn low(flags: u64) -> u32 {
    flags as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_sides_know_is_agreed_on() {
        let old = InitIn { major: 7, minor: 31, flags: !(1 << 30), ..offer(0xff) };
        let answer = agreed(&old, init::POSIX_ACL | 1 << 40);
        assert_eq!((answer.flags, answer.flags2, answer.minor), (1 << 20, 0, 31));
        let answer = agreed(&offer(1 << 8), init::POSIX_ACL | 1 << 40);
        assert_eq!((answer.flags, answer.flags2, answer.minor), (1 << 20 | 1 << 30, 1 << 8, 45));
    }

    fn offer(flags2: u32) -> InitIn {
        InitIn { major: 7, minor: 60, flags: u32::MAX, flags2, ..InitIn::default() }
    }
}
