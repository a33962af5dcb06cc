//! How much memory a command takes at most.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::{Output, bytes_of, spawn};

/// Longer than any command takes, also on a slow machine.
const LONGEST: Duration = Duration::from_secs(600);

/// Runs a command, and returns what it said and the most memory it had resident, in bytes. It is looked
/// at when the command is about to end: what the kernel says afterwards (`ru_maxrss`) counts what the
/// process had before it ran the command, which is all that the tests have.
#[allow(clippy::zombie_processes, reason = "waitpid reaps it")]
pub(crate) fn measured(command: &mut Command) -> (Output, u64) {
    let file = || tempfile::tempfile().unwrap();
    let (stdout, stderr) = (file(), file());
    let copy = |file: &File| file.try_clone().unwrap();
    let child = spawn(command.stdout(copy(&stdout)).stderr(copy(&stderr)));
    let pid = Pid::from_raw(child.id().cast_signed());
    let (done, is_done) = channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = is_done.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout);
        late && kill(pid, Signal::SIGKILL).is_ok()
    });
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT).unwrap();
    let mut peak = 0;
    let code = loop {
        let signal = match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceEvent(..) => {
                peak = bytes_of(child.id(), "VmHWM:");
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::Exited(_, status) => break status,
            WaitStatus::Signaled(_, signal, _) => {
                drop(done);
                let is_late = watch.join().unwrap();
                panic!("{command:?} was ended by {signal}, by the clock: {is_late}");
            }
            other => panic!("{command:?}: {other:?}"),
        };
        ptrace::cont(pid, signal).unwrap();
    };
    drop(done);
    watch.join().unwrap();
    let text = |mut file: File| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    (Output { code, stdout: text(stdout), stderr: text(stderr) }, peak)
}
