//! Snapshots of a container: its writable layer as it was at some time.
//!
//! A snapshot is a directory `snapshots/<name>` of the container: a copy of `upper/`, the sums of all
//! files of the copy, and records.
//! Files of a snapshot are never written, so snapshots share those that are the same: which file of
//! the writable layer each one is like, and when that had last changed, is kept with the snapshot.
//! That is a hint, of the snapshot that the writable layer was last like; without it more is copied.
//!
//! A snapshot appears by rename, and a writable layer is replaced by another one in one step. Both are
//! done while nobody can abandon the stage ([`Store::abandon`]).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::store::containers::remove_tree;
use crate::store::duplicate::{Base, Pair, Version, copy_tree};
use crate::store::error::{Error, Result, io_error};
use crate::store::files::{list_if_there, open_lock, random_name, replace, sync_dir};
use crate::store::refs::readable;
use crate::store::stage::Stage;
use crate::store::sums::{self, SUMS};
use crate::store::walk::walk;
use crate::store::{Container, ContainerLock, Store, record};
use crate::sys::{self, RenameFlags, Stat, Time};

/// How often a snapshot is taken again because something has changed meanwhile.
const TRIES: usize = 3;

/// The clock that files have their times from goes on within this time.
const TICK: Duration = Duration::from_millis(20);

pub(crate) const RECORD: &str = "snapshot.json";
pub(crate) const TWINS: &str = "twins.json";
pub(crate) const UPPER: &str = "upper";

/// A snapshot as it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name, unique in the container.
    pub name: String,
    /// When it was taken, RFC 3339.
    pub created: jiff::Timestamp,
    /// What a person says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The snapshot that the container was then put back to: it keeps what that has replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_undo: Option<String>,
}

/// The lock on the snapshots of a container, held by who takes, restores or removes one.
#[derive(Debug)]
pub struct SnapshotLock {
    _file: File,
}

/// The files of the writable layer that those of a snapshot are like, by the inode in the snapshot.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Twins(HashMap<u64, (u64, i64, u32)>);

impl Twins {
    /// Tells whether the file with this inode in the snapshot is like one of the writable layer.
    fn are(&self, ino: u64, version: Version) -> bool {
        self.0.get(&ino) == Some(&record(version))
    }

    /// Takes over what is newer of the files that both know.
    fn renew(&mut self, newer: &Self) {
        for (ino, twin) in &mut self.0 {
            *twin = newer.0.get(ino).copied().unwrap_or(*twin);
        }
    }
}

const fn record(version: Version) -> (u64, i64, u32) {
    (version.ino, version.changed.secs, version.changed.nanos)
}

impl Store {
    /// Waits until nobody else works on the snapshots of a container.
    pub fn lock_snapshots(&self, id: &str) -> Result<SnapshotLock> {
        let file = open_lock(&self.layout().container(id).join("snapshots.lock"))?;
        sys::lock_exclusive(file.as_fd())?;
        Ok(SnapshotLock { _file: file })
    }

    /// Returns the snapshots of a container, newest first. A damaged one is told.
    pub fn snapshots(&self, id: &str) -> Result<Vec<Snapshot>> {
        let mut snapshots = Vec::new();
        for name in self.snapshot_names(id)? {
            // One that is removed meanwhile is no longer one; a damaged one does not hide the others.
            let record: Result<Option<Snapshot>> =
                record::read(&self.snapshot(id, &name).join(RECORD));
            snapshots.extend(readable(record)?.flatten());
        }
        snapshots.sort_by(|a, b| (b.created, &b.name).cmp(&(a.created, &a.name)));
        Ok(snapshots)
    }

    /// Returns a path in the writable layer of a container that has changed since a time of its file
    /// system's clock, or in its last tick.
    pub fn changed_since(&self, id: &str, begun: Time) -> Result<Option<PathBuf>> {
        changed_since(&self.upper(id), begun)
    }

    /// Returns where a snapshot keeps the writable layer.
    pub fn snapshot_upper(&self, id: &str, name: &str) -> PathBuf {
        self.snapshot(id, name).join(UPPER)
    }

    /// Returns the directory with all snapshots of a container; there is none before the first.
    pub fn snapshots_dir(&self, id: &str) -> PathBuf {
        self.layout().container(id).join("snapshots")
    }

    /// Takes a snapshot of a container. Without the container's lock something may be changing it:
    /// then it is taken again, and if that does not help, what has changed is returned. Each time
    /// `settle` is asked to bring what the kernel holds back of the container's mount.
    ///
    /// # Errors
    /// [`Error::SnapshotTaken`] when there is one of this name.
    pub fn take_snapshot(
        &self,
        container: &Container,
        snapshot: &Snapshot,
        owner: Option<&ContainerLock>,
        _lock: &SnapshotLock,
        settle: &dyn Fn() -> Result<()>,
    ) -> Result<Option<PathBuf>> {
        let Container { id, name, .. } = container;
        let to = self.snapshot(id, &snapshot.name);
        if to.exists() {
            let (container, name) = (name.clone(), snapshot.name.clone());
            return Err(Error::SnapshotTaken { container, name });
        }
        let stage = Stage::new(self)?;
        let mut base = self.base(id)?;
        let known = base.clone();
        let mut changed = None;
        for number in 0..TRIES {
            let staged = stage.dir().join(format!("snapshot-{number}"));
            let begun = self.stage_snapshot(id, &staged, base.as_deref(), settle)?;
            base = Some(staged);
            changed = match owner {
                Some(_) => None,
                None => changed_since(&self.upper(id), begun)?,
            };
            if changed.is_none() {
                break;
            }
        }
        let staged = base.expect("it was made TRIES times at most, and once at least");
        let known = known.map(|known| sums::known(&known)).transpose()?.unwrap_or_default();
        write_bytes(&staged.join(SUMS), &sums::of_tree(&staged.join(UPPER), &known)?)?;
        write(&staged.join(RECORD), snapshot)?;
        mark_as_base(&staged)?;
        sync_all(&staged)?;
        let all = self.snapshots_dir(id);
        match fs::create_dir(&all) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Nor is it made where the container has been removed meanwhile.
            other => other.map_err(io_error("create", &all))?,
        }
        {
            let _nobody_abandons = self.held().lock();
            fs::rename(&staged, &to).map_err(io_error("write", &to))?;
        }
        sync_dir(&all)?;
        sync_dir(&self.layout().container(id))?;
        Ok(changed)
    }

    /// Copies a writable layer, with the files of the base that are the same. Tells when it began.
    fn stage_snapshot(
        &self,
        id: &str,
        staged: &Path,
        base: Option<&Path>,
        settle: &dyn Fn() -> Result<()>,
    ) -> Result<Time> {
        let to = staged.join(UPPER);
        fs::create_dir_all(&to).map_err(io_error("create", &to))?;
        let begun = sys::fstat(sys::open_dir_path(&to)?.as_fd())?.ctime;
        // What this brings was changed before, and counts as changed since: without such, the copy is
        // what programs saw at that time.
        settle()?;
        let known = base.map(read_twins).transpose()?.unwrap_or_default();
        let root = base.map(|base| base.join(UPPER));
        let is_same = |from: Version, base: Version| known.are(base.ino, from);
        let base = root.as_ref().map(|root| Base { root, is_same: &is_same });
        let mut twins = Twins::default();
        for pair in copy_tree(&self.upper(id), &to, base.as_ref())? {
            // What has changed since may change again and have the same time.
            if pair.from.changed < begun {
                twins.0.insert(pair.to, record(pair.from));
            }
        }
        write(&staged.join(TWINS), &twins)?;
        Ok(begun)
    }

    /// Puts the writable layer of a container back to what a snapshot has. Files that have not changed
    /// since stay the same files.
    pub fn restore_snapshot(
        &self,
        id: &str,
        name: &str,
        _owner: &ContainerLock,
        _lock: &SnapshotLock,
    ) -> Result<()> {
        let (upper, snapshot) = (self.upper(id), self.snapshot(id, name));
        let stage = Stage::new(self)?;
        let staged = stage.dir().join(UPPER);
        fs::create_dir(&staged).map_err(io_error("create", &staged))?;
        let known = read_twins(&snapshot)?;
        let is_same = |from: Version, base: Version| known.are(from.ino, base);
        let base = Base { root: &upper, is_same: &is_same };
        let pairs = copy_tree(&snapshot.join(UPPER), &staged, Some(&base))?;
        sync_all(&staged)?;
        self.exchange(&staged, &upper)?;
        sync_dir(&self.layout().container(id))?;
        sync_dir(stage.dir())?;
        // What was replaced goes: with it names of files that stay, which changes their times.
        drop(stage);
        if let Err(error) = self.note_twins(id, name, &pairs) {
            tracing::warn!("{error}; the next snapshot copies more");
        }
        Ok(())
    }

    /// Notes of the files of a snapshot, just restored, which files of the writable layer they are like.
    fn note_twins(&self, id: &str, name: &str, pairs: &[Pair]) -> Result<()> {
        let mut versions = HashMap::new();
        walk(&self.upper(id), &mut |_, stat| {
            versions.insert(stat.ino, Version::from(stat));
            ControlFlow::Continue(())
        })?;
        let noted = pairs.iter().filter_map(|pair| {
            versions.get(&pair.to).map(|version| (pair.from.ino, record(*version)))
        });
        let noted = Twins(noted.collect());
        // What changes from now on gets another time.
        std::thread::sleep(TICK);
        for other in self.snapshot_names(id)?.iter().filter(|other| *other != name) {
            let mut twins = read_twins(&self.snapshot(id, other))?;
            twins.renew(&noted);
            self.write_twins(id, other, &twins)?;
        }
        self.write_twins(id, name, &noted)?;
        mark_as_base(&self.snapshot(id, name))
    }

    fn write_twins(&self, id: &str, name: &str, twins: &Twins) -> Result<()> {
        let path = self.snapshot(id, name).join(TWINS);
        replace(&self.layout().staging(), &path, &record::encode(twins))
    }

    /// Has two directories change places, in one step.
    fn exchange(&self, staged: &Path, published: &Path) -> Result<()> {
        let parent = |path: &Path| sys::open_dir_path(path.parent().unwrap_or(path));
        let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
        let _nobody_abandons = self.held().lock();
        Ok(sys::rename(
            parent(staged)?.as_fd(),
            &name(staged),
            parent(published)?.as_fd(),
            &name(published),
            RenameFlags::RENAME_EXCHANGE,
        )?)
    }

    /// Removes a snapshot.
    pub fn remove_snapshot(&self, id: &str, name: &str, _lock: &SnapshotLock) -> Result<()> {
        let path = self.snapshot(id, name);
        let trash = self.layout().trash().join(format!("snapshot-{}", random_name()?));
        fs::rename(&path, &trash).map_err(io_error("remove", &path))?;
        sync_dir(&self.snapshots_dir(id))?;
        remove_tree(&trash)
    }

    /// Returns the snapshot that the writable layer was last like: the one with the newest list of
    /// files.
    fn base(&self, id: &str) -> Result<Option<PathBuf>> {
        let mut newest = None;
        for name in self.snapshot_names(id)? {
            let path = self.snapshot(id, &name);
            let written = fs::metadata(path.join(TWINS)).and_then(|metadata| metadata.modified());
            newest = newest.max(written.ok().map(|written| (written, path)));
        }
        Ok(newest.map(|(_, path)| path))
    }

    pub(crate) fn snapshot_names(&self, id: &str) -> Result<Vec<String>> {
        list_if_there(&self.snapshots_dir(id))
    }

    pub(crate) fn snapshot(&self, id: &str, name: &str) -> PathBuf {
        self.snapshots_dir(id).join(name)
    }
}

/// Notes that the writable layer is like this snapshot now. The time is finer than those that the file
/// system gives, which may be the same for several lists.
fn mark_as_base(snapshot: &Path) -> Result<()> {
    let path = snapshot.join(TWINS);
    let mark = || File::open(&path)?.set_modified(SystemTime::now());
    mark().map_err(io_error("write", &path))
}

/// Reads which files a snapshot has in common with the writable layer. Where that is damaged, more is
/// copied.
fn read_twins(snapshot: &Path) -> Result<Twins> {
    Ok(readable(record::read(&snapshot.join(TWINS)))?.flatten().unwrap_or_default())
}

/// Returns a path of a writable layer that may have changed since; times are of the clock's last tick.
fn changed_since(upper: &Path, begun: Time) -> Result<Option<PathBuf>> {
    let mut changed = None;
    walk(upper, &mut |path: &Path, stat: &Stat| match stat.ctime >= begun {
        true => {
            changed = Some(Path::new("/").join(path));
            ControlFlow::Break(())
        }
        false => ControlFlow::Continue(()),
    })?;
    Ok(changed)
}

fn write(path: &Path, record: &impl Serialize) -> Result<()> {
    write_bytes(path, &record::encode(record))
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(io_error("write", path))
}

/// Makes a directory with all below it durable.
fn sync_all(path: &Path) -> Result<()> {
    Ok(sys::sync_fs(sys::open_dir_path(path)?)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::digest::Digest;
    use crate::sys::{SetXattr, XattrTarget};

    /// A store with one container.
    struct Place {
        _folder: tempfile::TempDir,
        store: Store,
        container: Container,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("store")).unwrap();
            let container = Container {
                id: "a".repeat(64),
                name: "box".to_owned(),
                image: "base:1".to_owned(),
                manifest: Digest::of(b"base"),
                created: jiff::Timestamp::UNIX_EPOCH,
                command: None,
                ephemeral: false,
            };
            store.create_container(&container, |_, _| Ok::<_, Error>(())).unwrap();
            Self { _folder: folder, store, container }
        }

        fn upper(&self, name: &str) -> PathBuf {
            self.store.upper(&self.container.id).join(name)
        }

        fn kept(&self, snapshot: &str, name: &str) -> PathBuf {
            self.store.snapshot_upper(&self.container.id, snapshot).join(name)
        }

        /// Takes a snapshot when the clock of the file system has gone on.
        fn take(&self, name: &str) -> Result<Option<PathBuf>> {
            let probe = self.store.root().join("probe");
            let now = || {
                fs::write(&probe, "").unwrap();
                sys::fstat(File::open(&probe).unwrap().as_fd()).unwrap().ctime
            };
            let before = now();
            while now() == before {}
            let lock = self.store.lock_snapshots(&self.container.id)?;
            let owner = self.store.lock_container(&self.container.id)?;
            self.store
                .take_snapshot(&self.container, &snapshot(name), Some(&owner), &lock, &|| Ok(()))
        }

        fn restore(&self, name: &str) {
            let lock = self.store.lock_snapshots(&self.container.id).unwrap();
            let owner = self.store.lock_container(&self.container.id).unwrap();
            self.store.restore_snapshot(&self.container.id, name, &owner, &lock).unwrap();
        }
    }

    fn snapshot(name: &str) -> Snapshot {
        let created = jiff::Timestamp::now();
        Snapshot { name: name.to_owned(), created, message: None, before_undo: None }
    }

    fn inode(path: PathBuf) -> u64 {
        fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")).ino()
    }

    #[test]
    fn a_snapshot_has_everything_that_the_layer_has() {
        let place = Place::new();
        fs::create_dir(place.upper("dir")).unwrap();
        fs::write(place.upper("dir/file"), "content").unwrap();
        fs::hard_link(place.upper("dir/file"), place.upper("linked")).unwrap();
        symlink("nowhere", place.upper("symlink")).unwrap();
        let sparse = File::create(place.upper("sparse")).unwrap();
        sparse.write_all_at(b"end", 1 << 20).unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_nanos(1_000_000_000_000_000_007);
        sparse.set_modified(time).unwrap();
        let upper = sys::open_dir_path(&place.upper("")).unwrap();
        let target = XattrTarget::At(upper.as_fd(), "linked".as_ref());
        sys::set_xattr(target, "user.mark".as_ref(), b"value", SetXattr::Any).unwrap();
        fs::set_permissions(place.upper("dir"), fs::Permissions::from_mode(0o1710)).unwrap();
        place.take("one").unwrap();
        for at in ["one", "restored"] {
            let path = |name: &str| match at {
                "one" => place.kept("one", name),
                _ => place.upper(name),
            };
            let seen = |name: &str| fs::symlink_metadata(path(name)).unwrap();
            assert_eq!(fs::read(path("dir/file")).unwrap(), b"content");
            assert_eq!(seen("linked").ino(), seen("dir/file").ino());
            assert_eq!(seen("linked").nlink(), 2);
            assert_eq!(fs::read_link(path("symlink")).unwrap(), Path::new("nowhere"));
            assert_eq!(seen("dir").mode() & 0o7777, 0o1710);
            assert_eq!(seen("sparse").modified().unwrap(), time);
            assert_eq!(seen("sparse").len(), (1 << 20) + 3);
            assert!(seen("sparse").blocks() * 512 < 1 << 18);
            let dir = sys::open_dir_path(&path("")).unwrap();
            let target = XattrTarget::At(dir.as_fd(), "linked".as_ref());
            assert_eq!(sys::get_xattr(target, "user.mark".as_ref()).unwrap(), b"value");
            if at == "one" {
                for name in ["dir/file", "linked", "symlink", "sparse"] {
                    fs::remove_file(place.upper(name)).unwrap();
                }
                place.restore("one");
            }
        }
    }

    #[test]
    fn snapshots_share_what_has_not_changed_also_after_going_back() {
        let place = Place::new();
        for name in ["same", "changed"] {
            fs::write(place.upper(name), name).unwrap();
        }
        let number = inode(place.upper("same"));
        place.take("1").unwrap();
        fs::write(place.upper("changed"), "more").unwrap();
        place.take("2").unwrap();
        place.restore("1");
        place.take("3").unwrap();
        place.restore("2");
        assert_eq!(fs::read(place.upper("changed")).unwrap(), b"more");
        assert_eq!(inode(place.upper("same")), number);
        let inodes = |name: &str| ["1", "2", "3"].map(|snapshot| inode(place.kept(snapshot, name)));
        let [first, second, third] = inodes("same");
        assert_eq!((first, first), (second, third));
        let [first, second, third] = inodes("changed");
        assert!(first == third && first != second);
        // No file is in the layer and in a snapshot.
        assert_ne!(inode(place.upper("same")), inode(place.kept("1", "same")));
        assert_eq!(fs::metadata(place.upper("same")).unwrap().nlink(), 1);
    }

    #[test]
    fn a_file_with_the_same_size_and_time_is_known_to_have_changed() {
        let place = Place::new();
        fs::write(place.upper("file"), "one").unwrap();
        let time = fs::metadata(place.upper("file")).unwrap().modified().unwrap();
        place.take("1").unwrap();
        fs::write(place.upper("file"), "two").unwrap();
        File::options().write(true).open(place.upper("file")).unwrap().set_modified(time).unwrap();
        place.take("2").unwrap();
        assert_eq!(fs::read(place.kept("1", "file")).unwrap(), b"one");
        assert_eq!(fs::read(place.kept("2", "file")).unwrap(), b"two");
    }

    #[test]
    fn a_tree_may_be_deeper_than_a_path_is_long() {
        const DEPTH: usize = 1500;
        let place = Place::new();
        let mut dir = sys::open_dir_path(&place.upper("")).unwrap();
        for _ in 0..DEPTH {
            sys::make_dir(dir.as_fd(), "directory".as_ref(), 0o755).unwrap();
            dir = sys::open(dir.as_fd(), "directory".as_ref(), sys::open_flags::DIRECTORY, 0)
                .unwrap();
        }
        place.take("deep").unwrap();
        place.restore("deep");
        let mut depth = 0;
        walk(&place.upper(""), &mut |path, _| {
            depth = depth.max(path.iter().count());
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(depth, DEPTH);
    }

    #[test]
    fn what_is_known_of_shared_files_is_only_a_hint() {
        let place = Place::new();
        fs::write(place.upper("file"), "content").unwrap();
        place.take("1").unwrap();
        let twins = place.store.snapshots_dir(&place.container.id).join("1").join(TWINS);
        fs::write(&twins, "damaged").unwrap();
        place.take("2").unwrap();
        assert_ne!(inode(place.kept("1", "file")), inode(place.kept("2", "file")));
        fs::remove_file(twins).unwrap();
        fs::remove_file(place.upper("file")).unwrap();
        place.restore("1");
        assert_eq!(fs::read(place.upper("file")).unwrap(), b"content");
    }

    #[test]
    fn a_name_is_given_once_and_what_is_removed_leaves_nothing() {
        let place = Place::new();
        place.take("1").unwrap();
        let error = place.take("1").unwrap_err();
        assert!(matches!(error, Error::SnapshotTaken { .. }), "{error}");
        place.take("2").unwrap();
        let names = || -> Vec<String> {
            let snapshots = place.store.snapshots(&place.container.id).unwrap();
            snapshots.into_iter().map(|snapshot| snapshot.name).collect()
        };
        assert_eq!(names(), ["2", "1"]);
        let lock = place.store.lock_snapshots(&place.container.id).unwrap();
        place.store.remove_snapshot(&place.container.id, "1", &lock).unwrap();
        assert_eq!(names(), ["2"]);
        for dir in ["staging", "trash", "leases"] {
            assert_eq!(fs::read_dir(place.store.root().join(dir)).unwrap().count(), 0, "{dir}");
        }
    }

    #[test]
    fn what_changes_all_the_time_is_kept_and_told() {
        let place = Place::new();
        fs::create_dir(place.upper("dir")).unwrap();
        for number in 0..500 {
            fs::write(place.upper("dir").join(number.to_string()), "x").unwrap();
        }
        let lock = place.store.lock_snapshots(&place.container.id).unwrap();
        let take = |name: &str| {
            place.store.take_snapshot(&place.container, &snapshot(name), None, &lock, &|| Ok(()))
        };
        let done = AtomicBool::new(false);
        let changed = std::thread::scope(|scope| {
            let write = || {
                while !done.load(Ordering::Relaxed) {
                    // Longer, shorter, gone, and there again.
                    fs::write(place.upper("busy"), vec![b'x'; 100_000]).unwrap();
                    fs::write(place.upper("busy"), "y").unwrap();
                    fs::remove_file(place.upper("busy")).unwrap();
                }
            };
            scope.spawn(write);
            // The other thread may be kept waiting during all of one.
            let changed = (0..).find_map(|number| take(&number.to_string()).transpose());
            done.store(true, Ordering::Relaxed);
            changed.expect("it goes on until then")
        });
        let changed = changed.unwrap();
        assert!([Path::new("/"), Path::new("/busy")].contains(&changed.as_path()), "{changed:?}");
        assert_eq!(fs::read_dir(place.kept("0", "dir")).unwrap().count(), 500);
        assert_eq!(take("calm").unwrap(), None);
    }
}
