//! A store of the version before: its records get their sums, and then it is one of this version.
//!
//! Recipes stay as they are, since they are still read; snapshots get sums when they are next checked.
//! An older program knows nothing of sums and has claims of another form, so none may be at work.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::store::error::{Error, Result, io_error};
use crate::store::files::{list, read_if_exists, replace};
use crate::store::lease::open_live;
use crate::store::{Store, VERSION, VERSION_WITHOUT_SUMS, check_format, record, write_format};

/// Brings a store to this version. A crash at any point leaves one that can be brought there again.
///
/// # Errors
/// [`Error::OlderInUse`] while somebody uses it.
pub(crate) fn upgrade(store: &Store) -> Result<()> {
    let _lock = store.lock_gc()?;
    let layout = store.layout();
    let bytes = read_if_exists(&layout.format())?.unwrap_or_default();
    let format = check_format(store.root(), &bytes)?;
    if format.version == VERSION {
        // Somebody else was quicker.
        return Ok(());
    }
    for id in list(&layout.leases())? {
        if open_live(store, &id)?.is_some() {
            let (path, found) = (store.root().to_owned(), VERSION_WITHOUT_SUMS);
            return Err(Error::OlderInUse { path, found });
        }
    }
    for path in records(store)? {
        add_sum(&layout.staging(), &path)?;
    }
    write_format(layout, format.inline_max())
}

/// Returns the paths of all records, and of some that do not exist.
fn records(store: &Store) -> Result<Vec<PathBuf>> {
    let layout = store.layout();
    let mut paths: Vec<_> = store.ref_files()?.into_iter().map(|(path, _)| path).collect();
    for name in list(&layout.layers())?.iter().filter(|name| name.ends_with(".src")) {
        paths.push(layout.layers().join(name));
    }
    for id in list(&layout.containers())? {
        let container = layout.container(&id);
        paths.extend(["config.json", "state"].map(|name| container.join(name)));
        for snapshot in store.snapshot_names(&id)? {
            let snapshot = store.snapshots_dir(&id).join(snapshot);
            paths.extend(["snapshot.json", "twins.json"].map(|name| snapshot.join(name)));
        }
    }
    Ok(paths)
}

fn add_sum(staging: &Path, path: &Path) -> Result<()> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if is_no_file(error.kind()) => return Ok(()),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    if record::checked(&bytes).is_ok() {
        return Ok(());
    }
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        // It was damaged before, and will be found to be so.
        tracing::warn!("{} is damaged: {error}", path.display());
        return Ok(());
    }
    // Of lists of twins the newest counts.
    let written = fs::metadata(path).and_then(|metadata| metadata.modified());
    replace(staging, path, &record::with_sum(bytes))?;
    let keep = || File::options().write(true).open(path)?.set_modified(written?);
    keep().map_err(io_error("write", path))
}

/// Tells whether an error says that there is no file at a path.
fn is_no_file(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(kind, NotFound | NotADirectory | IsADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::store::tests::{LARGE, add_image, container, store, tag, tar};
    use crate::store::{Ref, RefName, Snapshot};

    /// Takes the sums of a store off, as the version before had it.
    fn age(store: &Store) {
        for path in records(store).unwrap().into_iter().chain([store.layout().format()]) {
            if let Ok(bytes) = fs::read(&path) {
                let text = record::checked(&bytes).unwrap();
                let text = String::from_utf8(text.to_vec()).unwrap();
                fs::write(&path, text.trim_end().replace("\"version\": 2", "\"version\": 1"))
                    .unwrap();
            }
        }
    }

    #[test]
    fn a_store_of_the_version_before_becomes_one_of_this() {
        let (_folder, store) = store();
        let image = add_image(&mut store.stage().unwrap(), &tar(&[("f", LARGE)]));
        tag(&store, "image:1", image);
        let layer = store.image(image).unwrap().layers()[0];
        store.add_source(layer, (Digest::of(b"gz"), 2, "gzip"), "docker.io/library/a").unwrap();
        let made = container("box", image);
        store.create_container(&made, |_, _| Ok::<_, Error>(())).unwrap();
        let snapshots = store.lock_snapshots(&made.id).unwrap();
        let owner = store.lock_container(&made.id).unwrap();
        let created = jiff::Timestamp::UNIX_EPOCH;
        let snapshot = Snapshot { name: "1".to_owned(), created, message: None, before_undo: None };
        store.take_snapshot(&made, &snapshot, Some(&owner), &snapshots, &|| Ok(())).unwrap();
        let said = |store: &Store| {
            let references: Vec<(RefName, Ref)> = store.references().unwrap();
            let snapshots = store.snapshots(&made.id).unwrap();
            (references, store.containers().unwrap(), snapshots, store.sources(layer).unwrap())
        };
        let before = said(&store);
        age(&store);
        let upgraded = Store::open(store.root()).unwrap();
        assert_eq!(said(&upgraded), before);
        let format = fs::read(store.layout().format()).unwrap();
        assert_eq!(check_format(store.root(), &format).unwrap().version, VERSION);
        assert!(record::checked(&format).is_ok());
        // Half-way, after a crash, and with a record that was damaged before.
        age(&store);
        let [path, other] = ["image:1", "gone:1"]
            .map(|name| store.ref_path(&RefName::Named(name.parse().unwrap())));
        add_sum(&store.layout().staging(), &path).unwrap();
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::write(&other, "{").unwrap();
        let upgraded = Store::open(store.root()).unwrap();
        assert_eq!(said(&upgraded), before);
        assert_eq!(fs::read(other).unwrap(), b"{");
    }

    #[test]
    fn a_store_that_an_older_program_uses_is_left_alone() {
        let (_folder, store) = store();
        let lease = store.lease().unwrap();
        age(&store);
        let before = fs::read(store.layout().format()).unwrap();
        let error = Store::open(store.root()).unwrap_err();
        assert!(matches!(error, Error::OlderInUse { found: 1, .. }), "{error}");
        assert_eq!(fs::read(store.layout().format()).unwrap(), before);
        drop(lease);
        Store::open(store.root()).unwrap();
    }
}
