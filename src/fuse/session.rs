//! Mounting a tree and serving it until it is unmounted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::fuse::abi::init;
use crate::fuse::backing::Numbers;
use crate::fuse::device::Device;
use crate::fuse::error::{Error, Result};
use crate::fuse::ops::Requests;
use crate::fuse::options::{Data, MountOptions, Transport};
use crate::fuse::serve::{self, Rings};
use crate::overlay::{Overlay, Owners, Verify};
use crate::sys::{self, Errno, Looker, Unmount};

/// What /proc/mounts shows behind `fuse.`.
const SUBTYPE: &str = "strata";

/// A tree that is mounted and being served.
#[derive(Debug)]
pub struct Mount {
    target: PathBuf,
    transport: Transport,
    data: Data,
    serving: Vec<JoinHandle<io::Result<()>>>,
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
    // It is made before there is anything that it could have of the device.
    let looker = Looker::begin(target)?;
    let rings = Rings::for_transport(options.transport)?;
    let device = open_device(target, &options, access, privileged)?;
    let device = Arc::new(Device::new(device));
    let wanted = wanted(&options, access);
    let (valid, acl) = (options.timeout, !options.no_acl);
    let requests = Requests::new(overlay, &device, statfs_of, valid, acl);
    serve(requests, device, (wanted, rings, options.data), (target, looker)).inspect_err(|_| {
        if let Err(error) = sys::unmount(target, Unmount::Detach) {
            tracing::warn!("{error}");
        }
    })
}

/// Returns what the kernel is asked to do for a mount.
///
/// Not ATOMIC_O_TRUNC: with it the kernel leaves set-uid on what it truncates in opening.
fn wanted(options: &MountOptions, access: Access) -> u64 {
    let mut wanted = init::ASYNC_READ
        | init::BIG_WRITES
        | init::MAX_PAGES
        | init::EXPORT_SUPPORT
        | init::ABORT_ERROR
        | init::PARALLEL_DIROPS
        | init::CACHE_SYMLINKS
        | init::DO_READDIRPLUS
        | init::DONT_MASK
        | init::NO_OPENDIR_SUPPORT;
    if options.verify() == Verify::Off {
        wanted |= init::NO_OPEN_SUPPORT;
    }
    wanted |= match options.data {
        // What is written so we do not see: the kernel has to take set-uid and set-gid away.
        Some(Data::Passthrough) => init::PASSTHROUGH,
        _ => init::HANDLE_KILLPRIV_V2,
    };
    if access.default_permissions && !options.no_acl {
        // This makes the kernel check permissions, whatever the mount options say.
        wanted |= init::POSIX_ACL;
    }
    wanted
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
        for option in access.options().into_iter().chain(options.context.as_deref()) {
            data.push(',');
            data.push_str(option);
        }
        return sys::mount_fuse(source, SUBTYPE, target, options.flags, &data).map_err(|error| {
            match &options.context {
                Some(label) if !has_labels() => Error::NoLabels(label.clone()),
                _ => refused(target, &error),
            }
        });
    }
    let mut list = vec![format!("fsname={source}"), format!("subtype={SUBTYPE}")];
    list.extend(access.options().into_iter().chain(options.context.as_deref()).map(str::to_owned));
    list.extend(options.flags.names().into_iter().map(str::to_owned));
    sys::fusermount(target, &list.join(","))
        .map_err(|reason| Error::Refused { target: target.to_owned(), reason })
}

/// Tells whether the kernel labels files.
fn has_labels() -> bool {
    std::fs::exists("/sys/fs/selinux/enforce").unwrap_or(false)
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

/// Agrees with the kernel and begins to serve; returns when the mount has answered.
fn serve(
    mut requests: Requests,
    device: Arc<Device>,
    (wanted, rings, data): (u64, Option<Rings>, Option<Data>),
    (target, looker): (&Path, Looker),
) -> Result<Mount> {
    let over_rings = if rings.is_some() { init::OVER_IO_URING } else { 0 };
    let agreed = device.handshake(wanted | over_rings).map_err(Error::Session)?;
    let rings = rings.filter(|_| agreed & init::OVER_IO_URING != 0);
    let transport = if rings.is_some() { Transport::IoUring } else { Transport::DevFuse };
    if agreed & init::HANDLE_KILLPRIV_V2 != 0 {
        requests.drop_set_ids();
    }
    let data = data.unwrap_or(Data::Cache);
    if data == Data::Passthrough {
        check_passthrough(agreed, &device, &requests)?;
        requests.pass_through(&device);
    }
    let serving = serve::begin(&(Arc::new(requests), device), rings)?;
    looker
        .look()
        .map_err(|error| Error::Silent { target: target.to_owned(), source: error.into() })?;
    Ok(Mount { target: target.to_owned(), transport, data, serving })
}

/// Checks that the kernel reads and writes files itself.
fn check_passthrough(agreed: u64, device: &Device, requests: &Requests) -> Result<()> {
    if agreed & init::PASSTHROUGH == 0 {
        return Err(Error::NoPassthrough("the kernel has it from Linux 6.9 on".to_owned()));
    }
    let refused = |reason: String| Error::NoPassthrough(reason);
    let sample = requests.sample().map_err(|error| refused(error.to_string()))?;
    let number = device.open_backing(sample.as_fd()).map_err(|error| {
        refused(match error.errno() {
            Errno::EPERM => "it takes the privilege of root, CAP_SYS_ADMIN".to_owned(),
            Errno::ELOOP => "the files are on a file system that stands on others".to_owned(),
            _ => error.to_string(),
        })
    })?;
    device.close_backing(number);
    Ok(())
}

impl Mount {
    /// Returns where the tree is mounted.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Returns how requests come.
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Returns how contents get to programs.
    pub const fn data(&self) -> Data {
        self.data
    }

    /// Serves until the tree is unmounted, by this process when it is told to end (SIGTERM, SIGINT,
    /// SIGHUP) or by another one.
    pub fn wait(self) -> Result<()> {
        let Self { target, serving, .. } = self;
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
        let served = serving.into_iter().map(|thread| {
            let panicked = |_| Err(io::Error::other("a serving thread ended in a panic"));
            thread.join().unwrap_or_else(panicked)
        });
        // All of them end before one is believed.
        let served: Vec<_> = served.collect();
        // It waits for a signal that no longer matters and ends with the process.
        drop(unmount_on_signal);
        served.into_iter().collect::<io::Result<()>>().map_err(Error::Session)
    }
}
