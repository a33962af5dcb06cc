//! Unmounting, and what is mounted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::service::error::{Error, Result};
use crate::service::mount::absolute;
use crate::service::{Event, Strata};
use crate::store::{Container, ContainerLock, MountState, Mounted};
use crate::sys::{self, Errno, Unmount};

/// How long the process that served a mount may take to end.
const END_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a container that is not mounted may be in use.
const FREE_WITHIN: Duration = Duration::from_secs(10);

/// Whether to wait until the process that served a mount has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until the writable layer is free.
    ForEnd,
    /// The mount may be in use for as long as somebody likes.
    No,
}

/// A mount.
#[derive(Clone, Debug)]
pub struct MountRow {
    /// The container.
    pub container: String,
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Where, by whom, since when.
    pub state: MountState,
    /// Whether the process that serves it lives.
    pub alive: bool,
}

impl Strata {
    /// Returns what is mounted.
    pub fn mounts(&self) -> Result<Vec<MountRow>> {
        let mut mounts = Vec::new();
        for Container { id, name, image, .. } in self.store.containers()? {
            let (state, alive) = match self.store.mounted_as_far_as_known(&id)? {
                Mounted::No => continue,
                Mounted::Alive(state) => (state, true),
                Mounted::Dead(state) => (state, false),
            };
            mounts.push(MountRow { container: id, name, image, state, alive });
        }
        Ok(mounts)
    }

    /// Unmounts a container, or what is mounted at a path; when this returns, the process that
    /// served it has ended and the writable layer is free.
    ///
    /// A lazy one is taken out of the tree even if it is in use.
    pub fn umount(&self, what: &str, lazy: bool) -> Result<()> {
        let how = if lazy { Unmount::Detach } else { Unmount::IfUnused };
        let wait = if lazy { Wait::No } else { Wait::ForEnd };
        let container = match self.mounted_at(Path::new(what))? {
            Some(container) => container,
            None => match self.find_container(what) {
                Ok(container) => container,
                Err(Error::NoContainer(_)) => return self.umount_unknown(what, how),
                Err(error) => return Err(error),
            },
        };
        self.unmount_container(&container, how, wait)
    }

    pub(crate) fn unmount_container(
        &self,
        container: &Container,
        how: Unmount,
        wait: Wait,
    ) -> Result<()> {
        match self.store.mounted(&container.id)? {
            Mounted::No => Err(Error::NotMounted(container.name.clone())),
            Mounted::Alive(state) => {
                unmount(&state.target, how)?;
                match wait {
                    Wait::ForEnd => self.wait_for_end(container, &state),
                    Wait::No => Ok(()),
                }
            }
            Mounted::Dead(state) => {
                let lock = self.store.lock_container(&container.id)?;
                self.clear_dead(container, &state, &lock)?;
                if container.ephemeral {
                    self.store.remove_container(&container.id, &lock)?;
                }
                Ok(())
            }
        }
    }

    /// Has what the kernel holds back of a container's mount reach the writable layer. Tells whether
    /// it is mounted.
    pub(crate) fn flush_mount(&self, container: &Container) -> crate::store::Result<bool> {
        let Mounted::Alive(mount) = self.store.mounted(&container.id)? else { return Ok(false) };
        sys::sync_fs(sys::open_dir_path(&mount.target)?)?;
        Ok(true)
    }

    /// Locks a container that is not mounted. Somebody may have unmounted it by umount(8), and its server
    /// have forgotten the mount and be about to end: that is waited for.
    pub(crate) fn lock_container(&self, id: &str) -> Result<ContainerLock> {
        let deadline = Instant::now() + FREE_WITHIN;
        loop {
            match self.store.lock_container(id) {
                Err(crate::store::Error::Busy { by: None, .. }) if Instant::now() < deadline => {
                    std::thread::sleep(LOOK_EVERY);
                }
                other => return Ok(other?),
            }
        }
    }

    /// Does the same, and clears what a process that has died has left mounted of it.
    pub(crate) fn lock_unmounted(&self, container: &Container) -> Result<ContainerLock> {
        let lock = self.lock_container(&container.id)?;
        if let Some(state) = self.store.left_mounted(&container.id, &lock)? {
            self.tell(Event::Warning(format!(
                "the process that served {} at {} has died; its mount is cleared",
                container.name,
                state.target.display()
            )));
            self.clear_dead(container, &state, &lock)?;
        }
        Ok(lock)
    }

    /// Takes the mount of a dead process out of the way, and forgets it.
    pub(crate) fn clear_dead(
        &self,
        container: &Container,
        state: &MountState,
        lock: &ContainerLock,
    ) -> Result<()> {
        if is_left(state) && !self.is_of_another(container, &state.target)? {
            detach(&state.target)?;
        }
        Ok(self.store.clear_mounted(&container.id, lock)?)
    }

    /// Tells whether a process that lives serves another container's mount at this path.
    fn is_of_another(&self, container: &Container, target: &Path) -> Result<bool> {
        let is_it = |row: &MountRow| row.alive && row.state.target == target;
        Ok(self.mounts()?.iter().any(|row| row.container != container.id && is_it(row)))
    }

    /// Returns the container that is mounted at a path; of several the one whose process lives.
    fn mounted_at(&self, path: &Path) -> Result<Option<Container>> {
        let Ok(target) = absolute(path) else { return Ok(None) };
        let mut rows = self.mounts()?;
        rows.retain(|row| row.state.target == target);
        match rows.iter().find(|row| row.alive).or_else(|| rows.first()) {
            Some(row) => Ok(self.store.container(&row.container)?),
            None => Ok(None),
        }
    }

    /// Unmounts a mount of ours that no container knows of.
    fn umount_unknown(&self, what: &str, how: Unmount) -> Result<()> {
        let not_mounted = || Error::NotMounted(what.to_owned());
        let target = absolute(Path::new(what)).map_err(|_| not_mounted())?;
        if !is_ours(&target) {
            return Err(not_mounted());
        }
        unmount(&target, how)
    }

    fn wait_for_end(&self, container: &Container, state: &MountState) -> Result<()> {
        let deadline = Instant::now() + END_WITHIN;
        while Instant::now() < deadline {
            match self.store.mounted(&container.id)? {
                Mounted::No => match self.store.lock_container(&container.id) {
                    Ok(_lock) => return Ok(()),
                    // It has forgotten the mount and is about to end; or is gone with its mount.
                    Err(crate::store::Error::Io { .. }) => return Ok(()),
                    Err(_) => {}
                },
                // It was killed while it ended.
                Mounted::Dead(_) => {
                    return self.unmount_container(container, Unmount::Detach, Wait::No);
                }
                Mounted::Alive(_) => {}
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(Error::StillServing {
            pid: state.pid,
            target: state.target.clone(),
            log: self.store.mount_log(&container.id),
        })
    }
}

fn unmount(target: &Path, how: Unmount) -> Result<()> {
    match sys::unmount(target, how) {
        Err(error) if error.errno() == Errno::EBUSY => {
            Err(Error::MountBusy { target: target.to_owned() })
        }
        // It was unmounted already; its process is about to end.
        Err(error) if error.errno() == Errno::EINVAL => Ok(()),
        other => Ok(other?),
    }
}

/// What is mounted at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountPoint {
    /// Major and minor number of the device that its files are on.
    pub(crate) device: String,
    is_ours: bool,
}

/// Tells whether the mount of a process that has died is still there. The kernel may take a moment to
/// end it, in which it seems to live: so it is told by its device. One of an older version is told by
/// its being dead. No mount outlasts a boot of the machine, after which numbers of devices, like those of
/// processes, are given again.
fn is_left(state: &MountState) -> bool {
    if state.boot.is_some() && state.boot != boot() {
        return false;
    }
    match (mount_point(&state.target), &state.device) {
        (Some(point), Some(device)) => point.is_ours && point.device == *device,
        (Some(_), None) => is_dead(&state.target),
        (None, _) => false,
    }
}

/// Returns what the kernel calls this boot of the machine.
pub(crate) fn boot() -> Option<String> {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(text) => Some(text.trim().to_owned()),
        Err(error) => {
            tracing::debug!("/proc/sys/kernel/random/boot_id: {error}");
            None
        }
    }
}

/// Takes a mount of ours whose server has died out of the way of another one; tells whether there was
/// one. A server that is killed right after it has mounted has not recorded it yet.
pub(crate) fn clear_way(target: &Path) -> Result<bool> {
    let is_in_way = is_ours(target) && is_dead(target);
    if is_in_way {
        detach(target)?;
    }
    Ok(is_in_way)
}

/// Takes what is mounted at a path out of the tree; it ends when its last user leaves.
pub(crate) fn detach(target: &Path) -> sys::Result<()> {
    match sys::unmount(target, Unmount::Detach) {
        // Somebody was quicker.
        Err(error) if error.errno() == Errno::EINVAL => Ok(()),
        other => other,
    }
}

/// Tells whether a path is a mount whose server has died.
fn is_dead(target: &Path) -> bool {
    std::fs::metadata(target)
        .is_err_and(|error| error.raw_os_error() == Some(Errno::ENOTCONN as i32))
}

/// Tells whether a mount of ours is at a path.
pub(crate) fn is_ours(target: &Path) -> bool {
    mount_point(target).is_some_and(|point| point.is_ours)
}

/// Returns what is mounted at a path; none if nothing is. No file system is asked for it.
pub(crate) fn mount_point(target: &Path) -> Option<MountPoint> {
    let mounts = match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => mounts,
        Err(error) => {
            tracing::warn!("/proc/self/mountinfo: {error}");
            return None;
        }
    };
    mount_point_in(&mounts, target)
}

/// Returns what proc_pid_mountinfo(5) says of a path; of several mounts the last is on top.
fn mount_point_in(mounts: &str, target: &Path) -> Option<MountPoint> {
    mounts.lines().rev().find_map(|line| {
        // The device is the third field and the mount point the fifth; the type follows ` - `.
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?;
        let point = fields.nth(1).map(unescape)?;
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        let is_ours = kind == Some("fuse.strata");
        (point == target).then(|| MountPoint { device: device.to_owned(), is_ours })
    })
}

/// Undoes the octal escapes of a path in mountinfo.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_on_top_is_the_last_one_at_a_path() {
        let mounts = "29 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            68 29 0:50 / /a\\040b rw,nosuid shared:3 - fuse.strata image rw,user_id=0\n\
            69 68 0:51 / /a\\040b rw - tmpfs none rw\n\
            70 29 0:52 / /c rw - fuse.strata image rw\n";
        let point = |device: &str, is_ours| Some(MountPoint { device: device.to_owned(), is_ours });
        for (path, found) in [
            ("/", point("254:0", false)),
            ("/a b", point("0:51", false)),
            ("/c", point("0:52", true)),
            ("/a", None),
        ] {
            assert_eq!(mount_point_in(mounts, Path::new(path)), found, "{path}");
        }
    }

    #[test]
    fn escapes_of_mount_points_are_undone() {
        for (text, path) in
            [("/mnt", "/mnt"), (r"/a\040b", "/a b"), (r"/a\134b", r"/a\b"), (r"/x\04", r"/x\04")]
        {
            assert_eq!(unescape(text), Path::new(path), "{text}");
        }
    }
}
