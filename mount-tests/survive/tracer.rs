//! Killing a server at one of its system calls.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Before a system call, or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

/// System calls that change files, or answer the kernel.
const CHANGES: [libc::c_long; 26] = [
    libc::SYS_openat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_ftruncate,
    libc::SYS_pwrite64,
    libc::SYS_copy_file_range,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ioctl,
    libc::SYS_write,
];

/// Follows a server until its call of a number that changes something, and kills it there; tells whether it
/// came to that. It ends when it is told that nothing will come any more.
///
/// `ready` is told when the server is followed. Nobody else may wait for the server meanwhile.
pub(crate) fn kill_at(
    server: i32,
    number: usize,
    when: When,
    ready: impl FnOnce(),
    is_over: &AtomicBool,
) -> bool {
    let mut threads = seize_all(server);
    ready();
    let (mut count, mut killed) = (0, false);
    while !threads.is_empty() {
        if !killed && is_over.load(Ordering::Acquire) {
            let_go(&threads);
            return false;
        }
        for (thread, is_meant) in threads.clone() {
            match waitpid(Pid::from_raw(thread), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) => {}
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
                    threads.remove(&thread);
                }
                Ok(WaitStatus::PtraceSyscall(pid)) if !killed => {
                    let entered = entered_call(pid);
                    let is_change = entered.is_some_and(|call| CHANGES.contains(&call));
                    count += usize::from(is_change);
                    let is_it = is_change && count == number;
                    if is_it && when == When::Before || entered.is_none() && is_meant {
                        kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
                        killed = true;
                        continue;
                    }
                    threads.insert(thread, is_it);
                    go_on(pid, None);
                }
                Ok(WaitStatus::Stopped(pid, signal)) => go_on(pid, Some(signal)),
                Ok(WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_CLONE)) => {
                    // The new thread is followed from its beginning.
                    let new = ptrace::getevent(pid).unwrap().try_into().unwrap();
                    threads.insert(new, false);
                    go_on(pid, None);
                }
                Ok(other) => {
                    if let Some(pid) = other.pid() {
                        go_on(pid, None);
                    }
                }
                Err(error) => panic!("thread {thread}: {error}"),
            }
        }
        std::thread::yield_now();
    }
    killed
}

/// Seizes all threads of a process; each is stopped and let go on to its next call.
fn seize_all(server: i32) -> BTreeMap<i32, bool> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{server}/task")).unwrap() {
        let thread: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        let pid = Pid::from_raw(thread);
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD;
        ptrace::seize(pid, options | ptrace::Options::PTRACE_O_TRACECLONE).unwrap();
        ptrace::interrupt(pid).unwrap();
        threads.insert(thread, false);
    }
    threads
}

/// Returns the number of the call that a thread is about to make; none if it has just made one.
#[allow(unsafe_code, reason = "what the kernel tells is a union")]
fn entered_call(pid: Pid) -> Option<libc::c_long> {
    let info = ptrace::syscall_info(pid).unwrap();
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the kernel says that it is about an entry.
    let number = unsafe { info.u.entry.nr };
    number.try_into().ok()
}

fn go_on(pid: Pid, signal: Option<Signal>) {
    match ptrace::syscall(pid, signal.and_then(own)) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("thread {pid}: {error}"),
    }
}

/// Lets threads go that run: each is stopped for it.
fn let_go(threads: &BTreeMap<i32, bool>) {
    for thread in threads.keys().map(|thread| Pid::from_raw(*thread)) {
        match ptrace::interrupt(thread) {
            Ok(()) => {}
            Err(Errno::ESRCH) => continue,
            Err(error) => panic!("thread {thread}: {error}"),
        }
        // Whatever it stops for, the stop that it was asked for is gone with it.
        let signal = match waitpid(thread, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => continue,
            Ok(WaitStatus::Stopped(_, signal)) => own(signal),
            Ok(_) => None,
        };
        match ptrace::detach(thread, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => panic!("thread {thread}: {error}"),
        }
    }
}

/// Returns a signal that is not a stop for whoever follows.
fn own(signal: Signal) -> Option<Signal> {
    (!matches!(signal, Signal::SIGTRAP | Signal::SIGSTOP)).then_some(signal)
}
