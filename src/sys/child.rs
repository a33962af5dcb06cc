//! Processes that this one begins: their group, their root directory, their end.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::sys::error::check;
use crate::sys::{Errno, Error, Result};

/// Makes a process, this one for 0, the first of a group of its own.
pub fn lead_group(pid: i32) -> Result<()> {
    let pid = Pid::from_raw(pid);
    check(nix::unistd::setpgid(pid, pid), || format!("setpgid({pid}, {pid})"))
}

/// Has the kernel kill this process when the thread that made it is gone.
pub fn die_with_parent() -> Result<()> {
    check(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL), || "prctl(PR_SET_PDEATHSIG)")
}

/// Kills a process. One that is gone already is no error.
pub fn kill(pid: i32) -> Result<()> {
    gone_is_good(nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL), "kill", pid)
}

/// Kills all processes of a group. One that is gone already is no error.
pub fn kill_group(pid: i32) -> Result<()> {
    gone_is_good(nix::sys::signal::killpg(Pid::from_raw(pid), Signal::SIGKILL), "killpg", pid)
}

fn gone_is_good(result: nix::Result<()>, call: &str, pid: i32) -> Result<()> {
    match result {
        Err(Errno::ESRCH) => Ok(()),
        other => check(other, || format!("{call}({pid}, SIGKILL)")),
    }
}

/// Has a command see `root` as its root directory. Without privilege it is root of a user namespace of
/// its own, which may do that.
///
/// # Errors
/// A path with a zero in it.
pub fn run_in_root(command: &mut Command, root: &Path) -> Result<()> {
    let path = CString::new(root.as_os_str().as_bytes())
        .map_err(|_| Error::new(format!("chroot({root:?})"), Errno::EINVAL))?;
    let needs_namespace = !nix::unistd::geteuid().is_root();
    // SAFETY: between fork and exec this makes system calls only, on a string that was made before.
    unsafe {
        command.pre_exec(move || {
            if needs_namespace {
                nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?;
            }
            nix::unistd::chroot(path.as_c_str())?;
            nix::unistd::chdir(c"/")?;
            Ok(())
        });
    }
    Ok(())
}
