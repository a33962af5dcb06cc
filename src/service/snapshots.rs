//! Snapshots: keeping states of a writable layer, and going back to them.

use std::collections::HashMap;

use crate::fuse::MountOptions;
use crate::service::containers::is_called;
use crate::service::error::{Error, Result};
use crate::service::filter::{Filters, check_keys, truth, values};
use crate::service::inspect::each_file_below;
use crate::service::names::check_snapshot_name;
use crate::service::{Event, Strata};
use crate::store::{
    Container, ContainerLock, Footprint, MountState, Mounted, Snapshot, SnapshotLock,
};

/// What to keep.
#[derive(Clone, Debug, Default)]
pub struct SnapshotRequest {
    /// The container.
    pub container: String,
    /// The name of the snapshot; the next number if it is not said.
    pub name: Option<String>,
    /// What a person says of it.
    pub message: Option<String>,
}

/// What to go back to.
#[derive(Clone, Debug)]
pub struct UndoRequest {
    /// The container.
    pub container: String,
    /// The snapshot; the last one that a person took if it is not said.
    pub name: Option<String>,
    /// Keep the present state as a snapshot.
    pub keep: bool,
}

/// What an undo did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// The container, by its name.
    pub container: String,
    /// The snapshot that it is back at.
    pub to: String,
    /// The snapshot that keeps what was before.
    pub kept: Option<String>,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotRow {
    /// The container, by its name.
    pub container: String,
    /// Its id.
    pub container_id: String,
    /// The snapshot.
    pub snapshot: Snapshot,
}

/// The filters of a list of snapshots.
const FILTERS: [&str; 2] = ["name", "undo"];

impl Strata {
    /// Keeps the present state of a container, mounted or not, and returns the name of the snapshot.
    pub fn snapshot(&self, request: &SnapshotRequest) -> Result<String> {
        if let Some(name) = &request.name {
            check_snapshot_name(name)?;
        }
        let container = self.find_writable(&request.container)?;
        let lock = self.lock_snapshots(&container)?;
        let owner = match self.flush_mount(&container)? {
            true => None,
            false => Some(self.lock_at_rest(&container)?),
        };
        let snapshot = Snapshot {
            name: request.name.clone().map_or_else(|| self.next_number(&container.id), Ok)?,
            created: jiff::Timestamp::now(),
            message: request.message.clone(),
            before_undo: None,
        };
        let settle = || self.flush_mount(&container).map(drop);
        let owner = owner.as_ref();
        let changed = self.store.take_snapshot(&container, &snapshot, owner, &lock, &settle)?;
        if let Some(path) = changed {
            self.tell(Event::Warning(format!(
                "{} was changed while it was kept ({} and perhaps others): snapshot {} may have \
                 files of different times",
                container.name,
                path.display(),
                snapshot.name
            )));
        }
        Ok(snapshot.name)
    }

    /// Puts a container that is not mounted back to a snapshot.
    pub fn undo(&self, request: &UndoRequest) -> Result<Undone> {
        let container = self.find_writable(&request.container)?;
        let lock = self.lock_snapshots(&container)?;
        let owner = self.lock_at_rest(&container)?;
        let to = self.find_snapshot(&container, request.name.as_deref())?;
        let kept = match request.keep {
            true => Some(self.keep_before_undo(&container, &to, &owner, &lock)?),
            false => None,
        };
        self.store.restore_snapshot(&container.id, &to, &owner, &lock)?;
        Ok(Undone { container: container.name, to, kept })
    }

    fn keep_before_undo(
        &self,
        container: &Container,
        to: &str,
        owner: &ContainerLock,
        lock: &SnapshotLock,
    ) -> Result<String> {
        let snapshot = Snapshot {
            name: self.next_number(&container.id)?,
            created: jiff::Timestamp::now(),
            message: None,
            before_undo: Some(to.to_owned()),
        };
        self.store.take_snapshot(container, &snapshot, Some(owner), lock, &|| Ok(()))?;
        Ok(snapshot.name)
    }

    /// Returns the id and the mount of a container that is to be put back, if it is mounted: it must be
    /// unmounted for that.
    pub fn mount_to_undo(&self, request: &UndoRequest) -> Result<Option<(String, MountState)>> {
        let container = self.find_writable(&request.container)?;
        self.find_snapshot(&container, request.name.as_deref())?;
        match self.store.mounted(&container.id)? {
            Mounted::Alive(MountState { target, pid, foreground: true, .. }) => {
                Err(Error::ServedInForeground { name: container.name, target, pid })
            }
            Mounted::Alive(state) => Ok(Some((container.id, state))),
            Mounted::No | Mounted::Dead(_) => Ok(None),
        }
    }

    /// Returns the snapshots of a container, or of all, that filters leave; newest first.
    pub fn snapshots(
        &self,
        container: Option<&str>,
        filters: &Filters,
    ) -> Result<Vec<SnapshotRow>> {
        check_keys(filters, &FILTERS)?;
        let names = values(filters, "name");
        let is_kept_by_undo = truth(filters, "undo")?;
        let containers = match container {
            Some(container) => vec![self.find_container(container)?],
            None => self.store.containers()?,
        };
        let mut rows = Vec::new();
        for Container { id, name, .. } in containers {
            rows.extend(self.store.snapshots(&id)?.into_iter().map(|snapshot| SnapshotRow {
                container: name.clone(),
                container_id: id.clone(),
                snapshot,
            }));
        }
        rows.retain(|SnapshotRow { snapshot, .. }| {
            (names.is_empty() || names.iter().any(|name| is_called(&snapshot.name, name)))
                && is_kept_by_undo.is_none_or(|undo| undo == snapshot.before_undo.is_some())
        });
        rows.sort_by_key(|row| std::cmp::Reverse(row.snapshot.created));
        Ok(rows)
    }

    /// Returns the room that each snapshot of a container takes, by name.
    pub fn snapshot_rooms(&self, container_id: &str) -> Result<HashMap<String, Footprint>> {
        let mut files = HashMap::new();
        let mut needed = HashMap::new();
        for Snapshot { name, .. } in self.store.snapshots(container_id)? {
            let of: &mut Vec<_> = needed.entry(name.clone()).or_default();
            each_file_below(
                &self.store.snapshot_upper(container_id, &name),
                &mut |inode, bytes| {
                    *files.entry(inode).or_insert(0_u32) += 1;
                    of.push((inode, bytes));
                },
            )?;
        }
        let footprint = |of: Vec<_>| {
            of.into_iter().fold(Footprint::default(), |sum, (inode, bytes)| Footprint {
                bytes: sum.bytes + bytes,
                unique_bytes: sum.unique_bytes + if files[&inode] == 1 { bytes } else { 0 },
            })
        };
        Ok(needed.into_iter().map(|(name, of)| (name, footprint(of))).collect())
    }

    /// Removes a snapshot of a container.
    pub fn remove_snapshot(&self, container: &str, name: &str) -> Result<()> {
        let container = self.find_container(container)?;
        let lock = self.lock_snapshots(&container)?;
        let name = self.find_snapshot(&container, Some(name))?;
        Ok(self.store.remove_snapshot(&container.id, &name, &lock)?)
    }

    /// Returns the container, or the snapshot of one (`CONTAINER@NAME`), that a text means; none if it
    /// means neither.
    pub(crate) fn find_state(&self, text: &str) -> Result<Option<(Container, Option<String>)>> {
        match self.find_container(text) {
            Ok(container) => return Ok(Some((container, None))),
            Err(Error::NoContainer(_)) => {}
            Err(error) => return Err(error),
        }
        let Some((container, name)) = text.rsplit_once('@') else { return Ok(None) };
        let Ok(found) = self.find_container(container) else { return Ok(None) };
        match self.find_snapshot(&found, Some(name)) {
            Ok(name) => Ok(Some((found, Some(name)))),
            // It is a layer of an image with the name of a container.
            Err(Error::NoSnapshot { .. }) if self.find_image(container).is_ok() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns a container that keeps changes.
    fn find_writable(&self, text: &str) -> Result<Container> {
        let container = self.find_container(text)?;
        match container.ephemeral {
            true => Err(Error::NoWritableLayer(container.name)),
            false => Ok(container),
        }
    }

    /// Locks the snapshots of a container.
    fn lock_snapshots(&self, container: &Container) -> Result<SnapshotLock> {
        // What was left by one that was killed would take room and share files with this one.
        self.store.sweep()?;
        Ok(self.store.lock_snapshots(&container.id)?)
    }

    /// Locks a container that is not mounted; what a crash has left unfinished is finished.
    fn lock_at_rest(&self, container: &Container) -> Result<ContainerLock> {
        let (image, _lease) = self.lease_base(container)?;
        let lock = self.lock_unmounted(container)?;
        drop(self.writable(container, &image, &MountOptions::default(), None)?);
        Ok(lock)
    }

    /// Returns the name of the snapshot that is meant: the last one that a person took if none is
    /// said.
    fn find_snapshot(&self, container: &Container, name: Option<&str>) -> Result<String> {
        let mut snapshots = self.store.snapshots(&container.id)?.into_iter();
        let found = snapshots.find(|snapshot| match name {
            Some(name) => snapshot.name == name,
            None => snapshot.before_undo.is_none(),
        });
        found.map(|snapshot| snapshot.name).ok_or_else(|| match name {
            Some(name) => {
                Error::NoSnapshot { container: container.name.clone(), name: name.to_owned() }
            }
            None => Error::NothingToUndo(container.name.clone()),
        })
    }

    /// Returns the number that the next snapshot without a name gets: above all that are there.
    fn next_number(&self, id: &str) -> Result<String> {
        let snapshots = self.store.snapshots(id)?;
        let last = snapshots.iter().filter_map(|snapshot| snapshot.name.parse::<u64>().ok()).max();
        Ok(last.unwrap_or(0).saturating_add(1).to_string())
    }
}
