//! What this machine offers to strata, and what would make it faster.
//!
//! Everything is looked up where the kernel shows it; nothing is changed.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::service::Strata;
use crate::service::error::{Result, io_error};
use crate::service::machine::{Machine, text};
use crate::sys;

/// How good something is that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and could be faster.
    Slow,
    /// Something does not work without it.
    Bad,
}

/// Something that was looked at.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do: a command.
    pub command: Option<String>,
}

/// Less free room than this is told as too little.
const LITTLE_ROOM_BYTES: u64 = 1 << 30;
const SET_USER_ID: u32 = 0o4000;

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Good, found: found.into(), command: None }
    }

    fn other(
        what: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        command: impl Into<String>,
    ) -> Self {
        Self { what, verdict, found: found.into(), command: Some(command.into()) }
    }
}

impl Strata {
    /// Looks at the machine and at the place of the store.
    pub fn examine(&self) -> Result<Vec<Finding>> {
        let machine = Machine::here();
        let mut found = vec![
            kernel(&machine),
            device(),
            helper(),
            namespaces(),
            passthrough(&machine),
            io_uring(&machine),
        ];
        found.push(self.file_system());
        found.push(self.verity());
        found.push(self.reflink());
        found.push(self.room()?);
        Ok(found)
    }

    fn file_system(&self) -> Finding {
        let root = fs::canonicalize(self.root()).unwrap_or_else(|_| self.root().to_owned());
        let kind = file_system_of(&root, &text("/proc/self/mountinfo"));
        let found = format!("{} on {kind}", root.display());
        match kind.as_str() {
            "overlay" | "nfs" | "nfs4" | "9p" | "vboxsf" | "cifs" => Finding::other(
                "store",
                Verdict::Slow,
                found,
                "strata --root DIR, with a directory on a local disk (or STRATA_ROOT=DIR)",
            ),
            _ => Finding::good("store", found),
        }
    }

    /// Asks whether a file can be sealed, so that the kernel checks it.
    fn verity(&self) -> Finding {
        const WHAT: &str = "fs-verity";
        let has = sys::open_dir_path(self.root())
            .and_then(|dir| sys::open_tmpfile(dir.as_fd(), 0o600))
            .and_then(|file| sys::has_verity(file.as_fd()));
        match has {
            Ok(true) => {
                Finding::good(WHAT, "'mount --verify' seals what it has checked, when root mounts")
            }
            Ok(false) => Finding::good(
                WHAT,
                "the file system of the store has none; 'mount --verify' reads what it hands out",
            ),
            Err(error) => Finding::good(WHAT, format!("not known: {error}")),
        }
    }

    /// Tries whether a file can share the bytes of another.
    fn reflink(&self) -> Finding {
        const WHAT: &str = "reflink";
        match self.try_reflink() {
            Ok(()) => Finding::good(WHAT, "a large file that is changed shares what is not"),
            Err(error) => {
                tracing::debug!("{error}");
                Finding::other(
                    WHAT,
                    Verdict::Slow,
                    "the file system of the store has none: a large file that is changed is copied",
                    "strata --root DIR, with a directory on btrfs, or on XFS",
                )
            }
        }
    }

    fn try_reflink(&self) -> Result<()> {
        let dir = sys::open_dir_path(self.root())?;
        let mut from = fs::File::from(sys::open_tmpfile(dir.as_fd(), 0o600)?);
        let to = sys::open_tmpfile(dir.as_fd(), 0o600)?;
        from.write_all(&[1; 4096]).map_err(io_error("write", "a file in the store"))?;
        Ok(sys::clone_range(from.as_fd(), 0, 0, to.as_fd(), 0)?)
    }

    fn room(&self) -> Result<Finding> {
        let dir = sys::open_dir_path(self.root())?;
        let state = sys::statfs(dir.as_fd())?;
        let bytes = state.blocks_available * u64::from(state.block_size);
        let found = format!("{} MB", bytes / 1_000_000);
        Ok(match bytes < LITTLE_ROOM_BYTES {
            true => Finding::other(
                "free space",
                Verdict::Bad,
                found,
                "strata rmi $(strata images -qf dangling=true)",
            ),
            false => Finding::good("free space", found),
        })
    }
}

fn kernel(machine: &Machine) -> Finding {
    Finding::good("kernel", format!("{} on {}", machine.kernel, machine.architecture))
}

fn device() -> Finding {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    match opened {
        Ok(_) => Finding::good("/dev/fuse", "can be opened"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Finding::other("/dev/fuse", Verdict::Bad, error.to_string(), "sudo chmod 666 /dev/fuse")
        }
        Err(error) => {
            Finding::other("/dev/fuse", Verdict::Bad, error.to_string(), "sudo modprobe fuse")
        }
    }
}

/// Looks for the program that mounts for those who are not root.
fn helper() -> Finding {
    const WHAT: &str = "fusermount3";
    let Some(path) = in_path(WHAT) else {
        let verdict = if crate::service::runs_as_root() { Verdict::Good } else { Verdict::Bad };
        let found = "not there: only root can mount";
        return Finding::other(WHAT, verdict, found, "sudo apt-get install fuse3");
    };
    let mode = fs::metadata(&path).map_or(0, |metadata| metadata.permissions().mode());
    let shown = path.display();
    if mode & SET_USER_ID == 0 {
        let verdict = if crate::service::runs_as_root() { Verdict::Good } else { Verdict::Bad };
        let found = format!("{shown} is not set-uid root: only root can mount");
        return Finding::other(WHAT, verdict, found, format!("sudo chmod u+s {shown}"));
    }
    Finding::good(WHAT, format!("{shown}, set-uid"))
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn namespaces() -> Finding {
    const WHAT: &str = "user namespaces";
    let off = [
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    for (key, bad, good) in off {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        if text(path).trim() == bad {
            let found =
                format!("{key} is {bad}: without root nothing can be run in a mount as its root");
            return Finding::other(
                WHAT,
                Verdict::Bad,
                found,
                format!("sudo sysctl -w {key}={good}"),
            );
        }
    }
    Finding::good(WHAT, "can be made")
}

/// What a mount may ask for, as root: nothing to do about it.
fn passthrough(machine: &Machine) -> Finding {
    let found = match machine.kernel_version() >= (6, 9) {
        true => "the kernel has it; root may ask for it (-o data=passthrough)",
        false => "the kernel has it from 6.9 on",
    };
    Finding::good("FUSE passthrough", found)
}

fn io_uring(machine: &Machine) -> Finding {
    const WHAT: &str = "FUSE over io_uring";
    let slow = |found, command| Finding::other(WHAT, Verdict::Slow, found, command);
    let allowed = text("/proc/sys/kernel/io_uring_disabled");
    match text("/sys/module/fuse/parameters/enable_uring").trim() {
        "Y" | "1" if allowed.trim() != "0" && !allowed.is_empty() => {
            slow("on; but io_uring is forbidden", "sysctl kernel.io_uring_disabled=0")
        }
        "Y" | "1" => Finding::good(WHAT, "on; new mounts use it"),
        "" if machine.kernel_version() >= (6, 14) => {
            Finding::good(WHAT, "the kernel was built without it, or its fuse module is not loaded")
        }
        "" => Finding::good(WHAT, "the kernel has it from 6.14 on"),
        _ => slow(
            "off; with it a request takes a fraction of the time",
            "echo Y > /sys/module/fuse/parameters/enable_uring (as root)",
        ),
    }
}

/// Returns the kind of file system at a path: that of the longest mount point above it, the last of
/// several at the same.
pub(crate) fn file_system_of(path: &Path, mountinfo: &str) -> String {
    let mut best = (0, "an unknown file system");
    for line in mountinfo.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let target = mount.split(' ').nth(4).unwrap_or_default().replace("\\040", " ");
        if path.starts_with(&target) && target.len() >= best.0 {
            best = (target.len(), kind.split(' ').next().unwrap_or_default());
        }
    }
    best.1.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_of_a_path_is_the_nearest_mount() {
        let table = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /var rw shared:1 - xfs /dev/b rw\n3 1 \
                     0:5 / /var\\040x rw - tmpfs none rw\n";
        for (path, expected) in [
            ("/", "ext4"),
            ("/home/me", "ext4"),
            ("/var/lib/strata", "xfs"),
            ("/var x/y", "tmpfs"),
            ("/variable", "ext4"),
        ] {
            assert_eq!(file_system_of(Path::new(path), table), expected, "{path}");
        }
    }
}
