//! Tests of checking and mending, on a store that has one of everything.

mod damage;
mod mending;
mod others;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::digest::Digest;
use crate::store::fsck::{Check, CheckScope, Fault, Outcome};
use crate::store::tests::{LARGE, add_image, add_layer, container, store, tag, tar};
use crate::store::{Claim, Container, Lease, Ref, RefName, Snapshot, Store};

/// A store with one of everything, and who is at work in it.
struct Rich {
    _folder: tempfile::TempDir,
    store: Store,
    image: Digest,
    /// An object that is too large to have a wrong bit looked for in it.
    huge: Digest,
    container: Container,
    _lease: Lease,
}

impl Rich {
    fn new() -> Self {
        let (folder, store) = store();
        let huge = vec![3; 40_000];
        let files: [(&str, &[u8]); 3] = [("small", b"text"), ("large", LARGE), ("huge", &huge)];
        let image = add_image(&mut store.stage().unwrap(), &tar(&files));
        let other = add_image(&mut store.stage().unwrap(), &tar(&[("other", &[5; 17_000])]));
        let target = store.stage().unwrap().publish_blob(b"what a registry has").unwrap();
        let to = Ref { manifest: image, target: Some(target), updated: Timestamp::UNIX_EPOCH };
        store.set_reference(&RefName::Named("pulled:1".parse().unwrap()), &to).unwrap();
        tag(&store, "other:1", other);
        tag(&store, "other:1", image);
        let layer = store.image(image).unwrap().layers()[0];
        let blob = (Digest::of(b"gz"), 2, "gzip");
        store.add_source(layer, blob, "127.0.0.1:1/pulled").unwrap();
        // What nobody needs.
        add_layer(&mut store.stage().unwrap(), &tar(&[("unneeded", &[6; 18_000])]));
        store.pin(image).unwrap();
        store.note_use(image).unwrap();
        let made = container("box", image);
        store.create_container(&made, |_, _| Ok::<_, crate::store::Error>(())).unwrap();
        let owner = store.lock_container(&made.id).unwrap();
        let state = crate::store::MountState {
            target: "/mnt".into(),
            device: None,
            boot: None,
            pid: 42,
            server: None,
            writable: true,
            transport: None,
            data: None,
            since: Timestamp::UNIX_EPOCH,
            options: Vec::new(),
            foreground: false,
        };
        store.set_mounted(&made.id, &state, &owner).unwrap();
        fs::create_dir(store.upper(&made.id).join("dir")).unwrap();
        fs::write(store.upper(&made.id).join("dir/file"), "changed").unwrap();
        fs::write(store.upper(&made.id).join("copied"), LARGE).unwrap();
        let snapshots = store.lock_snapshots(&made.id).unwrap();
        wait_for_tick(store.root());
        for name in ["1", "2"] {
            let (name, created) = (name.to_owned(), Timestamp::UNIX_EPOCH);
            let snapshot = Snapshot { name, created, message: None, before_undo: None };
            store.take_snapshot(&made, &snapshot, Some(&owner), &snapshots, &|| Ok(())).unwrap();
        }
        // Only in the snapshots: it cannot be taken from the container.
        fs::write(store.upper(&made.id).join("dir/file"), "changed again").unwrap();
        store.collect_marks();
        let mut lease = store.lease().unwrap();
        lease.claim(Claim::Image(image)).unwrap();
        let rich = Self {
            _folder: folder,
            store,
            image,
            huge: Digest::of(&huge),
            container: made,
            _lease: lease,
        };
        assert_eq!(rich.faults(), []);
        rich
    }

    /// Checks all of it, and returns what is wrong.
    fn faults(&self) -> Vec<Fault> {
        self.faults_of(None)
    }

    fn faults_of(&self, image: Option<Digest>) -> Vec<Fault> {
        let mut found = Vec::new();
        self.run(image, &mut |_, faults| found.extend(faults));
        found.retain(|fault| !fault.part.is_harmless());
        found
    }

    /// Checks all of it, and mends what can be mended without a registry.
    fn mend(&self) -> Vec<(Fault, Outcome)> {
        let mut outcomes = Vec::new();
        self.run(None, &mut |check, faults| {
            for fault in faults {
                check.learn().unwrap();
                let outcome = match check.still(&fault).unwrap() {
                    None => Outcome::mended("with another"),
                    Some(_) => match check.mend(&fault).unwrap() {
                        Some(outcome) => outcome,
                        None => check.give_up(&fault).unwrap(),
                    },
                };
                outcomes.push((fault, outcome));
            }
        });
        outcomes.retain(|(fault, _)| !fault.part.is_harmless());
        outcomes
    }

    /// Mends what is wrong, which is one thing.
    #[track_caller]
    fn mends_one(&self) {
        let outcomes = self.mend();
        assert!(matches!(&outcomes[..], [(_, Outcome::Mended(_))]), "{outcomes:?}");
        assert_eq!(self.faults(), []);
    }

    fn run(&self, image: Option<Digest>, settle: &mut dyn FnMut(&mut Check, Vec<Fault>)) {
        let store = Store::open_to_check(self.store.root()).unwrap();
        let mut check = store.check(CheckScope { image, anew: true }).unwrap();
        check.learn().unwrap();
        let found = check.records().unwrap();
        settle(&mut check, found);
        for list in [Check::documents, Check::contents, Check::tars] {
            check.learn().unwrap();
            let items = list(&check).unwrap();
            let mut found = Vec::new();
            for item in items {
                found.extend(check.examine(&item, &|_| {}).unwrap());
            }
            found.sort_by_key(|fault| matches!(fault.part, crate::store::fsck::Part::Chain(_)));
            check.learn_of(&found);
            settle(&mut check, found);
        }
        check.finish().unwrap();
    }

    /// Returns all files that are checked, from the root.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        files_below(self.store.root(), &mut found);
        let root = self.store.root();
        let upper = Path::new("containers").join(&self.container.id).join("upper");
        let mut found: Vec<_> =
            found.iter().map(|path| path.strip_prefix(root).unwrap().to_owned()).collect();
        found.retain(|path| !path.starts_with(&upper));
        found.sort();
        found
    }

    fn path(&self, below: &Path) -> PathBuf {
        self.store.root().join(below)
    }

    fn snapshot_file(&self, snapshot: &str, name: &str) -> PathBuf {
        self.store.snapshot_upper(&self.container.id, snapshot).join(name)
    }
}

impl Store {
    /// Makes the files of locks that a collection makes, without collecting.
    fn collect_marks(&self) {
        drop(self.try_lock_gc().unwrap());
    }
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Waits until the clock of the file system has gone on, so that what was written before is known not
/// to be changing.
fn wait_for_tick(dir: &Path) {
    use std::os::unix::fs::MetadataExt;
    let probe = dir.join("staging/file-probe");
    let now = || {
        fs::write(&probe, "").unwrap();
        let metadata = fs::metadata(&probe).unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let before = now();
    while now() == before {}
    fs::remove_file(&probe).unwrap();
}

/// Writes over a file in place; its permissions and times stay.
fn overwrite(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let before = fs::metadata(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut file = File::options().write(true).truncate(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    file.set_permissions(before.permissions()).unwrap();
}

/// Numbers that look random, from a seed.
struct Random(u64);

impl Random {
    /// A seed of its own for each run, or the one of `STRATA_FSCK_SEED`; what fails says it.
    fn new() -> Self {
        let seed = std::env::var("STRATA_FSCK_SEED").map(|seed| seed.parse().unwrap());
        Self(seed.unwrap_or_else(|_| u64::from_le_bytes(crate::sys::random_bytes().unwrap())) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}
