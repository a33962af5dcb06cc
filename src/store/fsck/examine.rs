//! Reading what is large: whether it is what its name says, or what was noted of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::digest::{ChainId, DiffId, Digest, HashingReader};
use crate::layer::{Index, Limits, merge, verify_recipe};
use crate::store::error::{Error, Result, io_error};
use crate::store::files::random_name;
use crate::store::fsck::items::{Item, What, path_of};
use crate::store::fsck::records::{Opened, WRITTEN, WRITTEN_BY_OTHERS, open_plain};
use crate::store::fsck::{Check, Fault, Part};
use crate::store::layout::set_apart;
use crate::store::snapshots::UPPER;
use crate::store::sums::{self, Difference};
use crate::sys::Errno;

/// Most bytes read at once.
const CHUNK: usize = 1 << 20;

/// How a problem begins when the disk does not give a file.
pub(crate) const UNREADABLE: &str = "it cannot be read";

const MISSING: &str = "it is missing";

/// Told how many bytes more were read.
type Told<'a> = &'a (dyn Fn(u64) + Sync);

impl Check {
    /// Looks at an item, and once more with a claim on it if something seems to be wrong. What is sound
    /// is noted.
    pub fn examine(&self, item: &Item, progress: Told<'_>) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        self.look(item, progress, &mut faults)?;
        if faults.is_empty() {
            let (key, version) = item.seen();
            self.checked.note(key, version)?;
            return Ok(faults);
        }
        if let What::Snapshot(id, name) = &item.what {
            // What was removed meanwhile has no faults; nothing else changes it.
            let is_there = self.store.snapshot(id, name).is_dir();
            return Ok(if is_there { faults } else { Vec::new() });
        }
        match item.part() {
            Some(part) => self.examine_part(&part),
            None => Ok(faults),
        }
    }

    /// Looks at a part, with a claim on the images that need it.
    pub(crate) fn examine_part(&self, part: &Part) -> Result<Vec<Fault>> {
        let Some(mut item) = self.item_of(part) else { return Ok(Vec::new()) };
        let images = self.known.images_with(&self.store, part);
        let manifests: Vec<_> = images.iter().map(|image| image.manifest).collect();
        item.is_needed = self.is_needed(&manifests)?;
        if !item.is_needed
            && let What::Object(object, _) = item.what
        {
            item.what = What::Object(object, None);
        }
        let mut faults = Vec::new();
        self.look(&item, &|_| {}, &mut faults)?;
        Ok(faults)
    }

    fn look(&self, item: &Item, progress: Told<'_>, faults: &mut Vec<Fault>) -> Result<()> {
        let path = path_of(self, &item.what);
        match &item.what {
            What::Blob(blob) => {
                let part = Part::Blob(*blob);
                let Some(opened) = self.open(item, part.clone(), &path, faults)? else {
                    return Ok(());
                };
                self.check_access(&path, &opened.metadata, WRITTEN_BY_OTHERS, faults);
                faults.extend(self.check_hash(part, &path, opened, *blob, progress));
            }
            What::Object(object, size) => {
                self.look_at_object(item, *object, *size, &path, progress, faults)?;
            }
            What::Index(layer) => {
                let part = Part::Index(*layer);
                if let Some(opened) = self.open(item, part.clone(), &path, faults)? {
                    self.check_access(&path, &opened.metadata, WRITTEN, faults);
                    if let Err(problem) = verified(&opened.file, layer.0) {
                        faults.push(self.fault(part, &path, problem));
                    }
                    progress(item.size_bytes);
                }
            }
            What::Recipe(layer) => {
                let part = Part::Recipe(*layer);
                if let Some(opened) = self.open(item, part.clone(), &path, faults)? {
                    self.check_access(&path, &opened.metadata, WRITTEN, faults);
                    if let Err(error) = verify_recipe(opened.file, *layer) {
                        faults.push(self.fault(part, &path, words_of(&error)));
                    }
                    progress(item.size_bytes);
                }
            }
            What::Chain(chain) => self.look_at_chain(item, *chain, &path, progress, faults)?,
            What::Tar(layer) => {
                if let Err(problem) = self.check_tar(*layer, progress) {
                    faults.push(self.fault(Part::Tar(*layer), &path, problem));
                }
            }
            What::Snapshot(id, name) => self.look_at_snapshot(id, name, progress, faults)?,
        }
        Ok(())
    }

    /// Opens the file of an item; one that is missing, or something else, is a fault if it is needed.
    fn open(
        &self,
        item: &Item,
        part: Part,
        path: &Path,
        faults: &mut Vec<Fault>,
    ) -> Result<Option<Opened>> {
        match open_plain(path) {
            Ok(Some(opened)) => return Ok(Some(opened)),
            Ok(None) if !item.is_needed => {}
            Ok(None) => {
                let apart = set_apart(path);
                match part {
                    Part::Index(layer) if apart.exists() => {
                        let problem = "the layer was damaged and is set apart";
                        faults.push(self.fault(Part::Apart(layer), &apart, problem));
                    }
                    part if apart.exists() => {
                        let problem = "it was damaged and is set apart";
                        faults.push(self.fault(part, path, problem));
                    }
                    part => faults.push(self.fault(part, path, MISSING)),
                }
            }
            Err(problem) => faults.push(self.fault(part, path, problem)),
        }
        Ok(None)
    }

    fn look_at_object(
        &self,
        item: &Item,
        object: Digest,
        size: Option<u64>,
        path: &Path,
        progress: Told<'_>,
        faults: &mut Vec<Fault>,
    ) -> Result<()> {
        let part = Part::Object(object);
        let mut missing = Vec::new();
        let Some(opened) = self.open(item, part.clone(), path, &mut missing)? else {
            let trashed = self.store.layout().trashed_object(object);
            match missing.pop() {
                // Mounts read it there, and the collector that has moved it brings it back.
                Some(fault) if trashed.exists() => {
                    if self.nobody_collects() {
                        let problem = "it is in trash/, where a collector that died has left it";
                        faults.push(Fault { problem: problem.to_owned(), ..fault });
                    }
                }
                other => faults.extend(other),
            }
            return Ok(());
        };
        self.check_access(path, &opened.metadata, WRITTEN, faults);
        let len = opened.metadata.len();
        match size {
            Some(expected) if expected != len => {
                let problem = format!("it has {len} bytes, expected {expected}");
                faults.push(self.fault(part, path, problem));
                progress(len);
            }
            _ => faults.extend(self.check_hash(part, path, opened, object, progress)),
        }
        Ok(())
    }

    fn check_hash(
        &self,
        part: Part,
        path: &Path,
        opened: Opened,
        expected: Digest,
        progress: Told<'_>,
    ) -> Option<Fault> {
        let problem = match hash(opened.file, opened.metadata.len(), progress) {
            Ok(actual) if actual == expected => return None,
            Ok(actual) => format!("it hashes to {actual}"),
            Err(error) => format!("{UNREADABLE}: {}", io_words(&error)),
        };
        Some(self.fault(part, path, problem))
    }

    /// A chain must be what its layers make when they are merged.
    fn look_at_chain(
        &self,
        item: &Item,
        chain: ChainId,
        path: &Path,
        progress: Told<'_>,
        faults: &mut Vec<Fault>,
    ) -> Result<()> {
        let part = Part::Chain(chain);
        let Some(opened) = self.open(item, part.clone(), path, faults)? else { return Ok(()) };
        self.check_access(path, &opened.metadata, WRITTEN, faults);
        progress(item.size_bytes);
        let problem = match verified(&opened.file, chain.0) {
            Ok(index) => self.merge_problem(&index, chain, &opened.file)?,
            Err(problem) => Some(problem),
        };
        faults.extend(problem.map(|problem| self.fault(part, path, problem)));
        Ok(())
    }

    /// Returns in what a chain is not the merge of its layers.
    fn merge_problem(&self, index: &Index, chain: ChainId, file: &File) -> Result<Option<String>> {
        let numbers = 0..index.layer_count();
        let layers = numbers.map(|number| index.layer(number));
        let layers: Vec<DiffId> = match layers.collect::<crate::layer::Result<_>>() {
            Ok(layers) => layers,
            Err(error) => return Ok(Some(error.to_string())),
        };
        if ChainId::of(&layers) != chain {
            return Ok(Some("it is made of other layers than its name says".to_owned()));
        }
        let indexes = layers.iter().map(|layer| self.known.index(&self.store, *layer));
        // What is wrong with a layer is told of the layer.
        let Some(indexes) = indexes.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let problem = match merge(&indexes, Limits::NONE, self.nameless()?) {
            Ok(merged) if same_header(&merged, file) => None,
            Ok(_) => Some("it is not what its layers make when they are merged".to_owned()),
            Err(error) => Some(format!("its layers cannot be merged: {}", words_of(&error))),
        };
        Ok(problem)
    }

    /// Makes a file that goes away when it is closed.
    fn nameless(&self) -> Result<File> {
        let stage = self.stage.lock();
        let name = format!("merged-{}", random_name()?);
        let file = stage.scratch(&name)?;
        let path = stage.dir().join(name);
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
        Ok(file)
    }

    /// What is kept of a layer must make the tar that it is named by.
    fn check_tar(&self, layer: DiffId, progress: Told<'_>) -> std::result::Result<(), String> {
        let tar = match self.store.layer_tar(layer) {
            Ok(tar) => tar,
            // What is missing was told.
            Err(Error::NoLayer(_) | Error::SetApart { .. }) => return Ok(()),
            Err(error) => return Err(chain_of(&error)),
        };
        let mut tar = HashingReader::new(tar);
        let mut buffer = vec![0; CHUNK];
        loop {
            match tar.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => progress(len as u64),
                Err(error) => return Err(format!("its tar cannot be made: {}", io_words(&error))),
            }
        }
        let actual = tar.finish().0;
        if actual == layer.0 { Ok(()) } else { Err(format!("its tar hashes to {actual}")) }
    }

    fn look_at_snapshot(
        &self,
        id: &str,
        name: &str,
        progress: Told<'_>,
        faults: &mut Vec<Fault>,
    ) -> Result<()> {
        let snapshot = self.store.snapshot(id, name);
        // Without a list, which was told, nothing is known of the files.
        let Ok(Some(sums)) = sums::read(&snapshot) else { return Ok(()) };
        let upper = snapshot.join(UPPER);
        let mut report = |path: String, difference| {
            faults.push(self.snapshot_fault(id, name, path, difference));
        };
        let looked = sums::differences(&upper, sums, &self.hashed, progress, &mut report);
        match looked {
            Ok(()) => {}
            Err(error) if snapshot.is_dir() => {
                let path = "/".to_owned();
                let mut fault = self.snapshot_fault(id, name, path, Difference::Unreadable);
                fault.problem = error.to_string();
                faults.push(fault);
            }
            // It was removed meanwhile.
            Err(error) => tracing::debug!("{error}"),
        }
        Ok(())
    }

    pub(crate) fn examine_snapshot_file(
        &self,
        id: &str,
        name: &str,
        path: &str,
    ) -> Result<Vec<Fault>> {
        // Another look must not believe what the first one has found.
        self.hashed.lock().clear();
        let mut faults = Vec::new();
        self.look_at_snapshot(id, name, &|_| {}, &mut faults)?;
        let is_it =
            |fault: &Fault| matches!(&fault.part, Part::SnapshotFile(_, _, at, _) if at == path);
        Ok(faults.into_iter().filter(is_it).collect())
    }

    fn snapshot_fault(&self, id: &str, name: &str, path: String, difference: Difference) -> Fault {
        let problem = match difference {
            Difference::Content { .. } => "its content is not what it was",
            Difference::Attributes => "its attributes are not what they were",
            Difference::Missing => MISSING,
            Difference::New => "it was not there when the snapshot was taken",
            Difference::Unreadable => "it cannot be read",
        };
        let at = path.trim_start_matches('/');
        let file = self.store.snapshot_upper(id, name).join(at);
        let part = Part::SnapshotFile(id.to_owned(), name.to_owned(), path, difference);
        self.fault(part, &file, problem)
    }
}

/// Checks an index to its end.
fn verified(file: &File, id: Digest) -> std::result::Result<Index, String> {
    let index = Index::open_verified(file).map_err(|error| words_of(&error))?;
    if index.id() != id {
        return Err("it is the index of something else".to_owned());
    }
    for number in 0..index.object_count() as u64 {
        index.object(number).map_err(|error| words_of(&error))?;
    }
    Ok(index)
}

/// Tells whether two whole indexes are the same: their headers have the sums of all of them.
fn same_header(one: &File, other: &File) -> bool {
    use std::os::unix::fs::FileExt;
    const HEADER: usize = 4096;
    let header = |file: &File| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; HEADER];
        file.read_exact_at(&mut bytes, 0).map(|()| bytes)
    };
    matches!((header(one), header(other)), (Ok(one), Ok(other)) if one == other)
}

/// Hashes a file from where it stands to its end.
pub(crate) fn hash(file: File, len: u64, progress: Told<'_>) -> io::Result<Digest> {
    let mut reader = HashingReader::new(file);
    let room = usize::try_from(len).unwrap_or(CHUNK).saturating_add(1).min(CHUNK);
    let mut buffer = vec![0; room];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(reader.finish().0),
            len => progress(len as u64),
        }
    }
}

/// Returns an error in words, without what Rust adds.
pub(crate) fn io_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

fn words_of(error: &crate::layer::Error) -> String {
    match error {
        crate::layer::Error::Io(error) => format!("{UNREADABLE}: {}", io_words(error)),
        other => other.to_string(),
    }
}

/// Returns an error with its causes.
pub(crate) fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
