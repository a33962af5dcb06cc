//! The process itself: its identity, its limits, and going to the background.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;

use crate::sys::error::{check, check_raw};
use crate::sys::{Error, Result};

/// Which of the two processes this is, after [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The one that called; the other has this process id.
    Parent(i32),
    /// The new one.
    Child,
}

/// Returns the effective user and group of this process.
pub fn effective_ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// Makes a second process from this one, which must have only one thread.
///
/// # Errors
/// `EPERM` when there is more than one thread: the child would have locks that nobody opens.
pub fn fork() -> Result<Forked> {
    check_single_thread("fork()")?;
    // SAFETY: there is one thread, so the child has everything that this process has.
    match check(unsafe { nix::unistd::fork() }, || "fork()")? {
        nix::unistd::ForkResult::Parent { child } => Ok(Forked::Parent(child.as_raw())),
        nix::unistd::ForkResult::Child => Ok(Forked::Child),
    }
}

/// Checks that a call is made by the only thread of the process.
pub(crate) fn check_single_thread(call: &str) -> Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(|error| Error::from_io("read_dir(\"/proc/self/task\")", &error))?
        .count();
    match threads {
        1 => Ok(()),
        _ => Err(Error::new(format!("{call} with {threads} threads"), nix::errno::Errno::EPERM)),
    }
}

/// Waits until a child process ends and returns its exit code; 128 and the signal if one ended it.
pub fn wait_for_exit(pid: i32) -> Result<u8> {
    use nix::sys::wait::{WaitStatus, waitpid};
    loop {
        match waitpid(nix::unistd::Pid::from_raw(pid), None) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(WaitStatus::Exited(_, code)) => return Ok(u8::try_from(code).unwrap_or(1)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Ok(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX));
            }
            Ok(_) => {}
            Err(errno) => return Err(Error::new(format!("waitpid({pid})"), errno)),
        }
    }
}

/// Closes every descriptor but standard input, output and error: what a caller has left open must
/// not stay open for as long as a mount is served. Nothing of this process may be open yet.
pub fn close_inherited() -> Result<()> {
    // SAFETY: the call takes numbers only, and at this point nobody owns a descriptor above 2.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    check_raw(result, || "close_range(3)").map(drop)
}

/// Leaves the terminal and the process group of the caller (`setsid`).
pub fn become_session_leader() -> Result<()> {
    check(nix::unistd::setsid(), || "setsid()").map(drop)
}

/// Returns the reading and the writing end of a new pipe.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    check(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC), || "pipe2()")
}

/// Points standard input and output to /dev/null, and standard error to `log` or /dev/null.
pub fn null_stdio(log: Option<BorrowedFd<'_>>) -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| Error::from_io("open(\"/dev/null\")", &error))?;
    let null = null.as_raw_fd();
    let error = log.map_or(null, |fd| fd.as_raw_fd());
    for (from, to) in [(null, 0), (null, 1), (error, 2)] {
        // SAFETY: `from` is open; 0, 1 and 2 belong to nobody who would be surprised.
        let result = unsafe { libc::dup2(from, to) };
        check_raw(result, || format!("dup2({from}, {to})"))?;
    }
    Ok(())
}

pub(crate) fn end_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Keeps the signals that end a process for [`wait_for_end_signal`], in this thread and in those
/// that it starts.
pub fn block_end_signals() -> Result<()> {
    check(end_signals().thread_block(), || "pthread_sigmask(SIG_BLOCK)")
}

/// Lets the signals that end a process do so again, in this thread and in those that it starts.
pub fn unblock_end_signals() -> Result<()> {
    check(end_signals().thread_unblock(), || "pthread_sigmask(SIG_UNBLOCK)")
}

/// Waits for a signal that would end the process, and returns its number. [`block_end_signals`] came
/// before.
pub fn wait_for_end_signal() -> Result<i32> {
    check(end_signals().wait(), || "sigwait()").map(|signal| signal as i32)
}

fn interrupts() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}

/// Keeps SIGINT and SIGTERM for [`wait_for_interrupt`], in this thread and in those that it starts.
pub fn block_interrupts() -> Result<()> {
    check(interrupts().thread_block(), || "pthread_sigmask(SIG_BLOCK)")
}

/// Waits for SIGINT or SIGTERM, and returns its number. [`block_interrupts`] came before.
pub fn wait_for_interrupt() -> Result<i32> {
    check(interrupts().wait(), || "sigwait()").map(|signal| signal as i32)
}

/// Ends the process; nothing is flushed, dropped or waited for.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: the call does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Sets the mask of permissions that new files do not get.
pub fn set_umask(mask: u32) {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask));
}

/// Has memory go back to the system when it is freed, where glibc would keep it: it takes a large block
/// that is freed as a sign to keep blocks of that size, and has small ones of every thread in pages of
/// its own, few of which are ever empty.
///
/// # Errors
/// When the C library refuses.
pub fn keep_little_memory() -> Result<()> {
    #[cfg(target_env = "gnu")]
    {
        const LARGE_BYTES: i32 = 64 * 1024;
        for (name, what, value) in [
            ("M_MMAP_THRESHOLD", libc::M_MMAP_THRESHOLD, LARGE_BYTES),
            ("M_ARENA_MAX", libc::M_ARENA_MAX, 1),
        ] {
            // SAFETY: the call takes numbers and changes how the allocator works from now on.
            let done = unsafe { libc::mallopt(what, value) };
            // 1 is success here.
            check_raw(done - 1, || format!("mallopt({name}, {value})"))?;
        }
    }
    Ok(())
}

/// Gives memory back to the system that was freed in small pieces.
pub fn return_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the call takes a number and touches nothing that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Raises the limit of open files to what the administrator allows, and returns it.
pub fn raise_open_files_limit() -> Result<u64> {
    let (_, hard) = check(getrlimit(Resource::RLIMIT_NOFILE), || "getrlimit(RLIMIT_NOFILE)")?;
    check(setrlimit(Resource::RLIMIT_NOFILE, hard, hard), || {
        format!("setrlimit(RLIMIT_NOFILE, {hard})")
    })?;
    Ok(hard)
}

/// Returns when the process began, in clock ticks since boot; none when there is no such process.
///
/// Together with the process id this names a process for ever, since ids are used again.
pub fn process_start_ticks(pid: i32) -> Result<Option<u64>> {
    let path = format!("/proc/{pid}/stat");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::from_io(format!("read({path:?})"), &error)),
    };
    // proc(5): the second field is the name in parentheses and may hold anything; the start time
    // is field 22, the 20th after it.
    let after_name = text.rsplit_once(')').map_or("", |(_, after)| after);
    Ok(after_name.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()))
}

/// Returns the supplementary groups of a process or thread.
///
/// # Errors
/// `ENOENT` when there is no such process.
pub fn groups_of(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|error| Error::from_io(format!("read({path:?})"), &error))?;
    let groups = text.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    Ok(groups.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_a_process_are_read() {
        let own: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        assert_eq!(groups_of(std::process::id()).unwrap(), own);
        assert!(groups_of(u32::MAX).is_err());
    }

    #[test]
    fn a_process_has_a_start_and_a_dead_one_has_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(process_start_ticks(own).unwrap().is_some());
        assert_eq!(process_start_ticks(i32::MAX).unwrap(), None);
    }
}
