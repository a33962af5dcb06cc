//! Mounting step by step: a context that is filled option by option, a mount made of it, and its place.
//!
//! mount(2) takes all options as one page of text, too little for the directories of many layers.
//! These calls came with Linux 5.2; overlayfs takes a layer for each call since 6.5.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use crate::sys::error::check;
use crate::sys::{Errno, Error, Result};

// linux/mount.h
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// A file system that is being described (`fsopen`).
#[derive(Debug)]
pub struct MountContext(OwnedFd);

/// A mount that has no place yet (`fsmount`).
#[derive(Debug)]
pub struct UnplacedMount(OwnedFd);

impl MountContext {
    /// Begins a file system of a kind.
    pub fn new(kind: &CStr) -> Result<Self> {
        // SAFETY: the string ends with a zero.
        let result = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
        new_descriptor(result, || format!("fsopen({kind:?})")).map(Self)
    }

    /// Sets an option; one that is a list gets one more.
    pub fn set(&self, key: &CStr, value: &[u8]) -> Result<()> {
        let call = || format!("fsconfig({key:?}, {:?})", String::from_utf8_lossy(value));
        let value = CString::new(value).map_err(|_| Error::new(call(), Errno::EINVAL))?;
        // SAFETY: both strings end with a zero.
        let result = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                FSCONFIG_SET_STRING,
                key.as_ptr(),
                value.as_ptr(),
                0,
            )
        };
        check(Errno::result(result), call).map(drop)
    }

    /// Makes the file system as it was described.
    pub fn create(&self) -> Result<()> {
        let none = ptr::null::<libc::c_char>();
        // SAFETY: this command takes neither a key nor a value.
        let result = unsafe {
            let fd = self.0.as_raw_fd();
            libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0)
        };
        check(Errno::result(result), || "fsconfig(FSCONFIG_CMD_CREATE)").map(drop)
    }

    /// Makes a mount of what was created.
    pub fn mount(&self) -> Result<UnplacedMount> {
        // SAFETY: the call takes numbers only.
        let result =
            unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, 0) };
        new_descriptor(result, || "fsmount()".to_owned()).map(UnplacedMount)
    }
}

impl UnplacedMount {
    /// Puts the mount at a directory.
    pub fn place(&self, target: &Path) -> Result<()> {
        let call = || format!("move_mount({target:?})");
        let path = CString::new(target.as_os_str().as_bytes())
            .map_err(|_| Error::new(call(), Errno::EINVAL))?;
        // SAFETY: both strings end with a zero.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                path.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        };
        check(Errno::result(result), call).map(drop)
    }
}

/// Returns the descriptor that a call has made.
fn new_descriptor(result: libc::c_long, call: impl FnOnce() -> String) -> Result<OwnedFd> {
    let fd = check(Errno::result(result), call)?;
    let fd = i32::try_from(fd).map_err(|_| Error::new("a descriptor", Errno::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Mounts the kernel's overlayfs with options that fit a page.
pub fn mount_overlay(target: &Path, options: &[u8]) -> Result<()> {
    let flags = nix::mount::MsFlags::empty();
    let result = nix::mount::mount(Some("overlay"), target, Some("overlay"), flags, Some(options));
    check(result, || format!("mount({target:?}, \"overlay\", {})", options.escape_ascii()))
}
