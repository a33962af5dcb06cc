//! Mending records, names and permissions, by what is known of them elsewhere.
//!
//! A single wrong bit of anything with a sum is turned back: the sum says which bit it was. Else what
//! can still be read of a record is believed as far as the store has what it says.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::Digest;
use crate::image::{Parsed, Reference};
use crate::store::error::{Result, io_error};
use crate::store::files::{
    ensure_dir, list_if_there, random_name, remove_if_exists, replace, sync_dir,
};
use crate::store::fsck::known::Known;
use crate::store::fsck::{Check, Fault, Part};
use crate::store::layout::set_apart;
use crate::store::snapshots::{RECORD, TWINS, UPPER};
use crate::store::sums::{self, SUMS};
use crate::store::{Container, MountState, Ref, RefName, Snapshot, Source, record, write_format};
use crate::sys;

/// What became of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is mended: how.
    Mended(String),
    /// It is not: what a person can do.
    Left(String),
}

impl Outcome {
    pub(crate) fn mended(how: impl Into<String>) -> Self {
        Self::Mended(how.into())
    }

    pub(crate) fn left(what: impl Into<String>) -> Self {
        Self::Left(what.into())
    }
}

pub(crate) const BIT_TURNED: &str = "a single wrong bit was turned back";

impl Check {
    /// Mends a fault with what the store has; none where that is not enough.
    pub fn mend(&self, fault: &Fault) -> Result<Option<Outcome>> {
        let path = self.store.root().join(&fault.path);
        Ok(Some(match &fault.part {
            Part::Format => self.mend_format(&path)?,
            Part::Directory => self.mend_dir(&path)?,
            Part::Permissions(mode) => {
                let mode = fs::Permissions::from_mode(*mode);
                fs::set_permissions(&path, mode).map_err(io_error("change the mode of", &path))?;
                Outcome::mended("its mode was set right")
            }
            Part::Owner(owner) => give_back(&path, *owner)?,
            Part::Ref(name) => self.mend_ref(name, &path)?,
            Part::Config(id) => self.mend_config(id, &path)?,
            Part::State(id) => self.mend_state(id, &path)?,
            Part::Upper(_) => mend_upper(&path)?,
            Part::Snapshot(id, name) => self.mend_snapshot_record(id, name)?,
            Part::Twins(id, name) => self.mend_twins(&self.store.snapshot(id, name).join(TWINS))?,
            Part::Sums(id, name) => self.mend_sums(&self.store.snapshot(id, name))?,
            Part::SnapshotFile(id, name, at, difference) => {
                self.mend_snapshot_file((id, name), at, *difference)?
            }
            Part::Sources(_) => self.mend_sources(&path)?,
            Part::Mark => self.mend_mark(&path)?,
            Part::Lease => Outcome::left(
                "what it says cannot be known; it goes with the process that holds it, and nothing is \
                 collected before",
            ),
            Part::Checked => Outcome::mended("it was made anew"),
            Part::Stray => Outcome::left("left as it is"),
            Part::Leftover => self.mend_leftover(&path)?,
            Part::Blob(_)
            | Part::Object(_)
            | Part::Index(_)
            | Part::Recipe(_)
            | Part::Tar(_)
            | Part::Apart(_)
            | Part::Chain(_) => return self.mend_content(&fault.part),
        }))
    }

    fn mend_format(&self, path: &Path) -> Result<Outcome> {
        if self.turn_bit::<serde_json::Value>(path)? {
            return Ok(Outcome::mended(BIT_TURNED));
        }
        write_format(self.store.layout(), self.store.inline_max)?;
        Ok(Outcome::mended("it was written anew"))
    }

    fn mend_dir(&self, path: &Path) -> Result<Outcome> {
        if path.symlink_metadata().is_ok() {
            self.move_away(path)?;
        }
        ensure_dir(path)?;
        Ok(Outcome::mended("it was made again, empty"))
    }

    /// What a reference leads to must be an image of the store.
    fn mend_ref(&self, name: &RefName, path: &Path) -> Result<Outcome> {
        if self.turn_bit::<Ref>(path)? {
            return Ok(Outcome::mended(BIT_TURNED));
        }
        let salvaged = fs::read(path).ok().and_then(|bytes| record::salvaged::<Ref>(&bytes));
        let salvaged = salvaged.filter(|to| self.store.image(to.manifest).is_ok());
        if let Some(mut to) = salvaged.or_else(|| self.ref_by_name(name)) {
            to.target = to.target.filter(|target| self.store.blob(*target).is_ok());
            self.write(path, &to)?;
            return Ok(Outcome::mended("it was written anew, by what the store has of its image"));
        }
        match path.is_dir() {
            true => self.move_away(path)?,
            false => drop(self.store.remove_reference(name)?),
        }
        let kept = self.keep_nameless()?;
        let lost = match name {
            RefName::Named(name) => way_to_name(name),
            RefName::Untagged(_) => "it was removed, since its image is not there".to_owned(),
        };
        Ok(Outcome::left(match kept.as_slice() {
            [] => lost,
            kept => format!("{lost}; kept without a name: {}", kept.join(", ")),
        }))
    }

    /// Returns what a reference says whose name has the digest of its image.
    fn ref_by_name(&self, name: &RefName) -> Option<Ref> {
        let digest = match name {
            RefName::Untagged(manifest) => *manifest,
            RefName::Named(reference) => reference.digest()?,
        };
        let parsed = Parsed::parse(&self.store.blob(digest).ok()?, None).ok()?;
        let manifest = match parsed {
            Parsed::Manifest(_) => digest,
            Parsed::Index(index) => {
                let all = index.manifests.iter().map(|descriptor| descriptor.digest);
                let mut here = all.filter(|manifest| self.store.image(*manifest).is_ok());
                // Which of several it was nobody knows.
                here.next().filter(|_| here.next().is_none())?
            }
        };
        self.store.image(manifest).ok()?;
        let target = matches!(name, RefName::Named(_)).then_some(digest);
        Some(Ref { manifest, target, updated: jiff::Timestamp::now() })
    }

    /// Keeps images that nothing leads to any more, since one of them has just lost its name. Returns
    /// their ids.
    fn keep_nameless(&self) -> Result<Vec<String>> {
        let mut kept = Vec::new();
        for name in list_if_there(&self.store.layout().blobs())? {
            let Ok(manifest) = Digest::from_hex(&name) else { continue };
            let Ok(image) = self.store.image(manifest) else { continue };
            if Known::is_needed(&self.store, manifest)? {
                continue;
            }
            let to = Ref { manifest, target: None, updated: jiff::Timestamp::now() };
            self.store.set_reference(&RefName::Untagged(manifest), &to)?;
            kept.push(image.id().short());
        }
        Ok(kept)
    }

    fn mend_config(&self, id: &str, path: &Path) -> Result<Outcome> {
        if self.turn_bit::<Container>(path)? {
            return Ok(Outcome::mended(BIT_TURNED));
        }
        let salvaged = fs::read(path).ok().and_then(|bytes| record::salvaged::<Container>(&bytes));
        let is_it = |found: &Container| found.id == id && self.store.image(found.manifest).is_ok();
        if let Some(container) = salvaged.filter(is_it) {
            self.write(path, &container)?;
            return Ok(Outcome::mended(
                "it was written anew, by what could be read of it and the store has",
            ));
        }
        if path.symlink_metadata().is_ok() {
            let apart = set_apart(path);
            fs::rename(path, &apart).map_err(io_error("set apart", path))?;
            sync_dir(path.parent().unwrap_or(path))?;
        }
        Ok(Outcome::left(format!(
            "what it was made of is not known any more; what it had changed is in {}",
            self.store.upper(id).display()
        )))
    }

    fn mend_state(&self, id: &str, path: &Path) -> Result<Outcome> {
        if self.turn_bit::<MountState>(path)? {
            return Ok(Outcome::mended(BIT_TURNED));
        }
        match self.store.lock_container(id) {
            Ok(_lock) => {
                self.remove(path)?;
                Ok(Outcome::mended("it was removed: nothing serves the container"))
            }
            Err(error) => {
                tracing::debug!("{error}");
                Ok(Outcome::left(
                    "a process serves the container: unmount it with 'fusermount3 -u DIR' or 'umount \
                     DIR', and this goes away",
                ))
            }
        }
    }

    fn mend_snapshot_record(&self, id: &str, name: &str) -> Result<Outcome> {
        let path = self.store.snapshot(id, name).join(RECORD);
        if self.turn_bit::<Snapshot>(&path)? {
            return Ok(Outcome::mended(BIT_TURNED));
        }
        let salvaged = fs::read(&path).ok().and_then(|bytes| record::salvaged::<Snapshot>(&bytes));
        let taken = || {
            let written =
                fs::metadata(self.store.snapshot(id, name)).and_then(|dir| dir.modified());
            let taken = written.ok().and_then(|taken| jiff::Timestamp::try_from(taken).ok());
            taken.unwrap_or_else(jiff::Timestamp::now)
        };
        let snapshot = match salvaged.filter(|found| found.name == name) {
            Some(snapshot) => snapshot,
            None => Snapshot {
                name: name.to_owned(),
                created: taken(),
                message: None,
                before_undo: None,
            },
        };
        self.write(&path, &snapshot)?;
        Ok(Outcome::mended("it was written anew, with what is known of the snapshot"))
    }

    fn mend_twins(&self, path: &Path) -> Result<Outcome> {
        self.remove(path)?;
        Ok(Outcome::mended("it was removed; the next snapshot copies more"))
    }

    fn mend_sums(&self, snapshot: &Path) -> Result<Outcome> {
        let path = snapshot.join(SUMS);
        if let Some(bytes) = fs::read(&path).ok().and_then(|bytes| record::mended(&bytes)) {
            replace(&self.store.layout().staging(), &path, &bytes)?;
            return Ok(Outcome::mended(BIT_TURNED));
        }
        let sums = sums::of_tree(&snapshot.join(UPPER), &std::collections::HashMap::new())?;
        replace(&self.store.layout().staging(), &path, &sums)?;
        Ok(Outcome::mended("it was made of the files as they are now"))
    }

    fn mend_sources(&self, path: &Path) -> Result<Outcome> {
        if self.turn_bit::<Vec<Source>>(path)? {
            return Ok(Outcome::mended(BIT_TURNED));
        }
        let bytes = fs::read(path).ok();
        if let Some(sources) = bytes.and_then(|bytes| record::salvaged::<Vec<Source>>(&bytes)) {
            // Whatever a registry gives is hashed, so that a wrong source costs a question.
            self.write(path, &sources)?;
            return Ok(Outcome::mended("it was written anew, by what could be read of it"));
        }
        self.remove(path)?;
        Ok(Outcome::mended("it was removed; the next pull or push learns it again"))
    }

    /// A lock belongs to the file that there is, so it is not replaced.
    fn mend_mark(&self, path: &Path) -> Result<Outcome> {
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_file() => {
                let empty = || -> std::io::Result<()> {
                    let file = File::options().write(true).open(path)?;
                    file.set_len(0)?;
                    file.set_modified(metadata.modified()?)?;
                    file.sync_all()
                };
                empty().map_err(io_error("empty", path))?;
                return Ok(Outcome::mended("it was emptied"));
            }
            Ok(_) => self.move_away(path)?,
            Err(error) => tracing::debug!("{}: {error}", path.display()),
        }
        File::create(path).map_err(io_error("create", path))?;
        Ok(Outcome::mended("it was made again"))
    }

    fn mend_leftover(&self, path: &Path) -> Result<Outcome> {
        if path.starts_with(self.store.layout().trash()) {
            return Ok(Outcome::left("left to the next collection"));
        }
        if path.extension().is_some_and(|end| end == "bad") {
            self.remove(path)?;
        }
        self.store.sweep()?;
        Ok(match path.symlink_metadata() {
            Ok(_) => Outcome::left("left to the next collection"),
            Err(_) => Outcome::mended("it was removed"),
        })
    }

    /// Turns a wrong bit of a record back; tells whether that made it one.
    fn turn_bit<T: DeserializeOwned>(&self, path: &Path) -> Result<bool> {
        let mended = fs::read(path).ok().and_then(|bytes| record::mended(&bytes));
        let Some(bytes) = mended.filter(|bytes| record::decode::<T>(path, bytes).is_ok()) else {
            return Ok(false);
        };
        replace(&self.store.layout().staging(), path, &bytes)?;
        Ok(true)
    }

    fn write(&self, path: &Path, what: &impl Serialize) -> Result<()> {
        replace(&self.store.layout().staging(), path, &record::encode(what))
    }

    /// Removes a file, or whatever is in its place.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => self.move_away(path),
            _ => remove_if_exists(path).map(drop),
        }
    }

    /// Moves something out of the way, to where it is collected some day.
    pub(crate) fn move_away(&self, path: &Path) -> Result<()> {
        let name = format!("stray-{}", random_name()?);
        let to: PathBuf = self.store.layout().staging().join(name);
        fs::rename(path, &to).map_err(io_error("move away", path))
    }
}

fn way_to_name(name: &Reference) -> String {
    format!("the name is lost: 'strata pull {0}' gets it, or 'strata tag ID {0}'", name.familiar())
}

fn give_back(path: &Path, owner: u32) -> Result<Outcome> {
    if sys::effective_ids().0 != 0 {
        let command = format!("chown {owner} {}", path.display());
        return Ok(Outcome::left(format!("only root can give it back: {command}")));
    }
    chown(path, Some(owner), None).map_err(io_error("give back", path))?;
    Ok(Outcome::mended("it was given back to its owner"))
}

fn mend_upper(path: &Path) -> Result<Outcome> {
    if path.ends_with("work") && path.symlink_metadata().is_err() {
        ensure_dir(path)?;
        return Ok(Outcome::mended("it was made again, empty"));
    }
    Ok(Outcome::left("what the container has changed is lost; 'strata rm' removes the rest"))
}
