//! Mounting a tree and serving it until it is unmounted.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use fuser::{Config, Session, SessionACL};

use crate::fuse::error::{Error, Result};
use crate::fuse::options::MountOptions;
use crate::fuse::requests::{Checked, Requests};
use crate::overlay::{Overlay, Owners};
use crate::sys::{self, Errno, Unmount};

/// What /proc/mounts shows behind `fuse.`.
const SUBTYPE: &str = "strata";

/// A tree that is mounted and being served.
#[derive(Debug)]
pub struct Mount {
    target: PathBuf,
    serving: JoinHandle<io::Result<()>>,
}

/// Mounts a tree; when this returns, the mount has answered.
///
/// `target` is absolute. `statfs_of` is on the file system whose state a tree without an upper shows.
pub fn mount(
    overlay: Overlay,
    target: &Path,
    options: &MountOptions,
    statfs_of: OwnedFd,
) -> Result<Mount> {
    check_target(target)?;
    // A file gets exactly the permissions that its maker wanted.
    sys::set_umask(0);
    if let Err(error) = sys::raise_open_files_limit() {
        tracing::debug!("{error}");
    }
    let mut options = options.clone();
    if overlay.is_read_only() {
        options.set_read_only();
    }
    let privileged = sys::effective_ids().0 == 0;
    let owners = overlay.owners();
    let native = owners.map_or(privileged, |owners| owners == Owners::Native);
    let access = Access::new(&options, privileged, native);
    let device = open_device(target, &options, access, privileged)?;
    let requests = Requests::new(overlay, statfs_of, access.checked());
    serve(requests, device, target, access).inspect_err(|_| {
        if let Err(error) = sys::unmount(target, Unmount::Detach) {
            tracing::warn!("{error}");
        }
    })
}

/// Who may use the mount, and who checks what they may do.
#[derive(Clone, Copy, Debug)]
struct Access {
    allow_other: bool,
    default_permissions: bool,
}

impl Access {
    /// With privilege everybody may use the mount. Where files have their owners the kernel checks
    /// permissions; where marks have them, whoever mounts it is root to its files, and if others may
    /// use it they must not be.
    fn new(options: &MountOptions, privileged: bool, native: bool) -> Self {
        let allow_other = options.allow_other.unwrap_or(privileged);
        let default_permissions = options.default_permissions.unwrap_or(native || allow_other);
        Self { allow_other, default_permissions }
    }

    const fn checked(self) -> Checked {
        if self.default_permissions { Checked::ByKernel } else { Checked::ByNobody }
    }

    fn options(self) -> Vec<&'static str> {
        let mut options = Vec::new();
        if self.allow_other {
            options.push("allow_other");
        }
        if self.default_permissions {
            options.push("default_permissions");
        }
        options
    }
}

fn check_target(target: &Path) -> Result<()> {
    match std::fs::metadata(target) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::NotADirectory(target.to_owned())),
        Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => {
            Err(Error::DeadMount(target.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::NoMountPoint(target.to_owned()))
        }
        Err(error) => Err(Error::Refused { target: target.to_owned(), reason: error.to_string() }),
    }
}

/// Mounts the device, by ourselves with the privilege for it, else through the helper.
fn open_device(
    target: &Path,
    options: &MountOptions,
    access: Access,
    privileged: bool,
) -> Result<OwnedFd> {
    let source = options.source.as_str();
    if privileged {
        let (uid, gid) = sys::effective_ids();
        let mut data = format!("user_id={uid},group_id={gid}");
        for option in access.options() {
            data.push(',');
            data.push_str(option);
        }
        return match sys::mount_fuse(source, SUBTYPE, target, options.flags, &data) {
            Ok(device) => Ok(device),
            Err(error) => Err(refused(target, &error)),
        };
    }
    let mut list = vec![format!("fsname={source}"), format!("subtype={SUBTYPE}")];
    list.extend(access.options().into_iter().map(str::to_owned));
    list.extend(options.flags.names().into_iter().map(str::to_owned));
    sys::fusermount(target, &list.join(","))
        .map_err(|reason| Error::Refused { target: target.to_owned(), reason })
}

fn refused(target: &Path, error: &sys::Error) -> Error {
    let advice = match error.errno() {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => {
            "load it with 'modprobe fuse', or give the container the device"
        }
        Errno::EACCES if !std::fs::exists("/dev/fuse").unwrap_or(false) => "",
        Errno::EACCES => "make it usable with 'chmod 666 /dev/fuse'",
        _ => {
            let reason = error.to_string();
            return Error::Refused { target: target.to_owned(), reason };
        }
    };
    let reason = io::Error::from_raw_os_error(error.errno() as i32);
    Error::NoFuse { reason, advice }
}

/// Opens the session and begins to serve; returns when the mount has answered.
fn serve(requests: Requests, device: OwnedFd, target: &Path, access: Access) -> Result<Mount> {
    let mut config = Config::default();
    config.n_threads = Some(worker_count());
    let acl = if access.allow_other { SessionACL::All } else { SessionACL::Owner };
    let told = requests.told();
    let session = Session::from_fd(requests, device, acl, config).map_err(Error::Session)?;
    told.notify_through(session.notifier());
    let serving = std::thread::Builder::new()
        .name("serve".to_owned())
        .spawn(move || session.run())
        .map_err(Error::Session)?;
    // The mount is asked from another thread than those that answer.
    match std::fs::read_dir(target) {
        Ok(_) => Ok(Mount { target: target.to_owned(), serving }),
        Err(source) => Err(Error::Silent { target: target.to_owned(), source }),
    }
}

/// Returns how many threads answer: more than there are processors, because one that copies a large
/// file up must not keep the others waiting.
fn worker_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * processors).clamp(4, 16)
}

impl Mount {
    /// Returns where the tree is mounted.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Serves until the tree is unmounted, by this process when it is told to end (SIGTERM, SIGINT,
    /// SIGHUP) or by another one.
    pub fn wait(self) -> Result<()> {
        let Self { target, serving } = self;
        let unmount_on_signal = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                if let Err(error) = sys::wait_for_end_signal() {
                    return tracing::warn!("{error}");
                }
                if let Err(error) = sys::unmount(&target, Unmount::Detach) {
                    tracing::warn!("{error}");
                }
            })
            .map_err(Error::Session)?;
        let served = serving.join();
        // It waits for a signal that no longer matters and ends with the process.
        drop(unmount_on_signal);
        match served {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.raw_os_error() == Some(Errno::ECONNABORTED as i32) => Ok(()),
            Ok(Err(error)) => Err(Error::Session(error)),
            Err(_) => Err(Error::Session(io::Error::other("a serving thread ended in a panic"))),
        }
    }
}
