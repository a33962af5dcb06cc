//! Checking what a store has under which names: directories that must be there, names that belong to
//! nobody, what processes that died have left.

use std::fs;
use std::path::Path;

use crate::digest::Digest;
use crate::store::error::Result;
use crate::store::files::{list, list_if_there};
use crate::store::fsck::records::WRITTEN_BY_OTHERS;
use crate::store::fsck::{Check, Fault, Part};
use crate::store::layout::DIRECTORIES;
use crate::store::lease::open_live;

/// What the root has besides directories.
const FILES: [&str; 5] = ["FORMAT", "checked", "fsck.lock", "gc.lock", "names.lock"];

const NOBODYS: &str = "its name belongs to nothing in a store";

impl Check {
    pub(crate) fn check_root(&self, faults: &mut Vec<Fault>) -> Result<()> {
        let root = self.store.root();
        if let Ok(metadata) = fs::metadata(root) {
            self.check_access(root, &metadata, WRITTEN_BY_OTHERS, faults);
        }
        for dir in DIRECTORIES {
            self.check_dir(&root.join(dir), faults);
        }
        for shard in 0..=255_u8 {
            self.check_dir(&self.store.layout().objects().join(format!("{shard:02x}")), faults);
        }
        for name in list(root)? {
            let is_dir = DIRECTORIES.iter().any(|dir| dir.split('/').next() == Some(name.as_str()));
            if !is_dir && !FILES.contains(&name.as_str()) {
                faults.push(self.fault(Part::Stray, &root.join(name), NOBODYS));
            }
        }
        self.check_file_names(faults)
    }

    /// A directory that must be there.
    pub(crate) fn check_dir(&self, path: &Path, faults: &mut Vec<Fault>) {
        let problem = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return self.check_access(path, &metadata, 0, faults);
            }
            Ok(_) => "it is not a directory".to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                "it is missing".to_owned()
            }
            Err(error) => format!("it cannot be looked at: {error}"),
        };
        faults.push(self.fault(Part::Directory, path, problem));
    }

    /// Names in the directories whose files are named by digests.
    fn check_file_names(&self, faults: &mut Vec<Fault>) -> Result<()> {
        let layout = self.store.layout();
        let dirs: [(_, &[&str]); 3] = [
            (layout.blobs(), &["", ".bad"]),
            (layout.layers(), &[".idx", ".tar", ".src", ".idx.bad", ".tar.bad"]),
            (layout.chains(), &[".idx"]),
        ];
        for (dir, suffixes) in dirs {
            for name in list_if_there(&dir)? {
                self.check_name(&dir.join(&name), is_named(&name, suffixes), faults);
            }
        }
        let blobs = self.store.root().join("blobs");
        for name in list_if_there(&blobs)?.iter().filter(|name| *name != "sha256") {
            faults.push(self.fault(Part::Stray, &blobs.join(name), NOBODYS));
        }
        for shard in list_if_there(&layout.objects())? {
            let dir = layout.objects().join(&shard);
            let is_shard = shard.len() == 2 && shard.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_shard {
                faults.push(self.fault(Part::Stray, &dir, NOBODYS));
            } else {
                for name in list_if_there(&dir)? {
                    let belongs = name.starts_with(&shard) && is_named(&name, &["", ".bad"]);
                    self.check_name(&dir.join(&name), belongs, faults);
                }
            }
        }
        Ok(())
    }

    fn check_name(&self, path: &Path, belongs: bool, faults: &mut Vec<Fault>) {
        if !belongs {
            faults.push(self.fault(Part::Stray, path, NOBODYS));
        } else if is_back(path) {
            let problem = "it was set apart, and is there again";
            faults.push(self.fault(Part::Leftover, path, problem));
        }
    }

    /// Tells whether no collector is at work, as far as that is known.
    pub(crate) fn nobody_collects(&self) -> bool {
        matches!(self.store.try_lock_gc(), Ok(Some(_)))
    }

    /// What processes have left that have died.
    pub(crate) fn check_leftovers(&self, faults: &mut Vec<Fault>) -> Result<()> {
        let layout = self.store.layout();
        for name in list_if_there(&layout.staging())? {
            // Names with a sign in them are there for moments, or wait for the next pull.
            let is_lease = !name.contains('-');
            if is_lease && open_live(&self.store, &name)?.is_none() {
                let path = layout.staging().join(&name);
                // It may have been finished between two looks.
                if path.exists() {
                    let problem = "the process that was making it is gone";
                    faults.push(self.fault(Part::Leftover, &path, problem));
                }
            }
        }
        // While somebody collects or removes, the trash is not what was left.
        if self.nobody_collects() {
            for name in list_if_there(&layout.trash())? {
                let problem = "it is to be deleted, if by nobody else then by the next collection";
                faults.push(self.fault(Part::Leftover, &layout.trash().join(name), problem));
            }
        }
        Ok(())
    }
}

/// Tells whether a file was set apart, and what it was is there again.
fn is_back(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "bad") && path.with_extension("").exists()
}

/// Tells whether a name is a digest and one of these.
fn is_named(name: &str, suffixes: &[&str]) -> bool {
    let (hex, suffix) = name.split_at_checked(64).unwrap_or((name, ""));
    Digest::from_hex(hex).is_ok() && suffixes.contains(&suffix)
}
