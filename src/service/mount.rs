//! Mounting an image or a container, and serving it.
//!
//! Resolve → lease the image → map the chain → make the overlay → mount → record → serve. An image
//! that is mounted read-only is a container without a writable layer, which goes away with its
//! mount: so there is one list of what is mounted, and what is in use is known in one way.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::fuse::{self, MountOptions};
use crate::service::containers::CreateRequest;
use crate::service::error::{Error, Result, io_error};
use crate::service::umount::{clear_way, mount_point};
use crate::service::{Event, Strata};
use crate::store::{Container, ContainerLock, Image, Lease, MountState};
use crate::sys;

/// What a mount has unless something else is asked for: an image may hold set-uid programs and devices of
/// whoever made it.
const HARMLESS: &str = "nosuid,nodev";

/// What to mount, and where.
#[derive(Clone, Debug)]
pub struct MountRequest {
    /// A container or an image.
    pub what: String,
    /// The mount point.
    pub target: PathBuf,
    /// Of an image: make a container of it, to keep changes in.
    pub writable: bool,
    /// The name of that container.
    pub name: Option<String>,
    /// Lists of mount options.
    pub options: Vec<String>,
    /// The process that a person started serves it.
    pub foreground: bool,
}

/// A mount that answers and wants to be served.
#[derive(Debug)]
pub struct Mounting {
    strata: Strata,
    mount: fuse::Mount,
    container: Container,
    lock: ContainerLock,
    _lease: Lease,
}

impl Strata {
    /// Mounts a container, or an image. When this returns the mount answers; it is served by
    /// [`Mounting::serve`].
    pub fn mount(&self, request: &MountRequest) -> Result<Mounting> {
        let asked = request.options.iter().map(String::as_str);
        let asked: Vec<_> = std::iter::once(HARMLESS).chain(asked).collect();
        let mut options = MountOptions::parse(&asked)?;
        // The threads that will serve inherit this; one of them waits for the signals.
        sys::block_end_signals()?;
        sys::keep_little_memory()?;
        let target = absolute(&request.target)?;
        let (container, image, lease, is_new) = self.container_to_mount(request)?;
        options.set_source(&format!("strata:{}", container.image));
        let state = MountState {
            target,
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            writable: !container.ephemeral && !options.is_read_only(),
            device: None,
            transport: None,
            data: None,
            since: jiff::Timestamp::now(),
            options: request.options.clone(),
            foreground: request.foreground,
        };
        let mounted = self.mount_container(&container, &image, state, &options);
        match mounted {
            Ok((mount, lock)) => {
                Ok(Mounting { strata: self.clone(), mount, container, lock, _lease: lease })
            }
            Err(error) => {
                if is_new {
                    self.forget(&container.id);
                }
                Err(error)
            }
        }
    }

    /// Returns the container to mount, and whether it was made for it: one is made of an image.
    fn container_to_mount(
        &self,
        request: &MountRequest,
    ) -> Result<(Container, Image, Lease, bool)> {
        if !request.writable {
            match self.find_container(&request.what) {
                Ok(container) => {
                    let (image, lease) = self.lease_base(&container)?;
                    return Ok((container, image, lease, false));
                }
                Err(Error::NoContainer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let (image, _, lease) = self.lease_image(&request.what).map_err(|error| match error {
            Error::NoImage(_) | Error::ImageName(_) if !request.writable => {
                Error::NoObject(request.what.clone())
            }
            other => other,
        })?;
        let create = CreateRequest {
            image: request.what.clone(),
            name: request.name.clone(),
            command: Vec::new(),
        };
        let container = self.new_container(&image, &create, !request.writable)?;
        Ok((container, image, lease, true))
    }

    fn mount_container(
        &self,
        container: &Container,
        image: &Image,
        mut state: MountState,
        options: &MountOptions,
    ) -> Result<(fuse::Mount, ContainerLock)> {
        self.note_use(image);
        let lock = self.lock_unmounted(container)?;
        if clear_way(&state.target)? {
            let target = state.target.display();
            let text = format!("the process that served {target} has died; its mount is cleared");
            self.tell(Event::Warning(text));
        }
        let overlay = match (container.ephemeral, state.writable) {
            (false, true) => self.writable(container, image, options)?,
            (true, _) | (false, false) => {
                self.inspect_verified(container, image, options.verify())?
            }
        };
        let mount = fuse::mount(overlay, &state.target, options, self.statfs_fd()?)?;
        state.device = mount_point(&state.target).map(|point| point.device);
        state.transport = Some(mount.transport().name().to_owned());
        state.data = Some(mount.data().name().to_owned());
        self.store.set_mounted(&container.id, &state, &lock)?;
        Ok((mount, lock))
    }

    /// Returns a descriptor on the file system of the store.
    fn statfs_fd(&self) -> Result<OwnedFd> {
        Ok(sys::open_dir_path(self.store.root())?)
    }

    /// Removes a container that was made for a mount.
    pub(crate) fn forget(&self, id: &str) {
        let removed =
            self.store.lock_container(id).and_then(|lock| self.store.remove_container(id, &lock));
        if let Err(error) = removed {
            tracing::debug!("{error}");
        }
    }
}

impl Mounting {
    /// Returns the id of the container that is mounted.
    pub fn container_id(&self) -> &str {
        &self.container.id
    }

    /// Lets go of the terminal and of the directory that this process was started in. What goes
    /// wrong from now on is said in the container's log.
    pub fn detach(&self) -> Result<()> {
        let path = self.strata.store.mount_log(&self.container.id);
        let log = std::fs::File::options().create(true).append(true).mode(0o600).open(&path);
        let log = log.map_err(io_error("open", path.display().to_string()))?;
        std::env::set_current_dir("/").map_err(io_error("enter", "/"))?;
        Ok(sys::null_stdio(Some(log.as_fd()))?)
    }

    /// Serves until it is unmounted.
    pub fn serve(self) -> Result<()> {
        let Self { strata, mount, container, lock, _lease } = self;
        let served = mount.wait();
        if container.ephemeral {
            strata.store.remove_container(&container.id, &lock)?;
        } else {
            strata.store.clear_mounted(&container.id, &lock)?;
        }
        Ok(served?)
    }
}

/// Returns a path from the root. Its last part is not looked at: a dead mount there gives errors.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let shown = path.display().to_string();
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => (parent, name),
        // `/`, `.` and `..` have no last part.
        _ => return std::fs::canonicalize(path).map_err(io_error("find", shown)),
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let absolute = std::fs::canonicalize(parent).map_err(io_error("find", shown))?.join(name);
    // A link to a mount point means the mount point.
    Ok(std::fs::canonicalize(&absolute).unwrap_or(absolute))
}
