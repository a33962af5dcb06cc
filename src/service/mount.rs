//! Mounting an image or a container, and serving it.
//!
//! Resolve → lease the image → map the chain → make the overlay → mount → record → serve. An image
//! that is mounted read-only is a container without a writable layer, which goes away with its
//! mount: so there is one list of what is mounted, and what is in use is known in one way.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fuse::{self, Data, Giver, MountOptions, Prepared, Transport};
use crate::service::containers::CreateRequest;
use crate::service::error::{Error, Result, io_error};
use crate::service::handover::{Handing, Listener};
use crate::service::holder::{Holder, Record, listen_for_next};
use crate::service::umount::{boot, clear_way, mount_point};
use crate::service::{Event, Strata};
use crate::store::{Container, Image, Lease, MountState};
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
    served: Served,
    record: Record,
    _lease: Lease,
}

/// By whom a mount is served.
#[derive(Debug)]
pub(crate) enum Served {
    /// By this process, which can be replaced where it listens for that.
    Here(fuse::Mount, Option<Arc<Listener>>),
    /// By one process after the other, which this one starts.
    Held(Box<Holder>),
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
        let prepared = fuse::prepare(&target, &options)?;
        let (container, image, lease, is_new) = self.container_to_mount(request)?;
        options.set_source(&format!("strata:{}", container.image));
        let state = MountState {
            target,
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            server: None,
            writable: !container.ephemeral && !options.is_read_only(),
            device: None,
            boot: boot(),
            transport: None,
            data: None,
            since: jiff::Timestamp::now(),
            options: request.options.clone(),
            foreground: request.foreground,
        };
        let mounted = self.mount_container(&container, &image, state, (&options, prepared));
        match mounted {
            Ok((served, record)) => Ok(Mounting { served, record, _lease: lease }),
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
                    self.note_use(&image);
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
        state: MountState,
        (options, prepared): (&MountOptions, Prepared),
    ) -> Result<(Served, Record)> {
        let lock = self.lock_unmounted(container)?;
        if clear_way(&state.target)? {
            let target = state.target.display();
            let text = format!("the process that served {target} has died; its mount is cleared");
            self.tell(Event::Warning(text));
        }
        let mut overlay = match (container.ephemeral, state.writable) {
            (false, true) => self.writable(container, image, options, None)?,
            (true, _) | (false, false) => {
                self.inspect_verified(container, image, options.verify())?
            }
        };
        let statfs_of = self.statfs_fd()?;
        let record = |state: MountState, transport: Transport, data: Data| {
            let device = mount_point(&state.target).map(|point| point.device);
            let (transport, data) =
                (Some(transport.name().to_owned()), Some(data.name().to_owned()));
            let (strata, container) = (self.clone(), container.clone());
            let state = MountState { device, transport, data, ..state };
            Record { strata, container, lock: Arc::new(lock), state, waiting: Vec::new() }
        };
        if options.survives() {
            let shared =
                fuse::mount_shared(&mut overlay, &state.target, options, statfs_of, prepared)?;
            let record = record(state, shared.transport(), shared.data());
            let holder = Holder::start(shared, overlay, Some(record.clone()))?;
            return Ok((Served::Held(Box::new(holder)), record));
        }
        let mount = fuse::mount(overlay, &state.target, options, statfs_of, prepared)?;
        let record = record(state, mount.transport(), mount.data());
        // Who finds the mount recorded finds the socket, too.
        let listener = record.listen();
        record.set()?;
        Ok((Served::Here(mount, listener), record))
    }

    /// Returns a descriptor on the file system of the store.
    pub(crate) fn statfs_fd(&self) -> Result<OwnedFd> {
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
    /// Returns a mount that this process serves.
    pub(crate) const fn new(served: Served, record: Record, lease: Lease) -> Self {
        Self { served, record, _lease: lease }
    }

    /// Records the mount as one that this process serves, where its holder does not.
    pub(crate) fn record(&self) -> Result<()> {
        match self.served {
            Served::Here(..) => self.record.set(),
            Served::Held(_) => Ok(()),
        }
    }

    /// Returns who gives slots to the threads that serve; none if there is none.
    pub(crate) const fn giver(&mut self) -> Option<Giver> {
        match &mut self.served {
            Served::Here(mount, _) => mount.giver(),
            Served::Held(_) => None,
        }
    }

    /// Returns the id of the container that is mounted.
    pub fn container_id(&self) -> &str {
        &self.record.container.id
    }

    /// Lets go of the terminal and of the directory that this process was started in. What goes
    /// wrong from now on is said in the container's log.
    pub fn detach(&self) -> Result<()> {
        let path = self.record.strata.store.mount_log(self.container_id());
        let log = std::fs::File::options().create(true).append(true).mode(0o600).open(&path);
        let log = log.map_err(io_error("open", path.display().to_string()))?;
        std::env::set_current_dir("/").map_err(io_error("enter", "/"))?;
        Ok(sys::null_stdio(Some(log.as_fd()))?)
    }

    /// Lets another program go on in the place of this process.
    pub(crate) fn listen(&mut self) -> Result<()> {
        let Self { served: Served::Here(mount, listener), record, .. } = self else {
            return Ok(());
        };
        let Some(listener) = listener.take() else { return Ok(()) };
        listen_for_next(mount, listener, record.clone(), Arc::new(Handing::new()?))
    }

    /// Serves until it is unmounted.
    pub fn serve(mut self) -> Result<()> {
        self.listen()?;
        self.wait()
    }

    /// Waits until it is unmounted.
    pub(crate) fn wait(self) -> Result<()> {
        let Self { served, record, _lease } = self;
        match served {
            Served::Here(mount, _) => {
                let served = mount.wait();
                record.clear()?;
                Ok(served?)
            }
            Served::Held(holder) => holder.hold(),
        }
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
