//! Checking what is said of containers and of their snapshots. What they have written is theirs.

use std::path::Path;

use crate::store::containers::{is_being_removed, is_left_by_crash};
use crate::store::error::{Error, Result};
use crate::store::files::list_if_there;
use crate::store::fsck::known::short_id;
use crate::store::fsck::records::{Missing, open_plain, read_all};
use crate::store::fsck::{Check, Fault, Part};
use crate::store::layout::set_apart;
use crate::store::snapshots::{RECORD, TWINS, Twins, UPPER};
use crate::store::sums::{self, SUMS};
use crate::store::{Container, MountState, Snapshot, record};

/// What the directory of a container may have, and how the names begin of sockets that nobody has found.
const NAMES: [&str; 11] = [
    "config.json",
    "config.json.bad",
    "config.removed",
    "control",
    "lock",
    "log",
    "snapshots",
    "snapshots.lock",
    "state",
    "upper",
    "work",
];

const UNPUBLISHED: &str = "control-";

const ID_DIGITS: usize = 64;

impl Check {
    pub(crate) fn check_containers(&self, faults: &mut Vec<Fault>) -> Result<()> {
        for id in list_if_there(&self.store.layout().containers())? {
            let path = self.store.layout().container(&id);
            let is_id = id.len() == ID_DIGITS && id.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_id || !path.is_dir() {
                // One that is removed meanwhile is no longer anything.
                if self.scope.is_none() && path.symlink_metadata().is_ok() {
                    let problem = "it is not the directory of a container";
                    faults.push(self.fault(Part::Stray, &path, problem));
                }
                continue;
            }
            if self.scope.is_some() && !self.known.containers.contains_key(&id) {
                continue;
            }
            let mut found = Vec::new();
            let looked = self.check_container(&id, &path, &mut found);
            // It may have been removed while it was looked at.
            if path.is_dir() {
                looked?;
                faults.append(&mut found);
            }
        }
        Ok(())
    }

    fn check_container(&self, id: &str, path: &Path, faults: &mut Vec<Fault>) -> Result<()> {
        if self.store.is_left_container(id) || is_being_removed(path) {
            // The next that makes something sweeps it.
            return Ok(());
        }
        let config = path.join("config.json");
        if set_apart(&config).exists() && !config.exists() {
            let problem = format!(
                "its record was damaged and set apart; what the container had changed is in {}",
                path.join("upper").display()
            );
            faults.push(self.fault(Part::Stray, path, problem));
            return Ok(());
        }
        let checked = |bytes: &[u8]| match record::decode::<Container>(&config, bytes) {
            Ok(container) if container.id == id => Ok(()),
            Ok(container) => Err(format!("it is that of container {}", short_id(&container.id))),
            Err(Error::Record { reason, .. }) => Err(reason),
            Err(error) => Err(error.to_string()),
        };
        self.check_bytes(&config, Part::Config(id.to_owned()), Missing::IsWrong, checked, faults);
        let state = path.join("state");
        let part = Part::State(id.to_owned());
        if !is_left_by_crash(&state) {
            self.check_record::<MountState>(&state, part, Missing::IsFine, faults);
        }
        self.check_mark(&path.join("snapshots.lock"), faults);
        let lock = path.join("lock");
        if lock.symlink_metadata().is_err() {
            faults.push(self.fault(Part::Mark, &lock, "it is missing"));
        }
        self.check_mark(&lock, faults);
        for name in ["upper", "work"] {
            let dir = path.join(name);
            if !dir.is_dir() {
                let problem = "there is no such directory";
                faults.push(self.fault(Part::Upper(id.to_owned()), &dir, problem));
            }
        }
        let belongs =
            |name: &String| NAMES.contains(&name.as_str()) || name.starts_with(UNPUBLISHED);
        for name in list_if_there(path)?.iter().filter(|name| !belongs(name)) {
            let problem = "its name belongs to nothing that a container has";
            faults.push(self.fault(Part::Stray, &path.join(name), problem));
        }
        for name in self.store.snapshot_names(id)? {
            let snapshot = self.store.snapshot(id, &name);
            let mut found = Vec::new();
            self.check_snapshot(id, &name, &snapshot, &mut found);
            if snapshot.is_dir() {
                faults.append(&mut found);
            }
        }
        Ok(())
    }

    /// Looks at the records of a snapshot.
    fn check_snapshot(&self, id: &str, name: &str, path: &Path, faults: &mut Vec<Fault>) {
        let both = || (id.to_owned(), name.to_owned());
        let record = path.join(RECORD);
        let checked = |bytes: &[u8]| match record::decode::<Snapshot>(&record, bytes) {
            Ok(snapshot) if snapshot.name == name => Ok(()),
            Ok(snapshot) => Err(format!("it is that of snapshot {}", snapshot.name)),
            Err(Error::Record { reason, .. }) => Err(reason),
            Err(error) => Err(error.to_string()),
        };
        let part = Part::Snapshot(both().0, both().1);
        self.check_bytes(&record, part, Missing::IsWrong, checked, faults);
        let part = Part::Twins(both().0, both().1);
        self.check_record::<Twins>(&path.join(TWINS), part, Missing::IsFine, faults);
        let list = path.join(SUMS);
        let problem = match open_plain(&list) {
            Ok(None) => Some("there is none, so that the files cannot be checked".to_owned()),
            Ok(Some(mut opened)) => read_all(&mut opened).err(),
            Err(problem) => Some(problem),
        };
        let problem = problem.or_else(|| match sums::read(path) {
            Err(Error::Record { reason, .. }) => Some(reason),
            Err(error) => Some(error.to_string()),
            Ok(_) => None,
        });
        if let Some(problem) = problem {
            let part = Part::Sums(both().0, both().1);
            faults.push(self.fault(part, &list, problem));
        }
        if !path.join(UPPER).is_dir() {
            let part =
                Part::SnapshotFile(both().0, both().1, "/".to_owned(), sums::Difference::Missing);
            faults.push(self.fault(part, &path.join(UPPER), "there is no such directory"));
        }
    }
}
