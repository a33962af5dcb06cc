//! Checking the records of a store, and the files that are empty; all are small and always looked at.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::digest::{DiffId, Digest};
use crate::store::error::{Error, Result};
use crate::store::files::list_if_there;
use crate::store::fsck::{Check, Fault, Part};
use crate::store::lease::{open_live, read_claims};
use crate::store::{Ref, RefName, Source, check_format, record};
use crate::sys::{self, Errno};

/// What nobody but its owner may do to a record.
pub(crate) const WRITTEN_BY_OTHERS: u32 = 0o022;
/// What nobody may do to what never changes.
pub(crate) const WRITTEN: u32 = 0o222;

/// A file that was opened to be checked.
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) metadata: Metadata,
}

/// Opens a regular file that somebody may have replaced by anything; none if there is nothing.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn open_plain(path: &Path) -> std::result::Result<Option<Opened>, String> {
    let file = match sys::open_plain(path) {
        Ok(fd) => File::from(fd),
        Err(error) => {
            return match error.errno() {
                Errno::ENOENT => Ok(None),
                Errno::ELOOP => Err("it is a symbolic link".to_owned()),
                Errno::ENXIO => Err("it is a socket or a device".to_owned()),
                Errno::ENOTDIR => Err("the directory that it should be in is none".to_owned()),
                errno => Err(format!("it cannot be opened: {}", errno.desc())),
            };
        }
    };
    let metadata = file.metadata().map_err(|error| format!("it cannot be looked at: {error}"))?;
    if metadata.is_dir() {
        return Err("it is a directory".to_owned());
    }
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    Ok(Some(Opened { file, metadata }))
}

/// Reads a file that was opened.
pub(crate) fn read_all(opened: &mut Opened) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = opened.file.read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(|error| format!("it cannot be read: {error}"))
}

impl Check {
    /// Looks at everything that is small: records, names, permissions, what was left behind. What is
    /// wrong at two looks is told.
    pub fn records(&self) -> Result<Vec<Fault>> {
        let mut faults = self.look_at_records()?;
        if !faults.is_empty() {
            let again = self.look_at_records()?;
            faults.retain(|fault| again.contains(fault));
        }
        Ok(faults)
    }

    pub(crate) fn look_at_records(&self) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        if self.scope.is_none() {
            self.check_root(&mut faults)?;
            self.check_format(&mut faults);
            self.check_leases(&mut faults)?;
            self.check_marks(&mut faults)?;
            self.check_leftovers(&mut faults)?;
            self.check_progress(&mut faults);
        }
        self.check_refs(&mut faults)?;
        self.check_sources(&mut faults)?;
        self.check_containers(&mut faults)?;
        Ok(faults)
    }

    fn check_format(&self, faults: &mut Vec<Fault>) {
        let path = self.store.layout().format();
        let checked = |bytes: &[u8]| match check_format(self.store.root(), bytes) {
            Ok(_) => Ok(()),
            Err(Error::NotAStore { reason, .. }) => Err(reason),
            Err(error) => Err(error.to_string()),
        };
        self.check_bytes(&path, Part::Format, Missing::IsWrong, checked, faults);
    }

    fn check_refs(&self, faults: &mut Vec<Fault>) -> Result<()> {
        for (path, name) in self.store.ref_files()? {
            match name {
                None if self.scope.is_none() => {
                    faults.push(self.fault(Part::Stray, &path, "it is no reference"));
                }
                None => {}
                Some(name) if self.is_in_scope(&name, &path) => {
                    self.check_record::<Ref>(&path, Part::Ref(name), Missing::IsFine, faults);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Tells whether a reference leads to the image that alone is checked; a damaged one may.
    fn is_in_scope(&self, name: &RefName, path: &Path) -> bool {
        let Some(only) = self.scope else { return true };
        match crate::store::refs::read_ref(path) {
            Ok(to) => to.is_some_and(|to| to.manifest == only),
            Err(_) => match name {
                RefName::Named(_) => true,
                RefName::Untagged(manifest) => *manifest == only,
            },
        }
    }

    fn check_sources(&self, faults: &mut Vec<Fault>) -> Result<()> {
        let of_scope = self.known.layers();
        for name in list_if_there(&self.store.layout().layers())? {
            let Some(Ok(layer)) = name.strip_suffix(".src").map(Digest::from_hex) else { continue };
            let layer = DiffId(layer);
            if self.scope.is_none() || of_scope.contains(&layer) {
                let path = self.store.layout().layer_sources(layer);
                let part = Part::Sources(layer);
                self.check_record::<Vec<Source>>(&path, part, Missing::IsFine, faults);
            }
        }
        Ok(())
    }

    /// Dead leases do no harm; a damaged one of a process that lives does.
    fn check_leases(&self, faults: &mut Vec<Fault>) -> Result<()> {
        for id in list_if_there(&self.store.layout().leases())? {
            let path = self.store.layout().lease(&id);
            match open_plain(&path) {
                Ok(None) => continue,
                Ok(Some(_)) => {}
                Err(problem) => {
                    faults.push(self.fault(Part::Stray, &path, problem));
                    continue;
                }
            }
            // A dead one is removed by this, as by every collection.
            let Some(file) = open_live(&self.store, &id)? else { continue };
            if let Err(error) = read_claims(file, &path) {
                let problem = match error {
                    Error::Lease { .. } => "a claim in it is not what its sum says".to_owned(),
                    other => other.to_string(),
                };
                faults.push(self.fault(Part::Lease, &path, problem));
            }
        }
        Ok(())
    }

    /// Files that say something by being there.
    fn check_marks(&self, faults: &mut Vec<Fault>) -> Result<()> {
        let layout = self.store.layout();
        for path in [layout.gc_lock(), layout.names_lock(), layout.fsck_lock()] {
            self.check_mark(&path, faults);
        }
        for dir in [layout.pins(), layout.used()] {
            for name in list_if_there(&dir)? {
                let path = dir.join(&name);
                match Digest::from_hex(&name) {
                    Ok(_) => self.check_mark(&path, faults),
                    Err(_) => {
                        let problem = "its name is not that of a manifest";
                        faults.push(self.fault(Part::Stray, &path, problem));
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) fn check_mark(&self, path: &Path, faults: &mut Vec<Fault>) {
        let empty = |bytes: &[u8]| match bytes.len() {
            0 => Ok(()),
            len => Err(format!("it has {len} bytes, and should be empty")),
        };
        self.check_bytes(path, Part::Mark, Missing::IsFine, empty, faults);
    }

    fn check_progress(&self, faults: &mut Vec<Fault>) {
        if let Some(problem) = self.checked.damage() {
            faults.push(self.fault(Part::Checked, &self.store.layout().checked(), problem));
        }
    }

    pub(crate) fn check_record<T: DeserializeOwned>(
        &self,
        path: &Path,
        part: Part,
        missing: Missing,
        faults: &mut Vec<Fault>,
    ) {
        let checked = |bytes: &[u8]| match record::decode::<T>(path, bytes) {
            Ok(_) => Ok(()),
            Err(Error::Record { reason, .. }) => Err(reason),
            Err(error) => Err(error.to_string()),
        };
        self.check_bytes(path, part, missing, checked, faults);
    }

    /// Checks a small file by what is in it, and who may write to it.
    pub(crate) fn check_bytes(
        &self,
        path: &Path,
        part: Part,
        missing: Missing,
        checked: impl Fn(&[u8]) -> std::result::Result<(), String>,
        faults: &mut Vec<Fault>,
    ) {
        let problem = match open_plain(path) {
            Ok(None) if missing == Missing::IsFine => return,
            Ok(None) => Err("it is missing".to_owned()),
            Ok(Some(mut opened)) => {
                let may_write = if matches!(part, Part::Mark) { 0 } else { WRITTEN_BY_OTHERS };
                self.check_access(path, &opened.metadata, may_write, faults);
                read_all(&mut opened).and_then(|bytes| checked(&bytes))
            }
            Err(problem) => Err(problem),
        };
        if let Err(problem) = problem {
            faults.push(self.fault(part, path, problem));
        }
    }

    /// Checks whose a file is, and that it has none of some permissions.
    pub(crate) fn check_access(
        &self,
        path: &Path,
        metadata: &Metadata,
        none_of: u32,
        faults: &mut Vec<Fault>,
    ) {
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & none_of != 0 {
            let problem = format!("it has mode {mode:04o}, so that it may be written to");
            faults.push(self.fault(Part::Permissions(mode & !none_of), path, problem));
        }
        if metadata.uid() != self.owner {
            let problem =
                format!("it belongs to user {}, the store to user {}", metadata.uid(), self.owner);
            faults.push(self.fault(Part::Owner(self.owner), path, problem));
        }
    }
}

/// Whether a file must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It must.
    IsWrong,
    /// It need not, or somebody may have removed it meanwhile.
    IsFine,
}
