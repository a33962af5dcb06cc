//! Containers: a writable layer over an image, and who has it mounted.
//!
//! A container is a directory: `config.json`, which is replaced as a whole; `upper/` and
//! `work/`; `state`, which says where it is mounted and by which process. The process that serves
//! the mount owns the lock file `lock`, so whether a mount is alive is asked of the kernel
//! and not of a file. A directory without `config.json` is no container.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::store::error::{Error, Result, io_error};
use crate::store::files::{
    Durable, ensure_dir, list, list_if_there, open_lock, remove_if_exists, replace, replace_as,
    sync_dir,
};
use crate::store::gc::own_bytes;
use crate::store::refs::readable;
use crate::store::{Stage, Store, record};
use crate::sys;

const CONFIG: &str = "config.json";
/// What the configuration is called of a container that is being removed where it is.
const REMOVED: &str = "config.removed";
const UPPER: &str = "upper";
const WORK: &str = "work";

/// A container as it was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// The name that people use.
    pub name: String,
    /// The image as it was asked for: `debian:12`.
    pub image: String,
    /// Manifest of the image.
    pub manifest: Digest,
    /// When it was created, RFC 3339.
    pub created: jiff::Timestamp,
    /// The command that it would run, when it was given another one than the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// It is the read-only mount of an image and goes away when it is unmounted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
}

/// A mount of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountState {
    /// Where it is mounted, absolute.
    pub target: PathBuf,
    /// The process that serves it.
    pub pid: i32,
    /// The process that answers the kernel, if it is not the same: it is replaced when it dies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<i32>,
    /// Whether it can be written to.
    pub writable: bool,
    /// Which device the kernel says its files are on, as `/proc/self/mountinfo` has it; older
    /// versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The boot of the machine in which it was made, as the kernel calls it
    /// (`/proc/sys/kernel/random/boot_id`); older versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// How requests come from the kernel; older versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// How contents get to programs; older versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Since when, RFC 3339.
    pub since: jiff::Timestamp,
    /// The mount options that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// It is served by the command that a person started, which ends with the mount.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreground: bool,
}

/// Whether a container is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// It is not.
    No,
    /// It is, and served.
    Alive(MountState),
    /// It was, and the process that served it is dead. The mount point may still be in the way.
    Dead(MountState),
}

/// The lock on a container, held by the process that mounts or changes it.
#[derive(Debug)]
pub struct ContainerLock {
    file: File,
}

impl AsFd for ContainerLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl MountState {
    /// Returns how it is served: how requests come and how contents get to programs, as far as it is
    /// known.
    pub fn ways(&self) -> Option<String> {
        let known = [&self.transport, &self.data];
        let known: Vec<_> = known.into_iter().flatten().map(String::as_str).collect();
        (!known.is_empty()).then(|| known.join(", "))
    }
}

impl Store {
    /// Makes a container, whose name must not be taken. What belongs into its upper and its work
    /// directory from the beginning, `prepare` puts there; it is given these two.
    pub fn create_container<E: From<Error>>(
        &self,
        container: &Container,
        prepare: impl FnOnce(&Path, &Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let _names = self.lock_names()?;
        self.check_name(&container.name)?;
        // Without looking for what the dead have left, which may be much: a mount does not wait for it.
        let stage = Stage::new(self)?;
        let staged = stage.dir().join("container");
        let [upper, work] = [UPPER, WORK].map(|name| staged.join(name));
        for dir in [&upper, &work] {
            ensure_dir(dir)?;
        }
        prepare(&upper, &work)?;
        if !container.ephemeral {
            // The upper is new and so are its attributes; what is below is nothing yet.
            sync_dir(&upper)?;
        }
        let lock = staged.join("lock");
        File::create(&lock).map_err(io_error("create", &lock))?;
        let durable = if container.ephemeral { Durable::No } else { Durable::Yes };
        let config = staged.join(CONFIG);
        replace_as(stage.dir(), &config, &record::encode_pretty(container), durable)?;
        let path = self.layout().container(&container.id);
        {
            let _nobody_abandons = self.held().lock();
            fs::rename(&staged, &path).map_err(io_error("create", &path))?;
        }
        if durable == Durable::Yes {
            sync_dir(&self.layout().containers())?;
        }
        Ok(())
    }

    /// Gives a container another name, which must not be taken.
    pub fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        let _names = self.lock_names()?;
        self.check_name(name)?;
        let path = self.layout().container(id).join(CONFIG);
        let Some(container) = self.container(id)? else { return Ok(()) };
        let renamed = Container { name: name.to_owned(), ..container };
        replace(&self.layout().staging(), &path, &record::encode_pretty(&renamed))
    }

    /// Returns the container with this id; none when there is none.
    pub fn container(&self, id: &str) -> Result<Option<Container>> {
        let path = self.layout().container(id).join(CONFIG);
        match record::read(&path) {
            // Something else is where the directory of a container would be.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
                Ok(None)
            }
            Err(Error::Record { .. }) if self.is_left_container(id) => Ok(None),
            other => other,
        }
    }

    /// Tells whether a crash of the machine has left this of a container that was there only for its
    /// mount: a record without content, and an empty writable layer.
    pub(crate) fn is_left_container(&self, id: &str) -> bool {
        is_left_by_crash(&self.layout().container(id).join(CONFIG))
            && fs::read_dir(self.upper(id)).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Removes what a crash of the machine has left of such containers.
    pub(crate) fn sweep_containers(&self) -> Result<()> {
        for id in list_if_there(&self.layout().containers())? {
            // The directory of a writable layer can be removed only while it is empty.
            if self.is_left_container(&id) && fs::remove_dir(self.upper(&id)).is_ok() {
                match self.lock_container(&id) {
                    Ok(lock) => self.remove_container(&id, &lock)?,
                    Err(error) => tracing::debug!("{error}"),
                }
            }
        }
        Ok(())
    }

    /// Returns all containers, newest first. A damaged one is told, and does not hide the others.
    pub fn containers(&self) -> Result<Vec<Container>> {
        self.collect_containers(|read| readable(read).map(Option::flatten))
    }

    /// Returns all containers, for who must not miss any.
    ///
    /// # Errors
    /// [`Error::Record`] when one is damaged.
    pub(crate) fn every_container(&self) -> Result<Vec<Container>> {
        self.collect_containers(|read| read)
    }

    fn collect_containers(
        &self,
        take: impl Fn(Result<Option<Container>>) -> Result<Option<Container>>,
    ) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        for id in list(&self.layout().containers())? {
            // One that is removed meanwhile is no longer one.
            containers.extend(take(self.container(&id))?);
        }
        containers.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        Ok(containers)
    }

    /// Removes a container that nobody uses; the caller holds its lock.
    pub fn remove_container(&self, id: &str, _lock: &ContainerLock) -> Result<()> {
        let path = self.layout().container(id);
        let trash = self.layout().trash().join(format!("container-{id}"));
        let found = self.container(id);
        // One whose record is damaged may be any.
        let is_durable = found.map_or(true, |found| found.is_some_and(|found| !found.ephemeral));
        match fs::rename(&path, &trash).map_err(io_error("remove", &path)) {
            Err(error) if error.is_no_room() => {
                // The disk has no room for another name in the trash; here there is some. It is no
                // container from then on, and who waits for the lock finds none.
                let config = path.join(CONFIG);
                fs::rename(&config, path.join(REMOVED)).map_err(io_error("remove", &config))?;
                sync_dir(&path)?;
                return remove_in_place(&path);
            }
            other => other?,
        }
        if is_durable {
            sync_dir(&self.layout().containers())?;
        }
        remove_tree(&trash)
    }

    /// Removes what is left of containers that somebody has not finished removing. Returns the bytes that
    /// the disk gets back.
    pub(crate) fn finish_removing(&self) -> Result<u64> {
        let mut bytes = 0;
        for id in list(&self.layout().containers())? {
            let path = self.layout().container(&id);
            if is_being_removed(&path) {
                bytes += own_bytes(&path);
                remove_in_place(&path)?;
            }
        }
        Ok(bytes)
    }

    /// Takes the lock of a container.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has it.
    pub fn lock_container(&self, id: &str) -> Result<ContainerLock> {
        let path = self.layout().container(id).join("lock");
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(io_error("open", &path))?;
        if sys::try_own(file.as_fd())? {
            return Ok(ContainerLock { file });
        }
        let by = match self.mounted(id)? {
            Mounted::Alive(state) => Some(format!(
                "it is mounted at {} by process {}",
                state.target.display(),
                state.pid
            )),
            Mounted::No | Mounted::Dead(_) => None,
        };
        Err(Error::Busy { id: id.to_owned(), by })
    }

    /// Returns the lock of a container that another process has handed over.
    ///
    /// # Errors
    /// [`Error::Busy`] when it is not that.
    pub fn adopt_lock(&self, id: &str, lock: OwnedFd) -> Result<ContainerLock> {
        let (path, file) = (self.layout().container(id).join("lock"), File::from(lock));
        let own = fs::metadata(&path).map_err(io_error("open", &path))?;
        let handed = file.metadata().map_err(io_error("open", &path))?;
        let is_it = (own.dev(), own.ino()) == (handed.dev(), handed.ino());
        // Who has it may take it again.
        if is_it && sys::try_own(file.as_fd())? {
            return Ok(ContainerLock { file });
        }
        Err(Error::Busy { id: id.to_owned(), by: None })
    }

    /// Returns the directory of a container.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.layout().container(id)
    }

    /// Returns where a container's writable layer is.
    pub fn upper(&self, id: &str) -> PathBuf {
        self.layout().container(id).join(UPPER)
    }

    /// Returns the directory beside the writable layer in which changes are prepared.
    pub fn work(&self, id: &str) -> PathBuf {
        self.layout().container(id).join(WORK)
    }

    /// Returns where the process that serves a mount writes what it has to say.
    pub fn mount_log(&self, id: &str) -> PathBuf {
        self.layout().container(id).join("log")
    }

    /// Records a mount; the caller holds the container's lock as long as it serves the mount.
    pub fn set_mounted(&self, id: &str, state: &MountState, _lock: &ContainerLock) -> Result<()> {
        let bytes = record::encode(state);
        replace_as(&self.layout().staging(), &self.state_path(id), &bytes, Durable::No)
    }

    /// Records that a container is not mounted any more.
    pub fn clear_mounted(&self, id: &str, _lock: &ContainerLock) -> Result<()> {
        remove_if_exists(&self.state_path(id)).map(drop)
    }

    /// Returns the mount that is recorded of a container whose lock the caller has taken: the one
    /// that served it is dead.
    pub fn left_mounted(&self, id: &str, _lock: &ContainerLock) -> Result<Option<MountState>> {
        self.recorded_mount(id)
    }

    /// Returns whether a container is mounted; not for one whose lock the caller holds.
    pub fn mounted(&self, id: &str) -> Result<Mounted> {
        let lock = self.layout().container(id).join("lock");
        let mut recorded = self.recorded_mount(id)?;
        while let Some(state) = recorded {
            match File::open(&lock) {
                Ok(file) if sys::is_owned(file.as_fd())? => return Ok(Mounted::Alive(state)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mounted::No),
                Err(error) => return Err(io_error("open", &lock)(error)),
            }
            // A server forgets its mount before it lets go of the lock. Only if the mount is still
            // recorded now that the lock was seen free did the server die.
            recorded = self.recorded_mount(id)?;
            if recorded.as_ref() == Some(&state) {
                return Ok(Mounted::Dead(state));
            }
        }
        Ok(Mounted::No)
    }

    /// Returns whether a container is mounted; a damaged record of that is told, and none.
    pub fn mounted_as_far_as_known(&self, id: &str) -> Result<Mounted> {
        Ok(readable(self.mounted(id))?.unwrap_or(Mounted::No))
    }

    fn recorded_mount(&self, id: &str) -> Result<Option<MountState>> {
        let path = self.state_path(id);
        match record::read(&path) {
            Err(Error::Record { .. }) if is_left_by_crash(&path) => Ok(None),
            other => other,
        }
    }

    fn state_path(&self, id: &str) -> PathBuf {
        self.layout().container(id).join("state")
    }

    /// Serialises those who give names.
    fn lock_names(&self) -> Result<File> {
        let file = open_lock(&self.layout().names_lock())?;
        sys::lock_exclusive(file.as_fd())?;
        Ok(file)
    }

    fn check_name(&self, name: &str) -> Result<()> {
        match self.containers()?.into_iter().find(|other| other.name == name) {
            Some(other) => Err(Error::NameTaken { name: name.to_owned(), id: other.id }),
            None => Ok(()),
        }
    }
}

/// Tells whether a record is one that was not made durable, and that a crash of the machine has kept
/// the name of and nothing else.
pub(crate) fn is_left_by_crash(record: &Path) -> bool {
    fs::read(record).is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0))
}

/// Tells whether a directory is what is left of a container that is being removed, on a disk that has no
/// room for its name in the trash.
pub(crate) fn is_being_removed(path: &Path) -> bool {
    let is_empty = || list(path).is_ok_and(|names| names.is_empty());
    let is_there = |name: &str| path.join(name).symlink_metadata().is_ok();
    !is_there(CONFIG) && (is_there(REMOVED) || is_empty())
}

/// Removes the directory of a container, what says that it is being removed at the end.
fn remove_in_place(path: &Path) -> Result<()> {
    for name in list(path)?.iter().filter(|name| *name != REMOVED) {
        let below = path.join(name);
        match fs::symlink_metadata(&below) {
            Ok(metadata) if metadata.is_dir() => remove_tree(&below)?,
            _ => drop(remove_if_exists(&below)?),
        }
    }
    remove_tree(path)
}

/// Removes a directory with all below it, directories without permissions too; or what is there instead.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let removed = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_removable(path).and_then(|()| fs::remove_dir_all(path))
        }
        other => other,
    };
    match removed {
        // Somebody else removes it, too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io_error("remove", path)),
    }
}

/// Gives the owner all permissions on every directory below `path`.
fn make_removable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut pending = vec![path.to_owned()];
    while let Some(dir) = pending.pop() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}
