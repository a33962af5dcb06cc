//! Containers: making, listing, removing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::fuse::MountOptions;
use crate::image::Reference;
use crate::overlay::{ChainLower, HeldUpper, Overlay, Sync, UpperDirs, Verify, Writes};
use crate::service::Strata;
use crate::service::error::{Error, Result};
use crate::service::filter::{Filters, check_keys, labels_fit, values};
use crate::service::inspect::written_below;
use crate::service::names::{check_name, random_id, random_name};
use crate::service::umount::Wait;
use crate::store::{Claim, Container, Image, Lease, MountState, Mounted, Ref, Store};
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

/// How large a container is.
#[derive(Clone, Copy, Debug)]
pub struct ContainerSizes {
    /// Size of the files in its writable layer in bytes.
    pub written: u64,
    /// Size of all files in the layers of its image in bytes.
    pub image: u64,
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
    /// The image as it was asked for, or its id if that name does not lead to it any more.
    pub image: String,
    /// The command that it would run.
    pub command: Vec<String>,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// Whether it is mounted.
    pub status: ContainerStatus,
    /// The labels of its image.
    pub labels: BTreeMap<String, String>,
    /// Digest of the manifest of its image.
    pub manifest: Digest,
}

/// The filters of a list of containers.
const FILTERS: [&str; 9] =
    ["id", "name", "label", "label!", "status", "ancestor", "before", "since", "exited"];

/// How often a random name may be taken.
const TRIES: usize = 20;

/// What a filter can ask of the state of a container. Here a mount is what runs; the last four are
/// states of docker's that no container has.
const STATES: [&str; 8] =
    ["created", "mounted", "running", "dead", "exited", "paused", "restarting", "removing"];

impl ContainerStatus {
    fn is(&self, state: &str) -> bool {
        match self {
            Self::Created => state == "created",
            Self::Mounted(_) => ["mounted", "running"].contains(&state),
            Self::Dead(_) => state == "dead",
        }
    }
}

/// Tells whether a name has a text in it; `^` is its beginning and `$` its end, as for docker.
pub(crate) fn is_called(name: &str, wanted: &str) -> bool {
    let (from_start, wanted) = match wanted.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, wanted),
    };
    let (to_end, wanted) = match wanted.strip_suffix('$') {
        Some(rest) => (true, rest),
        None => (false, wanted),
    };
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    match (from_start, to_end) {
        (true, true) => name == wanted,
        (true, false) => name.starts_with(wanted),
        (false, true) => name.ends_with(wanted),
        (false, false) => name.contains(wanted),
    }
}

impl Strata {
    /// Makes a container of an image and returns its id.
    pub fn create(&self, request: &CreateRequest) -> Result<String> {
        self.store.sweep()?;
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
        self.note_use(image);
        let prepare = |upper: &Path, work: &Path| -> Result<()> {
            if !ephemeral {
                let dirs = Dirs { upper: upper.to_owned(), work: work.to_owned() };
                Overlay::prepare(&self.lower(image)?, dirs.to_upper(Sync::Always))?;
            }
            Ok(())
        };
        for left in (0..TRIES).rev() {
            if request.name.is_none() {
                container.name = random_name()?;
            }
            match self.store.create_container(&container, prepare) {
                Err(Error::Store(crate::store::Error::NameTaken { .. }))
                    if request.name.is_none() && left > 0 => {}
                other => {
                    other?;
                    break;
                }
            }
        }
        Ok(container)
    }

    /// Returns all containers, newest first.
    pub fn containers(&self) -> Result<Vec<ContainerRow>> {
        self.store.containers()?.into_iter().map(|container| self.row(container)).collect()
    }

    /// Returns the containers that filters leave, newest first.
    pub fn filtered_containers(&self, filters: &Filters) -> Result<Vec<ContainerRow>> {
        check_keys(filters, &FILTERS)?;
        if let Some(state) = values(filters, "status").iter().find(|state| !STATES.contains(state))
        {
            return Err(Error::FilterValue("status".to_owned(), (*state).to_owned()));
        }
        let made = |name: &str| Ok(self.find_container(name)?.created);
        let before = values(filters, "before").into_iter().map(made).collect::<Result<Vec<_>>>()?;
        let since = values(filters, "since").into_iter().map(made).collect::<Result<Vec<_>>>()?;
        let image = |name| match self.find_image(name) {
            Ok((image, _)) => Ok(Some(image.digest)),
            // No container comes of what is not there.
            Err(Error::NoImage(_)) => Ok(None),
            Err(error) => Err(error),
        };
        let images = values(filters, "ancestor").into_iter().map(image);
        let images = images.collect::<Result<Vec<_>>>()?;
        // No container has run, so none has ended with any code.
        let none_fits = !values(filters, "exited").is_empty();
        let any = |key: &str, fits: &dyn Fn(&str) -> bool| {
            let values = values(filters, key);
            values.is_empty() || values.into_iter().any(fits)
        };
        let mut rows = self.containers()?;
        rows.retain(|row| {
            !none_fits
                && any("id", &|id| row.id.starts_with(id))
                && any("name", &|name| is_called(&row.name, name))
                && any("status", &|state| row.status.is(state))
                && (images.is_empty() || images.contains(&Some(row.manifest)))
                && before.iter().all(|time| row.created < *time)
                && since.iter().all(|time| row.created > *time)
                && labels_fit(filters, &row.labels)
        });
        Ok(rows)
    }

    fn row(&self, container: Container) -> Result<ContainerRow> {
        let (command, labels, shown) = match self.store.image(container.manifest) {
            Ok(image) => {
                let shown = self.current_name(&container, &image)?;
                (command_of(&container, &image), image.config.config.labels, shown)
            }
            // A damaged image must not hide its containers.
            Err(error) => {
                tracing::warn!("{error}");
                let command = container.command.clone().unwrap_or_default();
                (command, BTreeMap::new(), container.image.clone())
            }
        };
        Ok(ContainerRow {
            status: self.status(&container.id)?,
            id: container.id,
            name: container.name,
            image: shown,
            command,
            created: container.created,
            labels,
            manifest: container.manifest,
        })
    }

    /// Returns the name of the image that a container was made of, or its id where the name leads to
    /// another one now, or nowhere.
    fn current_name(&self, container: &Container, image: &Image) -> Result<String> {
        let named = match container.image.parse::<Reference>() {
            Ok(reference) => readable(self.find_named(&reference))?,
            Err(_) => None,
        };
        let is_it = named.is_some_and(|found| found.manifest == container.manifest);
        Ok(if is_it { container.image.clone() } else { image.id().short() })
    }

    /// Returns how large a container is; a damaged image counts nothing.
    pub fn sizes(&self, id: &str, manifest: Digest) -> Result<ContainerSizes> {
        let image = self.sized(manifest).map_or(0, |(_, size)| size);
        Ok(ContainerSizes { written: written_below(&self.store.upper(id))?, image })
    }

    /// Returns the size of the files of the snapshots of a container in bytes, shared ones once.
    pub fn kept(&self, row: &ContainerRow) -> Result<u64> {
        written_below(&self.store.snapshots_dir(&row.id))
    }

    pub(crate) fn status(&self, id: &str) -> Result<ContainerStatus> {
        Ok(match self.store.mounted_as_far_as_known(id)? {
            Mounted::No => ContainerStatus::Created,
            Mounted::Alive(state) => ContainerStatus::Mounted(state),
            Mounted::Dead(state) => ContainerStatus::Dead(state),
        })
    }

    /// Gives a container another name.
    pub fn rename(&self, container: &str, name: &str) -> Result<()> {
        check_name(name)?;
        self.store.sweep()?;
        let container = self.find_container(container)?;
        match container.name == name {
            true => Err(Error::SameName(name.to_owned())),
            false => Ok(self.store.rename_container(&container.id, name)?),
        }
    }

    /// Removes a container with its changes. One that is mounted only by force.
    pub fn remove(&self, container: &str, force: bool) -> Result<()> {
        let found = self.find_container(container);
        // One that was interrupted has taken the container away already; its files go now. That there is
        // no such container is told in any case.
        let swept = self.store.sweep_removed();
        let container = match (found, swept) {
            (Ok(container), swept) => swept.map(|_| container)?,
            (Err(error), Ok(_)) => return Err(error),
            (Err(error), Err(also)) => {
                tracing::warn!("{also}");
                return Err(error);
            }
        };
        self.remove_container(container, force)
    }

    pub(crate) fn remove_container(&self, container: Container, force: bool) -> Result<()> {
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
        let lock = self.lock_container(&container.id)?;
        Ok(self.store.remove_container(&container.id, &lock)?)
    }

    /// Notes that an image is used, for who removes those that are not.
    pub(crate) fn note_use(&self, image: &Image) {
        if let Err(error) = self.store.note_use(image.digest) {
            tracing::debug!("{error}");
        }
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
        self.checked_lower(image, Verify::Off)
    }

    fn checked_lower(&self, image: &Image, verify: Verify) -> Result<ChainLower> {
        Ok(ChainLower::new(self.store.verified_view(image.layers(), verify)?))
    }

    /// Returns the tree of a container, to be looked at.
    pub(crate) fn inspect_container(
        &self,
        container: &Container,
        image: &Image,
    ) -> Result<Overlay> {
        self.inspect_verified(container, image, Verify::Off)
    }

    /// Returns the tree of a container, to be looked at through a mount that checks what it hands out.
    pub(crate) fn inspect_verified(
        &self,
        container: &Container,
        image: &Image,
        verify: Verify,
    ) -> Result<Overlay> {
        let lower = Box::new(self.checked_lower(image, verify)?);
        if container.ephemeral {
            return Ok(Overlay::read_only(lower));
        }
        let dirs = Dirs::of(&self.store, &container.id);
        Ok(Overlay::inspect(lower, dirs.to_upper(Sync::Always))?)
    }

    /// Returns the tree that a container was when a snapshot was taken.
    pub(crate) fn inspect_snapshot(
        &self,
        container: &Container,
        image: &Image,
        snapshot: &str,
    ) -> Result<Overlay> {
        let upper = self.store.snapshot_upper(&container.id, snapshot);
        let dirs = Dirs { upper, ..Dirs::of(&self.store, &container.id) };
        Ok(Overlay::inspect(Box::new(self.lower(image)?), dirs.to_upper(Sync::Always))?)
    }

    /// Returns the tree of a container, to be changed; `held` is what another process has of it that changes
    /// it until this one goes on.
    pub(crate) fn writable(
        &self,
        container: &Container,
        image: &Image,
        options: &MountOptions,
        held: Option<HeldUpper>,
    ) -> Result<Overlay> {
        let sync = if options.is_volatile() { Sync::Volatile } else { Sync::Always };
        let dirs = Dirs::of(&self.store, &container.id);
        let lower = self.checked_lower(image, options.verify())?;
        Ok(match held {
            Some(held) => Overlay::held(Box::new(lower), dirs.to_upper(sync), held)?,
            None => Overlay::writable(Box::new(lower), dirs.to_upper(sync))?,
        })
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

/// Returns where a name leads; one whose record is damaged leads nowhere that is known.
fn readable(found: Result<Option<Ref>>) -> Result<Option<Ref>> {
    match found {
        Err(Error::Store(error @ crate::store::Error::Record { .. })) => {
            tracing::warn!("{error}");
            Ok(None)
        }
        other => other,
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

/// Returns what a container would run: the entry point of its image and its own command, or else the
/// image's.
pub(crate) fn command_of(container: &Container, image: &Image) -> Vec<String> {
    let config = &image.config.config;
    let mut command = config.entrypoint.clone().unwrap_or_default();
    let own = container.command.as_ref().or(config.cmd.as_ref());
    command.extend(own.cloned().unwrap_or_default());
    command
}
