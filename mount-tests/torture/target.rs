//! What a stopped thread is about to do: which call, with which arguments, to which files.

use std::fs;
use std::io::IoSliceMut;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::torture::calls::{Call, Names};

/// A thread that is stopped before a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pid: Pid,
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
}

impl Stop {
    /// Looks at a thread that is stopped by the filter; none if it has been killed.
    #[allow(unsafe_code, reason = "what the kernel says is a union")]
    pub(crate) fn at(pid: Pid) -> Option<Self> {
        let info = match ptrace::syscall_info(pid) {
            Ok(info) => info,
            Err(nix::Error::ESRCH) => return None,
            Err(error) => panic!("ptrace: {error}"),
        };
        assert_eq!(info.op, libc::PTRACE_SYSCALL_INFO_SECCOMP);
        // SAFETY: this is the part that `op` says; it is numbers.
        let said = unsafe { info.u.seccomp };
        Some(Self { pid, number: said.nr.cast_signed(), arguments: said.args })
    }

    /// Keeps the call from being made, and lets the thread see another answer.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn answer(&self, value: i64) {
        let mut registers = ptrace::getregs(self.pid).unwrap();
        registers.orig_rax = u64::MAX;
        registers.rax = value.cast_unsigned();
        ptrace::setregs(self.pid, registers).unwrap();
    }

    /// Keeps the call from being made, and lets the thread see another answer.
    #[cfg(target_arch = "aarch64")]
    #[allow(unsafe_code, reason = "nix has no set of registers for the number of the call")]
    pub(crate) fn answer(&self, value: i64) {
        const NT_ARM_SYSTEM_CALL: usize = 0x404;
        let mut number = -1_i32;
        let data = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: 4 };
        // SAFETY: the vector describes the four bytes of `number`.
        let set = unsafe {
            libc::ptrace(libc::PTRACE_SETREGSET, self.pid.as_raw(), NT_ARM_SYSTEM_CALL, &data)
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        let mut registers = ptrace::getregs(self.pid).unwrap();
        registers.regs[0] = value.cast_unsigned();
        ptrace::setregs(self.pid, registers).unwrap();
    }

    fn fd(&self, argument: usize) -> i32 {
        #[allow(clippy::cast_possible_truncation, reason = "descriptors are 32 bits")]
        let fd = self.arguments[argument] as u32;
        fd.cast_signed()
    }

    /// Returns what a descriptor stands for.
    fn path_of_fd(&self, argument: usize) -> Option<PathBuf> {
        let what = match self.fd(argument) {
            libc::AT_FDCWD => "cwd".to_owned(),
            fd => format!("fd/{fd}"),
        };
        fs::read_link(format!("/proc/{}/{what}", self.pid)).ok()
    }

    /// Reads a path; none where there is none.
    fn text(&self, argument: usize) -> Option<PathBuf> {
        const PAGE: usize = 4096;
        let mut at = usize::try_from(self.arguments[argument]).ok().filter(|at| *at != 0)?;
        let mut text = Vec::new();
        while text.len() < PAGE {
            // To the end of a page: the next may not be there.
            let mut piece = vec![0; PAGE - at % PAGE];
            let from = RemoteIoVec { base: at, len: piece.len() };
            let len =
                process_vm_readv(self.pid, &mut [IoSliceMut::new(&mut piece)], &[from]).ok()?;
            piece.truncate(len);
            if let Some(end) = piece.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&piece[..end]);
                return Some(std::ffi::OsString::from_vec(text).into());
            }
            text.append(&mut piece);
            at += len;
        }
        None
    }

    /// Returns the path of a call in a directory.
    fn path_at(&self, dir: Option<usize>, text: usize) -> Option<PathBuf> {
        let dir = || match dir {
            Some(dir) => self.path_of_fd(dir),
            None => fs::read_link(format!("/proc/{}/cwd", self.pid)).ok(),
        };
        let path = match self.text(text) {
            Some(path) if path.is_absolute() => path,
            Some(path) if !path.as_os_str().is_empty() => dir()?.join(path),
            _ => dir()?,
        };
        // A program changes what it has open by the name that it has there.
        match path.strip_prefix("/proc/self/fd") {
            Ok(fd) => fs::read_link(format!("/proc/{}/fd/{}", self.pid, fd.display())).ok(),
            Err(_) => Some(path),
        }
    }
}

/// Returns the files below `watched` that a call changes, by their paths from there; a call that
/// changes everything changes the folder itself.
pub(crate) fn targets(stop: &Stop, call: &Call, watched: &Path) -> Vec<PathBuf> {
    let paths = match call.names {
        Names::All => vec![Some(watched.to_owned())],
        Names::Fd(fd) => vec![stop.path_of_fd(fd)],
        Names::Path(text) => vec![stop.path_at(None, text)],
        Names::At(dir, text) => vec![stop.path_at(Some(dir), text)],
        Names::Paths(old, new) => vec![stop.path_at(None, old), stop.path_at(None, new)],
        Names::Ats([dir, old, new_dir, new]) => {
            vec![stop.path_at(Some(dir), old), stop.path_at(Some(new_dir), new)]
        }
    };
    let below = |path: PathBuf| plain(&path).strip_prefix(watched).map(Path::to_owned).ok();
    paths.into_iter().flatten().filter_map(below).collect()
}

/// Returns a path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}
