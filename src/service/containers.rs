//! Containers: making, listing, removing.

use std::path::PathBuf;

use crate::fuse::MountOptions;
use crate::image::Reference;
use crate::overlay::{ChainLower, Overlay, Sync, UpperDirs, Writes};
use crate::service::Strata;
use crate::service::error::{Error, Result};
use crate::service::names::{check_name, random_id, random_name};
use crate::service::umount::Wait;
use crate::store::{Claim, Container, Image, Lease, MountState, Mounted, Store};
use crate::sys::Unmount;

/// What to make a container of.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// The image.
    pub image: String,
    /// The name; a random one if it is not said.
    pub name: Option<String>,
    /// The command that it would run; the image's if it is empty.
    pub command: Vec<String>,
}

/// Whether a container is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerStatus {
    /// It is not, and is there for being mounted.
    Created,
    /// It is.
    Mounted(MountState),
    /// It was, and the process that served it is dead.
    Dead(MountState),
}

/// A container.
#[derive(Clone, Debug)]
pub struct ContainerRow {
    /// 64 hex digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// The command that it would run.
    pub command: Vec<String>,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// Whether it is mounted.
    pub status: ContainerStatus,
}

/// How often a random name may be taken.
const TRIES: usize = 20;

impl Strata {
    /// Makes a container of an image and returns its id.
    pub fn create(&self, request: &CreateRequest) -> Result<String> {
        let (image, _, lease) = self.lease_image(&request.image)?;
        let container = self.new_container(&image, request, false)?;
        drop(lease);
        Ok(container.id)
    }

    /// Makes a container of an image that is kept from being collected.
    pub(crate) fn new_container(
        &self,
        image: &Image,
        request: &CreateRequest,
        ephemeral: bool,
    ) -> Result<Container> {
        if let Some(name) = &request.name {
            check_name(name)?;
        }
        let mut container = Container {
            id: random_id()?,
            name: request.name.clone().unwrap_or_default(),
            image: image_text(&request.image, image),
            manifest: image.digest,
            created: jiff::Timestamp::now(),
            command: (!request.command.is_empty()).then(|| request.command.clone()),
            ephemeral,
        };
        let lower = self.lower(image)?;
        for left in (0..TRIES).rev() {
            if request.name.is_none() {
                container.name = random_name()?;
            }
            match self.store.create_container(&container) {
                Err(crate::store::Error::NameTaken { .. })
                    if request.name.is_none() && left > 0 => {}
                other => {
                    other?;
                    break;
                }
            }
        }
        if !ephemeral {
            let dirs = Dirs::of(&self.store, &container.id);
            if let Err(error) = Overlay::prepare(&lower, dirs.to_upper(Sync::Always)) {
                let lock = self.store.lock_container(&container.id)?;
                self.store.remove_container(&container.id, &lock)?;
                return Err(error.into());
            }
        }
        Ok(container)
    }

    /// Returns all containers, newest first.
    pub fn containers(&self) -> Result<Vec<ContainerRow>> {
        self.store.containers()?.into_iter().map(|container| self.row(container)).collect()
    }

    fn row(&self, container: Container) -> Result<ContainerRow> {
        let command = match &container.command {
            Some(command) => command.clone(),
            None => match self.store.image(container.manifest) {
                Ok(image) => default_command(&image),
                // A damaged image must not hide its containers.
                Err(error) => {
                    tracing::warn!("{error}");
                    Vec::new()
                }
            },
        };
        Ok(ContainerRow {
            status: self.status(&container.id)?,
            id: container.id,
            name: container.name,
            image: container.image,
            command,
            created: container.created,
        })
    }

    pub(crate) fn status(&self, id: &str) -> Result<ContainerStatus> {
        Ok(match self.store.mounted(id)? {
            Mounted::No => ContainerStatus::Created,
            Mounted::Alive(state) => ContainerStatus::Mounted(state),
            Mounted::Dead(state) => ContainerStatus::Dead(state),
        })
    }

    /// Removes a container with its changes. One that is mounted only by force.
    pub fn remove(&self, container: &str, force: bool) -> Result<()> {
        let container = self.find_container(container)?;
        match self.store.mounted(&container.id)? {
            Mounted::No => {}
            Mounted::Alive(state) if !force => {
                let (name, target) = (container.name, state.target);
                return Err(Error::ContainerMounted { name, target });
            }
            Mounted::Alive(_) | Mounted::Dead(_) => {
                self.unmount_container(&container, Unmount::Detach, Wait::ForEnd)?;
            }
        }
        if self.store.container(&container.id)?.is_none() {
            // It was there only for its mount.
            return Ok(());
        }
        let lock = self.store.lock_container(&container.id)?;
        Ok(self.store.remove_container(&container.id, &lock)?)
    }

    /// Returns the image of a container, kept from being collected.
    pub(crate) fn lease_base(&self, container: &Container) -> Result<(Image, Lease)> {
        let mut lease = self.store.lease()?;
        lease.claim(Claim::Image(container.manifest))?;
        Ok((self.store.image(container.manifest)?, lease))
    }

    /// Returns the tree of an image.
    pub(crate) fn read_only(&self, image: &Image) -> Result<Overlay> {
        Ok(Overlay::read_only(Box::new(self.lower(image)?)))
    }

    /// Returns the tree of the lowest layers of an image.
    pub(crate) fn read_only_up_to(&self, image: &Image, layers: usize) -> Result<Overlay> {
        let layers = image.layers().get(..layers).unwrap_or(image.layers());
        Ok(Overlay::read_only(Box::new(ChainLower::new(self.store.chain(layers)?))))
    }

    fn lower(&self, image: &Image) -> Result<ChainLower> {
        Ok(ChainLower::new(self.store.chain(image.layers())?))
    }

    /// Returns the tree of a container, to be looked at.
    pub(crate) fn inspect_container(
        &self,
        container: &Container,
        image: &Image,
    ) -> Result<Overlay> {
        if container.ephemeral {
            return self.read_only(image);
        }
        let dirs = Dirs::of(&self.store, &container.id);
        Ok(Overlay::inspect(Box::new(self.lower(image)?), dirs.to_upper(Sync::Always))?)
    }

    /// Returns the tree of a container, to be changed.
    pub(crate) fn writable(
        &self,
        container: &Container,
        image: &Image,
        options: &MountOptions,
    ) -> Result<Overlay> {
        let sync = if options.is_volatile() { Sync::Volatile } else { Sync::Always };
        let dirs = Dirs::of(&self.store, &container.id);
        Ok(Overlay::writable(Box::new(self.lower(image)?), dirs.to_upper(sync))?)
    }
}

/// The directories of a container.
struct Dirs {
    upper: PathBuf,
    work: PathBuf,
}

impl Dirs {
    fn of(store: &Store, id: &str) -> Self {
        Self { upper: store.upper(id), work: store.work(id) }
    }

    fn to_upper(&self, sync: Sync) -> UpperDirs<'_> {
        let Self { upper, work } = self;
        UpperDirs { upper, work, sync, owners: None, writes: Writes::ALL }
    }
}

/// Returns the image as a list of containers shows it: as it was asked for, an id shortened.
fn image_text(text: &str, image: &Image) -> String {
    match text.parse::<Reference>() {
        Ok(reference) if !is_id(text, image) => reference.familiar(),
        _ => image.id().short(),
    }
}

/// Tells whether a text is the id of an image, or its beginning.
fn is_id(text: &str, image: &Image) -> bool {
    image.id().hex().starts_with(text.strip_prefix("sha256:").unwrap_or(text))
}

/// Returns the command that a container of an image runs.
pub(crate) fn default_command(image: &Image) -> Vec<String> {
    let config = &image.config.config;
    let mut command = config.entrypoint.clone().unwrap_or_default();
    command.extend(config.cmd.clone().unwrap_or_default());
    command
}
