//! Mounting and unmounting: directly with the privilege for it, else through `fusermount3`.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::sys::error::check;
use crate::sys::{Errno, Error, Result};

/// How a mount goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nobody uses it.
    IfUnused,
    /// From the tree at once, in whole when its last user leaves (`MNT_DETACH`).
    Detach,
}

/// Mounts `/dev/fuse` at `target` by `mount(2)` and returns the device.
///
/// `data` are the options of the FUSE file system itself, without `fd` and `rootmode`.
///
/// # Errors
/// `EPERM` without the privilege: use [`fusermount`]. `ENOENT` or `ENODEV` when the kernel has no
/// FUSE.
pub fn mount_fuse(
    source: &str,
    subtype: &str,
    target: &Path,
    flags: MountFlags,
    data: &str,
) -> Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(|error| Error::from_io("open(\"/dev/fuse\")", &error))?;
    let data = format!("fd={},rootmode=40000,{data}", device.as_raw_fd());
    let kind = format!("fuse.{subtype}");
    let result =
        nix::mount::mount(Some(source), target, Some(kind.as_str()), flags.0, Some(data.as_str()));
    check(result, || format!("mount({target:?}, {kind:?}, {data:?})"))?;
    Ok(device.into())
}

/// The flags of `mount(2)` that a mount of ours can have.
#[derive(Clone, Copy, Debug)]
pub struct MountFlags(MsFlags);

impl Default for MountFlags {
    fn default() -> Self {
        Self(MsFlags::empty())
    }
}

impl MountFlags {
    /// Returns the flag with this name in fstab(5), and whether it sets or clears; none if there
    /// is no such flag.
    pub fn named(name: &str) -> Option<(Self, bool)> {
        NAMES.iter().find_map(|(flag, set, cleared)| {
            let found = name == *set || name == *cleared;
            found.then_some((Self(*flag), name == *set))
        })
    }

    /// Returns the names of the flags that are set.
    pub fn names(self) -> Vec<&'static str> {
        let set = NAMES.iter().filter(|(flag, ..)| self.0.contains(*flag));
        set.map(|(_, name, _)| *name).collect()
    }

    /// Sets or clears what `other` holds.
    pub fn apply(&mut self, other: Self, set: bool) {
        self.0.set(other.0, set);
    }

    /// Tells whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0.contains(other.0)
    }
}

/// Flags by name: set, cleared.
const NAMES: [(MsFlags, &str, &str); 8] = [
    (MsFlags::MS_RDONLY, "ro", "rw"),
    (MsFlags::MS_NOSUID, "nosuid", "suid"),
    (MsFlags::MS_NODEV, "nodev", "dev"),
    (MsFlags::MS_NOEXEC, "noexec", "exec"),
    (MsFlags::MS_NOATIME, "noatime", "atime"),
    (MsFlags::MS_NODIRATIME, "nodiratime", "diratime"),
    (MsFlags::MS_SYNCHRONOUS, "sync", "async"),
    (MsFlags::MS_DIRSYNC, "dirsync", "nodirsync"),
];

/// Mounts through the set-uid helper `fusermount3`, as a user without privilege must.
///
/// # Errors
/// The text that the helper printed, or why it could not be started.
pub fn fusermount(target: &Path, options: &str) -> std::result::Result<OwnedFd, String> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
    let their_fd = theirs.as_raw_fd();
    let mut command = Command::new("fusermount3");
    command.arg("-o").arg(options).arg("--").arg(target);
    command.env("_FUSE_COMMFD", their_fd.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: between fork and exec this makes one call that is safe there, on a descriptor that
    // stays open until after `spawn`.
    unsafe {
        command.pre_exec(move || {
            keep_across_exec(their_fd)?;
            Ok(())
        });
    }
    let child = command.spawn().map_err(|error| {
        format!("fusermount3 cannot be started ({error}); install the package fuse3")
    })?;
    drop(theirs);
    let received = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match received {
        Ok(Some(device)) if output.status.success() => Ok(device),
        _ => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(text.trim().trim_start_matches("fusermount3: ").to_owned())
        }
    }
}

/// Lets a descriptor survive `exec`. Called between fork and exec: allocates nothing.
fn keep_across_exec(fd: RawFd) -> nix::Result<()> {
    // SAFETY: the call takes numbers only.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}

/// Receives the one descriptor that the helper sends; none when it sent nothing.
fn receive_descriptor(socket: &UnixStream) -> nix::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut iov = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Ok(None)
}

/// Unmounts what is mounted at `target`, which is not followed if it is a symbolic link.
pub fn unmount(target: &Path, how: Unmount) -> Result<()> {
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    flags.set(MntFlags::MNT_DETACH, how == Unmount::Detach);
    match nix::mount::umount2(target, flags) {
        Err(Errno::EPERM) => fusermount_unmount(target, how),
        result => check(result, || format!("umount2({target:?}, {flags:?})")),
    }
}

fn fusermount_unmount(target: &Path, how: Unmount) -> Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if how == Unmount::Detach {
        command.arg("-z");
    }
    command.arg("--").arg(target).stdin(Stdio::null()).stdout(Stdio::null());
    let output = command
        .output()
        .map_err(|error| Error::from_io("spawn(\"fusermount3\")".to_owned(), &error))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let errno = if text.contains("busy") { Errno::EBUSY } else { Errno::EPERM };
    Err(Error::new(format!("fusermount3 -u {target:?}: {}", text.trim()), errno))
}
