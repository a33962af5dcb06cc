//! Threads of this process, and interrupting what one of them waits for in the kernel.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::sys::error::{check, check_raw};
use crate::sys::{Errno, Result};

/// Nobody else uses it here, and where it is not expected it does nothing.
const SIGNAL: Signal = Signal::SIGURG;

/// A thread of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadId(i32);

impl ThreadId {
    /// Returns the thread that asks.
    pub fn own() -> Self {
        Self(nix::unistd::gettid().as_raw())
    }

    /// Interrupts the call that the thread is in, while there is an [`InterruptingSignal`].
    pub fn interrupt(&self) -> Result<()> {
        let (process, thread) = (nix::unistd::getpid().as_raw(), self.0);
        // SAFETY: the call takes numbers.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, SIGNAL as i32) };
        let sent = i32::try_from(sent).unwrap_or(-1);
        match check_raw(sent, || format!("tgkill({process}, {thread}, {SIGNAL})")) {
            // The thread has ended.
            Err(error) if error.errno() == Errno::ESRCH => Ok(()),
            other => other.map(drop),
        }
    }
}

/// While this is alive, a signal interrupts the call that a thread is in.
#[derive(Debug)]
pub struct InterruptingSignal(SigAction);

extern "C" fn nothing(_: libc::c_int) {}

impl InterruptingSignal {
    /// Begins to take the signal.
    pub fn begin() -> Result<Self> {
        // Without SA_RESTART, so that the call ends with EINTR.
        let action =
            SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: what handles the signal touches nothing.
        let before = unsafe { sigaction(SIGNAL, &action) };
        Ok(Self(check(before, || format!("sigaction({SIGNAL})"))?))
    }
}

impl Drop for InterruptingSignal {
    fn drop(&mut self) {
        // SAFETY: it is what was before.
        if let Err(error) = unsafe { sigaction(SIGNAL, &self.0) } {
            tracing::warn!("sigaction({SIGNAL}): {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_thread_that_waits_is_interrupted() {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        let (tell, told) = channel();
        let waits = std::thread::spawn(move || {
            tell.send(ThreadId::own()).unwrap();
            ours.read(&mut [0]).unwrap_err().kind()
        });
        let thread = told.recv().unwrap();
        let _signal = InterruptingSignal::begin().unwrap();
        while !waits.is_finished() {
            thread.interrupt().unwrap();
            std::thread::yield_now();
        }
        assert_eq!(waits.join().unwrap(), std::io::ErrorKind::Interrupted);
    }
}
