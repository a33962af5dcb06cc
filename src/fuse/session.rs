//! Mounting a tree and serving it until it is unmounted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fuse::abi::init;
use crate::fuse::backing::Numbers;
use crate::fuse::device::Device;
use crate::fuse::error::{Error, Result};
use crate::fuse::handover::Server;
use crate::fuse::ops::{History, Requests};
use crate::fuse::options::{Data, MountOptions, Transport};
use crate::fuse::rings::{Giver, Rings};
use crate::fuse::serve::{self, Serving};
use crate::fuse::survive::Shared;
use crate::overlay::{Overlay, Owners, Verify};
use crate::sys::{self, Errno, Looker, Unmount};

/// What /proc/mounts shows behind `fuse.`.
const SUBTYPE: &str = "strata";

/// A tree that is mounted and being served.
#[derive(Debug)]
pub struct Mount {
    shape: Shape,
    transport: Transport,
    serving: Serving,
    /// Who has looked whether it answers, and may still be about to end.
    looker: Option<Looker>,
}

/// A mount that the kernel has agreed to and that nobody serves yet.
#[derive(Debug)]
pub(crate) struct Connection {
    shape: Shape,
    device: Arc<Device>,
    statfs_of: OwnedFd,
}

/// What does not change as long as a tree is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) target: PathBuf,
    /// What both sides can do.
    pub(crate) agreed: u64,
    /// How long the kernel may believe what it is told.
    pub(crate) valid: Duration,
    /// Whether files have access control lists.
    pub(crate) acl: bool,
    /// How contents get to programs.
    pub(crate) data: Data,
}

/// What a mount needs besides its tree.
#[derive(Debug)]
pub struct Prepared {
    looker: Looker,
    /// None for who survives: it is served by processes of its own.
    rings: Option<JoinHandle<Result<Option<Rings>>>>,
}

/// Begins to make what a mount at `target`, which is absolute, needs besides its tree, which may be made
/// meanwhile. The process has one thread until then.
pub fn prepare(target: &Path, options: &MountOptions) -> Result<Prepared> {
    // It is made before there is anything that it could have of the rings or the device.
    let looker = Looker::begin(target)?;
    if options.survives() {
        return Ok(Prepared { looker, rings: None });
    }
    let wanted = options.transport;
    let rings = std::thread::Builder::new()
        .name("rings".to_owned())
        .spawn(move || Rings::for_transport(wanted))
        .map_err(Error::Session)?;
    Ok(Prepared { looker, rings: Some(rings) })
}

/// Mounts a tree; when this returns, the mount has answered.
///
/// `target` is absolute. `statfs_of` is on the file system whose state a tree without an upper shows.
pub fn mount(
    overlay: Overlay,
    target: &Path,
    options: &MountOptions,
    statfs_of: OwnedFd,
    Prepared { looker, rings }: Prepared,
) -> Result<Mount> {
    let panicked = |_| Err(Error::Session(io::Error::other("making rings ended in a panic")));
    let rings = rings.map(|rings| rings.join().unwrap_or_else(panicked)).transpose()?.flatten();
    let over_rings = if rings.is_some() { init::OVER_IO_URING } else { 0 };
    let connection = connect(&overlay, target, options, (statfs_of, over_rings))?;
    connection.serve(overlay, rings, looker).inspect_err(|_| detach(target))
}

/// Mounts a tree that servers share which come one after the other.
///
/// # Errors
/// [`Error::CannotSurvive`] when the kernel cannot ask again what nobody has answered.
pub fn mount_shared(
    overlay: &mut Overlay,
    target: &Path,
    options: &MountOptions,
    statfs_of: OwnedFd,
    Prepared { looker, .. }: Prepared,
) -> Result<Shared> {
    let connection = connect(overlay, target, options, (statfs_of, 0))?;
    let shared = match connection.shape.agreed & init::HAS_RESEND {
        0 => Err(Error::CannotSurvive),
        _ => Shared::new(connection, overlay, Some(looker)),
    };
    shared.inspect_err(|_| detach(target))
}

fn detach(target: &Path) {
    if let Err(error) = sys::unmount(target, Unmount::Detach) {
        tracing::warn!("{error}");
    }
}

/// Mounts a tree and agrees with the kernel; `besides` is asked of it besides.
fn connect(
    overlay: &Overlay,
    target: &Path,
    options: &MountOptions,
    (statfs_of, besides): (OwnedFd, u64),
) -> Result<Connection> {
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
    let device = Arc::new(Device::new(device));
    let agreed = device.handshake(wanted(&options, access) | besides);
    let agreed = agreed.map_err(Error::Session).inspect_err(|_| detach(target))?;
    let (valid, acl) = (options.timeout, !options.no_acl);
    let data = options.data.unwrap_or(Data::Cache);
    let shape = Shape { target: target.to_owned(), agreed, valid, acl, data };
    Ok(Connection { shape, device, statfs_of })
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
        | init::NO_OPENDIR_SUPPORT
        | init::HAS_RESEND;
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

impl Connection {
    /// Begins to serve; returns when the mount has answered.
    fn serve(self, overlay: Overlay, rings: Option<Rings>, mut looker: Looker) -> Result<Mount> {
        let rings = rings.filter(|_| self.shape.agreed & init::OVER_IO_URING != 0);
        let mount = self.begin(overlay, rings, History::Begins)?;
        match looker.look() {
            Ok(()) => Ok(Mount { looker: Some(looker), ..mount }),
            Err(error) => {
                Err(Error::Silent { target: mount.target().to_owned(), source: error.into() })
            }
        }
    }

    /// Begins to serve.
    pub(crate) fn begin(
        self,
        overlay: Overlay,
        rings: Option<Rings>,
        history: History,
    ) -> Result<Mount> {
        let transport = if rings.is_some() { Transport::IoUring } else { Transport::DevFuse };
        let shape = self.shape();
        let serving = serve::begin(self.served(overlay, history)?, rings)?;
        Ok(Mount { shape, transport, serving, looker: None })
    }

    /// Returns the connection that another process has made.
    pub(crate) fn taken_over(shape: Shape, device: OwnedFd, statfs_of: OwnedFd) -> Self {
        Self { shape, device: Arc::new(Device::new(device)), statfs_of }
    }

    /// Returns what threads need to serve.
    pub(crate) fn served(
        self,
        overlay: Overlay,
        history: History,
    ) -> Result<(Arc<Requests>, Arc<Device>)> {
        let Self { device, statfs_of, shape: Shape { agreed, valid, acl, data, .. } } = self;
        let mut requests = Requests::new(overlay, &device, statfs_of, (valid, acl), history);
        if agreed & init::HANDLE_KILLPRIV_V2 != 0 {
            requests.drop_set_ids();
        }
        if data == Data::Passthrough {
            check_passthrough(agreed, &device, &requests)?;
            requests.pass_through(&device);
        }
        Ok((Arc::new(requests), device))
    }

    /// Returns where it is mounted.
    pub(crate) fn target(&self) -> &Path {
        &self.shape.target
    }

    /// Returns what does not change.
    pub(crate) fn shape(&self) -> Shape {
        self.shape.clone()
    }
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
    /// Returns a mount of which this process is one of several servers.
    pub(crate) const fn shared(shape: Shape, serving: Serving) -> Self {
        Self { shape, transport: Transport::DevFuse, serving, looker: None }
    }

    /// Returns this server as the process sees it that is to go on in its place. To be called once, before
    /// [`Mount::wait`].
    pub fn server(&mut self) -> Server {
        Server::new(self.shape.clone(), &mut self.serving)
    }

    /// Returns who gives slots to the threads of this server that another one has had; none if there is
    /// none.
    pub const fn giver(&mut self) -> Option<Giver> {
        self.serving.giver.take()
    }

    /// Returns where the tree is mounted.
    pub fn target(&self) -> &Path {
        &self.shape.target
    }

    /// Returns how requests come.
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Returns how contents get to programs.
    pub const fn data(&self) -> Data {
        self.shape.data
    }

    /// Serves until the tree is unmounted, by this process when it is told to end (SIGTERM, SIGINT,
    /// SIGHUP) or by another one.
    pub fn wait(self) -> Result<()> {
        let Self { shape: Shape { target, .. }, serving, looker, .. } = self;
        drop(looker);
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
        let served = serving.threads.into_iter().map(|thread| {
            let panicked = |_| Err(io::Error::other("a serving thread ended in a panic"));
            thread.join().unwrap_or_else(panicked)
        });
        // All of them end before one is believed.
        let served: Vec<_> = served.collect();
        while serving.work.gate.has_ended() {
            // Another process serves. Nothing is to be put in order here: who has handed over ends the
            // process.
            std::thread::park();
        }
        // It waits for a signal that no longer matters and ends with the process.
        drop(unmount_on_signal);
        // Who listens for a successor keeps the tree, so it is not put in order by being dropped.
        serving.work.requests.end();
        served.into_iter().collect::<io::Result<()>>().map_err(Error::Session)
    }
}
